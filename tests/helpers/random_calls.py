"""Random calls of every public function, each from a seed: shapes, types, scales, degenerate data, wrong kinds.

Most calls fit but for one or two arguments, so that what lies behind the first check is reached too. What a caller
can't get wrong without Python itself saying so (missing arguments, unknown names of arguments) is left out.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.metrics import duality, energy, feature_rank, frames, margins, out_of_distribution, variability
from neuralcollapse.theory import clock, flow
from neuralcollapse.theory import unconstrained_features as ufm

SCALES = (1.0, 1.0, 1.0, 1.0, 1e-3, 1e3, 1e8, 1e-8, 1e18, 1e19, 1e30, 1e-22, 1e-25, 1e-30)
WIDE_SCALES = (*SCALES, 1e77, 1e160, 1e300, 1e-160, 1e-300)
WRONG: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: "three",
    lambda: 3,
    lambda: 2.5,
    lambda: [],
    lambda: [[1.0, 2.0], [3.0]],
    lambda: {"a": 1},
    object,
    lambda: b"bytes",
    lambda: (torch.ones(2), None),
    lambda: np.array("text"),
    lambda: np.array([None, 1.0], dtype=object),
    lambda: np.array([["a", "b"], ["c", "d"]]),
    lambda: np.array(["2020-01-01"], dtype="datetime64[D]"),
    lambda: float("nan"),
    lambda: nn.Linear(2, 2),
    lambda: {1, 2},
    lambda: range(3),
)
NUMBERS: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: "0.1",
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: -1,
    lambda: -0.5,
    lambda: 0,
    lambda: True,
    lambda: 1e300,
    lambda: 1e-300,
    lambda: 10**400,
    lambda: 1j,
    lambda: np.float32(0.5),
    lambda: np.int64(2),
    lambda: torch.tensor(0.5),
    lambda: torch.ones(3),
    lambda: [1],
    object,
    lambda: 2.5,
)


@dataclass
class Call:
    """A call to make; ``said`` is what it is, for a message."""

    said: str
    make: Callable[[], Any]


class Draw:
    """Random inputs of one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 4])
        self.notes: list[str] = []
        self.classes, self.dim = int(self.rng.integers(1, 7)), int(self.rng.integers(1, 9))
        self.examples = int(self.rng.choice([1, 2, 3, 5, 8, 13, 30, 60]))
        self.spoiling = float(self.rng.choice([0.0, 0.1, 0.3]))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def note(self, *words: object) -> None:
        self.notes.append(" ".join(str(word) for word in words))

    # -- arrays

    def numbers(self, *shape: int, plain: bool = False) -> Tensor:
        """Random, degenerate or of another scale; float32 or float64."""
        values = torch.from_numpy(np.asarray(self.rng.normal(size=shape)))
        kind = self.rng.integers(12)
        if plain:
            return values
        if kind == 0:
            values = torch.zeros_like(values)
        elif kind == 1:
            values = torch.full_like(values, float(self.rng.normal()))
        elif kind == 2 and values.ndim == 2 and len(values):
            values = values[:1].expand(shape).clone()
        elif kind == 3 and values.ndim == 2:
            values[:, int(self.rng.integers(max(1, shape[1]))) :] = 0.0
        elif kind == 4:
            values = values.clamp(min=0.0)
        elif kind == 5:
            values = values.round()
        elif kind == 6 and values.ndim == 2:
            values[len(values) // 2 :] = 0.0
        narrow = self.chance(0.5)
        values = values * self.pick(SCALES if narrow else WIDE_SCALES)
        return values.float() if narrow else values

    def spoiled(self, value: Any, name: str, share: float | None = None) -> Any:
        """The value, or now and then another kind of it."""
        if not self.chance(self.spoiling if share is None else share):
            return value
        if self.chance(0.25):
            wrong = self.pick(WRONG)()
            self.note(f"{name} = {wrong!r:.60}")
            return wrong
        kind = self.pick(KINDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = kind(value, self)
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, OverflowError):
            return value
        self.note(f"{name} as {kind.__name__}")
        return made

    def features(self) -> Any:
        return self.spoiled(self.numbers(self.examples, self.dim), "features")

    def labels(self) -> Any:
        labels = torch.from_numpy(self.rng.integers(0, self.classes, size=self.examples))
        if self.chance(0.2):
            labels = torch.arange(self.examples) % self.classes
        return self.spoiled(labels, "labels")

    def weight(self) -> Any:
        return self.spoiled(self.numbers(self.classes, self.dim), "weight")

    def bias(self) -> Any:
        return None if self.chance(0.4) else self.spoiled(self.numbers(self.classes), "bias")

    def vectors(self) -> Any:
        return self.spoiled(self.numbers(self.classes, self.dim), "vectors")

    def number(self, good: Any, name: str) -> Any:
        if not self.chance(self.spoiling):
            return good
        wrong = self.pick(NUMBERS)()
        self.note(f"{name} = {wrong!r:.40}")
        return wrong

    def word(self, good: tuple[str, ...], name: str) -> Any:
        if not self.chance(0.5 * self.spoiling):
            return self.pick(good)
        wrong = self.pick((None, "nothing", 3, ["example"], b"example", ("example",)))
        self.note(f"{name} = {wrong!r}")
        return wrong

    def decay(self) -> Any:
        return self.number(self.pick((0.0, 0.0, 5e-4, 1e-12, 1.0, 1e6)), "weight_decay")

    def weighting(self) -> Any:
        return self.word(("example", "class"), "weighting")

    def metrics(self) -> Any:
        good = self.pick(("default", "all", "all", "cdnv", ["cdnv", "effective_rank"], list(nc.METRICS)[:9], []))
        if not self.chance(self.spoiling):
            return good
        wrong = self.pick(("nothing", None, 3, ["cdnv", 3], [None], object(), {"cdnv": 1}, b"cdnv"))
        self.note(f"metrics = {wrong!r:.40}")
        return wrong

    def moments(self, scatter: str | None = None) -> nc.ClassMoments:
        """Of good data, which may be degenerate, of any scale, or none at all."""
        made = nc.ClassMoments(
            self.classes,
            weighting=self.pick(("example", "class")),
            scatter=scatter or self.pick(("full", "full", "full", "trace")),  # type: ignore[arg-type]
            dtype=self.pick((torch.float64, torch.float64, torch.float32)),
        )
        if self.chance(0.05):
            return made
        for _ in range(int(self.rng.integers(1, 3))):
            features = self.numbers(self.examples, self.dim)
            labels = torch.from_numpy(self.rng.integers(0, self.classes, size=self.examples))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made.update(features, labels)
            except nc.InputError:
                pass  # out of range
        self.note(
            "moments", f"C={self.classes} p={self.dim} n={self.examples} {made.weighting} {made.scatter} {made.dtype}"
        )
        return made


# -- kinds of arrays


def numpy(value: Any, draw: Draw) -> Any:
    return value.numpy()


def odd_numpy(value: Any, draw: Draw) -> Any:
    kind = draw.pick(
        (">f4", ">f8", "f2", "g", "u1", "i1", ">i4", "u2", "u4", "u8", "i2", "c8", "?", "O", "U8", "m8[s]")
    )
    draw.note(kind)
    return value.double().numpy().astype(kind)


def reversed_view(value: Any, draw: Draw) -> Any:
    return value.numpy()[::-1]


def read_only(value: Any, draw: Draw) -> Any:
    array = value.numpy().copy()
    array.flags.writeable = False
    return array


def masked(value: Any, draw: Draw) -> Any:
    return np.ma.masked_greater(value.numpy(), 0)


def matrix(value: Any, draw: Draw) -> Any:
    return np.matrix(value.numpy())


def nested_list(value: Any, draw: Draw) -> Any:
    return value.tolist()


def of_dtype(value: Any, draw: Draw) -> Any:
    names = [
        "float16",
        "bfloat16",
        "float8_e4m3fn",
        "float8_e5m2",
        "float8_e8m0fnu",
        "float64",
        "float32",
        "int8",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "int16",
        "int32",
        "int64",
        "bool",
        "complex64",
        "complex128",
        "complex32",
    ]
    dtype = getattr(torch, draw.pick(names))
    draw.note(dtype)
    return value.to(dtype)


def with_gradient(value: Any, draw: Draw) -> Any:
    return value.clone().requires_grad_()


def parameter(value: Any, draw: Draw) -> Any:
    return nn.Parameter(value.clone())


def on_meta(value: Any, draw: Draw) -> Any:
    return value.to("meta")


def sparse(value: Any, draw: Draw) -> Any:
    return value.to_sparse() if draw.chance(0.5) else value.to_sparse_csr()


def strided(value: Any, draw: Draw) -> Any:
    return value.repeat_interleave(2, dim=0)[::2]


def transposed_memory(value: Any, draw: Draw) -> Any:
    return value.T.contiguous().T


def one_more_axis(value: Any, draw: Draw) -> Any:
    return value[None] if draw.chance(0.5) else value[..., None]


def one_axis_less(value: Any, draw: Draw) -> Any:
    return value[0]


def empty(value: Any, draw: Draw) -> Any:
    return value[:0] if draw.chance(0.5) else value[..., :0]


def longer(value: Any, draw: Draw) -> Any:
    return torch.cat([value, value[:1]])


def wider(value: Any, draw: Draw) -> Any:
    return torch.cat([value, value[:, :1]], dim=1)


def with_nan(value: Any, draw: Draw) -> Any:
    value = value.clone()
    value.view(-1)[int(draw.rng.integers(value.numel()))] = draw.pick((float("nan"), float("inf"), -float("inf")))
    return value


def out_of_range(value: Any, draw: Draw) -> Any:
    value = value.clone()
    value.view(-1)[0] = draw.pick((-1, -100, 1000, 2**62, -(2**63)))
    return value


def fractional(value: Any, draw: Draw) -> Any:
    return value.double() + draw.pick((0.0, 0.5, 0.7))


def inference(value: Any, draw: Draw) -> Any:
    with torch.inference_mode():
        return value.clone()


def conjugated(value: Any, draw: Draw) -> Any:
    return torch.complex(value, value).conj()


def negated(value: Any, draw: Draw) -> Any:
    return torch._neg_view(value)


def scalar(value: Any, draw: Draw) -> Any:
    return value.sum()


def quantized(value: Any, draw: Draw) -> Any:
    return torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)


def nested(value: Any, draw: Draw) -> Any:
    return torch.nested.nested_tensor([value[:1], value[1:]])


def overlapping(value: Any, draw: Draw) -> Any:
    return value[:1].expand(len(value), *value.shape[1:])


KINDS = (
    numpy,
    odd_numpy,
    odd_numpy,
    reversed_view,
    read_only,
    masked,
    matrix,
    nested_list,
    of_dtype,
    of_dtype,
    of_dtype,
    with_gradient,
    parameter,
    on_meta,
    sparse,
    strided,
    transposed_memory,
    one_more_axis,
    one_axis_less,
    empty,
    longer,
    wider,
    with_nan,
    with_nan,
    out_of_range,
    fractional,
    inference,
    conjugated,
    negated,
    scalar,
    quantized,
    nested,
    overlapping,
)


# -- the public functions


def measure_features(d: Draw) -> Callable[[], Any]:
    arguments = d.features(), d.labels(), d.weight(), d.bias()
    options: dict[str, Any] = {"weight_decay": d.decay(), "weighting": d.weighting(), "metrics": d.metrics()}
    if d.chance(0.3):
        options["ood"] = d.spoiled(d.numbers(int(d.rng.integers(1, 5)), d.dim), "ood")
    if d.chance(0.2):
        options["reference"] = d.moments("full")

    def make() -> Any:
        report = nc.measure_features(*arguments, **options)
        return str(report), report.to_dict(), report.numbers()

    return make


def make_report(d: Draw) -> Callable[[], Any]:
    moments, weight, bias, decay, metrics = d.moments(), d.weight(), d.bias(), d.decay(), d.metrics()
    ood = d.spoiled(d.numbers(d.dim), "ood_mean") if d.chance(0.3) else None

    def make() -> Any:
        report = nc.make_report(moments, weight, bias, weight_decay=decay, metrics=metrics, ood_mean=ood)
        return str(report), report.to_dict(), report.numbers(), report.means, report.global_mean

    return make


def of_moments(d: Draw) -> Callable[[], Any]:
    functions: dict[str, Callable[[nc.ClassMoments], Any]] = {
        "nc1": nc.nc1,
        "snr": nc.snr_singular_values,
        "least_squares": nc.least_squares_classifier,
        "cdnv": variability.cdnv,
        "variability_ratio": variability.variability_ratio,
        "vci": variability.variability_collapse_index,
        "stable_rank": feature_rank.stable_rank,
        "effective_rank": feature_rank.effective_rank,
    }
    name = d.pick(list(functions))
    moments = d.moments()
    d.note(name)
    if name == "least_squares":
        decay = d.decay()
        return lambda: nc.least_squares_classifier(moments, decay)
    return lambda: functions[name](moments)


def of_moments_and_weight(d: Draw) -> Callable[[], Any]:
    functions: dict[str, Callable[[nc.ClassMoments, Any], Any]] = {
        "nc2": nc.nc2,
        "nc3": nc.nc3,
        "duality_error": duality.duality_error,
        "nc3_trace": duality.nc3_trace,
        "uniform_duality": duality.uniform_duality,
        "alignment_distance": duality.alignment_distance,
        "nc0": lambda m, w: duality.nc0(w),
        "nc5": lambda m, w: out_of_distribution.nc5(m, w[0] if isinstance(w, Tensor) and w.ndim == 2 and len(w) else w),
    }
    name = d.pick(list(functions))
    moments, weight = d.moments(), d.weight()
    d.note(name)
    return lambda: functions[name](moments, weight)


def nc4(d: Draw) -> Callable[[], Any]:
    arguments = d.features(), d.labels(), d.weight(), d.bias()
    moments = d.moments() if d.chance(0.5) else None
    return lambda: nc.nc4_mismatch(*arguments, moments=moments)


def decompose(d: Draw) -> Callable[[], Any]:
    moments, weight, bias, decay = d.moments(), d.weight(), d.bias(), d.decay()
    return lambda: nc.decompose_mse(moments, weight, bias, weight_decay=decay)


def compute_metrics(d: Draw) -> Callable[[], Any]:
    moments, metrics = d.moments(), d.metrics()
    weight = None if d.chance(0.3) else d.weight()
    ood = d.spoiled(d.numbers(d.dim), "ood_mean") if d.chance(0.5) else None
    return lambda: nc.compute_metrics(moments, metrics, weight=weight, ood_mean=ood)


def moments_made(d: Draw) -> Callable[[], Any]:
    classes = d.number(d.classes, "num_classes")
    options = {
        "dim": d.number(d.pick((None, d.dim)), "dim"),
        "weighting": d.weighting(),
        "scatter": d.word(("full", "trace"), "scatter"),
        "dtype": d.pick((torch.float64, torch.float32, torch.float16, torch.int32, "float32", None))
        if d.chance(d.spoiling)
        else torch.float64,
        "device": d.pick(("nowhere", 3.5, "cpu", torch.device("cpu"))) if d.chance(d.spoiling) else None,
    }
    d.note(classes, options)
    batches = [(d.features(), d.labels()) for _ in range(int(d.rng.integers(1, 4)))]

    def make() -> Any:
        moments = nc.ClassMoments(classes, **options)
        refused: nc.InputError | None = None
        for features, labels in batches:
            before = moments.num_examples
            try:
                moments.update(features, labels)
            except nc.InputError as error:
                refused = error
                assert moments.num_examples == before, "a refused batch has changed the state"
        if moments.num_examples:
            assert bool(torch.isfinite(moments.means).all())
            looked_at(moments)
        if refused is not None:
            raise refused

    return make


def looked_at(moments: nc.ClassMoments) -> None:
    """Every property, and a copy through the state."""
    for name in ("counts", "present", "weights", "means", "global_mean", "centred_means", "class_variances"):
        getattr(moments, name)
    assert moments.within_variance >= 0
    assert moments.between_variance >= 0
    if moments.scatter == "full":
        assert bool((moments.within_covariance.diagonal() >= 0).all())
    assert bool((moments.between_covariance.diagonal() >= 0).all())
    again = nc.ClassMoments.from_state_dict(moments.state_dict(), weighting=moments.weighting)
    assert torch.equal(again.counts, moments.counts)


def merged(d: Draw) -> Callable[[], Any]:
    one = d.moments()
    if d.chance(0.3):
        d.classes += 1
    if d.chance(0.2):
        d.dim += 1
    other: Any = d.moments()
    if d.chance(0.5 * d.spoiling):
        other = d.pick(WRONG)()
        d.note(f"other = {other!r:.40}")
    method = d.pick(("merge", "around"))
    d.note(method)
    return lambda: getattr(one, method)(other)


def state(d: Draw) -> Callable[[], Any]:
    moments = d.moments()
    try:
        held: dict[str, Any] = dict(moments.state_dict())
    except nc.InputError:
        return moments.state_dict
    for name in list(held):
        held[name] = d.spoiled(held[name], name, 0.3 * (d.spoiling > 0))
    if d.chance(d.spoiling):
        del held[d.pick(list(held))]
    if d.chance(d.spoiling):
        held["more"] = torch.ones(3)
    weighting = d.weighting()

    def make() -> Any:
        looked_at(nc.ClassMoments.from_state_dict(held, weighting=weighting))

    return make


def saved(d: Draw) -> Callable[[], Any]:
    moments = d.moments()
    folder = Path(tempfile.mkdtemp())
    path: Any = folder / "moments.safetensors"
    if d.chance(d.spoiling):
        path = d.pick((folder, folder / "none" / "file", "", 3, None, "\0", folder / ("x" * 300)))
        d.note(f"path = {path!r:.30}")
    hurt = d.chance(d.spoiling)

    def make() -> Any:
        try:
            moments.save(path)
            if hurt and isinstance(path, Path) and path.is_file():
                content = bytearray(path.read_bytes())
                content[int(d.rng.integers(len(content)))] ^= 1 << int(d.rng.integers(8))
                path.write_bytes(content[: int(d.rng.integers(1, len(content) + 1))] if d.chance(0.5) else content)
            again = nc.ClassMoments.load(path)
            if again.num_examples and not hurt:
                looked_at(again)
        finally:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()

    return make


def measured(d: Draw) -> Callable[[], Any]:
    """A model and a loader whose inputs the model takes: what it refuses itself is its own error."""
    model = nn.Sequential(nn.Linear(d.dim, 5), nn.ReLU(), nn.Linear(5, d.classes))
    if d.chance(0.2):
        nn.init.constant_(model[0].bias, -1e4)
    scale = d.pick((1.0, 1.0, 1e12, 1e-12, 1e19, 1e-22, 1e30))
    inputs = torch.from_numpy(d.rng.normal(size=(d.examples, d.dim))).float() * scale
    labels = d.labels()
    loader: Any = [(inputs, labels)]
    # sparse labels have no slices
    if d.chance(0.2) and isinstance(labels, Tensor) and labels.ndim and labels.layout is torch.strided:
        loader = [(inputs[i : i + 4], labels[i : i + 4]) for i in range(0, d.examples, 4)]
    if d.chance(0.3 * d.spoiling):
        loader = d.pick((None, [], [()], 3, "batches", [None], [(None, None)], [(inputs,)], [{}], iter([])))
        d.note(f"loader = {loader!r:.40}")
    options: dict[str, Any] = {"weight_decay": d.decay(), "weighting": d.weighting(), "metrics": d.metrics()}
    if d.chance(0.2):
        options["memory_budget"] = d.number(0, "memory_budget")
    if d.chance(0.2):
        options["layer"] = d.pick(("2", "0", "nothing", model[2], model[1], 3, None))
        d.note(f"layer = {options['layer']!r}")
    name = d.pick(("measure", "measure_layers", "Monitor"))
    d.note(name, f"scale {scale}")
    if name == "measure_layers":
        options.pop("layer", None)
        return lambda: str(nc.measure_layers(model, loader, **options))
    if name == "Monitor":
        every = d.number(1, "every")
        return lambda: nc.Monitor(model, loader, every=every, **options)(1)
    return lambda: str(nc.measure(model, loader, **options))


def geometry(d: Draw) -> Callable[[], Any]:
    functions: dict[str, Callable[[Any], Any]] = {
        "equinorm": nc.equinorm,
        "equiangularity": nc.equiangularity,
        "maximal_angle": nc.maximal_angle,
        "etf_error": frames.etf_error,
        "etf_distance": frames.etf_distance,
        "hyperspherical_energy": energy.hyperspherical_energy,
        "margin": margins.one_vs_rest_margin,
        "frame_error": frames.frame_error,
        "welch_excess": frames.welch_excess,
    }
    name = d.pick(list(functions))
    vectors = d.vectors()
    d.note(name)
    return lambda: functions[name](vectors)


def simplex(d: Draw) -> Callable[[], Any]:
    classes, dim = d.number(d.classes, "num_classes"), d.number(d.dim, "dim")
    dtype = d.pick((torch.float32, torch.int64, "float32", None)) if d.chance(d.spoiling) else torch.float64
    d.note(classes, dim, dtype)
    return lambda: nc.simplex_etf(classes, dim, dtype=dtype)


def central_path(d: Draw) -> Callable[[], Any]:
    count = int(d.rng.integers(1, 6))
    omega = d.spoiled(torch.from_numpy(10 ** d.rng.uniform(-150 if d.chance(0.1) else -2, 2, size=count)), "omega0")
    options = {
        "num_classes": d.number(count + 1, "num_classes"),
        "samples_per_class": d.number(10, "samples_per_class"),
        "weight_decay": d.decay(),
        "flow": d.word(("projected", "multiplicative"), "flow"),
    }
    times = d.spoiled(torch.from_numpy(10 ** d.rng.uniform(-3, 12, size=4)), "t")
    method = d.pick(("singular_values", "time", "loss", "asymptote", "condition", "metrics"))
    d.note(method)
    return lambda: getattr(nc.CentralPath(omega, **options), method)(times)


def flows(d: Draw) -> Callable[[], Any]:
    classes = int(d.rng.integers(2, 4))
    labels = torch.arange(8 * classes) % classes
    features = torch.from_numpy(d.rng.normal(size=(classes, 5))[labels.numpy()] + d.rng.normal(size=(len(labels), 5)))
    if d.chance(0.7):
        features = flow.renormalize(features, labels)
    features, labels = d.spoiled(features, "features"), d.spoiled(labels, "labels")
    options: dict[str, Any] = {
        "weight_decay": d.decay(),
        "renormalization": d.word(("projected", "multiplicative", "none"), "renormalization"),
    }
    name = d.pick(("renormalize", "flow_direction", "integrate", "descend"))
    d.note(name)
    if name == "renormalize":
        return lambda: flow.renormalize(features, labels)
    if name == "flow_direction":
        return lambda: flow.flow_direction(features, labels, **options)
    if name == "integrate":
        options["weight_decay"] = d.pick((0.0, 0.1))
        times = d.spoiled(torch.tensor([0.0, 0.5, 1.0]), "times")
        return lambda: flow.integrate(features, labels, times, rtol=1e-3, atol=1e-3, **options)
    rate, steps = d.number(0.1, "learning_rate"), d.pick((0, -1, 2.5, None, "3")) if d.chance(d.spoiling) else 3
    d.note(f"steps = {steps}")
    return lambda: flow.descend(features, labels, learning_rate=rate, steps=steps, **options)


def clocks(d: Draw) -> Callable[[], Any]:
    epochs = d.spoiled(torch.arange(1.0, 5.0), "epochs")
    omega = d.spoiled(torch.from_numpy(np.sort(10 ** d.rng.uniform(-1, 2, size=(4, 3)), axis=0)), "omega")
    classes, samples, decay = d.number(4, "num_classes"), d.number(10, "samples_per_class"), d.decay()
    return lambda: clock.fit_clock(epochs, omega, num_classes=classes, samples_per_class=samples, weight_decay=decay)


def unconstrained(d: Draw) -> Callable[[], Any]:
    counts = d.pick(((), (1,), (0, 2), (2, -1), "ab", None, 3, (2.5, 1.5))) if d.chance(d.spoiling) else (3, 3, 2)
    dim, decays = d.number(4, "dim"), [d.number(0.05, "weight_decay"), d.number(0.05, "feature_decay")]
    loss = d.word(("mse", "ce"), "loss")
    name = d.pick(("minimise", "descend", "minimum_loss", "critical_decay"))
    d.note(counts, name)

    def make() -> Any:
        model = ufm.UnconstrainedFeatures(counts, dim, *decays, loss=loss)
        if name == "minimise":
            return model.minimise(max_steps=5)
        if name == "descend":
            return model.descend(learning_rate=0.1, steps=3)
        return getattr(model, name)()

    return make


FUNCTIONS = (
    measure_features,
    measure_features,
    measure_features,
    measure_features,
    make_report,
    make_report,
    of_moments,
    of_moments,
    of_moments_and_weight,
    of_moments_and_weight,
    nc4,
    decompose,
    compute_metrics,
    compute_metrics,
    moments_made,
    moments_made,
    moments_made,
    merged,
    state,
    saved,
    measured,
    measured,
    geometry,
    geometry,
    simplex,
    central_path,
    central_path,
    flows,
    clocks,
    unconstrained,
)

# -- the same functions, with the arguments that the ones above leave as they are


def anything(d: Draw, good: Any, name: str, wrong: tuple[Any, ...] = ()) -> Any:
    """The value, or often a wrong one: of those named, of WRONG or of NUMBERS."""
    if d.chance(0.6):
        return good
    options = (*((lambda value=value: value) for value in wrong), *(WRONG if d.chance(0.5) else NUMBERS))
    made = d.pick(options)()
    d.note(f"{name} = {made!r:.40}")
    return made


def wrong_moments(d: Draw) -> Callable[[], Any]:
    moments = anything(d, d.moments(), "moments", (torch.ones(3, 2), nc.ClassMoments(3), nc.ClassMoments))
    weight = d.weight()
    functions: dict[str, Callable[[], Any]] = {
        "nc1": lambda: nc.nc1(moments),
        "nc2": lambda: nc.nc2(moments, weight),
        "nc3": lambda: nc.nc3(moments, weight, centred=False, squared=False),
        "nc4": lambda: nc.nc4_mismatch(torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(2, 3), moments=moments),
        "snr": lambda: nc.snr_singular_values(moments),
        "least_squares": lambda: nc.least_squares_classifier(moments),
        "decompose": lambda: nc.decompose_mse(moments, weight),
        "make_report": lambda: nc.make_report(moments, weight),
        "own": lambda: nc.make_report(d.moments(), None, own=moments),
        "compute_metrics": lambda: nc.compute_metrics(moments, weight=weight),
        "cdnv": lambda: variability.cdnv(moments),
        "variability_ratio": lambda: variability.variability_ratio(moments),
        "vci": lambda: variability.variability_collapse_index(moments),
        "stable_rank": lambda: feature_rank.stable_rank(moments),
        "effective_rank": lambda: feature_rank.effective_rank(moments),
        "duality_error": lambda: duality.duality_error(moments, weight),
        "nc3_trace": lambda: duality.nc3_trace(moments, weight),
        "uniform_duality": lambda: duality.uniform_duality(moments, weight),
        "alignment_distance": lambda: duality.alignment_distance(moments, weight),
        "nc5": lambda: out_of_distribution.nc5(moments, torch.ones(d.dim), centred=True),
        "reference": lambda: nc.measure_features(torch.ones(4, 3), torch.arange(4) % 2, reference=moments),
        "from_state_dict": lambda: nc.ClassMoments.from_state_dict(moments),
    }
    name = d.pick(list(functions))
    d.note(name)
    return functions[name]


def features_options(d: Draw) -> Callable[[], Any]:
    arguments = d.features(), d.labels(), d.weight() if d.chance(0.3) else None, d.bias() if d.chance(0.3) else None
    options = {
        "num_classes": anything(d, None, "num_classes"),
        "layer": anything(d, "a layer", "layer"),
        "ood": anything(d, None, "ood"),
        "reference": anything(d, None, "reference"),
    }
    return lambda: str(nc.measure_features(*arguments, **options))


def measure_options(d: Draw) -> Callable[[], Any]:
    """Of :func:`measure` and its neighbours; the network takes what the loader gives."""
    model: Any = nn.Sequential(nn.Linear(d.dim, 5), nn.ReLU(), nn.Linear(5, d.classes))
    batch = torch.from_numpy(d.rng.normal(size=(d.examples, d.dim))).float()
    labels = torch.from_numpy(d.rng.integers(0, d.classes, size=d.examples))
    loader: Any = [(batch, labels)]
    options: dict[str, Any] = {}
    given = {
        "features": ("0", model[1], (model[2], "input"), ("0", "middle"), ("0",), ("nothing", "output")),
        "weight": (torch.ones(d.classes, 5), np.ones((d.classes, 5))),
        "bias": (torch.ones(d.classes),),
        "num_classes": (d.classes, 2),
        "layer": ("2", "0", "nothing", model[2]),
        "device": ("cpu", "nowhere", "meta", "cuda:77", -1),
        "ood": ([batch], [(batch, labels)], [], batch, None, 3, np.float32(0.5), "three", object()),
        "reference": (d.moments("full"), torch.ones(3)),
        "memory_budget": (0, 10**400, 1e9, np.int64(5)),
        "next_token": (True, False),
        "min_count": (1, 2, 0, 10**9, None),
        "max_count": (1, 10**9, 0, None),
        "progress": (lambda share: None, None, 3),
        "distributed": (True,),
        "weighting": ("example", "class", None),
        "metrics": ("all", None, iter(["cdnv"]), np.array(["cdnv"]), [["cdnv"]]),
    }
    for name, values in given.items():
        if d.chance(0.15):
            # what the network itself makes of other batches is its own
            options[name] = d.pick(values) if name == "ood" else anything(d, d.pick(values), name)
            d.note(f"{name} given")
    if d.chance(0.1):
        model = d.pick((None, "model", 3, lambda x: x, nn.Linear, object()))
        d.note(f"model = {model!r:.30}")
    function = d.pick(("measure", "measure_layers", "Monitor"))
    d.note(function)
    if function == "measure_layers":
        for name, values in (
            ("layers", (["0"], "0", ["nothing"], [3], [None], {})),
            ("spatial", ("flatten", "nothing")),
            ("channel_axis", (-1, 1, 7, {"0": 1}, {"0": "one"})),
        ):
            if d.chance(0.2):
                options[name] = anything(d, d.pick(values), name)
        return lambda: (made := nc.measure_layers(model, loader, **options), str(made), made.to_dict())
    if function == "Monitor":
        epoch = anything(d, 2, "epoch")
        every = anything(d, 1, "every")
        # none that a file would be written to
        path = d.pick((None, None, "", "\0", "/nowhere/file", "/", Path("/dev/null/x"), 3, b"bytes", ["a"]))
        d.note(f"path = {path!r}")
        return lambda: nc.Monitor(model, loader, every=every, path=path, **options)(epoch)
    return lambda: str(nc.measure(model, loader, **options))


def options_of_formulas(d: Draw) -> Callable[[], Any]:
    vectors = d.vectors()
    correction = anything(d, 1, "correction", (2, 10**6))
    kernel = anything(d, "riesz", "kernel", ("nothing",))
    omega = torch.tensor([0.5, 1.5], dtype=torch.float64)
    path = nc.CentralPath(omega if d.chance(0.5) else omega.numpy(), num_classes=3, samples_per_class=10)
    times = anything(d, 3.0, "t", (10**400, 1e300, np.float32(2.0), torch.tensor([1, 2]), [1, 2], True))
    right = anything(d, None, "right_vectors", (torch.ones(3, 2), np.eye(3)[:, :2]))
    model = ufm.UnconstrainedFeatures((2, 2), 2, 0.1, 0.1)
    labels = torch.arange(8) % 2
    features = torch.from_numpy(d.rng.normal(size=(8, 3)))
    functions: dict[str, Callable[[], Any]] = {
        "equinorm": lambda: nc.equinorm(vectors, correction=correction),
        "equiangularity": lambda: nc.equiangularity(vectors, correction=correction),
        "hyperspherical_energy": lambda: energy.hyperspherical_energy(vectors, kernel),
        "metrics": lambda: path.metrics(times, right),
        "asymptote": lambda: path.asymptote(times),
        "loss": lambda: path.loss(times),
        "condition": lambda: path.condition(times),
        "singular_values": lambda: path.singular_values(times),
        "time": lambda: path.time(times),
        "ufm.descend": lambda: model.descend(
            learning_rate=anything(d, 0.1, "rate", (1e300,)),
            steps=anything(d, 2, "steps", (3.0,)),
            every=anything(d, 1, "every", (0,)),
            seed=anything(d, 0, "seed", (2**70,)),
            scale=anything(d, 0.1, "scale", (1e300,)),
        ),
        "ufm.minimise": lambda: model.minimise(
            anything(d, 0, "seed", (2**70,)),
            scale=anything(d, 1.0, "scale", (1e300,)),
            max_steps=anything(d, 3, "max_steps", (0,)),
        ),
        "flow.descend": lambda: flow.descend(
            features,
            labels,
            learning_rate=anything(d, 0.1, "rate", (1e3, 1e300)),
            steps=anything(d, 2, "steps", (3.0,)),
            every=anything(d, 1, "every", (0,)),
            renormalization="none",
        ),
        "flow.integrate": lambda: flow.integrate(
            features,
            labels,
            torch.tensor([0.0, 0.1]),
            rtol=anything(d, 1e-3, "rtol", (0,)),
            atol=anything(d, 1e-3, "atol", (0,)),
            renormalization="none",
        ),
    }
    name = d.pick(list(functions))
    d.note(name)
    return functions[name]


def of_features(d: Draw) -> Callable[[], Any]:
    """Metrics of moments, called with features and labels."""
    alone = {
        "nc1": nc.nc1,
        "snr": nc.snr_singular_values,
        "cdnv": variability.cdnv,
        "least": nc.least_squares_classifier,
    }
    weighed = {"nc2": nc.nc2, "nc3": nc.nc3, "decompose_mse": nc.decompose_mse, "nc3_trace": duality.nc3_trace}
    name = d.pick([*alone, *weighed])
    features, labels = d.features(), d.labels()
    d.note(name)
    if name in alone:
        return lambda: alone[name](features, labels)
    weight = d.weight()
    return lambda: weighed[name](features, labels, weight)


MORE = (
    of_features,
    wrong_moments,
    features_options,
    measure_options,
    measure_options,
    measure_options,
    options_of_formulas,
)


def call(seed: int, functions: tuple[Callable[[Draw], Callable[[], Any]], ...] = FUNCTIONS) -> Call:
    """The call of a seed."""
    draw = Draw(seed)
    function = draw.pick(functions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = function(draw)
    size = f"C={draw.classes} p={draw.dim} n={draw.examples}"
    return Call(f"{function.__name__} {size}: {'; '.join(draw.notes)}", made)


def fault(
    seed: int,
    allowed: tuple[type[BaseException], ...] = (nc.InputError,),
    functions: tuple[Callable[[Draw], Callable[[], Any]], ...] = FUNCTIONS,
) -> str | None:
    """What is wrong with the call of a seed: an exception of another type, or a warning that is not the package's."""
    made = call(seed, functions)
    own: list[str] = []
    warn = warnings.warn

    def listening(message: Any, category: Any = None, stacklevel: int = 1, **options: Any) -> None:
        if str(sys._getframe(1).f_globals.get("__name__", "")).startswith("neuralcollapse"):
            own.append(str(message))
        warn(message, category, stacklevel + 1, **options)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn = listening  # type: ignore[assignment]
        try:
            made.make()
        except allowed as error:
            text = str(error)
            if isinstance(error, nc.InputError) and (not text or "\n" in text.strip() or len(text) > 1500):
                return f"{made.said}: no clear sentence: {text[:300]}"
        except Exception as error:
            return f"{made.said}: {type(error).__name__}: {str(error)[:160]}"
        finally:
            warnings.warn = warn
    foreign = [f"{w.category.__name__}: {str(w.message)[:120]}" for w in caught if str(w.message) not in own]
    wrong = [
        f"{w.category.__name__}: {w.message}" for w in caught if str(w.message) in own and w.category is not UserWarning
    ]
    return f"{made.said}: warns {foreign + wrong}" if foreign or wrong else None
