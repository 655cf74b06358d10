"""What needs the final class means, example by example: NC4's two decisions, and how far from its class mean it lies.

The decisions are the network's class and that of the nearest class mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from neuralcollapse._checks import as_classifier, check_features, check_labels, not_finite
from neuralcollapse._linalg import full_precision, power_of_two, scaled
from neuralcollapse.moments.blocks import classes_per_block, padded_rows, rows_per_block
from neuralcollapse.moments.class_moments import ClassMoments

# Scores are made for this many pairs of example and class at a time: 128 MiB in float32.
_SCORES = 1 << 25
# Products of many classes with so many examples, or a multiple of them, are 1.5 times as fast as with others.
_ROWS = 64

# Up to this many classes, a table of what the mean of each class gives is small beside the products it saves.
_FEW_CLASSES = 256

# A weight is extreme when its size is not between 2^-60 and 2^60.
_MODERATE = 60


@dataclass(frozen=True)
class _Scores:
    """Scores of the network and of the nearest class mean, a column an example.

    Attributes:
        both: (C + classes present, n).
        norms: (n,) of what was multiplied; reaches: the largest norm of a row that it met in each half.
        squares: (n,) ‖A (h − μ_c)‖².
    """

    both: Tensor
    norms: Tensor
    reaches: tuple[float, float]
    squares: Tensor


@dataclass(frozen=True)
class Decisions:
    """Per example: whether network and nearest class mean agree, whether each is right, and ‖A (h − μ_c)‖²."""

    agree: Bool[Tensor, " n"]
    correct: Bool[Tensor, " n"]
    nearest_correct: Bool[Tensor, " n"]
    squares: Float[Tensor, " n"]


class DecisionRule:
    """argmax_c ⟨w_c, h⟩ + b_c, and argmin_c ‖h − μ_c‖ = argmax_c ⟨h, μ̄_c⟩ − ⟨μ_G, μ̄_c⟩ − ½‖μ̄_c‖², for any features.

    Args:
        moments: whose class means are used, of the classes present.
        weight: (C, p); bias: (C,) or None.
        whitener: A, (r, p), for features as they are in ``moments`` at unit scale. Without it the squares are zero.
    """

    def __init__(
        self,
        moments: ClassMoments,
        weight: Float[Tensor, "c p"],
        bias: Float[Tensor, " c"] | None = None,
        whitener: Float[Tensor, "r p"] | None = None,
    ) -> None:
        weight, bias = as_classifier(weight, bias, moments.num_classes, moments.means.shape[1])
        self._classes, self._dim = moments.num_classes, moments.means.shape[1]
        # Features are divided by a power of two as in the moments, an extreme weight by one of its own; the scores are
        # then as much smaller, and so the bias has to be: the largest of them stays the largest.
        self._exponent, moments = moments.exponent, moments.at_unit_scale()
        size = power_of_two(weight) or 0
        size = size if abs(size) > _MODERATE else 0
        self._present = moments.present.nonzero()[:, 0]
        self._means, self._centre = moments.means, moments.global_mean.double()
        self._weight = scaled(weight.to(self._means.device), -size)
        zero = self._centre.new_zeros(self._classes)
        shift = max(-900, min(900, -self._exponent - size))
        self._bias = zero if bias is None else scaled(bias.to(zero), shift)
        self._offset = zero.clone()
        for block in moments.class_blocks():
            rows = self._means[block].double() - self._centre
            self._offset[block] = -(rows @ self._centre) - 0.5 * rows.square().sum(dim=1)
        self._offset = self._offset[self._present]
        self._whitener = self._means[:0] if whitener is None else whitener.to(self._means)
        self._scaled: dict[torch.dtype, tuple[Tensor, Tensor, tuple[float, float]]] = {}
        self._near: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        self._whiteners: dict[torch.dtype, Tensor] = {}
        self._about_means: tuple[Tensor, Tensor, Tensor, tuple[float, float]] | None = None

    def check(self, features: Float[Tensor, "n p"], labels: Integer[Tensor, " n"]) -> None:
        """Raise unless shapes, types and labels fit."""
        check_features(features, self._dim)
        check_labels(labels, len(features), self._classes)

    def __call__(self, features: Float[Tensor, "n p"], labels: Integer[Tensor, " n"]) -> Decisions:
        """Both decisions for every example, from products with [W; M̄] per block of rows, and the squares."""
        self.check(features, labels)
        work = torch.float64 if features.dtype == torch.float64 else torch.float32
        few = work == torch.float32 and self._classes <= _FEW_CLASSES
        found: list[tuple[Tensor, ...]] = []
        rows = max(1, min(_SCORES // (self._classes + len(self._present)), rows_per_block(features)))
        rows -= rows % _ROWS if rows > _ROWS else 0
        for start in range(0, max(1, len(features)), rows):
            part = scaled(features[start : start + rows].detach().to(self._means.device, work), -self._exponent)
            truth = labels[start : start + rows].to(self._means.device, torch.int64)
            with full_precision(part.device):
                scores = self._of_residuals(part, truth) if few else self._of_features(part, truth)
                if not math.isfinite(float(scores.both.sum() + scores.squares.sum())):
                    if not bool(torch.isfinite(part).all()):
                        raise not_finite(part, start)
                    part = part.double()  # extreme features leave the range of float32
                    scores = self._of_features(part, truth)
            predicted = self._argmax(scores, part, of_means=False)
            nearest = self._present[self._argmax(scores, part, of_means=True)]
            found.append((predicted == nearest, predicted == truth, nearest == truth, scores.squares))
        return Decisions(*(torch.cat(blocks) for blocks in zip(*found, strict=True)))

    def _of_features(self, features: Tensor, labels: Tensor) -> _Scores:
        """From products of the features themselves with [W; M̄]."""
        both, constants, reaches = self._prepared(features.dtype)
        norms = torch.linalg.vector_norm(features, dim=1)
        scores = (both @ features.T).add_(constants[:, None])
        return _Scores(scores, norms, reaches, self._squares(features, labels))

    def _prepared(self, work: torch.dtype) -> tuple[Tensor, Tensor, tuple[float, float]]:
        """[W; M̄] and its constants in the type of the work, and the largest norm of a row of each half."""
        if work not in self._scaled:
            both = self._means.new_empty(self._classes + len(self._present), self._dim, dtype=work)
            both[: self._classes] = self._weight
            for start in range(0, len(self._present), 4096):
                which = self._present[start : start + 4096]
                both[self._classes + start : self._classes + start + len(which)] = self._means[which] - self._centre
            constants = torch.cat([self._bias, self._offset]).to(work)
            self._scaled[work] = both, constants, self._reaches_of(both)
        return self._scaled[work]

    def _reaches_of(self, both: Tensor) -> tuple[float, float]:
        """The largest norm of a row of W and of M̄; in float64, where squares of an extreme weight still fit."""
        norms = torch.cat([torch.linalg.vector_norm(rows.double(), dim=1) for rows in torch.split(both, 4096)])
        return float(norms[: self._classes].max()), float(norms[self._classes :].max())

    def _of_residuals(self, features: Tensor, labels: Tensor) -> _Scores:
        """From one product of the features less their class means with [W; M̄; A], and a table over the classes.

        One pass over the features gives all three, and residuals, being smaller, are rounded less. What float32 lost of
        the means is in the table.
        """
        if self._about_means is None:
            near, lost = self._near_means(torch.float32, self._means)
            both = torch.cat([self._weight.double(), self._means[self._present].double() - self._centre])
            outputs = near.double() @ both.T + torch.cat([self._bias, self._offset])
            table = torch.cat([outputs, -lost], dim=1).T.float().contiguous()
            rows = torch.cat([both.float(), self._whitener.float()])
            self._about_means = near, rows, table, self._reaches_of(both)
        near, rows, table, reaches = self._about_means
        residual = _less(features, near, labels)
        products = (rows @ residual.T).add_(table.index_select(1, labels))
        end = len(rows) - len(self._whitener)
        squares = products[end:].double().square().sum(dim=0)
        return _Scores(products[:end], torch.linalg.vector_norm(residual, dim=1), reaches, squares)

    def _squares(self, features: Tensor, labels: Tensor) -> Tensor:
        """(n,) ‖A (h − μ_c)‖²; the class mean is subtracted first, because in collapse products would cancel.

        Features less a mean of their own type are exact where they are near it (Sterbenz). What the mean lost by that
        type is taken off the few products: a third of the time that features less the mean in float64 take.
        """
        if not len(self._whitener):
            return self._centre.new_zeros(len(features))
        work = features.dtype
        if len(self._means) > classes_per_block(self._means.shape[1]):  # too many to keep
            classes, which = torch.unique(labels, return_inverse=True)
            near, lost = self._near_means(work, self._means[classes])
        else:
            if work not in self._near:
                self._near[work] = self._near_means(work, self._means)
            (near, lost), which = self._near[work], labels
        spread = _less(features, near, which)
        return ((spread @ self._whitener_in(work).T).double() - lost[which]).square().sum(dim=1)

    def _near_means(self, work: torch.dtype, means: Tensor) -> tuple[Tensor, Tensor]:
        """(k, p) means in another type, and (k, r) A times what they lost by that."""
        near = means.to(work)
        lost = (means.double() - near.double()).to(work) @ self._whitener_in(work).T
        return near, lost.double()

    def _whitener_in(self, work: torch.dtype) -> Tensor:
        if work not in self._whiteners:
            self._whiteners[work] = self._whitener.to(work)
        return self._whiteners[work]

    def _argmax(self, found: _Scores, features: Tensor, *, of_means: bool) -> Tensor:
        """argmax_c of the scores; those that float32's rounding could decide are redone in float64."""
        scores = found.both[self._classes :] if of_means else found.both[: self._classes]
        best, winner = scores.max(dim=0)
        nothing = not found.reaches[int(of_means)] and not bool(best.any())  # as it is without a classifier
        if nothing or scores.dtype == torch.float64 or len(scores) == 1:
            return winner
        runner_up = scores.scatter_(0, winner[None], -torch.inf).amax(dim=0)
        scores.scatter_(0, winner[None], best[None])
        # Two products of p terms, in whatever order they are summed, differ by (p + 2) eps ‖h‖ ‖w‖ at most from what
        # they should; constants of scores that could win are no larger than the best score and the product together.
        eps, product = torch.finfo(scores.dtype).eps, found.norms * found.reaches[int(of_means)]
        tolerance = eps * ((self._dim + 2) * product + 4.0 * (best.abs() + product))
        close = (best - runner_up <= tolerance).nonzero()[:, 0]
        if len(close):
            constants = self._offset if of_means else self._bias
            within = scores[:, close] >= best[close] - 2.0 * tolerance[close]
            exact = torch.full(within.shape, -torch.inf, dtype=torch.float64, device=scores.device)
            for label, example in (part.T for part in torch.split(within.nonzero(), max(1, (1 << 22) // self._dim))):
                rows = self._means[self._present[label]] - self._centre if of_means else self._weight[label].double()
                exact[label, example] = (features[close[example]].double() * rows).sum(dim=1) + constants[label]
            winner[close] = exact.argmax(dim=0)
        return winner


def _less(features: Tensor, means: Tensor, index: Tensor) -> Tensor:
    """Each row less the mean of its index."""
    return torch.sub(features, means.index_select(0, index), out=padded_rows(features, len(features)))
