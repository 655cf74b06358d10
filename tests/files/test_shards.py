"""What jobs of an array save: the rows it is of, what merges with it, and what does not, said in one sentence."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.feature_tables import jobs, layer, npy, same_report

from neuralcollapse import ClassMoments, InputError, measure_features
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions
from neuralcollapse.files.shards import RowRange, join_rows, missing_rows

pytest.importorskip("safetensors")


def test_saved_moments_are_those_of_the_library(tmp_path: Path) -> None:
    """What the command writes `ClassMoments` loads, and what that saves the command merges."""
    path, options = npy(tmp_path, layer())
    (one, two) = jobs(path, replace(options, weight=None, bias=None), tmp_path, "part", 2, classes=4)
    whole = ClassMoments.load(one)
    whole.merge(ClassMoments.load(two))
    assert torch.equal(whole.counts, torch.bincount(torch.tensor(layer()["labels"])))
    whole.save(tmp_path / "own.safetensors")
    report = measure_files(None, replace(options, labels=None, merge=(tmp_path / "own.safetensors",))).report
    assert report is not None and report.num_examples == 96


def test_whole_file_saves_and_reports(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    outcome = measure_files(path, replace(options, save=tmp_path / "all.safetensors"))
    same_report(outcome.report, measure_features(**layer()))
    assert ClassMoments.load(tmp_path / "all.safetensors").num_examples == 96
    # a shard that is not saved is a set of examples like any other
    report = measure_files(path, replace(options, shard="2/3")).report
    part = {name: array[32:64] if name in ("features", "labels") else array for name, array in layer().items()}
    same_report(report, measure_features(**part), without=("notes",))
    assert report is not None and "shard 2/3 alone" in report.notes[-1]


def refused(features: Path | None, options: FileOptions, *words: str) -> None:
    """One sentence with these words; the file to be saved is not there, nor what it was to be made of."""
    with pytest.raises(InputError) as error:
        measure_files(features, options)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    if options.save is not None:
        assert not list(options.save.parent.glob(f"*{options.save.name}*"))


def test_each_part_is_merged_once(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    one, two, _ = jobs(path, options, tmp_path, "part", 3)
    half = jobs(path, options, tmp_path, "half", 2)[0]
    out = FileOptions(save=tmp_path / "out.safetensors")
    refused(None, replace(out, merge=(one, two, one)), "part-1.safetensors twice")
    os.symlink(one, tmp_path / "link.safetensors")
    refused(None, replace(out, merge=(one, tmp_path / "link.safetensors")), "link.safetensors twice", "part-1")
    shutil.copy(one, tmp_path / "copy.safetensors")
    refused(
        None, replace(out, merge=(one, tmp_path / "copy.safetensors")), "copy", "part-1", "rows 0 to 31 of features"
    )
    refused(None, replace(out, merge=(two, half)), "half-1", "part-2", "rows 32 to 47 of features.npy")


def test_a_row_is_known_by_its_file_not_by_its_name(tmp_path: Path) -> None:
    """Files of one name in two folders are two; one file that was moved is one."""
    for folder, seed in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        npy(tmp_path / folder, {**layer(), "features": layer()["features"] + seed})
    parts = []
    for folder in ("a", "b"):
        options = FileOptions(
            labels=tmp_path / folder / "labels.npy", classes=4, save=tmp_path / f"{folder}.safetensors"
        )
        measure_files(tmp_path / folder / "features.npy", options)
        parts.append(options.save)
    outcome = measure_files(None, FileOptions(merge=tuple(parts), save=tmp_path / "both.safetensors"))  # type: ignore[arg-type]
    assert "192 examples" in outcome.note
    moved = shutil.copy(tmp_path / "a" / "features.npy", tmp_path / "moved.npy")
    options = FileOptions(labels=tmp_path / "a" / "labels.npy", classes=4, save=tmp_path / "moved.safetensors")
    measure_files(Path(moved), options)
    refused(None, FileOptions(merge=(*parts, options.save), save=tmp_path / "c.safetensors"), "rows 0 to 95")  # type: ignore[arg-type]


def test_parts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    one, two = jobs(path, options, tmp_path, "part", 2)
    save = tmp_path / "out.safetensors"
    for changes, words in (
        ({"weighting": "class"}, ("weighting = example", "class")),
        ({"weight": None, "bias": None, "classes": 7}, ("num_classes = 4", "7")),
    ):
        (other, _) = jobs(path, options, tmp_path, "other", 2, **changes)
        refused(None, FileOptions(merge=(two, other), save=save), "other-1", "part-2", *words)
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    short, _ = npy(narrow, {**layer(), "features": layer()["features"][:, :5]})
    (other, _) = jobs(short, FileOptions(labels=options.labels, classes=4), narrow, "part", 2)
    refused(None, FileOptions(merge=(two, other), save=save), "narrow/part-1", "dim = 6, got 5")
    refused(None, FileOptions(merge=(one, two), save=save, weighting="class"), "weighting class, got example")
    refused(None, FileOptions(merge=(one, two), save=save, classes=3), "3 classes, got 4")
    refused(None, FileOptions(merge=(one, two)), "--weight for a report, or --save")
    np.save(tmp_path / "wide.npy", np.ones((4, 9)))
    refused(
        None, FileOptions(merge=(one, two), weight=tmp_path / "wide.npy", save=save), "wide.npy", "(4, 6), got (4, 9)"
    )


def test_counts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    parts = jobs(path, options, tmp_path, "part", 2)
    merged = tmp_path / "all.safetensors"
    classifier = replace(options, labels=None)
    measure_files(None, replace(classifier, merge=tuple(parts), save=merged))
    counts = jobs(path, options, tmp_path, "count", 2, moments=merged)
    refused(None, replace(classifier, merge=(counts[0],), moments=merged), "all 96", "got 48", "rows 48 to 95 of")
    refused(None, replace(classifier, merge=(counts[1], counts[1]), moments=merged), "count-2.safetensors twice")
    refused(None, replace(classifier, merge=(parts[0],), moments=merged), "part-1", "expected counts in", "got moments")
    refused(None, replace(classifier, merge=tuple(counts)), "count-1", "--moments")
    refused(None, replace(classifier, merge=tuple(counts), moments=counts[0]), "count-1", "got counts")
    refused(None, replace(classifier, weight=None, bias=None, merge=tuple(counts), moments=merged), "--weight")
    save = tmp_path / "out.safetensors"
    refused(None, replace(classifier, merge=tuple(counts), moments=merged, save=save), "no --save", "out.safetensors")
    # counted against other means, or by another classifier
    refused(None, replace(classifier, merge=tuple(counts), moments=parts[0]), "count-1", "other moments")
    refused(None, replace(classifier, bias=None, merge=tuple(counts), moments=merged), "count-1", "another classifier")
    # rows that the moments were not made of
    refused(path, replace(options, moments=parts[0], save=save), "part-1", "got rows 0 to 95 of", "features.npy")
    refused(path, replace(options, moments=parts[0], shard="2/2", save=save), "part-1", "rows 48 to 95")
    np.save(tmp_path / "other.npy", layer()["features"] + 1)
    refused(tmp_path / "other.npy", replace(options, moments=merged, save=save), "all.safetensors", "other.npy")
    ClassMoments.load(parts[0]).save(tmp_path / "own.safetensors")  # says of no rows
    refused(path, replace(options, moments=tmp_path / "own.safetensors", save=save), "own.safetensors", "0 to 95")
    assert "rows 0 to 47" in measure_files(path, replace(options, moments=parts[0], shard="1/2")).note
    refused(path, replace(options, moments=merged, classes=5), "--classes 4", "got 5")
    refused(path, replace(options, moments=merged, weight=None, bias=None), "features.npy has no weight")
    np.save(tmp_path / "five.npy", layer()["features"][:, :5])
    refused(tmp_path / "five.npy", replace(options, moments=merged), "five.npy", "6 features", "got 5")


@pytest.mark.wrong_input
def test_files_that_are_no_parts_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path, options = npy(tmp_path, layer())
    part = jobs(path, options, tmp_path, "part", 2)[0]
    moments = ClassMoments.load(part).state_dict()
    foreign, save = tmp_path / "foreign.safetensors", tmp_path / "out.safetensors"
    counts = {name: torch.tensor([3, 2]) for name in ("examples", "mismatches", "correct", "nearest_correct")}
    counts["squares"] = torch.tensor([0.5, 0.0], dtype=torch.float64)
    about = {"weighting": "example"}
    for state, words, text in (
        ({"x": torch.ones(2)}, about, "counts"),
        ({**moments, "means": moments["means"] * torch.nan}, about, "finite means"),
        ({**moments, "means": moments["means"][:, :2].clone()}, about, "expected"),
        ({**moments, "counts": -moments["counts"]}, about, "at least 0"),
        (moments, {"weighting": "?"}, "weighting"),
        (moments, {**about, "rows": "[{]"}, "rows"),
        (moments, {**about, "rows": "7"}, "rows"),
        (moments, {**about, "rows": "[" * 100_000}, "rows"),
        (
            moments,
            {**about, "rows": '[{"file": "a", "start": 3, "stop": 2, "total": 9, "name": "a"}]'},
            "rows",
        ),
        (moments, {**about, "rows": '[{"file": 1, "start": 1, "stop": 2, "total": 9, "name": "a"}]'}, "rows"),
        ({**counts, "correct": torch.tensor([3, 3])}, {}, "at most as many correct as examples"),
        ({**counts, "correct": torch.tensor([3, -4])}, {}, "correct of at least 0, got -4"),
        ({**counts, "correct": torch.tensor(1)}, {}, "correct of each class"),
        ({**counts, "correct": torch.tensor([1, 2, 3])}, {}, "(3,)"),
        ({**counts, "correct": torch.tensor([1.0, 2.0])}, {}, "float32"),
        ({**counts, "squares": counts["squares"] * torch.nan}, {}, "squares of at least 0, got nan"),
        ({name: each for name, each in counts.items() if name != "squares"}, {}, "expected examples, mismatches"),
    ):
        save_file(state, foreign, metadata=words)
        refused(None, FileOptions(merge=(part, foreign), save=save), "foreign.safetensors", text)
    foreign.write_bytes(part.read_bytes()[:-1])
    refused(None, FileOptions(merge=(part, foreign), save=save), "foreign.safetensors")
    refused(None, FileOptions(merge=(part, tmp_path / "absent.safetensors"), save=save), "absent.safetensors")
    refused(None, FileOptions(merge=(part, tmp_path), save=save), "which is not a file")
    refused(None, FileOptions(merge=(part, path), save=save), "features.npy", "safetensors")


def test_a_part_without_examples_of_its_own_is_refused(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer(3, classes=2))
    refused(path, replace(options, shard="1/4", save=tmp_path / "part.safetensors"), "at most 3 parts", "got 4")
    refused(path, replace(options, weight=None, bias=None, save=tmp_path / "part.safetensors"), "--classes")


def test_a_failed_job_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, options = npy(tmp_path, layer())
    part = jobs(path, options, tmp_path, "part", 2)[0]
    before, names = part.read_bytes(), sorted(tmp_path.iterdir())

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", broken)
        with pytest.raises(KeyboardInterrupt):
            measure_files(path, replace(options, shard="1/2", save=part))
    with monkeypatch.context() as patch:
        patch.setattr("json.dumps", broken)
        with pytest.raises(KeyboardInterrupt):
            measure_files(path, replace(options, json=tmp_path / "report.json"))
    assert part.read_bytes() == before and sorted(tmp_path.iterdir()) == names


def test_spans_join_and_leave_gaps() -> None:
    def span(start: int, stop: int, file: str = "a") -> RowRange:
        return RowRange(file, start, stop, 10, f"{file}.npy")

    joined = join_rows([(Path("x"), (span(6, 8), span(0, 2))), (Path("y"), (span(2, 4), span(0, 10, "b")))])
    assert joined == (span(0, 4), span(6, 8), span(0, 10, "b"))
    assert missing_rows(joined) == ["rows 4 to 5 of a.npy", "rows 8 to 9 of a.npy"]
    for start, stop in ((0, 10), (3, 5), (1, 2), (0, 1), (3, 4)):
        with pytest.raises(InputError, match=rf"got rows {start} to {min(stop, 4) - 1} of a.npy in both [xy] and [xy]"):
            join_rows([(Path("x"), (span(0, 4),)), (Path("y"), (span(start, stop),))])
