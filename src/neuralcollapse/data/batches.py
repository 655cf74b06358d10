"""Batches straight from a uint8 data set on the device, normalised on the fly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuralcollapse._errors import InputError
from neuralcollapse.data.dataset import ImageData


class Batches:
    """Goes through a data set in batches of normalised images; the last batch may be smaller.

    Args:
        data: images and labels; copied to the device once, as uint8.
        mean, std: of each channel, pixels in 0 … 1.
        batch_size: examples a batch.
        device: where batches are wanted.
        shuffle_seed: decides, with the epoch, the order; None for the stored order.
        pad_to: height and width to reach by a border of black pixels; None to leave images as they are.
        channels_last: give images in that memory format.
        dtype: of the images given.
    """

    def __init__(
        self,
        data: ImageData,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        shuffle_seed: int | None = None,
        pad_to: tuple[int, int] | None = None,
        channels_last: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"expected a batch size of at least 1, got {batch_size}")
        images = data.images
        if pad_to is not None:
            height, width = pad_to[0] - images.shape[-2], pad_to[1] - images.shape[-1]
            if min(height, width) < 0:
                sizes = f"{images.shape[-2]} × {images.shape[-1]} pixels to {pad_to[0]} × {pad_to[1]}"
                raise InputError(f"cannot pad images of {sizes}")
            if height or width:  # else it would copy them all the same
                images = F.pad(images, (width // 2, width - width // 2, height // 2, height - height // 2))
        self._images, self._labels = images.to(device), data.labels.to(device)
        self._mean = torch.tensor(mean, dtype=dtype, device=device)[:, None, None] * 255
        self._std = torch.tensor(std, dtype=dtype, device=device)[:, None, None] * 255
        self._batch_size, self._shuffle_seed, self._channels_last = batch_size, shuffle_seed, channels_last

    def __len__(self) -> int:
        return -(-len(self._labels) // self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch(0)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch; its order depends on the seed and the number alone, whatever came before."""
        order = None
        if self._shuffle_seed is not None:
            mixed = np.random.SeedSequence([self._shuffle_seed, number]).generate_state(1, np.uint64)[0]
            generator = torch.Generator().manual_seed(int(mixed) >> 1)
            order = torch.randperm(len(self._labels), generator=generator).to(self._labels.device)
        for start in range(0, len(self._labels), self._batch_size):
            stop = start + self._batch_size
            chosen = slice(start, stop) if order is None else order[start:stop]
            images = (self._images[chosen].to(self._mean.dtype) - self._mean) / self._std
            if self._channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            yield images, self._labels[chosen]
