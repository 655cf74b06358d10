"""The checkpoint, `checkpoint.pt`: everything that decides how training continues. Written after every epoch.

progress        the last finished epoch and the time spent
model           the network's state dict
optimizer       the optimizer's state dict
random_states   the state of the random generators, one entry per process
history_bytes   the length of `history.jsonl`, to which the history is cut back when the run continues
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from neuralcollapse._errors import InputError
from neuralcollapse._files import readable, replacing, shortened, validated
from neuralcollapse.training.run_directory import Run, Status

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def save(fabric: Fabric, run: Run, net: nn.Module, optimizer: torch.optim.Optimizer, status: Status) -> None:
    """Write the checkpoint; every process takes part, the first one writes."""
    random_state = {"cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        random_state["cuda"] = torch.cuda.get_rng_state()
    random_states = [random_state] * fabric.world_size
    if fabric.world_size > 1:
        dist.all_gather_object(random_states, random_state)
    if fabric.global_rank == 0:
        state = {
            "progress": status.model_dump(include={"epoch", "seconds"}),
            "model": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random_states": random_states,
            "history_bytes": run.history_size(),
        }
        with replacing(run.path / "checkpoint.pt") as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    fabric.barrier()


def read(run: Run, *, mapped: bool = False) -> dict[str, Any] | None:
    """The last checkpoint, on the CPU, or None before the first one.

    Args:
        run: the run directory.
        mapped: leave the tensors in the file until they are looked at, for who only wants to know the progress.

    Raises:
        InputError: the file is damaged, or holds anything but tensors and plain containers.
    """
    path = run.path / "checkpoint.pt"
    if not path.is_file():
        return None
    with readable(path, "checkpoint", "; start another run with another --out"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the error says enough
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        return state


def restore(fabric: Fabric, run: Run, net: nn.Module, optimizer: torch.optim.Optimizer) -> Status:
    """Continue from the checkpoint, and cut off what was written after it; before the first epoch, write one.

    Raises:
        InputError: it is another network's, or a part of it is absent or of another type; nothing is changed then.
    """
    state = read(run)
    fabric.barrier()  # every process has looked before one writes
    if state is None:
        if fabric.world_size > 1:  # another random stream for every process, from the same initial weights on
            torch.manual_seed((torch.initial_seed() + 1_000_003 * fabric.global_rank) % 2**63)
        save(fabric, run, net, optimizer, Status())  # no history is ever without a checkpoint
        return Status()
    try:
        status = validated(Status, state["progress"], "progress")
        random_state, size = state["random_states"][fabric.global_rank], state["history_bytes"]
        if len(state["random_states"]) != fabric.world_size or not (type(size) is int and size >= 0):
            raise ValueError("the random states or the length of the history are not this run's")
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in optimizer.state.items():
            for name in ("momentum_buffer", "exp_avg", "exp_avg_sq"):  # PyTorch does not compare their shapes
                if name in kept and kept[name] is not None and kept[name].shape != parameter.shape:
                    shapes = f"of shape {tuple(kept[name].shape)} for weights of {tuple(parameter.shape)}"
                    raise ValueError(f"{name} {shapes}")
        torch.set_rng_state(random_state["cpu"])
        if "cuda" in random_state:
            torch.cuda.set_rng_state(random_state["cuda"])
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else shortened(" ".join(str(error).split()), 160)
        raise InputError(
            f"{run.path / 'checkpoint.pt'} is not of this run ({reason}), so that it cannot go on; "
            "put the right file back, or start another run with another --out"
        ) from error
    if fabric.global_rank == 0:
        run.cut_back(size, status.epoch)
    return status


def note_ending(run: Run, status: str, error: str = "") -> None:
    """Write into `status.json` how the training ended. A full disk may prevent that.

    How far it came is the checkpoint's to say: what ends a training may fall between the two files of an epoch.

    Args:
        run: the run directory, in which no process trains any more.
        status: "interrupted" or "failed".
        error: why it failed.
    """
    reached = Status()
    with contextlib.suppress(InputError):  # a damaged file is replaced
        reached = run.status()
    with contextlib.suppress(InputError, KeyError, TypeError, IndexError):  # a damaged one says nothing
        if (state := read(run, mapped=True)) is not None:
            reached = validated(Status, state["progress"], "progress")
    with contextlib.suppress(InputError):
        reached = reached.model_copy(update={"epochs": run.config.epochs})
    with contextlib.suppress(InputError):
        run.write_status(reached.model_copy(update={"status": status, "error": " ".join(error.split())[:500]}))
