"""The classes that have examples, whose means and classifier rows the metrics compare."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, as_classifier
from neuralcollapse._linalg import of_moderate_size
from neuralcollapse.metrics.geometry import have_directions
from neuralcollapse.metrics.rank import coincidence
from neuralcollapse.metrics.undefined import warn_undefined
from neuralcollapse.moments.blocks import classes_per_block
from neuralcollapse.moments.class_moments import ClassMoments


def has_two_classes(moments: ClassMoments, name: str) -> bool:
    """Whether examples are of at least two classes; warns that the number of this name is undefined where not."""
    if int(moments.present.sum()) >= 2:
        return True
    warn_undefined(name, "all examples are of one class")
    return False


def distinct_means(moments: ClassMoments) -> Float[Tensor, "k p"]:
    """Centred means of the classes present, at unit scale; those within rounding of the global mean are zero."""
    moments = moments.at_unit_scale()
    means = moments.centred_means
    if not bool(moments.present.all()):
        means = means[moments.present]
    floor, step = 0.5 * coincidence(moments), classes_per_block(means.shape[1])
    return means.mul_(torch.cat([(rows.abs() > floor).any(dim=1, keepdim=True) for rows in torch.split(means, step)]))


def coinciding_means(moments: ClassMoments) -> list[tuple[int, int]]:
    """Pairs of classes whose means are the same up to rounding, found among neighbours along one direction."""
    classes, means, floor = moments.present.nonzero()[:, 0], moments.means, coincidence(moments)
    generator = torch.Generator().manual_seed(0)
    # each feature in units of its own rounding; one without size is zero in every mean
    direction = torch.randn(means.shape[1], generator=generator, dtype=torch.float64).to(means)
    direction = torch.where(floor > 0.0, direction / floor, 0.0)
    along = torch.cat([means[block] @ direction for block in moments.class_blocks()])[classes]
    order = along.argsort()
    near = (along[order].diff() <= floor @ direction.abs()).nonzero()[:, 0]
    pairs = zip(classes[order[near]].tolist(), classes[order[near + 1]].tolist(), strict=True)
    return [(min(pair), max(pair)) for pair in pairs if bool(((means[pair[0]] - means[pair[1]]).abs() <= floor).all())]


def rows_of_present(moments: ClassMoments, weight: Float[Tensor, "c p"]) -> Float[Tensor, "k p"]:
    """The classifier's rows of the classes present, in float32 or float64, where the moments are."""
    rows = of_moderate_size(weight).to(moments.means.device)
    return rows if bool(moments.present.all()) else rows[moments.present]


def has_two_examples_each(moments: ClassMoments, name: str) -> bool:
    """Whether each class present has two examples; warns that the number of this name is undefined where not."""
    single = (moments.counts == 1).nonzero()[:, 0].tolist()
    if not single:
        return True
    warn_undefined(name, f"class {single[0]} has one example")
    return False


def rows_and_means(
    moments: ClassMoments, weight: Tensor | Array, name: str, *, directions: bool = False
) -> tuple[Float[Tensor, "k p"], Float[Tensor, "k p"]] | None:
    """Classifier rows, and centred means of the classes present, both of moderate size.

    None, with a warning that the number of this name is undefined, where examples are of one class; and where each row
    must have a direction and one is zero.
    """
    given, _ = as_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    if not has_two_classes(moments, name):
        return None
    rows, means = rows_of_present(moments, given), distinct_means(moments)
    if directions and not (have_directions(rows, name) and have_directions(means, name)):
        return None
    return rows, means
