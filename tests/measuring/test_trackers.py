"""What trackers are given: names in groups, constants once, pictures if asked; read back where a file is left."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks import Network, loader

import neuralcollapse as nc
from neuralcollapse.measuring.trackers import name_of_tag, portrait, tag_of, tagged

CONSTANTS = {f"nc/constants/{name}" for name in ("num_examples", "num_classes", "classes_present", "dim")}
CONSTANTS |= {"nc/constants/mse.weight_decay"}


def test_nc1_to_nc4_are_one_group_and_every_tag_leads_back() -> None:
    report = nc.measure(Network(), loader(), metrics="all")
    tags = {tag_of(name): name for name in report.numbers()}
    assert len(tags) == len(report.numbers())
    first = [tag for tag in tags if tag.count("/") == 1]
    assert [tag.removeprefix("nc/") for tag in first] == [
        "nc1",
        "nc2.equinorm_means",
        "nc2.equiangularity_means",
        "nc2.maximal_angle_means",
        "nc3",
        "nc4_mismatch",
    ]
    assert {tag.split("/")[1] for tag in tags if tag not in first} == {
        "means",
        "classifier",
        "mse",
        "accuracy",
        "constants",
    }
    assert {tag: name_of_tag(tag) for tag in tags} == tags
    assert name_of_tag("nc/own") == "own" and name_of_tag("nc/a/b") == "a/b", "what others log stays theirs"
    again = {"re_estimated.mse.ls": "nc/re_estimated/mse.ls", "notebook.mse.total": "nc/notebook/mse.total"}
    again["notebook.mse.weight_decay"] = "nc/constants/notebook.mse.weight_decay"
    assert {name: tag_of(name) for name in again} == again
    assert [name_of_tag(tag) for tag in again.values()] == list(again)


def test_what_needs_a_classifier_is_filed_under_it() -> None:
    """Told by measuring once without a classifier: what is then missing needs one."""
    features, labels = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    names = [
        nc.measure_features(features, labels, *weight, metrics="all").numbers() for weight in ([torch.eye(3, 4)], [])
    ]
    tags = {name: tag_of(name) for name in names[0]}
    rest = {name: tag for name, tag in tags.items() if tag.split("/")[1] in ("means", "classifier")}
    assert {name for name, tag in rest.items() if "classifier" in tag.split("/")} == rest.keys() - names[1].keys()
    assert {name_of_tag(f"nc/means/{name}") for name in rest} == rest.keys(), "logs of older versions are still read"


def test_a_function_gets_the_numbers_and_constants_once() -> None:
    calls: list[tuple[dict[str, float], int]] = []
    monitor = nc.Monitor(Network(), loader(), every=2, log=lambda numbers, epoch: calls.append((numbers, epoch)))
    for epoch in range(1, 7):
        monitor(epoch)
    assert [epoch for _, epoch in calls] == [2, 4, 6]
    assert calls[0][0].keys() - calls[1][0].keys() == CONSTANTS and calls[1][0].keys() == calls[2][0].keys()
    for (numbers, _), line in zip(calls, monitor.history, strict=True):
        assert numbers["nc/nc1"] == line["nc1"] and numbers["nc/mse/ls_perp"] == line["mse.ls_perp"]
        assert all(isinstance(value, float) for value in numbers.values()) and not any("snr" in tag for tag in numbers)


def test_tensorboard_files_are_read_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    lines: list[Any] = []
    with SummaryWriter(str(tmp_path)) as writer:
        log = nc.Tracking(writer, lambda numbers, epoch: lines.append(epoch), portrait=True, spectrum=True)
        monitor = nc.Monitor(Network(), loader(), log=log, metrics="cdnv")
        monitor(1), monitor(3)
    assert lines == [1, 3]
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "histograms": 0}).Reload()
    scalars = {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert scalars.keys() == tagged(monitor.history[0], constants=True).keys()
    for tag, values in scalars.items():
        name = name_of_tag(tag)
        want = [(line["epoch"], pytest.approx(line[name], rel=1e-6)) for line in monitor.history]
        assert values == (want[:1] if tag in CONSTANTS else want), tag
    assert events.Tags()["images"] == ["nc/portrait"] and events.Tags()["histograms"] == ["nc/spectrum"]
    assert [each.step for each in events.Images("nc/portrait")] == [1, 3]
    spectrum = events.Histograms("nc/spectrum")[-1].histogram_value
    assert spectrum.num == 2 and spectrum.max == pytest.approx(max(monitor.history[-1]["snr"]))
    history = nc.History.read(tmp_path).to_frame().set_index(["epoch", "metric"])["value"]
    assert history[3, "nc1"] == pytest.approx(monitor.history[-1]["nc1"], rel=1e-6)
    assert history[3, "mse.ls_perp"] == pytest.approx(monitor.history[-1]["mse.ls_perp"], rel=1e-6)


def recorder(package: str, **functions: Any) -> types.ModuleType:
    """A module of the tracker's name with the documented functions, which records the calls."""
    made = types.ModuleType(package)
    made.calls = []  # type: ignore[attr-defined]
    for name, function in functions.items():
        setattr(made, name, function)
    return made


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_a_run_with_log_of_the_documented_interface(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run.log(dict)`, `Image(array)`, `Histogram(values)`, as the documentation of both has them; a recorder."""
    module = recorder(package, Image=lambda pixels: ("image", pixels), Histogram=lambda values: ("histogram", values))
    monkeypatch.setitem(sys.modules, package, module)
    calls: list[dict[str, Any]] = []
    run = type("Run", (), {"__module__": f"{package}.run", "log": lambda self, values: calls.append(values)})()
    module.log = calls.append  # type: ignore[attr-defined]
    for target in (run, module):
        calls.clear()
        nc.Monitor(Network(), loader(), log=nc.Tracking(target, portrait=True, spectrum=True))(7)
        numbers, histogram, image = calls
        assert all(call["nc/epoch"] == 7 for call in calls) and "nc/nc1" in numbers
        assert histogram["nc/spectrum"][0] == "histogram" and image["nc/portrait"][1].dtype == np.uint8


def test_wandb_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", dir=tmp_path, project="test") as run:
        nc.Monitor(Network(), loader(), log=nc.Tracking(run, portrait=True, spectrum=True))(2)
        assert run.summary["nc/epoch"] == 2 and run.summary["nc/nc1"] > 0


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_mlflow_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())  # the store that mlflow-skinny has too
    with mlflow.start_run() as run:
        for target in (mlflow, run):
            monitor = nc.Monitor(Network(), loader(), log=target)
            monitor(1), monitor(2)
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, "nc/nc1")
    assert [each.step for each in found] == [1, 2, 1, 2] and found[-1].value == monitor.history[-1]["nc1"]


def test_mlflows_documented_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow.log_metrics(metrics, step, run_id=)`, `MlflowClient().log_image` and `log_dict`; a recorder."""
    calls: list[tuple[Any, ...]] = []

    class Client:
        def log_image(self, run_id: str, image: Any, *, key: str, step: int) -> None:
            calls.append(("image", run_id, key, step, image.shape))

        def log_dict(self, run_id: str, dictionary: dict[str, Any], artifact_file: str) -> None:
            calls.append(("dict", run_id, artifact_file, dictionary))

    info = types.SimpleNamespace(info=types.SimpleNamespace(run_id="active"))
    module = recorder(
        "mlflow",
        log_metrics=lambda metrics, step, run_id=None: calls.append(("metrics", run_id, step, metrics)),
        MlflowClient=Client,
        active_run=lambda: info,
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    run = type("ActiveRun", (), {"__module__": "mlflow.tracking.fluent"})()
    run.info = types.SimpleNamespace(run_id="mine")
    for target, ids in ((module, (None, "active", "active")), (run, ("mine", "mine", "mine"))):
        calls.clear()
        nc.Monitor(Network(), loader(), log=nc.Tracking(target, portrait=True, spectrum=True))(5)
        assert [call[0] for call in calls] == ["metrics", "dict", "image"]
        assert tuple(call[1] for call in calls) == ids
        assert calls[0][2] == 5 and "nc/nc1" in calls[0][3] and calls[2][2:4] == ("nc.portrait", 5)


@pytest.mark.wrong_input
def test_what_is_no_tracker_is_named() -> None:
    for target in (3, "tensorboard", int, object()):
        with pytest.raises(nc.InputError, match=r"expected log= to be a TensorBoard SummaryWriter, .* got "):
            nc.Monitor(Network(), loader(), log=target)
    with pytest.raises(nc.InputError, match="expected log= to be"):
        nc.Monitor(Network(), loader(), log=[print, 3])
    for none in ([], ()):
        with pytest.raises(nc.InputError, match="at least one tracker, got none"):
            nc.Monitor(Network(), loader(), log=none)
    with pytest.raises(nc.InputError, match="expected portrait"):
        nc.Tracking(print, portrait=3)


def test_the_portrait_shows_any_number_of_classes() -> None:
    for classes, dim in ((2, 1), (3, 5), (40, 6)):
        labels = torch.arange(4 * classes) % classes
        means = torch.randn(classes, dim, generator=torch.Generator().manual_seed(0))
        names = ["$x$ <b>", *map(str, range(1, classes))]
        report = nc.measure_features(means[labels] + 0.01 * torch.randn(len(labels), dim), labels, class_names=names)
        pixels = portrait(report)
        assert pixels.shape == (480, 480, 3) and pixels.dtype == np.uint8 and pixels.std() > 5
