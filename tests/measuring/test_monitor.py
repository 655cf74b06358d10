"""Monitor: when it measures, what it keeps and writes."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.gloo import monitor_where_one_has_no_data, on_processes
from torch import nn

import neuralcollapse as nc
from neuralcollapse.measuring.options import MeasureKeywords


def parts() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """A classifier of three classes and one batch."""
    return nn.Sequential(nn.Linear(4, 3)), [(torch.randn(30, 4), torch.arange(30) % 3)]


def test_history_and_file_hold_the_report_of_each_measured_epoch(tmp_path: Path) -> None:
    model, batches = parts()
    path = tmp_path / "nc.jsonl"
    monitor = nc.Monitor(model, batches, every=3, path=path, metrics="cdnv")
    for epoch in range(1, 8):
        with torch.no_grad():
            model[0].weight.mul_(2)
        report = monitor(epoch)
        assert (report is not None) == (epoch in (3, 6))
        if report is not None:
            assert monitor.history[-1] == {"epoch": epoch, **report.to_dict()}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == monitor.history
    assert [line["epoch"] for line in lines] == [3, 6]
    assert "cdnv" in lines[0]


def test_what_gives_its_batches_once_is_refused_before_training() -> None:
    model, batches = parts()
    with pytest.raises(nc.InputError, match="gone through again, got a list_iterator: pass a list of batches"):
        nc.Monitor(model, iter(batches))


def test_lines_of_an_earlier_run_stay(tmp_path: Path) -> None:
    model, batches = parts()
    path = tmp_path / "nc.jsonl"
    for epoch in (1, 2):
        nc.Monitor(model, batches, path=path)(epoch)
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("cut", [1, 10, -2])
def test_a_line_that_was_cut_short_costs_no_other(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "nc.jsonl"
    model, batches = parts()
    monitor = nc.Monitor(model, batches, path=path)
    monitor(1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut])
    monitor(2)
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nc.jsonl"
    model, batches = parts()
    monitor = nc.Monitor(model, batches, path=path)
    path.mkdir()
    with pytest.raises(OSError, match=r"cannot write .*nc\.jsonl") as error:
        monitor(1)
    assert isinstance(error.value, nc.InputError) and error.value.filename == str(path)
    assert [line["epoch"] for line in monitor.history] == [1]


def test_one_of_several_processes_writes(tmp_path: Path) -> None:
    on_processes(2, tmp_path, monitor_where_one_has_no_data, str(tmp_path))
    assert len((tmp_path / "nc.jsonl").read_text().splitlines()) == 1


@pytest.mark.wrong_input
def test_wrong_settings_are_named_at_once(tmp_path: Path) -> None:
    model, batches = parts()
    with pytest.raises(nc.InputError, match="expected every of at least 1 epoch, got 0"):
        nc.Monitor(model, batches, every=0)
    with pytest.raises(nc.InputError, match=r"expected an existing folder for nc\.jsonl, got .*absent"):
        nc.Monitor(model, batches, path=tmp_path / "absent" / "nc.jsonl")
    with pytest.raises(nc.InputError, match="got the folder"):
        nc.Monitor(model, batches, path=tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/full", "/dev/null", tmp_path / "pipe"):  # a line's end can't be looked for in them
        with pytest.raises(nc.InputError, match="expected a file to write lines to, got the device or pipe /"):
            nc.Monitor(model, batches, path=path)


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"metric": "cdnv"}, r"expected an option of nc\.\w+, got 'metric' \(did you mean 'metrics'"),
    ({"colour": 1}, "got 'colour'; they are layer, .*distributed"),
    ({"reference_": None}, "got 'reference_' .*did you mean 'reference'"),
    ({"metrics": "nc77"}, "nc77"),
    ({"metrics": "nc5"}, r"the metric 'nc5' needs out-of-distribution data \(ood=\), got none"),
    ({"metrics": ["cdnv", "nc0"], "features": "0"}, "the metric 'nc0' needs a classifier, got none"),
    ({"weight_decay": -1}, "weight decay of at least 0, got -1"),
    ({"weighting": "classes"}, "expected weighting 'example', .* got 'classes'"),
    ({"memory_budget": -5}, "memory_budget of at least 0, got -5"),
    ({"device": "nowhere"}, "expected a device of this machine.* got 'nowhere'"),
    ({"next_token": "yes"}, "expected next_token to be True or False, got 'yes'"),
    ({"distributed": 1}, "expected distributed to be True or False, got 1"),
    ({"num_classes": 3}, "only where features= are measured"),
    ({"layer": 7}, "expected layer= to be a module or its name, got int"),
    ({"layer": "0", "features": "0"}, "expected layer= or features=, got both"),
    ({"features": ("0", "middle")}, "expected features= to be a module"),
    ({"features": "0", "weight": torch.ones(3)}, r"weight of shape \(C, p\), got \(3,\)"),
    ({"ood": 3}, "expected a loader of batches, got int"),
    ({"reference": 3}, "expected reference to be a ClassMoments, got 3"),
]


@pytest.mark.wrong_input
@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS, ids=[str(list(each)) for each, _ in WRONG_OPTIONS])
def test_a_wrong_option_is_named_before_anything_is_measured(options: dict[str, Any], message: str) -> None:
    model, batches = parts()
    for make in (nc.Monitor, nc.measure, nc.measure_layers):
        with pytest.raises(nc.InputError, match=message):
            make(model, batches, **options)


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda model, batches: nc.Monitor(model, batches, evry=2), "every"),
        (lambda model, batches: nc.measure_layers(model, batches, spatail="mean"), "spatial"),
    ],
)
def test_a_misspelled_argument_of_the_function_itself_is_suggested(call: Any, meant: str) -> None:
    with pytest.raises(nc.InputError, match=f"did you mean '{meant}'"):
        call(*parts())


def test_the_options_are_listed_once_and_shown_by_help() -> None:
    names = [field.name for field in dataclasses.fields(nc.MeasureOptions)]
    assert list(MeasureKeywords.__annotations__) == names
    for function in (nc.measure, nc.measure_layers, nc.Monitor.__init__):
        assert list(inspect.signature(function).parameters)[-len(names) :] == names
        for name in names:
            assert f"\n            {name}: " in f"\n    {inspect.getdoc(function)}".replace("\n", "\n        "), name
        assert "**options" not in function.__doc__


def test_options_are_read_when_measured_so_that_a_trained_weight_is_measured_as_it_is() -> None:
    model, batches = parts()
    monitor = nc.Monitor(model, batches, features=("0", "input"), weight=model[0].weight, bias=model[0].bias)
    monitor(1)
    with torch.no_grad():
        model[0].weight.mul_(-1)
    monitor(2)
    assert [line["nc3"] for line in monitor.history] != [monitor.history[0]["nc3"]] * 2
    assert monitor.history[1]["nc3"] == nc.measure(model, batches).nc3
