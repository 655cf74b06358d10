"""Features in files as a sample that the bootstrap resamples, read block by block, again and again."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuralcollapse._checks import check_classifier, check_labels
from neuralcollapse._errors import InputError
from neuralcollapse.files.features import Classifier, LabelledFeatures
from neuralcollapse.measuring.bootstrap import Sample


def sample_of(examples: LabelledFeatures, classifier: Classifier | None, keeps: Tensor | None = None) -> Sample:
    """All rows of a file, whose labels are held in memory, and its classifier if there is one.

    Args:
        keeps: (C,) whether each class's rows are taken; None for all.

    Raises:
        InputError: labels or a classifier that do not fit.
    """
    rows, dim = examples.shape
    labels = torch.cat([block.labels for block in examples.blocks(0, rows)])
    count = len(classifier.weight) if classifier is not None else max(0, int(labels.max())) + 1
    try:
        check_labels(labels, rows, count)
        if classifier is not None:
            check_classifier(classifier.weight, classifier.bias, count, dim)
    except InputError as error:
        raise InputError(f"{examples.path}: {error}") from None

    def blocks() -> Iterator[Tensor]:
        for block in examples.blocks(0, rows):
            yield block.features if keeps is None else block.features[keeps[block.labels]]

    labels = labels if keeps is None else labels[keeps[labels]]
    weight, bias = (None, None) if classifier is None else (classifier.weight, classifier.bias)
    return Sample(labels, blocks, count, weight, bias, str(examples.path))
