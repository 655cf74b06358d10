"""Monitor: when it measures, what it keeps and writes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo import monitor_where_one_has_no_data, on_processes
from torch import nn

import neuralcollapse as nc
from neuralcollapse.monitor import append_line


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


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_record_is_written_whole_or_not_at_all(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nc.jsonl"
    append_line(path, json.dumps({"epoch": 1}))
    before = path.read_bytes()
    opened = Path.open

    class Full:
        """A file on a disk with little room."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, room

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, text: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = self.file.write(text[: self.room])
            self.room -= written
            return written

    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Full(opened(self, *a, **k)))
    with pytest.raises(OSError, match=r"No space left on device: '.*nc\.jsonl'") as error:
        append_line(path, json.dumps({"epoch": 2, "numbers": [1.0] * 100}))
    assert error.value.filename == str(path) and path.read_bytes() == before
    monkeypatch.undo()
    append_line(path, json.dumps({"epoch": 3}))
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 3]


@pytest.mark.parametrize("cut", [1, 10, -2])
def test_a_line_that_was_cut_short_is_ended_first(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "nc.jsonl"
    model, batches = parts()
    monitor = nc.Monitor(model, batches, path=path)
    monitor(1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut])
    monitor(2)
    first, broken, last = path.read_text().splitlines()
    assert (json.loads(first)["epoch"], json.loads(last)["epoch"]) == (1, 2)
    assert broken.encode() == whole[:cut]


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
