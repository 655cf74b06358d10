"""Which classes are measured: those with so many examples."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Integer
from torch import Tensor

from neuralcollapse._checks import InputError, as_count


@dataclass(frozen=True)
class CountRange:
    """The least and the greatest number of examples of a class that is measured, both included.

    The examples of all other classes are left out, as if they were not among the data: a class of one example has no
    variability, and one that makes up half of a text outweighs all others. Wu & Papyan (2024), "Linguistic Collapse",
    choose classes in this way (``--min_per_class``, ``--max_per_class`` of their code).

    Args:
        least: or None for no bound; greatest: or None for no bound.

    Example:
        >>> import torch
        >>> CountRange(2, 10).keeps(torch.tensor([1, 2, 10, 11])).tolist()
        [False, True, True, False]
    """

    least: int | None = None
    greatest: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("min_count", self.least), ("max_count", self.greatest)):
            if value is not None:
                as_count(value, name)
        if self.least is not None and self.greatest is not None and self.least > self.greatest:
            raise InputError(f"expected min_count of at most max_count, got {self.least} and {self.greatest}")

    def __bool__(self) -> bool:
        return self.least is not None or self.greatest is not None

    def keeps(self, counts: Integer[Tensor, " c"]) -> Bool[Tensor, " c"]:
        """(C,) whether each class is measured, of the numbers of examples.

        Raises:
            InputError: no class is.
        """
        kept = counts > 0
        if self.least is not None:
            kept &= counts >= self.least
        if self.greatest is not None:
            kept &= counts <= self.greatest
        if not bool(kept.any()):
            there = counts[counts > 0]
            found = f"{int(there.min())} to {int(there.max())}" if len(there) else "none"
            raise InputError(f"expected a class with {self}, classes here have {found}")
        return kept

    @property
    def classes(self) -> str:
        """Which classes these are, in words."""
        return f"classes with {self}" if self else "all classes"

    @property
    def note(self) -> str:
        """The sentence for a report on what is kept."""
        return f"only classes with {self} are measured, the examples of all others are left out"

    def __str__(self) -> str:
        if self.least is None:
            return f"at most {self.greatest:,} examples"
        return f"at least {self.least:,}{'' if self.greatest is None else f' and at most {self.greatest:,}'} examples"


ALL_CLASSES = CountRange()
