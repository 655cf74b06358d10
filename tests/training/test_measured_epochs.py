"""Which epochs are measured: the paper's list, its continuation, and both sides of each division of the rate."""

from __future__ import annotations

import itertools

from neuralcollapse.training import recipes


def test_long_runs_are_measured_to_their_end_and_around_each_division() -> None:
    epochs = recipes.measured_epochs(1000, (600, 850))
    assert {600, 601, 850, 851, 1000} < set(epochs) and list(epochs) == sorted(set(epochs))
    later = [epoch for epoch in epochs if epoch >= 350 and epoch not in (600, 601, 850, 851, 1000)]
    ratios = [after / before for before, after in itertools.pairwise(later)]
    assert later[:3] == [350, 382, 417] and max(ratios) < 1.1 and min(ratios) > 1.08


def test_the_papers_run_is_measured_at_the_papers_epochs_and_around_its_divisions() -> None:
    assert set(recipes.measured_epochs(350)) | {116, 117, 233, 234} == set(recipes.measured_epochs(350, (116, 233)))


def test_divisions_outside_the_run_add_nothing() -> None:
    assert recipes.measured_epochs(10, (0, 9, 10)) == tuple(range(1, 11))
