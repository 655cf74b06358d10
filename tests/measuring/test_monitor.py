"""Monitor: when it measures, what it keeps and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.gloo import monitor_where_one_has_no_data, on_processes
from torch import nn

import neuralcollapse as nc


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
    with pytest.raises(nc.InputError, match=r"options of nc\.measure, got 'metric'; did you mean 'metrics'"):
        nc.Monitor(model, batches, metric="cdnv")
    with pytest.raises(nc.InputError, match=r"got 'colour'; they are layer, .*distributed"):
        nc.Monitor(model, batches, colour=1)
    with pytest.raises(nc.InputError, match="got 'reference_'; did you mean 'reference'"):
        nc.Monitor(model, batches, reference_=None)
    with pytest.raises(nc.InputError, match="nc77"):
        nc.Monitor(model, batches, metrics="nc77")
