"""How much a full report costs, as a multiple of one product `H.T @ H` on the same machine.

    python benchmarks/report.py

50,000 features of dimension 512 in 10 classes, float32, already in memory: NC1–NC4, the decomposition and the
signal-to-noise spectrum against the one matrix product that any within-class covariance needs. The two are timed in
turn, so that whatever else the machine does meets both; the ratio is that of the medians. Memory is the growth of the
process's peak over what it held with the features in place.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch

import neuralcollapse as nc
from neuralcollapse.lab.hardware import environment


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_bytes() -> int:
    """The most memory the process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=25)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    labels = torch.arange(arguments.examples) % arguments.classes
    features = torch.empty(arguments.examples, arguments.dim).normal_(std=0.1)
    for label, mean in enumerate(torch.randn(arguments.classes, arguments.dim)):
        features[label :: arguments.classes] += mean  # in place: the peak below is the report's own
    weight, bias = torch.randn(arguments.classes, arguments.dim), torch.randn(arguments.classes)

    def report() -> object:
        return nc.measure_features(features, labels, weight, bias, weight_decay=5e-4)

    def product() -> object:
        return features.T @ features

    product()
    before = peak_bytes()
    report()
    grown = peak_bytes() - before
    pairs = [(seconds(report), seconds(product)) for _ in range(arguments.repeats)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    best = min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)

    machine = environment()
    print(f"{arguments.examples:,} × {arguments.dim} features, float32, {arguments.classes} classes")
    print(f"  H.T @ H      {1e3 * theirs:8.1f} ms")
    print(f"  full report  {1e3 * ours:8.1f} ms")
    print(f"  ratio        {ours / theirs:8.2f}      of the medians; {best:.2f} of the fastest")
    print(f"  extra memory {grown / 2**20:8.0f} MiB, features hold {features.nbytes / 2**20:.0f} MiB")
    print(
        f"median of {arguments.repeats} in turn; {machine['cpu']}, {machine['threads']} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, commit {machine['git_commit']}"
    )


if __name__ == "__main__":
    main()
