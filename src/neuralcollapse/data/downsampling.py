"""Smaller images, by averaging blocks of pixels: a cheaper network at the same depth and width."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from neuralcollapse._errors import InputError


def block_means(images: Tensor, side: int) -> Tensor:
    """Images whose pixels are the means of blocks of side × side pixels, halves rounded up; exact in integers.

    Args:
        images: (n, channels, height, width) uint8.
        side: of a block, in pixels; it divides height and width.

    Returns:
        (n, channels, height / side, width / side) uint8.

    Raises:
        InputError: blocks of that side do not cover the images.

    >>> block_means(torch.tensor([[[[0, 1, 255, 255], [0, 1, 254, 255]]]], dtype=torch.uint8), 2)
    tensor([[[[  1, 255]]]], dtype=torch.uint8)
    """
    height, width = images.shape[-2:]
    if side < 1 or height % side or width % side:
        raise InputError(
            f"--downsample {side} averages blocks of {side} × {side} pixels, but the images have {height} × {width}; "
            "take a number that divides both"
        )
    if side == 1:
        return images
    # one pixel of every block after the other: a sum over blocks would first copy all images as 64-bit integers
    totals, size = torch.zeros_like(images[..., ::side, ::side], dtype=torch.int32), side * side
    for row, column in itertools.product(range(side), repeat=2):
        totals += images[..., row::side, column::side]
    return torch.div(2 * totals + size, 2 * size, rounding_mode="floor").to(torch.uint8)
