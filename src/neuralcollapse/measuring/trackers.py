"""What was measured, written to experiment trackers: TensorBoard, Weights & Biases, MLflow, trackio, any function.

NC1 to NC4 are one group, `nc/nc1`; the other numbers have groups of their own, such as `nc/means/…`, `nc/classifier/…`
and `nc/mse/…`. What stays the same in a training is written once, as `nc/constants/…`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from neuralcollapse._checks import InputError, as_switch, shown
from neuralcollapse._errors import install
from neuralcollapse.measuring.tidy import AGAIN, is_constant, numbers_of
from neuralcollapse.metrics.present_classes import distinct_means
from neuralcollapse.metrics.registry import METRICS

if TYPE_CHECKING:
    from neuralcollapse.measuring.report import Report

PREFIX = "nc/"
_FIRST = ("nc1", "nc2.equinorm_means", "nc2.equiangularity_means", "nc2.maximal_angle_means", "nc3", "nc4_mismatch")
# what a run's own history has beside the report
_TRAINING = ("loss", "train_error", "train_accuracy", "test_accuracy", "learning_rate", "seconds")


def tag_of(name: str) -> str:
    """What a number of a report is called in a tracker.

    Example:
        >>> tag_of("nc1"), tag_of("mse.ls_perp"), tag_of("bias_collapse"), tag_of("cdnv"), tag_of("dim")
        ('nc/nc1', 'nc/mse/ls_perp', 'nc/classifier/bias_collapse', 'nc/means/cdnv', 'nc/constants/dim')
    """
    if name in _FIRST:
        return PREFIX + name
    if is_constant(name):
        return f"{PREFIX}constants/{name}"
    if name in _TRAINING:
        return f"train/{name}"
    if (again := name.partition("."))[0] in AGAIN:
        return f"{PREFIX}{again[0]}/{again[2]}"
    if name.startswith("mse."):
        return f"{PREFIX}mse/{name.removeprefix('mse.')}"
    if name.endswith("accuracy"):
        return f"{PREFIX}accuracy/{name}"
    of_classifier = "classifier" in name or (name in METRICS and "weight" in METRICS[name].needs)
    return f"{PREFIX}{'classifier' if of_classifier else 'means'}/{name}"


def name_of_tag(tag: str) -> str:
    """The number that a tag of :func:`tag_of` stands for; of any other text, the text without `nc/`.

    Example:
        >>> [name_of_tag(tag) for tag in ("nc/nc1", "nc/mse/ls_perp", "nc/constants/mse.weight_decay", "train/loss")]
        ['nc1', 'mse.ls_perp', 'mse.weight_decay', 'train/loss']
    """
    if not tag.startswith(PREFIX):
        return tag
    name = tag.removeprefix(PREFIX)
    group, slash, rest = name.partition("/")
    if group in AGAIN or group == "mse":
        return f"{group}.{rest}"
    return rest if slash and group in ("means", "classifier", "accuracy", "constants") else name


def tagged(record: Mapping[str, Any], *, constants: bool) -> dict[str, float]:
    """By tag the numbers of a report's dictionary or of a line of a history; ``constants`` too, if wanted.

    Singular values, of which there is one for each class, are left out.
    """
    names = {name: value for name, value in numbers_of(record).items() if "snr." not in name}
    return {tag_of(name): value for name, value in names.items() if constants or not is_constant(name)}


class Tracker(Protocol):
    """Somewhere numbers are written to."""

    def numbers(self, values: Mapping[str, float], epoch: int) -> None:
        """Write numbers by tag."""

    def image(self, tag: str, pixels: np.ndarray[Any, Any], epoch: int) -> None:
        """Write an image (height, width, 3) of uint8."""

    def histogram(self, tag: str, values: np.ndarray[Any, Any], epoch: int) -> None:
        """Write the distribution of values (n,)."""


class TensorBoard:
    """A ``SummaryWriter`` of torch.utils.tensorboard or tensorboardX; epochs are its steps."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def numbers(self, values: Mapping[str, float], epoch: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, epoch)

    def image(self, tag: str, pixels: np.ndarray[Any, Any], epoch: int) -> None:
        self._writer.add_image(tag, pixels, epoch, dataformats="HWC")

    def histogram(self, tag: str, values: np.ndarray[Any, Any], epoch: int) -> None:
        self._writer.add_histogram(tag, values, epoch)


class RunWithLog:
    """A run of wandb or trackio, or the module itself while a run is on; `nc/epoch` is written beside the numbers.

    Their own steps are left to the training loop: a step that falls back would be refused.
    """

    def __init__(self, run: Any, package: str) -> None:
        self._run, self._package = run, package
        if hasattr(run, "define_metric"):
            run.define_metric(f"{PREFIX}*", step_metric=f"{PREFIX}epoch")

    def _log(self, values: Mapping[str, Any], epoch: int) -> None:
        self._run.log({**values, f"{PREFIX}epoch": epoch})

    def numbers(self, values: Mapping[str, float], epoch: int) -> None:
        self._log(values, epoch)

    def image(self, tag: str, pixels: np.ndarray[Any, Any], epoch: int) -> None:
        self._log({tag: sys.modules[self._package].Image(pixels)}, epoch)

    def histogram(self, tag: str, values: np.ndarray[Any, Any], epoch: int) -> None:
        self._log({tag: sys.modules[self._package].Histogram(values)}, epoch)


class MLflow:
    """The module ``mlflow``, whose active run gets the numbers, or a run of ``mlflow.start_run``."""

    def __init__(self, target: Any) -> None:
        self._id = None if isinstance(target, ModuleType) else target.info.run_id

    def numbers(self, values: Mapping[str, float], epoch: int) -> None:
        sys.modules["mlflow"].log_metrics(dict(values), step=epoch, run_id=self._id)

    def image(self, tag: str, pixels: np.ndarray[Any, Any], epoch: int) -> None:
        client = sys.modules["mlflow"].MlflowClient()
        client.log_image(self._run_id(), pixels, key=tag.replace("/", "."), step=epoch)

    def histogram(self, tag: str, values: np.ndarray[Any, Any], epoch: int) -> None:
        """MLflow has no histograms: the values are an artifact, a JSON file."""
        client = sys.modules["mlflow"].MlflowClient()
        client.log_dict(self._run_id(), {"epoch": epoch, tag: values.tolist()}, f"{tag}/{epoch:06d}.json")

    def _run_id(self) -> str:
        return self._id or sys.modules["mlflow"].active_run().info.run_id  # type: ignore[no-any-return]


class Function:
    """A function of the numbers by tag and the epoch; it is given no pictures."""

    def __init__(self, function: Callable[[dict[str, float], int], object]) -> None:
        self._function = function

    def numbers(self, values: Mapping[str, float], epoch: int) -> None:
        self._function(dict(values), epoch)

    def image(self, tag: str, pixels: np.ndarray[Any, Any], epoch: int) -> None:
        pass

    def histogram(self, tag: str, values: np.ndarray[Any, Any], epoch: int) -> None:
        pass


def tracker_for(target: Any) -> Tracker:
    """The tracker that an object stands for, told by its methods and the package it is from; none is imported.

    Raises:
        InputError: something else.
    """
    home = target.__name__ if isinstance(target, ModuleType) else type(target).__module__
    package = home.partition(".")[0]
    if hasattr(target, "add_scalar"):
        return TensorBoard(target)
    if package in ("wandb", "trackio") and hasattr(target, "log"):
        return RunWithLog(target, package)
    if package == "mlflow" and (isinstance(target, ModuleType) or hasattr(target, "info")):
        return MLflow(target)
    if callable(target) and not isinstance(target, type):
        return Function(target)
    raise InputError(
        "expected log= to be a TensorBoard SummaryWriter, a run of wandb or trackio, mlflow or one of its runs, a "
        f"function of numbers and epoch, or a list of these, got {shown(target)}"
    )


class Tracking:
    """Writes reports to one tracker or several.

    Args:
        *targets: each a ``SummaryWriter``, a run of wandb or trackio, ``mlflow`` or one of its runs, or a function
            ``f(numbers, epoch)`` of the numbers by tag.
        portrait: also an image of the class means, see :func:`portrait`.
        spectrum: also the singular values of the signal-to-noise matrix as a histogram.

    Raises:
        InputError: another kind of target, or none.

    Example:
        >>> lines = []
        >>> tracking = Tracking(lambda numbers, epoch: lines.append((epoch, numbers["nc/nc1"])))
        >>> tracking.write({"nc1": 0.5}, epoch=3)
        >>> lines
        [(3, 0.5)]
    """

    def __init__(self, *targets: Any, portrait: bool = False, spectrum: bool = False) -> None:
        if not targets:
            raise InputError("expected at least one tracker, got none")
        self._portrait, self._spectrum = as_switch(portrait, "portrait"), as_switch(spectrum, "spectrum")
        if self._portrait:
            _matplotlib()
        self._trackers = [tracker_for(target) for target in targets]
        self._constants = True

    @classmethod
    def of(cls, log: Any) -> Tracking | None:
        """What ``log=`` stands for: None, a Tracking, a target, or several."""
        if log is None or isinstance(log, Tracking):
            return log
        # a run of MLflow can be gone through too: only a list or tuple is several
        return cls(*log) if isinstance(log, (list, tuple)) else cls(log)

    def write(self, record: Mapping[str, Any], epoch: int) -> None:
        """Write the numbers of a report's dictionary or of a line of a history; constants the first time only."""
        values = tagged(record, constants=self._constants)
        self._constants = False
        for tracker in self._trackers:
            tracker.numbers(values, epoch)

    def report(self, report: Report, epoch: int) -> None:
        """Write a report, with the pictures that were asked for."""
        self.write(report.to_dict(), epoch)
        if self._spectrum:
            values = report.snr.singular_values
            finite = values[values.isfinite()].cpu().numpy()
            for tracker in self._trackers if len(finite) else ():
                tracker.histogram(f"{PREFIX}spectrum", finite, epoch)
        if self._portrait:
            pixels = portrait(report)
            for tracker in self._trackers:
                tracker.image(f"{PREFIX}portrait", pixels, epoch)


def portrait(report: Report, size: int = 480) -> np.ndarray[Any, Any]:
    """(size, size, 3) uint8: the centred class means in the plane of the two directions in which they differ most.

    The longest of them has the same length in every picture. Of more than twenty classes those with the longest means
    are drawn.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure_of, canvas_of = _matplotlib()
    means = distinct_means(report.moments)
    plane = torch.linalg.svd(means, full_matrices=False).Vh[:2]
    longest = torch.linalg.vector_norm(means, dim=1).argsort(descending=True)[:20].sort().values
    at = torch.nn.functional.pad(means[longest] @ plane.T, (0, 2 - len(plane)))
    at = (at / torch.linalg.vector_norm(at, dim=1).max().clamp(min=1e-300)).cpu().numpy()
    names = report.per_class.column("name")[longest.cpu().numpy()]
    figure = figure_of(figsize=(size / 100, size / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal", xticks=[], yticks=[])
    for place, (name, (x, y)) in enumerate(zip(names, at, strict=True)):
        axes.plot(x, y, "o", color=f"C{place % 10}")
        axes.plot([0, x], [0, y], color=f"C{place % 10}", linewidth=0.8)
        axes.annotate(str(name)[:14], (x, y), (4, 4), textcoords="offset points", fontsize=8, parse_math=False)
    axes.set_title(f"centred class means, NC1 {report.nc1:.3g}", fontsize=10)
    canvas = canvas_of(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _matplotlib() -> tuple[Any, Any]:
    """The figure and the canvas that draw without a window."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(f"a portrait needs matplotlib: {install('matplotlib')}") from None
    return Figure, FigureCanvasAgg
