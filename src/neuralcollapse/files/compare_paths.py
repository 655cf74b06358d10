"""`neuralcollapse compare`: what lies at two paths, and which numbers of theirs differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuralcollapse._errors import InputError
from neuralcollapse._files import read_json
from neuralcollapse.files.features import is_features, open_classifier, open_examples
from neuralcollapse.files.options import CompareOptions, given, metric_names
from neuralcollapse.files.samples import sample_of
from neuralcollapse.measuring.bootstrap import Sample
from neuralcollapse.measuring.comparison import Comparison, compare
from neuralcollapse.measuring.history import History
from neuralcollapse.measuring.report import is_printed


def compare_paths(
    a: Path, b: Path, options: CompareOptions, progress: Callable[[float], object] = lambda share: None
) -> Comparison:
    """Compare features, reports or runs that lie at two paths.

    Raises:
        InputError: nothing known is there, or things of two kinds; options that are not used for their kind.
    """
    # the options have the names of the arguments
    settings = asdict(options) | {"metrics": metric_names(options.metrics)}
    sides = [read_side(a), read_side(b)]
    if not any(isinstance(side, Sample) for side in sides) and (unused := given(options, settings.keys() - {"level"})):
        raise InputError(f"{sorted(unused)[0]} is used for files of features alone, got {a} and {b}; leave it out")
    return compare(*sides, **settings, progress=progress)


def read_side(path: Path) -> Any:
    """A file of features, the JSON of a report, or whatever :meth:`neuralcollapse.History.read` knows."""
    if not path.exists():
        raise InputError(f"no file or folder {path}; expected features, a report's JSON, a run or a study")
    if is_features(path):
        return sample_of(open_examples(path), open_classifier(path))
    if path.is_file() and path.suffix == ".json":
        content = read_json(path)
        if is_printed(content):
            return content
    return History.read(path)
