"""What the report of a path shows, whatever lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuralcollapse._errors import InputError
from neuralcollapse._files import read_json
from neuralcollapse.files.features import is_features
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions, given
from neuralcollapse.files.passes import Progress
from neuralcollapse.measuring.report import is_printed
from neuralcollapse.measuring.run_readers import as_folder, read_runs
from neuralcollapse.report.features_view import view_of_printed, view_of_report
from neuralcollapse.report.study_view import history_view
from neuralcollapse.study.study_file import FILE as STUDY


def require_no_arrays(path: Path, files: FileOptions | None) -> None:
    """Raise where labels or a classifier are given for what is no file of features."""
    if files is not None and (unused := given(files, ("labels", "weight", "bias"))):
        option = unused[0].partition(" ")[0]
        raise InputError(f"{option} goes with a file of features, which {path} is not: leave out {unused[0]}")


def make_content(
    path: Path, files: FileOptions | None = None, progress: Progress = lambda share: None
) -> dict[str, Any]:
    """The content of the page about a path; see :func:`neuralcollapse.report.write_report`."""
    if is_features(path):
        measured = measure_files(path, files or FileOptions(metrics="all"), progress)
        assert measured.report is not None  # only shards have none
        return view_of_report(measured.report, path.name)
    path = as_folder(path)
    require_no_arrays(path, files)
    if path.suffix == ".json" and path.is_file():
        printed = read_json(path)
        if is_printed(printed):
            return view_of_printed(printed, path.name)
    runs = read_runs(path)
    planned: list[str] = read_json(path / STUDY)["runs"] if (path / STUDY).is_file() else []
    not_begun = [name for name in planned if not (path / name / "config.json").is_file()]
    title = "" if len(runs) == 1 else f"{path.resolve().name}: {len(runs)} runs"
    return history_view(runs, title, not_begun)
