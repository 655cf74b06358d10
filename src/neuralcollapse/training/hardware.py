"""The machine: its devices, its memory, its native arithmetic, and its description in `environment.json`."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuralcollapse._errors import InputError
from neuralcollapse.data.binary_files import machine_memory

_PACKAGES = (
    "neuralcollapse",
    "torch",
    "numpy",
    "lightning-fabric",
    "scikit-learn",
    "torchvision",
    "timm",
    "matplotlib",
)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose_device(requested: str) -> str:
    """The device to train on: of "auto", "cuda" where there is a CUDA device, else "cpu".

    Raises:
        InputError: "cuda" was requested, and there is no CUDA device.
    """
    if requested == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but PyTorch sees no CUDA device here; use --device cpu")
    if requested != "auto":
        return requested
    return "cuda" if torch.cuda.is_available() else "cpu"


def native_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 itself; elsewhere it is emulated and slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpu_info("flags").split()))


def keep_memory() -> None:
    """Let the C library keep what a step frees for the next one, instead of giving pages back and clearing new ones.

    A training step allocates the same large tensors again and again: on two cores it is some 8 % faster for this.
    It holds for the whole process and cannot be undone, so that only processes that do nothing but train call it, which
    are those of the command line. The numbers of `mallopt` are glibc's own; with another C library nothing is done.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def check_memory(net: nn.Module, device: str, double: bool) -> None:
    """Refuse a network whose weights and gradients alone are more than the memory there is.

    Args:
        net: the network, on any device, such as "meta".
        device: where it is to be trained.
        double: in float64.

    Raises:
        InputError: it does not fit.
    """
    parameters = sum(parameter.numel() for parameter in net.parameters())
    needed, have = 2 * (8 if double else 4) * parameters, machine_memory() if device == "cpu" else gpu_memory()
    if needed > have:
        raise InputError(
            f"a network of {parameters:.3g} parameters takes {needed / 2**30:,.0f} GiB with its gradients, and there "
            f"are {have / 2**30:,.0f} GiB of memory; take a smaller --width"
        )


def gpu_memory() -> float:
    """Bytes of memory of the GPU that runs go to; 0 without one."""
    return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else 0.0


def environment() -> dict[str, Any]:
    """Versions, machine, source revision and command line, for `environment.json`."""
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": versions,
        "cpu": _cpu_info("model name") or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "git_commit": _git_commit(),
        "command": shlex.join(["neuralcollapse", *sys.argv[1:]]),
    }


def _cpu_info(field: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _git_commit() -> str | None:
    """The commit of the checkout this file lies in, with "+changes" when the tree differs from it; None outside one."""
    source = Path(__file__).resolve().parent
    if not (source.parents[2] / ".git").exists():  # installed, or inside somebody else's repository
        return None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=source, capture_output=True, check=False)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.returncode else "")
