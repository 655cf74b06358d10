"""How long a browser takes to open a report, until the first panels are drawn, and the page's processor time till then.

    python benchmarks/report_opening.py

Two runs with invented numbers are made in a temporary folder: 50 measured epochs with 10 classes, and with 1,000
classes. Each report is opened by headless Chromium from its file, without a network, in a window of 1280 × 900; the
first opening, which also starts the browser's graphics, is left out.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from neuralcollapse._files import append_line
from neuralcollapse.report import write_report
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.run_directory import Run

REPEATS = 5
EPOCHS = np.unique(np.geomspace(1, 350, 58).round().astype(int))[:50]
READY = "typeof panels !== 'undefined' && panels.size > 0 && [...panels].some((panel) => panel.drawn) && "
READY += "[...panels].every((panel) => !panel.visible || !panel.stale)"


def make_run(path: Path, classes: int, dim: int = 512) -> Path:
    """A run directory whose class means come nearer to a simplex from epoch to epoch."""
    config = RunConfig.from_json(
        {
            "dataset": "invented",
            "dataset_title": "invented numbers",
            "num_examples": 50 * classes,
            "num_test_examples": 10 * classes,
            "num_classes": classes,
            "class_names": [f"class {label}" for label in range(classes)],
            "model": "mlp",
            "loss": "mse",
            "loss_title": "MSE",
            "width": 1.0,
            "epochs": 350,
            "seed": 0,
            "batch_size": 128,
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "milestones": [0.5],
            "measured_weight_decay": 5e-4,
            "precision": "32",
            "device": "cpu",
            "devices": 1,
        },
        path,
    )
    run = Run.create(path, config)
    rng = np.random.default_rng(0)
    means, labels = rng.normal(size=(classes, dim)), np.repeat(np.arange(classes), 5)
    names = ["nc1", "nc3", "nc4_mismatch", "mse.total", "mse.nc1", "mse.nc23", "mse.ls_perp", "test_accuracy", "loss"]
    names += [f"nc2.{kind}_{of}" for kind in ("equinorm", "maximal_angle") for of in ("means", "classifier")]
    for epoch in EPOCHS.tolist():
        numbers = {name: (1 + place) / epoch for place, name in enumerate(names)}
        counts = {"num_examples": 50 * classes, "num_classes": classes, "train_error": max(0.0, 0.5 - epoch / 100)}
        snr = np.sort(rng.uniform(1, 3, min(classes - 1, dim)) * epoch)[::-1].tolist()
        append_line(run.history_path, {"epoch": epoch, **counts, **numbers, "snr": snr})
        features = means[labels] + rng.normal(size=(len(labels), dim)) / epoch
        arrays = {"class_means": means, "global_mean": means.mean(axis=0), "weight": means, "features": features}
        run.save_snapshot(epoch, **{name: array.astype(np.float32) for name, array in arrays.items()}, labels=labels)
    return path


def seconds_to_open(browser: Browser, page: Path) -> tuple[float, float]:
    """From the address to the first panels: by the clock, and by the processor time of the page's main thread."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    tab = context.new_page()
    session = context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    start = time.perf_counter()
    tab.goto(page.as_uri(), wait_until="commit")
    while not tab.evaluate(READY):
        time.sleep(0.005)
    taken = time.perf_counter() - start
    found = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    context.close()
    return taken, found["TaskDuration"]


def main() -> None:
    """Make, open and print."""
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        print(f"Chromium {browser.version}, {platform.machine()}, {REPEATS} openings, median (least to greatest)")
        for classes in (10, 1000):
            page = write_report(make_run(Path(folder) / str(classes), classes))
            seconds_to_open(browser, page)
            opened = [seconds_to_open(browser, page) for _ in range(REPEATS)]
            for what, times in zip(("clock", "processor"), zip(*opened, strict=True), strict=True):
                spread = f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"
                print(f"50 epochs, {classes:>5,} classes, {page.stat().st_size / 1e6:.1f} MB, {what}: {spread}")
        browser.close()


if __name__ == "__main__":
    main()
