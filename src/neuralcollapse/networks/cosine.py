"""The two modules of a classifier by cosines: unit features, and weight rows of one fixed length."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Normalise(nn.Module):
    """Maps h to h/‖h‖, over the last dimension; a feature of zero stays zero."""

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1)


class ScaledUnitRows(nn.Module):
    """Maps a weight to one whose rows have the same directions and the length 1/τ.

    Args:
        temperature: τ.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, weight: Tensor) -> Tensor:
        return F.normalize(weight, dim=1) / self.temperature
