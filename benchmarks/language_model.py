"""What a language model's size costs: a vocabulary of 50,257, 768 features, a million positions; time and peak memory.

    python benchmarks/language_model.py                         # all of it
    python benchmarks/language_model.py --positions 20_000      # a small part of it, to see that it works

A GPT-2 of two layers with random weights reads tokens that are as unequally frequent as words (Zipf's law). Its
features go into a file, as a user's own would; the file is measured as `neuralcollapse measure` does; then the same
network by `nc.measure`, which runs it twice over a twentieth of the positions. Each step is a process of its own, whose
peak is the system's count of resident pages.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import neuralcollapse as nc
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions
from neuralcollapse.training.hardware import environment

VOCABULARY, DIM, LENGTH, BATCH = 50_257, 768, 256, 4


def network() -> GPT2LMHeadModel:
    """The smallest GPT-2's width and vocabulary, with two of its twelve layers."""
    torch.manual_seed(0)
    off = {"bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=DIM, n_layer=2, **off)).eval()


def sequences(positions: int) -> Iterator[Tensor]:
    """(b, LENGTH + 1) tokens, whose rank r has a probability in proportion to 1 / (r + 2.7)."""
    generator = torch.Generator().manual_seed(1)
    weights = 1.0 / (torch.arange(VOCABULARY) + 2.7)
    order = torch.randperm(VOCABULARY, generator=generator)
    while positions > 0:
        rows = min(BATCH, -(-positions // LENGTH))
        drawn = torch.multinomial(weights, rows * (LENGTH + 1), replacement=True, generator=generator)
        yield order[drawn].view(rows, LENGTH + 1)
        positions -= rows * LENGTH


def write_features(folder: Path, positions: int) -> dict[str, float]:
    """Features before each next token, these tokens, and the classifier, as .npy files."""
    model, start = network(), time.perf_counter()
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, (positions, DIM))
    labels, row = np.zeros(positions, np.int64), 0
    for tokens in sequences(positions):
        with torch.no_grad():
            found = model.transformer(tokens[:, :-1]).last_hidden_state.reshape(-1, DIM)[: positions - row]
        features[row : row + len(found)] = found.numpy()
        labels[row : row + len(found)] = tokens[:, 1:].reshape(-1)[: len(found)].numpy()
        row += len(found)
    features.flush()
    np.save(folder / "labels.npy", labels)
    np.save(folder / "weight.npy", model.lm_head.weight.detach().numpy())
    return {"seconds": time.perf_counter() - start, "classes": len(np.unique(labels))}


def measure_file(folder: Path, positions: int) -> dict[str, float]:
    """Moments, NC4 and report, and how long each took."""
    options = FileOptions(
        labels=folder / "labels.npy", weight=folder / "weight.npy", save=folder / "all.safetensors", metrics="cdnv"
    )
    told: list[tuple[float, float]] = []
    start = time.perf_counter()
    measured = measure_files(
        folder / "features.npy", options, lambda share: told.append((share, time.perf_counter() - start))
    )
    whole = time.perf_counter() - start
    first = DIM / (DIM + 2 * VOCABULARY + DIM)
    moments = max(seconds for share, seconds in told if share <= first * (1 + 1e-9))
    assert measured.report is not None
    return {
        "moments": moments,
        "nc4": told[-1][1] - moments,
        "report": whole - told[-1][1],
        "seconds": whole,
        "nc4_mismatch": measured.report.nc4_mismatch or 0.0,
    }


def measure_network(folder: Path, positions: int) -> dict[str, float]:
    """The network itself, over a twentieth of the positions, twice because no features are kept."""
    tokens = [each[:, :-1] for each in sequences(positions // 20)]
    batches = [{"input_ids": each, "labels": each} for each in tokens]
    model, start = network(), time.perf_counter()
    report = nc.measure(model, batches, next_token=True, memory_budget=0, min_count=2)
    return {"seconds": time.perf_counter() - start, "positions": report.num_examples}


STEPS = {"features": write_features, "file": measure_file, "network": measure_network}


def main() -> None:
    """Run each step in a process of its own, and print its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--positions", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where 3 GB of features go; else a temporary one")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.step is not None:
        found = STEPS[arguments.step](arguments.folder, arguments.positions)
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
        print(json.dumps({**found, "peak_gib": peak}))
        return
    print(json.dumps({**environment(), "threads": arguments.threads}))
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for step in STEPS:
            command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
            command += ["--positions", str(arguments.positions), "--threads", str(arguments.threads)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            print(step, done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
