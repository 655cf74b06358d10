"""NC4's two decisions: the network's class, and that of the nearest class mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from neuralcollapse._checks import InputError, as_classifier, check_features, check_labels, first_bad_row
from neuralcollapse._linalg import full_precision, power_of_two, scaled
from neuralcollapse.moments.blocks import rows_per_block
from neuralcollapse.moments.class_moments import ClassMoments

# Scores are made for this many pairs of example and class at a time: 64 MiB in float32.
_SCORES = 1 << 24

# A weight is extreme when its size is not between 2^-60 and 2^60.
_MODERATE = 60

# The largest norm of a row, and the largest constant: |score| ≤ ‖h‖ · first + second.
Reach = tuple[float, float]


@dataclass(frozen=True)
class Decisions:
    """Per example: does the network agree with the nearest class mean, is it right, and is the nearest mean's?"""

    agree: Bool[Tensor, " n"]
    correct: Bool[Tensor, " n"]
    nearest_correct: Bool[Tensor, " n"]


class DecisionRule:
    """argmax_c ⟨w_c, h⟩ + b_c, and argmin_c ‖h − μ_c‖ = argmax_c ⟨h, μ̄_c⟩ − ⟨μ_G, μ̄_c⟩ − ½‖μ̄_c‖², for any features.

    Args:
        moments: whose class means are used, of the classes present.
        weight: (C, p); bias: (C,) or None.
    """

    def __init__(
        self, moments: ClassMoments, weight: Float[Tensor, "c p"], bias: Float[Tensor, " c"] | None = None
    ) -> None:
        weight, bias = as_classifier(weight, bias, moments.num_classes, moments.means.shape[1])
        self._classes, self._dim = moments.num_classes, moments.means.shape[1]
        # Features are divided by a power of two as in the moments, an extreme weight by one of its own; the scores are
        # then as much smaller, and so the bias has to be: the largest of them stays the largest.
        self._exponent, moments = moments.exponent, moments.at_unit_scale()
        size = power_of_two(weight) or 0
        size = size if abs(size) > _MODERATE else 0
        self._present = moments.present.nonzero()[:, 0]
        self._means, self._centre = moments.means, moments.global_mean
        self._weight = scaled(weight.to(self._means.device), -size)
        zero = self._means.new_zeros(self._classes)
        shift = max(-900, min(900, -self._exponent - size))
        self._bias = zero if bias is None else scaled(bias.to(self._means), shift)
        self._offset = zero.clone()
        for block, rows in moments.centred_blocks():
            self._offset[block] = -(rows @ self._centre) - 0.5 * rows.square().sum(dim=1)
        self._offset = self._offset[self._present]
        self._scaled: dict[torch.dtype, tuple[Tensor, Tensor, list[Reach]]] = {}

    def check(self, features: Float[Tensor, "n p"], labels: Integer[Tensor, " n"]) -> None:
        """Raise unless shapes, types and labels fit."""
        check_features(features, self._dim)
        check_labels(labels, len(features), self._classes)

    def __call__(self, features: Float[Tensor, "n p"], labels: Integer[Tensor, " n"]) -> Decisions:
        """Both decisions for every example, from one product with [W; M̄] per block of rows."""
        self.check(features, labels)
        work = torch.float64 if features.dtype == torch.float64 else torch.float32
        found: list[list[Tensor]] = [[], [], []]
        rows = max(1, min(_SCORES // (self._classes + len(self._present)), rows_per_block(features)))
        for start in range(0, max(1, len(features)), rows):
            part = scaled(features[start : start + rows].detach().to(self._means.device, work), -self._exponent)
            scores, reaches = self._scores(part)
            if not math.isfinite(float(scores.sum())):
                if not bool(torch.isfinite(part).all()):
                    row = start + first_bad_row(part)
                    raise InputError(f"expected finite features, got NaN or infinity in row {row}")
                part = part.double()
                scores, reaches = self._scores(part)
            norms = torch.linalg.vector_norm(part, dim=1)
            predicted = self._argmax(scores[:, : self._classes], part, norms, reaches[0], of_means=False)
            nearest = self._present[self._argmax(scores[:, self._classes :], part, norms, reaches[1], of_means=True)]
            truth = labels[start : start + rows].to(self._means.device)
            for kept, values in zip(found, (predicted == nearest, predicted == truth, nearest == truth), strict=True):
                kept.append(values)
        return Decisions(*(torch.cat(kept) for kept in found))

    def _scores(self, features: Tensor) -> tuple[Tensor, list[Reach]]:
        """Scores of the network and of the nearest class mean, and how far those of each half reach."""
        both, constants, reaches = self._prepared(features.dtype)
        with full_precision(features.device):
            return torch.addmm(constants, features, both.T), reaches

    def _prepared(self, work: torch.dtype) -> tuple[Tensor, Tensor, list[Reach]]:
        """[W; M̄] and its constants in the type of the work, and how far the scores of each half reach."""
        if work not in self._scaled:
            both = torch.empty(self._classes + len(self._present), self._dim, dtype=work, device=self._means.device)
            both[: self._classes] = self._weight
            for start in range(0, len(self._present), 4096):
                which = self._present[start : start + 4096]
                both[self._classes + start : self._classes + start + len(which)] = self._means[which] - self._centre
            halves = both[: self._classes], both[self._classes :]
            reaches = [
                (float(torch.linalg.vector_norm(half, dim=1).max()), float(constants.abs().max()))
                for half, constants in zip(halves, (self._bias, self._offset), strict=True)
            ]
            self._scaled[work] = both, torch.cat([self._bias, self._offset]).to(work), reaches
        return self._scaled[work]

    def _argmax(self, scores: Tensor, features: Tensor, norms: Tensor, reach: Reach, *, of_means: bool) -> Tensor:
        """argmax_c of the scores; those that float32's rounding could decide are redone in float64."""
        if scores.dtype == torch.float64 or scores.shape[1] == 1:
            return scores.argmax(dim=1)
        eps = 4.0 * torch.finfo(scores.dtype).eps
        tolerance = norms * (eps * reach[0]) + eps * reach[1]
        values, which = scores.topk(2, dim=1)
        (best, runner_up), winner = values.T, which[:, 0]
        close = (best - runner_up <= tolerance).nonzero()[:, 0]
        if len(close):
            constants = self._offset if of_means else self._bias
            within = scores[close] >= (best[close] - 2.0 * tolerance[close])[:, None]
            exact = torch.full(within.shape, -torch.inf, dtype=torch.float64, device=scores.device)
            for example, label in (part.T for part in within.nonzero().split(max(1, (1 << 22) // self._dim))):
                rows = self._means[self._present[label]] - self._centre if of_means else self._weight[label].double()
                exact[example, label] = (features[close[example]].double() * rows).sum(dim=1) + constants[label]
            winner[close] = exact.argmax(dim=1)
        return winner
