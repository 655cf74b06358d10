"""ClassMoments: counts, class means and centred scatter of labelled features, streamed and merged exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from neuralcollapse._checks import (
    Array,
    InputError,
    as_count,
    as_device,
    as_number,
    as_path,
    as_tensor,
    as_word,
    check_features,
    check_labels,
    shown,
)
from neuralcollapse._linalg import scaled
from neuralcollapse.moments.accumulator import Accumulator, outlives_inference_mode
from neuralcollapse.moments.blocks import classes_per_block, slices, squared_norms
from neuralcollapse.moments.statistics import Statistics, mirror_upper
from neuralcollapse.moments.storage import read_state, write_state

Weighting = Literal["example", "class", "mixed", "mixed-example-mean"]
WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)
Scatter = Literal["full", "trace"]
# The entries of a state, see ClassMoments.state_dict.
STATE_NAMES = ("counts", "means", "variances", "scatter", "eps", "given_eps", "product_eps", "exponent")


def require_moments(value: object, name: str = "moments") -> None:
    """Raise unless ``value`` is a :class:`ClassMoments`."""
    if not isinstance(value, ClassMoments):
        way = "; features need their labels beside them" if isinstance(value, (Tensor, np.ndarray)) else ""
        raise InputError(f"expected {name} to be a ClassMoments, got {shown(value)}{way}")


class ClassMoments:
    """The first and second class moments of features, which every metric of Neural Collapse is computed from.

    Scatter is centred from the start and merged by the pairwise formula of Chan, Golub & LeVeque (1983), never
    derived from raw sums: during collapse the spread within a class is far below the rounding of ``E‖h‖²``.

    Features are multiplied *after* subtracting a class mean, so that products carry the relative precision of the
    spread itself; sums are kept in ``dtype``. Features of 16 or 32 bits are multiplied in float64 until every direction
    is seen to vary by a thousand times the rounding of float32 products, and in float32 from then on; float64 features
    are always multiplied in float64. Features whose squares would overflow or vanish are divided by a power of two
    inside, so that every number that does not depend on their scale comes out as at any other scale.

    Args:
        num_classes: C, the number of classes that labels may name.
        dim: p, the feature dimension; taken from the first batch when None.
        weighting: ``"example"``, the default because it is the training loss's own: each example counts 1/n, so
            class c has π_c = n_c/n. ``"class"``: each present class counts alike, each of its examples 1/(C n_c);
            its state holds one p × p scatter per class. ``"mixed"``: what most published code measures, Σ_W as by
            example and Σ_B = (1/C) Σ_c about the mean of the class means; ``"mixed-example-mean"``: the same about the
            mean of the examples. Neither makes the loss's decomposition exact, which then is by example.
        scatter: ``"full"``, the default because NC1 and the loss need it: the p × p within-class scatter.
            ``"trace"``: one number a class, its trace, for metrics that need no more.
        dtype: type of the state; float64 by default, so that long streams lose nothing.
        device: where the state lives; the first batch's device when None.

    Example:
        >>> moments = ClassMoments(num_classes=2)
        >>> moments.update(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]))
        >>> moments.means.tolist()
        [[2.0], [5.0]]
    """

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        *,
        weighting: Weighting = "example",
        scatter: Scatter = "full",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> None:
        self.num_classes = as_count(num_classes, "num_classes")
        self.dim = None if dim is None else as_count(dim, "dim")
        as_word(weighting, "weighting", WEIGHTINGS)
        as_word(scatter, "scatter", ("full", "trace"))
        if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
            raise InputError(f"expected a state of torch.float32 or torch.float64, got {shown(dtype)}")
        self.weighting: Weighting = weighting
        self.scatter: Scatter = scatter
        self.dtype = dtype
        self.device = None if device is None else as_device(device)
        # The coarsest precision that features came in, those of 16 bits counting as float32, which they are summed in:
        # it says which class means coincide, and averages over examples are finer than a number of 16 bits.
        self.eps = torch.finfo(dtype).eps
        self.given_eps = self.eps  # the coarsest precision of the features as they were given, of 16 bits too
        self.about_reference = False  # whether the class means are those of another set, see `around`
        if self.dim is not None:
            self._allocate(self.dim, self.device or torch.device("cpu"))

    @outlives_inference_mode
    def _allocate(self, dim: int, device: torch.device) -> None:
        full, by_class = self.scatter == "full", self.weighting == "class"
        try:
            state = Statistics(self.num_classes, dim, full, by_class, self.dtype, device)
        except RuntimeError as error:  # what PyTorch says where there is no such memory
            raise InputError(
                f"not enough memory for moments of {self.num_classes:,} classes and {dim:,} features: check that "
                "labels are 0 … C−1, or give scatter='trace'"
            ) from error
        self.dim, self.device = dim, device
        self._accumulator = Accumulator(state)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: with all rows that wait added, and no empty buffer."""
        state = {**self.__dict__}
        if self.dim is not None:
            state["_accumulator"] = Accumulator(self._state)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of an older pickle, too, which does not say what features were given as, nor of a reference."""
        self.__dict__.update({"given_eps": state["eps"], "about_reference": False, **state})

    @property
    def _state(self) -> Statistics:
        return self._accumulator.statistics

    @outlives_inference_mode
    def update(self, features: Float[Tensor, "n p"] | Array, labels: Integer[Tensor, " n"] | Array) -> None:
        """Add a batch of examples.

        Args:
            features: (n, p), any floating type, tensors or arrays; moved to the state's device.
            labels: (n,), integers in 0 … C−1.

        Raises:
            InputError: wrong shapes or types, a label out of range, NaN or infinity. The state is then unchanged.
        """
        features, labels = as_tensor(features, "features"), as_tensor(labels, "labels")
        check_features(features, self.dim)
        check_labels(labels, features.shape[0], self.num_classes)
        if self.dim is None:
            self._allocate(features.shape[1], self.device or features.device)
        features, labels = features.to(self.device), labels.to(self.device, torch.int64)
        given_eps = torch.finfo(features.dtype).eps
        if features.dtype != torch.float64 or self.dtype == torch.float32:
            features = features.to(torch.float32)
        self._accumulator.add(features, labels)
        if len(features):
            self.eps = max(self.eps, torch.finfo(features.dtype).eps)
            self.given_eps = max(self.given_eps, self.eps, given_eps)

    @outlives_inference_mode
    def merge(self, other: ClassMoments) -> None:
        """Add another state, as if its examples had been seen here; exact and associative up to rounding.

        Raises:
            InputError: the two differ in classes, dimension, weighting or kind of scatter.
        """
        require_moments(other)
        for name in ("num_classes", "weighting", "scatter"):
            if getattr(self, name) != getattr(other, name):
                raise InputError(f"expected {name} = {getattr(self, name)}, got {getattr(other, name)}")
        if other.dim is None:
            return
        if self.dim is None:
            self._allocate(other.dim, self.device or other._state.means.device)
        if self.dim != other.dim:
            raise InputError(f"expected moments with dim = {self.dim}, got {other.dim}")
        self.eps, self.given_eps = max(self.eps, other.eps), max(self.given_eps, other.given_eps)
        self._state.merge(other._state)

    @outlives_inference_mode
    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Merge the states of all processes; every process then holds the same result, bit for bit.

        States are broadcast one rank after the other and folded in rank order, so memory stays at two states.
        Shards may be uneven; a process that saw nothing may not even know the feature dimension.

        Raises:
            InputError: no process group, or, on every process, states that do not fit one another.
        """
        if not dist.is_available() or not dist.is_initialized():
            raise InputError("expected an initialised torch.distributed process group, got none")
        summaries: list[dict[str, Any]] = [{}] * dist.get_world_size(group)
        mine = {name: getattr(self, name) for name in ("dim", "num_classes", "weighting", "scatter", "dtype")}
        scale = {"exponent": None if self.dim is None else self._state.exponent}
        precision = {"eps": self.eps, "given_eps": self.given_eps}
        precision["product_eps"] = self.eps if self.dim is None else self._state.product_eps
        dist.all_gather_object(summaries, {**mine, **scale, **precision}, group=group)
        # Every process sees every summary, so that all refuse together and none waits for another.
        for name in mine:
            found = {str(summary[name]) for summary in summaries if summary[name] is not None}
            if len(found) > 1:
                raise InputError(f"expected the same {name} on all processes, got {' and '.join(sorted(found))}")
        dim = next((summary["dim"] for summary in summaries if summary["dim"] is not None), None)
        if dim is None:
            return
        if self.dim is None:
            accelerated = dist.get_backend(group) == "nccl"
            own = torch.device("cuda", torch.cuda.current_device()) if accelerated else torch.device("cpu")
            self._allocate(dim, self.device or own)
        exponents = [summary["exponent"] for summary in summaries if summary["exponent"] is not None]
        if exponents:
            self._state.rescale(max(exponents))
        result = self._state.empty()
        for rank, summary in enumerate(summaries):
            source = self._state if dist.get_rank(group) == rank else self._state.empty()
            global_rank = rank if group is None else dist.get_global_rank(group, rank)
            for tensor in source.tensors().values():
                dist.broadcast(tensor, src=global_rank, group=group)
            source.set_scale_and_precision(max(exponents, default=0), summary["product_eps"])
            result.merge(source)
        self._accumulator = Accumulator(result)
        self.eps, self.given_eps = (max(summary[name] for summary in summaries) for name in ("eps", "given_eps"))

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state as tensors: counts, means, variances (n_c tr Σ_c), scatter (empty for "trace") and more.

        Means, variances and scatter are those of features divided by 2^``exponent``, which is 0 unless features are
        extremely large or small. ``eps`` is the coarsest precision of the features, ``given_eps`` that of the types
        they were given in, ``product_eps`` that of their products. The tensors are the state's own, not copies, and
        hold until the next update: ask again after it. Before the first example there is a state only if ``dim`` is
        known.
        """
        if self.dim is None:
            self._require()
        state = self._state
        about = {"eps": self.eps, "given_eps": self.given_eps, "product_eps": state.product_eps}
        about["exponent"] = state.exponent or 0
        return {**state.tensors(), **{name: torch.tensor(value, dtype=torch.float64) for name, value in about.items()}}

    @classmethod
    @outlives_inference_mode
    def from_state_dict(
        cls, state: dict[str, Tensor], *, weighting: Weighting = "example", trusted: bool = False
    ) -> ClassMoments:
        """Moments from what :meth:`state_dict` gave.

        Args:
            state: what ``state_dict`` gave.
            weighting: of the moments that gave it.
            trusted: take the tensors as they are, neither checked nor copied; updates then change them.

        Raises:
            InputError: entries that are missing, do not fit one another, or that no data could have given.
        """
        if not isinstance(state, Mapping):
            raise InputError(f"expected a dictionary of tensors, as state_dict() gives, got {shown(state)}")
        missing = sorted({"counts", "means", "variances", "scatter", "eps"} - state.keys())
        if missing:
            found = ", ".join(sorted(map(str, state))) or "none"
            raise InputError(f"expected moments with {', '.join(missing)}, got only {found}")
        if not trusted:
            state = {name: as_tensor(state[name], name) for name in STATE_NAMES if name in state}
        counts, means, scatter = state["counts"], state["means"], state["scatter"]
        if means.ndim != 2 or counts.dtype != torch.int64:
            raise InputError(f"expected means (C, p) and integer counts, got {tuple(means.shape)} and {counts.dtype}")
        kind: Scatter = "trace" if scatter.numel() == 0 else "full"
        options: Any = {"weighting": weighting, "scatter": kind, "dtype": means.dtype, "device": means.device}
        if trusted:
            made = cls(len(means), **options)
            made.dim = means.shape[1]
            made._accumulator = Accumulator(Statistics.of(state, kind == "full", weighting == "class"))
            made._set_scale_and_precision(state)
            return made
        made = cls(len(means), means.shape[1], **options)
        for name, own in made._state.tensors().items():
            if state[name].shape != own.shape or state[name].dtype != own.dtype:
                got = f"{tuple(state[name].shape)} of {state[name].dtype}"
                raise InputError(f"expected {name} of shape {tuple(own.shape)} and {own.dtype}, got {got}")
            if not bool(torch.isfinite(state[name]).all()):
                raise InputError(f"expected finite {name}, got NaN or infinity in them")
            own.copy_(state[name])
        made._set_scale_and_precision(state)
        made._require_possible()
        return made

    def _require_possible(self) -> None:
        """Raise if no data could have given this state."""
        state = self._state
        counts, traces, scatter = state.counts, state.traces, state.scatter
        if bool((counts < 0).any()):
            raise InputError(f"expected counts of at least 0, got {int(counts.min())}")
        if float(counts.double().sum()) >= 2.0**53:
            raise InputError(f"expected counts of fewer than 2^53 examples, got {float(counts.double().sum()):g}")
        if bool((traces < 0).any()) or bool((traces[counts == 0] != 0).any()) or bool(state.means[counts == 0].any()):
            raise InputError(
                "expected variances of at least 0, and zero mean and variance where a class has no examples"
            )
        if not scatter.numel():
            return
        diagonal = scatter.diagonal(dim1=-2, dim2=-1)
        slack = self._rounding_of_traces()
        if scatter.ndim == 2:
            traces, slack = traces.sum(), slack.sum()
        apart = (diagonal.sum(dim=-1) - traces).abs() > 1e-3 * traces + slack
        if bool((diagonal < -(1e-4 * traces + slack)[..., None]).any()) or bool(apart.any()):
            raise InputError("expected a scatter whose diagonal adds up to the variances: no data give another")

    def _rounding_of_traces(self) -> Tensor:
        """(C,) how far apart trace and scatter of a collapsed class may be: both are then rounding of either sign.

        Examples that agree leave n_c (ε ‖μ_c‖)², with ε of the features. Products are centred at a mean of examples. As
        measured, n_c equal numbers added one after the other are off by up to n_c ε/8 of their sum, so that this mean
        is off by up to δ = n_c ε ‖μ_c‖/8. Trace and scatter about it are n_c δ², sums of n_c terms and therefore right
        to n_c ε' of themselves, with ε' of the state. When n_c δ² is taken off again, n_c δ² · n_c ε' is left of each:
        the second term of the factor.
        """
        counts, means = self._state.counts.double(), self._state.means.double()
        drift = 1.0 + torch.finfo(self.dtype).eps * counts * (counts / 8.0).square()
        return counts * (means * self.eps).square().sum(dim=1) * drift

    def _set_scale_and_precision(self, state: dict[str, Tensor]) -> None:
        """Take the precisions and the exponent of a state; older states have one eps for all."""
        eps = as_number(state["eps"], "eps", least=-math.inf)
        given_eps = as_number(state.get("given_eps", eps), "given_eps", least=-math.inf)
        product_eps = as_number(state.get("product_eps", eps), "product_eps", least=-math.inf)
        exponent = as_number(state.get("exponent", 0.0), "exponent", least=-math.inf)
        for name, value in (("eps", eps), ("given_eps", given_eps), ("product_eps", product_eps)):
            if not 0.0 < value < 1.0:
                raise InputError(f"expected a relative precision {name} between 0 and 1, got {value}")
        if not (abs(exponent) <= 2048 and exponent.is_integer()):
            raise InputError(f"expected a whole exponent between -2048 and 2048, got {exponent}")
        self.eps, self.given_eps = eps, max(eps, given_eps)
        self._state.set_scale_and_precision(int(exponent), product_eps)

    def save(self, path: str | Path) -> None:
        """Write the state to a safetensors file, whole or not at all."""
        write_state(as_path(path), self.state_dict(), {"weighting": self.weighting})

    @classmethod
    def load(cls, path: str | Path) -> ClassMoments:
        """Read what :meth:`save` wrote; nothing in the file is executed.

        Raises:
            InputError: no such file, or not one of moments.
        """
        state, about = read_state(as_path(path))
        try:
            return cls.from_state_dict(state, weighting=about.get("weighting", "example"))  # type: ignore[arg-type]
        except InputError as error:
            raise InputError(f"{path} does not hold moments: {error}") from None

    @outlives_inference_mode
    def around(self, reference: ClassMoments) -> ClassMoments:
        """These examples about another set's class means, such as test features about the training means.

        Σ_W becomes Ave (h − μ_c)(h − μ_c)ᵀ with μ_c of ``reference``; counts stay.

        Raises:
            InputError: the two differ in classes or dimension, or a class here is absent there.
        """
        require_moments(reference, "reference")
        mine, other = (self.num_classes, self.dim), (reference.num_classes, reference.dim)
        if mine != other:
            raise InputError(f"expected a reference with (C, p) = {mine}, got {other}")
        lacking = (self.present & ~reference.present.to(self.device)).nonzero()[:, 0].tolist()
        if lacking:
            raise InputError(f"expected a reference with examples of every class here, class {lacking[0]} has none")
        state = self._state.clone()
        state.move_means(reference._state, self.present)
        moved = self._wrapping(state)
        moved.eps = max(self.eps, reference.eps)  # the features themselves are as precise as they were given
        moved.about_reference = True
        return moved

    def _wrapping(self, statistics: Statistics) -> ClassMoments:
        """Moments of the same settings that hold other statistics."""
        made = ClassMoments(self.num_classes, weighting=self.weighting, scatter=self.scatter, dtype=self.dtype)
        made.dim, made.device = self.dim, self.device
        made.eps, made.given_eps = self.eps, self.given_eps
        made.about_reference = self.about_reference
        made._accumulator = Accumulator(statistics)
        return made

    @property
    def exponent(self) -> int:
        """e: features are divided by 2^e inside, so that their squares neither overflow nor vanish; usually 0."""
        return 0 if self.dim is None else self._state.exponent or 0

    @property
    def product_eps(self) -> float:
        """The coarsest relative precision of the products in the scatter, which decisions about rank need."""
        return self._state.product_eps

    def at_unit_scale(self) -> ClassMoments:
        """The moments of features · 2^-``exponent``, whose squares neither overflow nor vanish; shares their memory.

        Formulas that do not depend on the scale of the features use these.
        """
        self._require()
        if not self.exponent:
            return self
        return self._wrapping(self._state.without_exponent())

    def reweighted(self, weighting: Weighting) -> ClassMoments:
        """The same examples under another weighting; may share their memory, so update neither afterwards.

        Raises:
            InputError: ``"class"`` for moments with one scatter of all classes.
        """
        as_word(weighting, "weighting", WEIGHTINGS)
        self._require()
        if weighting == self.weighting:
            return self
        state = self.state_dict()
        if self.scatter == "full" and weighting == "class":
            raise InputError("expected moments with a scatter for each class: measure with weighting='class'")
        if self.has_class_scatter:
            state["scatter"] = state["scatter"].sum(dim=0)
        made = ClassMoments.from_state_dict(state, weighting=weighting, trusted=True)
        made.about_reference = self.about_reference
        return made

    def exactly_weighted(self) -> ClassMoments:
        """With a weighting for which Σ_T = Σ_W + Σ_B is the covariance of the examples: by example where it is mixed.

        What solves for a classifier or decomposes the loss needs that.
        """
        return self.reweighted("example") if self.weighting.startswith("mixed") else self

    def _require(self) -> None:
        if self.dim is None or not bool(self._state.counts.any()):
            raise InputError("expected at least one example, got none: call update() with features and labels first")

    @property
    def num_examples(self) -> int:
        """n, the number of examples seen."""
        return 0 if self.dim is None else int(self._state.counts.sum())

    @property
    def counts(self) -> Integer[Tensor, " c"]:
        """(C,) examples per class."""
        self._require()
        return self._state.counts

    @property
    def present(self) -> Bool[Tensor, " c"]:
        """(C,) boolean: the classes that have at least one example."""
        return self.counts > 0

    @property
    def weights(self) -> Float[Tensor, " c"]:
        """(C,) class weights π_c of Σ_B, which sum to one; zero for absent classes."""
        return self._shares(self.counts if self.weighting == "example" else self.present)

    @property
    def within_weights(self) -> Float[Tensor, " c"]:
        """(C,) class weights of Σ_W; those of Σ_B unless the weighting is a mixed one."""
        return self._shares(self.present if self.weighting == "class" else self.counts)

    def _shares(self, mass: Tensor) -> Tensor:
        mass = mass.to(self.dtype)
        return mass / mass.sum()

    @property
    def means(self) -> Float[Tensor, "c p"]:
        """(C, p) class means μ_c; zero rows for absent classes, which no formula uses."""
        self._require()
        return scaled(self._state.means, self.exponent)

    @property
    def global_mean(self) -> Float[Tensor, " p"]:
        """(p,) μ_G = Σ_c π_c μ_c; for "mixed-example-mean" the mean of the examples."""
        weights = self.within_weights if self.weighting == "mixed-example-mean" else self.weights
        return weights @ self.means

    @property
    def centred_means(self) -> Float[Tensor, "c p"]:
        """(C, p) μ_c − μ_G, the rows of M̄ᵀ; zero rows for absent classes."""
        return (self.means - self.global_mean).mul_(self.present[:, None])

    def class_blocks(self) -> Iterator[slice]:
        """Slices that cover the classes, of 64 MiB of means each, for loops over many classes."""
        self._require()
        yield from slices(self.num_classes, classes_per_block(self._state.means.shape[1]))

    def centred_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """(slice, μ_c − μ_G of its classes), the rows of ``centred_means`` without holding them all."""
        centre, present = self.global_mean, self.present
        for block in self.class_blocks():
            yield block, (scaled(self._state.means[block], self.exponent) - centre).mul_(present[block, None])

    @property
    def class_variances(self) -> Float[Tensor, " c"]:
        """(C,) tr Σ_c = Ave_i ‖h_{i,c} − μ_c‖², divisor n_c; zero for absent classes."""
        self._require()
        return scaled(self._state.traces / self._state.counts.clamp(min=1), 2 * self.exponent)

    @property
    def within_variance(self) -> float:
        """tr Σ_W."""
        return float(self.within_weights @ self.class_variances)

    @property
    def between_variance(self) -> float:
        """tr Σ_B."""
        weights = self.weights
        return float(sum(weights[block] @ squared_norms(rows).to(rows) for block, rows in self.centred_blocks()))

    @property
    def within_covariance(self) -> Float[Tensor, "p p"]:
        """(p, p) Σ_W = Ave (h − μ_c)(h − μ_c)ᵀ, divisor n (or C n_c by class), never n − 1."""
        self._require()
        if self.scatter == "trace":
            raise InputError("expected moments with scatter='full', these keep only the trace of each class's scatter")
        if self.weighting != "class":
            return self._covariance(self._state.scatter / self.num_examples)
        weights = self.weights / self._state.counts.clamp(min=1)
        return self._covariance(torch.einsum("c,cpq->pq", weights, self._state.scatter))

    def class_covariance(self, label: int) -> Float[Tensor, "p p"]:
        """(p, p) Σ_c = Ave_i (h_{i,c} − μ_c)(h_{i,c} − μ_c)ᵀ of one class, divisor n_c.

        Raises:
            InputError: the moments keep one scatter of all classes, as they do unless ``weighting="class"``.
        """
        self._require()
        if not self.has_class_scatter:
            raise InputError("expected moments with a scatter for each class: give weighting='class'")
        return self._covariance(self._state.scatter[label] / max(1, int(self._state.counts[label])))

    @property
    def has_class_scatter(self) -> bool:
        """Whether each class has a scatter of its own."""
        return self.scatter == "full" and self.weighting == "class"

    def _covariance(self, upper: Tensor) -> Tensor:
        """A covariance from its upper triangle at the state's scale."""
        mirror_upper(upper)
        upper.diagonal().clamp_(min=0.0)  # identical examples leave rounding of either sign
        return scaled(upper, 2 * self.exponent)

    @property
    def between_covariance(self) -> Float[Tensor, "p p"]:
        """(p, p) Σ_B = Σ_c π_c (μ_c − μ_G)(μ_c − μ_G)ᵀ."""
        covariance = self._state.means.new_zeros(self._state.means.shape[1], self._state.means.shape[1])
        roots = self.weights.sqrt()
        for block, rows in self.centred_blocks():
            scaled = rows * roots[block, None]
            covariance.addmm_(scaled.T, scaled)
        return covariance
