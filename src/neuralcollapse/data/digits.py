"""Handwritten digits, 1,797 images of 8 × 8 pixels, inside scikit-learn (E. Alpaydin & C. Kaynak, 1998, UCI)."""

from __future__ import annotations

import numpy as np

from neuralcollapse.data.dataset import Split


def read_digits() -> tuple[Split, Split]:
    """1,497 training and 300 test images, always the same, stratified by class; grey values 0 … 16 become 0 … 255."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    content = load_digits()
    images = np.rint(content.images * (255 / 16)).astype(np.uint8)[:, None]
    halves = train_test_split(np.arange(len(images)), test_size=300, stratify=content.target, random_state=0)
    train, test = (np.sort(half) for half in halves)
    return Split.of_arrays(images[train], content.target[train]), Split.of_arrays(images[test], content.target[test])
