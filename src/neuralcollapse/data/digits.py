"""Handwritten digits, 1,797 images of 8 × 8 pixels, inside scikit-learn (E. Alpaydin & C. Kaynak, 1998, UCI)."""

from __future__ import annotations

import numpy as np

from neuralcollapse.data.dataset import Split

_TEST_EXAMPLES = 300
_SPLIT_SEED = 0


def read_digits() -> tuple[Split, Split]:
    """1,497 training and 300 test images, always the same, stratified by class; grey values 0 … 16 become 0 … 255."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    content = load_digits()
    images = np.rint(content.images * (255 / 16)).astype(np.uint8)[:, None]
    indices = np.arange(len(images))
    train, test = train_test_split(indices, test_size=_TEST_EXAMPLES, stratify=content.target, random_state=_SPLIT_SEED)
    train, test = np.sort(train), np.sort(test)
    return Split.of_arrays(images[train], content.target[train]), Split.of_arrays(images[test], content.target[test])
