"""The work that measuring is made of, beside its baselines and goals, in one run.

    python benchmarks/speed_table.py                  # all rows, medians of nine, two threads; half an hour
    python benchmarks/speed_table.py --skip-huge      # without 100,000 classes; a minute

What is compared is timed in turn. The rows of 100,000 classes run once, in a process of their own: 98 batches, each
followed by its bare product, then the report. Where a goal is missed, a profile says what takes the time.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from index_add import index_add_two_pass
from measuring import example, seconds, top
from two_pass import two_pass

import neuralcollapse as nc
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.training.hardware import environment

Work = Callable[[], object]
REPEATS = 9


def medians(works: dict[str, Work]) -> dict[str, float]:
    """Median seconds of each, timed in turn after one call of each to warm up."""
    for work in works.values():
        work()
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(REPEATS)]
    return {name: statistics.median(each[name] for each in rounds) for name in works}


def profile(work: Work) -> str:
    """The functions that take the most time of their own, a line each."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    return top(profiler)


def row(name: str, ours: float, baseline: float, of: str, goal: float, *, least: bool = False) -> bool:
    """Print a row; whether the goal is met. The ratio is ours over the baseline, or its inverse for ``least``."""
    ratio = baseline / ours if least else ours / baseline
    met = ratio >= goal if least else ratio <= goal
    sign, word = "≥" if least else "≤", "" if met else ", missed"
    print(
        f"| {name} | {1e3 * ours:,.1f} ms | {of}: {1e3 * baseline:,.1f} ms | {ratio:.2f} | {sign} {goal}{word} |",
        flush=True,
    )
    return met


def small_rows() -> None:
    """50,000 × 512, ten classes: in memory, its parts, and streamed."""
    features, labels, weight, bias = example(50_000, 512, 10)
    batches = list(zip(features.split(128), labels.split(128), strict=True))
    network = torch.nn.Sequential(torch.nn.Linear(512, 10)).eval()
    with torch.no_grad():
        network[0].weight.copy_(weight), network[0].bias.copy_(bias)

    def moments() -> nc.ClassMoments:
        made = nc.ClassMoments(10)
        made.update(features, labels)
        return made

    def decisions() -> DecisionCounts:
        made = DecisionCounts(about, weight, bias)
        made.add(features, labels)
        return made

    about = moments()
    decided = decisions()
    works: dict[str, Work] = {
        "product": lambda: features.T @ features,
        "report": lambda: nc.measure_features(features, labels, weight, bias, weight_decay=5e-4),
        "moments": moments,
        "decisions": decisions,
        "linear algebra": lambda: nc.make_report(about, weight, bias, weight_decay=5e-4, decisions=decided),
        "streamed": lambda: nc.measure(network, batches, weight_decay=5e-4),
        "index_add": lambda: index_add_two_pass(batches, weight, bias),
    }
    took = medians(works)
    took["loops"] = min(seconds(lambda: two_pass(batches, weight, bias)) for _ in range(2))
    bare, missed = took["product"], []
    for name, work, goal in (
        ("report, 50,000 × 512 in memory, C = 10", "report", 1.15),
        ("of it: moments", "moments", 0.79),
        ("of it: decisions", "decisions", 0.12),
        ("of it: linear algebra", "linear algebra", 0.08),
        ("streamed in batches of 128 through `nc.measure`", "streamed", 1.6),
    ):
        if not row(name, took[work], bare, "`H.T @ H`", goal):
            missed.append(work)
    row(
        "the same, over a well-written two-pass accumulator",
        took["streamed"],
        took["index_add"],
        "index_add",
        1.8,
        least=True,
    )
    row("the same, over loops over classes", took["streamed"], took["loops"], "loops", 1.8, least=True)
    for work in missed:
        print(f"\n{work}, {took[work] / bare:.2f} of the product, by function:\n{profile(works[work])}\n", flush=True)


def huge_rows() -> None:
    """C = 100,000, p = 1,024, n = 400,000."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("measuring.py")),
        "--huge",
        "--threads",
        str(torch.get_num_threads()),
    ]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    met = row("moments, C = 100,000, p = 1,024", found["stream"], found["bare"], "the bare products", 3)
    word = "" if found["report"] <= 80 else ", missed"
    print(f"| report of it without NC4 | {found['report']:.1f} s | – | – | ≤ 80 s{word} |")
    if not met:
        print(f"\nmoments by function:\n{found['stream_profile']}")
    if word:
        print(f"\nreport by function:\n{found['report_profile']}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--skip-huge", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = environment()
    where = f"{machine['cpu']}, {options.threads} threads"
    print(f"{where}; Python {platform.python_version()}, torch {torch.__version__}, commit {machine['git_commit']}\n")
    print("| work | ours | baseline | ratio | goal |\n| --- | --- | --- | --- | --- |")
    small_rows()
    if not options.skip_huge:
        huge_rows()


if __name__ == "__main__":
    main()
