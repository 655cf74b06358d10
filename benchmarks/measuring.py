"""What measuring costs, as ratios to the work nobody can avoid.

    python benchmarks/measuring.py                     # the table, on the processor
    python benchmarks/measuring.py --device cuda       # the same on a GPU
    python benchmarks/measuring.py --only report,model # some rows

Rows that are compared are timed in turn, so that whatever else the machine does meets both; a ratio is that of the
medians. Rows about memory run in a process of their own, whose peak is the system's count of resident pages.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import platform
import pstats
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from two_pass import two_pass

import neuralcollapse as nc
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.networks.registry import build
from neuralcollapse.training.hardware import environment

DEVICE = torch.device("cpu")


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of each, after one call of both to warm up."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    first, second = zip(*pairs, strict=True)
    return statistics.median(first), statistics.median(second)


def peak_bytes() -> int:
    """The most memory the process has held so far; on a GPU, the most its allocator has."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def example(count: int, dim: int, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features around class means, labels, and a classifier."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    labels = torch.arange(count, device=DEVICE) % classes
    features = torch.empty(count, dim, device=DEVICE).normal_(std=0.1, generator=generator)
    for label, mean in enumerate(torch.randn(classes, dim, device=DEVICE, generator=generator)):
        features[label::classes] += mean  # in place: the peaks below are the report's own
    weight = torch.randn(classes, dim, device=DEVICE, generator=generator)
    return features, labels, weight, torch.randn(classes, device=DEVICE, generator=generator)


def line(name: str, ratio: str, of: str, detail: str) -> None:
    """Print a row of the table."""
    print(f"| {name} | {ratio} | {of} | {detail} |", flush=True)


def report_row() -> None:
    """The whole default report of features in memory."""
    features, labels, weight, bias = example(50_000, 512, 10)
    features.T @ features
    before = peak_bytes()
    nc.measure_features(features, labels, weight, bias, weight_decay=5e-4)
    grown = peak_bytes() - before
    ours, theirs = in_turn(
        lambda: nc.measure_features(features, labels, weight, bias, weight_decay=5e-4),
        lambda: features.T @ features,
        25,
    )
    detail = f"{1e3 * ours:.0f} ms; {grown / 2**20:.0f} MiB more memory"
    line("report, 50,000 × 512 in memory, C = 10", f"{ours / theirs:.2f}", "one `H.T @ H`", detail)


def streamed(batches: list[tuple[Tensor, Tensor]], weight: Tensor, bias: Tensor) -> nc.Report:
    """The whole report from a stream gone through twice: moments, then NC4 about the final class means."""
    moments = nc.ClassMoments(len(weight))
    for features, labels in batches:
        moments.update(features, labels)
    decisions = DecisionCounts(moments, weight, bias)
    for features, labels in batches:
        decisions.add(features, labels)
    return nc.make_report(moments, weight, bias, weight_decay=5e-4, decisions=decisions)


def streaming_row() -> None:
    """The same in batches of 128, and the plain implementation on those batches."""
    features, labels, weight, bias = example(50_000, 512, 10)
    batches = list(zip(features.split(128), labels.split(128), strict=True))
    ours, theirs = in_turn(lambda: streamed(batches, weight, bias), lambda: features.T @ features, 9)
    line("report, streamed in batches of 128", f"{ours / theirs:.2f}", "one `H.T @ H`", f"{1e3 * ours:.0f} ms")
    if DEVICE.type == "cpu":
        plain, again = in_turn(lambda: two_pass(batches, weight, bias), lambda: streamed(batches, weight, bias), 3)
        whole = seconds(lambda: nc.measure_features(features, labels, weight, bias, weight_decay=5e-4))
        detail = f"{plain:.2f} s; {plain / whole:.1f} × the report in memory"
        line("plain two-pass implementation, same batches", f"{plain / again:.1f}", "ours, streamed", detail)


def model_row() -> None:
    """nc.measure on ResNet18 and MNIST-shaped data."""
    net = build("resnet18", in_channels=1, num_classes=10, image_size=32).to(DEVICE).eval()
    count = 1024 if DEVICE.type == "cpu" else 16_384
    images, labels = torch.randn(count, 1, 32, 32, device=DEVICE), torch.arange(count, device=DEVICE) % 10
    loader = list(zip(images.split(128), labels.split(128), strict=True))

    @torch.no_grad()
    def evaluate() -> None:
        correct = 0
        for batch, truth in loader:
            correct += int((net(batch).argmax(dim=1) == truth).sum())

    ours, theirs = in_turn(lambda: nc.measure(net, loader), evaluate, 5)
    detail = f"{count / theirs:.0f} images/s bare"
    line(f"nc.measure, ResNet18, {count:,} images of 32 × 32", f"{ours / theirs:.3f}", "bare evaluation pass", detail)


def many_row() -> None:
    """ImageNet-shaped features, streamed."""
    features, labels, _, _ = example(16_384, 2048, 1000)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).to(DEVICE)]
    batches = list(zip(features.split(256), labels.split(256), strict=True))
    moments = nc.ClassMoments(1000)

    def stream() -> None:
        nonlocal moments
        moments = nc.ClassMoments(1000)
        for batch, truth in batches:
            moments.update(batch, truth)

    def products() -> None:
        for batch, _ in batches:
            batch.T @ batch

    ours, theirs = in_turn(stream, products, 5)
    state = sum(tensor.nbytes for tensor in moments.state_dict().values())
    detail = f"state {state / 2**20:.0f} MiB, {len(features) / ours:,.0f} examples/s"
    line("moments, C = 1,000, p = 2,048, batches of 256", f"{ours / theirs:.2f}", "the bare products", detail)


def huge_stream(count: int, dim: int, classes: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Features made as they are asked for; the means are functions of the label, so that they need no memory."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    phases = torch.randn(dim, generator=torch.Generator().manual_seed(2)).to(DEVICE) * 100
    generator = torch.Generator(DEVICE).manual_seed(3)
    for part in order.split(batch):
        labels = part % classes
        means = torch.sin(labels[:, None].float() * phases + phases.roll(1))
        yield means + torch.empty(len(part), dim, device=DEVICE).normal_(std=0.1, generator=generator), labels


def huge() -> None:
    """C = 100,000 in this process; prints its figures as JSON."""
    count, dim, classes, counted = 400_000, 1024, 100_000, 2048
    moments = nc.ClassMoments(classes)
    spent, bare = 0.0, 0.0
    updating, reporting = cProfile.Profile(), cProfile.Profile()
    for features, labels in huge_stream(count, dim, classes, 4096):
        spent += seconds(lambda features=features, labels=labels: updating.runcall(moments.update, features, labels))
        bare += seconds(lambda features=features: features.T @ features)
    weight = torch.empty(classes, dim, device=DEVICE)
    for block, rows in moments.centred_blocks():
        weight[block] = rows.float()
    report = seconds(lambda: reporting.runcall(nc.make_report, moments, weight, weight_decay=5e-4))
    decisions = DecisionCounts(moments, weight)
    features, labels = next(huge_stream(count, dim, classes, counted))
    decisions.add(features, labels)
    nearest = seconds(lambda: decisions.add(features, labels)) / counted
    found = {"stream": spent, "bare": bare, "report": report, "nearest": nearest, "peak": peak_bytes()}
    print(json.dumps({**found, "stream_profile": top(updating), "report_profile": top(reporting)}))


def top(profiler: cProfile.Profile, lines: int = 8) -> str:
    """The functions that take the most time of their own, a line each."""
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(lines)
    rows = [line for line in text.getvalue().splitlines() if line.strip()]
    return "\n".join(rows[next(i for i, row in enumerate(rows) if "tottime" in row) :])


def huge_row() -> None:
    """C = 100,000, p = 1,024, n = 400,000, in a process of its own."""
    command = [sys.executable, __file__, "--device", DEVICE.type, "--huge"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    detail = f"{found['stream']:.0f} s, then {found['report']:.0f} s for the report without NC4"
    line(
        "moments, C = 100,000, p = 1,024, n = 400,000",
        f"{found['stream'] / found['bare']:.2f}",
        "the bare products",
        detail,
    )
    whole = 400_000 * found["nearest"] / 60
    line("NC4 of it, each example", "", "", f"{1e3 * found['nearest']:.2f} ms; all would take {whole:.0f} min")
    line("its peak memory", f"{found['peak'] / 2**30:.2f} GiB", "", "of the whole process, classifier included")


def process_row() -> None:
    """The report by two processes of one thread each, over one process of one thread."""
    if DEVICE.type != "cpu":
        return
    times = {}
    for world in (1, 2):
        command = [sys.executable, __file__, "--processes", str(world)]
        times[world] = float(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
    line(
        "moments and NC4 by two processes",
        f"{times[2] / times[1]:.2f}",
        "one process",
        f"{1e3 * times[1]:.0f} ms by one",
    )


def shard(rank: int, world: int, folder: str) -> None:
    """One process of ``process_row``: its shard, merged."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    features, labels, weight, bias = example(50_000, 512, 10)
    features, labels = features[rank::world].contiguous(), labels[rank::world].contiguous()

    def work() -> None:
        moments = nc.ClassMoments(10)
        moments.update(features, labels)
        moments.all_reduce()
        decisions = DecisionCounts(moments, weight, bias)
        decisions.add(features, labels)
        decisions.all_reduce()

    work()
    spent = []
    for _ in range(7):
        torch.distributed.barrier()
        spent.append(seconds(work))
    if rank == 0:
        Path(folder, "time").write_text(str(statistics.median(spent)), encoding="utf-8")
    torch.distributed.destroy_process_group()


ROWS = {
    "report": report_row,
    "streaming": streaming_row,
    "model": model_row,
    "many": many_row,
    "huge": huge_row,
    "processes": process_row,
}


def main() -> None:
    """Print the table."""
    global DEVICE
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--huge", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processes", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.only.split(",")) - ROWS.keys()
    if unknown:
        parser.error(f"expected rows among {', '.join(ROWS)}, got {', '.join(sorted(unknown))}")
    DEVICE = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    if arguments.huge:
        huge()
        return
    if arguments.processes:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(shard, (arguments.processes, folder), arguments.processes)
            print(Path(folder, "time").read_text(encoding="utf-8"))
        return
    machine = environment()
    where = machine["gpus"][0] if DEVICE.type == "cuda" else f"{machine['cpu']}, {machine['threads']} threads"
    print(f"{where}; Python {platform.python_version()}, torch {torch.__version__}, commit {machine['git_commit']}\n")
    print("| work | ratio | to | figures |\n| --- | --- | --- | --- |")
    for name in arguments.only.split(","):
        ROWS[name]()


if __name__ == "__main__":
    main()
