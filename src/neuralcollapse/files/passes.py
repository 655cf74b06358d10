"""The two passes over rows of a file: class moments, then decisions about them; each goes on where a killed one was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralcollapse._checks import check_classifier, not_finite
from neuralcollapse._errors import InputError
from neuralcollapse.files.features import BLOCK_BYTES, Classifier, LabelledFeatures
from neuralcollapse.files.shards import Counts, RowRange, Saved, digest, write_counts, write_moments
from neuralcollapse.files.unfinished import Unfinished
from neuralcollapse.measuring.count_range import CountRange
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.moments.class_moments import ClassMoments, Weighting

Progress = Callable[[float], object]


@dataclass(frozen=True)
class Part:
    """Rows of a file, and which of their classes are measured.

    Args:
        examples: the file; rows: of it.
        num_classes: C; kept: the numbers of examples, in the whole file, of the classes that are measured.
    """

    examples: LabelledFeatures
    rows: RowRange
    num_classes: int
    kept: CountRange

    def measured(self, weighting: Weighting, columns: str) -> dict[str, Any]:
        """What tells this measurement from others, by name."""
        files = {"features": self.examples.path, "labels": self.examples.labels_path}
        states = {name: path.stat() for name, path in files.items()}
        return {
            **{name: [state.st_size, state.st_mtime_ns] for name, state in states.items()},
            "rows": [self.rows.file, self.rows.start, self.rows.stop],
            "columns": columns,
            "classes": self.num_classes,
            "weighting": weighting,
            "min_count": self.kept.least,
            "max_count": self.kept.greatest,
        }

    def moments(
        self, weighting: Weighting, unfinished: Unfinished, left: Saved | None, progress: Progress
    ) -> ClassMoments:
        """The class moments; `left` is what an earlier process had of them."""
        moments, start = ClassMoments(self.num_classes, self.examples.shape[1], weighting=weighting), self.rows.start
        if left is not None and isinstance(left.content, ClassMoments):
            moments, start = left.content, left.rows[0].stop
        keeps = self.kept.keeps(class_counts(self.examples, self.num_classes)) if self.kept else None

        def keep(row: int) -> None:
            rows = [replace(self.rows, stop=row)]
            unfinished.keep(lambda path, about: write_moments(path, moments, rows, self.kept, about))

        self._feed(moments.update, start, keeps, keep, progress)
        return moments

    def decisions(
        self,
        moments: ClassMoments,
        classifier: Classifier,
        unfinished: Unfinished,
        left: Saved | None,
        progress: Progress,
    ) -> DecisionCounts:
        """NC4 and accuracies about the class means; `left` is what an earlier process had counted.

        Raises:
            InputError: that was counted about other class means, or with another classifier.
        """
        decisions, start = DecisionCounts(moments, classifier.weight, classifier.bias), self.rows.start
        against = digest(moments, classifier.weight, classifier.bias) if unfinished.path is not None else ""
        if left is not None and isinstance(left.content, Counts):
            if left.content.against != against:
                raise InputError(
                    f"{unfinished.path} was counted about other class means or with another classifier: repeat that "
                    "measurement to finish it, or delete the file to begin anew"
                )
            decisions.merge(left.content.state)
            start = left.rows[0].stop if left.rows else start

        def keep(row: int) -> None:
            rows = [replace(self.rows, stop=row)] if row > self.rows.start else []

            def write(path: Path, about: dict[str, str]) -> None:
                write_counts(path, Counts(decisions.state_dict(), against), rows, about)

            unfinished.keep(write, now=not rows)

        if start == self.rows.start:
            keep(start)  # from here on the moments, which are saved, are not made again
        self._feed(decisions.add, start, moments.present if self.kept else None, keep, progress)
        return decisions

    def _feed(
        self,
        update: Callable[[Tensor, Tensor], object],
        start: int,
        keeps: Tensor | None,
        keep: Callable[[int], None],
        progress: Progress,
    ) -> None:
        """Call `update(features, labels)` for each block of the rows from `start` on, and `keep(row)` after it.

        Raises:
            InputError: an error of `update`, with the file and the row.
        """
        if start == self.rows.stop:  # all were counted before
            return
        for block in self.examples.blocks(start, self.rows.stop):
            features, labels, path = block.features, block.labels, self.examples.path
            require_labels(self.examples, labels, self.num_classes, block.start)
            if keeps is not None:
                features, labels = features[keeps[labels]], labels[keeps[labels]]
            try:
                update(features, labels)
            except InputError as error:
                if bool(features.isfinite().all()):
                    raise InputError(f"{path}: {error}") from None
                raise InputError(f"{path}: {not_finite(block.features, block.start)}") from None
            row = block.start + len(block.labels)
            keep(row)
            progress((row - self.rows.start) / (self.rows.stop - self.rows.start))


def class_counts(examples: LabelledFeatures, num_classes: int) -> Tensor:
    """(C,) how many of all rows of a file are of each class."""
    counts, row = torch.zeros(num_classes, dtype=torch.int64), 0
    for block in examples.labels.blocks(0, examples.shape[0], BLOCK_BYTES // torch.int64.itemsize):
        labels = block.to(torch.int64).reshape(-1)
        require_labels(examples, labels, num_classes, row)
        counts += torch.bincount(labels, minlength=num_classes)
        row += len(labels)
    return counts


def require_labels(examples: LabelledFeatures, labels: Tensor, num_classes: int, first: int) -> None:
    """Raise unless the labels of the rows from `first` on are in 0 … C−1."""
    outside = ((labels < 0) | (labels >= num_classes)).nonzero()[:, 0].tolist()
    if outside:
        raise InputError(
            f"{examples.labels_path}: expected labels in 0..{num_classes - 1}, got {int(labels[outside[0]])} "
            f"in row {first + outside[0]}"
        )


def require_classifier(classifier: Classifier, num_classes: int, dim: int) -> None:
    """Raise unless a classifier is one of C classes and p features."""
    try:
        check_classifier(classifier.weight, classifier.bias, num_classes, dim)
    except InputError as error:
        raise InputError(f"{classifier.path}: {error}") from None
