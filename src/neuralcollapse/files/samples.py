"""Features in files as a sample that the bootstrap resamples, read block by block, again and again."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuralcollapse.files.features import Classifier, LabelledFeatures
from neuralcollapse.files.passes import require_classifier, require_labels
from neuralcollapse.measuring.bootstrap import Sample


def sample_of(examples: LabelledFeatures, classifier: Classifier | None, keeps: Tensor | None = None) -> Sample:
    """All rows of a file, whose labels are held in memory, and its classifier if there is one.

    Args:
        keeps: (C,) whether each class's rows are taken; None for all.

    Raises:
        InputError: labels or a classifier that do not fit, with the file and of a label the row.
    """
    rows, dim = examples.shape
    labels = torch.cat([block.labels for block in examples.blocks(0, rows)])
    count = len(classifier.weight) if classifier is not None else max(0, int(labels.max())) + 1
    require_labels(examples, labels, count, 0)
    if classifier is not None:
        require_classifier(classifier, count, dim)

    def blocks() -> Iterator[Tensor]:
        for block in examples.blocks(0, rows):
            yield block.features if keeps is None else block.features[keeps[block.labels]]

    labels = labels if keeps is None else labels[keeps[labels]]
    weight, bias = (None, None) if classifier is None else (classifier.weight, classifier.bias)
    return Sample(labels, blocks, count, weight, bias, str(examples.path))
