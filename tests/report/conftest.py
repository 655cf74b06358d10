"""Pages opened without a network, and runs whose report is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import studies
from helpers.reports import EPOCHS, HOSTILE, NAMES
from helpers.run_directories import record, snapshot

from neuralcollapse._files import append_line
from neuralcollapse.report import write_report
from neuralcollapse.training.run_directory import Run, Status


class Opened:
    """A page and what the browser said of it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: self.requests.append(asked.url))
        page.on("dialog", lambda dialog: (self.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def __call__(self, script: str) -> Any:
        """The value of an expression in the page; run by the debugger, for the page itself forbids evaluation."""
        return self.page.evaluate(script)

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        for _ in range(200):
            if self(script):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"never true: {script}")

    def draw_all(self) -> None:
        """Draw every panel, as if the window were so high that all are seen."""
        self("panels.forEach((panel) => { nearby.unobserve(panel.node); panel.visible = true; panel.draw(); })")


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def open_page(path: Path, width: int = 1280, **options: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        contexts.append(context)
        page = Opened(context.new_page())
        page.page.goto(path.as_uri())
        page.until("[...panels].every((panel) => !panel.visible || !panel.stale)")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five classes with names that a page must not read as HTML."""
    settings = studies.config(
        "digits", "mlp", class_names=list(NAMES), num_classes=5, dataset_title=HOSTILE, epochs=13, width=0.5
    )
    made = Run.create(tmp_path_factory.mktemp("runs") / "run", settings)
    for epoch in EPOCHS:
        error = 0.0 if epoch in (3, 8, 13) else 0.1
        rate = 0.1 if epoch < 8 else 0.01
        append_line(made.history_path, record(epoch, train_error=error, learning_rate=rate, notes=[HOSTILE]))
        made.save_snapshot(epoch, **snapshot(1 / epoch))
    made.write_status(Status(status="finished", epoch=13, epochs=13))
    made.record_environment({"command": f"neuralcollapse run {HOSTILE}", "python": "3"})
    return made.path


@pytest.fixture(scope="session")
def run_page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(run, tmp_path_factory.mktemp("page") / "run.html")


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, two networks, two losses and two seeds, but one cell."""
    folder = tmp_path_factory.mktemp("study")
    for dataset in ("mnist", "cifar10"):
        for model in ("vgg11", "resnet18"):
            for loss in ("mse", "ce"):
                for seed in (0, 1):
                    if (dataset, model, loss) == ("cifar10", "vgg11", "ce"):
                        continue
                    lines = studies.history({1: 0.5, 4: 0.7, 10: 0.9 - seed / 100}, zero=4, factor=1 + seed)
                    settings = studies.config(dataset, model, loss, seed=seed, epochs=10)
                    studies.write_run(folder / f"{dataset}-{model}-{loss}-{seed}", settings, lines)
    return folder


@pytest.fixture(scope="session")
def many_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a thousand classes."""
    classes, dim = 1000, 64
    made = Run.create(
        tmp_path_factory.mktemp("many") / "run",
        studies.config(
            "folder", "mlp", num_classes=classes, class_names=[f"class {c}" for c in range(classes)], epochs=9
        ),
    )
    rng = np.random.default_rng(0)
    means = rng.normal(size=(classes, dim)).astype(np.float32)
    labels = np.repeat(np.arange(classes), 3)
    for epoch in (1, 3, 9):
        features = means[labels] + rng.normal(size=(len(labels), dim)).astype(np.float32) / epoch
        append_line(
            made.history_path, record(epoch, num_classes=classes, snr=sorted(rng.uniform(1, 9, dim), reverse=True))
        )
        made.save_snapshot(epoch, class_means=means, weight=means, features=features, labels=labels)
    return made.path
