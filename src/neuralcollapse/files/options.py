"""The options of `measure` and `compare`; PyTorch is not imported, so that the command line lists them at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neuralcollapse._errors import InputError

if TYPE_CHECKING:
    from neuralcollapse.measuring.count_range import CountRange

STANDARD_OUTPUT = Path("-")
_MEASURING, _PARTS, _RUNNING, _OUTPUT = (
    {"section": name} for name in ("Measuring", "Large files in parts", "Where it runs", "Output")
)


def split_key(path: Path) -> tuple[Path, str | None]:
    """FILE:KEY as the file and the name of an array in it; None where no name is given.

    Example:
        >>> split_key(Path("model.pt:head.fc.weight"))[1]
        'head.fc.weight'
    """
    file, _, key = str(path).rpartition(":")
    return (path, None) if path.exists() or not key or not Path(file).suffix else (Path(file), key)


def given(options: Any, names: Iterable[str]) -> list[str]:
    """Those of the options that do not have their default, as they are typed, such as "--dim 3"; options: a dataclass.

    Example:
        >>> given(JobOptions(jobs=4, slurm=True), ["partition", "slurm", "jobs"])
        ['--slurm', '--jobs 4']
    """
    found = [(name, getattr(options, name)) for name in names if getattr(options, name) != getattr(type(options), name)]
    return [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in found]


def check_written(path: Path, read: Iterable[Path] = ()) -> None:
    """Raise where a file cannot be written, or where writing it would destroy what is read.

    Args:
        path: the file to write.
        read: files, which it must not be, and folders, in which it must not lie.

    Raises:
        InputError: so that hours are not spent before it is found.
    """
    if not path.parent.is_dir():
        raise InputError(f"expected an existing folder to write {path.name} in, got {path.parent}")
    if path.exists() and not path.is_file():
        raise InputError(f"expected a file to write, got {path}, which is a folder or a device")
    for other in read:
        if path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other)):
            raise InputError(f"expected another file to write than {path}, which is read")
        if other.is_dir() and path.resolve().is_relative_to(other.resolve()):
            raise InputError(f"expected another folder to write {path.name} in than {path.parent}, which is read")


def check_folder(out: Path) -> None:
    """Raise where files cannot be written into the folder of --out, which need not be there yet."""
    out = out.absolute()
    there = next(each for each in (out, *out.parents) if each.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file; --out must name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"cannot write into {there}: Permission denied; name another folder by --out")


@dataclass(frozen=True)
class FileOptions:
    """Which files to read, what to measure, and which rows."""

    labels: Path | None = None
    """Labels (n,), if they are not in the features' file: any of these formats; FILE:KEY names an array in it."""
    weight: Path | None = None
    """The classifier's weight (C, p), if it is not in the features' file: FILE or FILE:KEY. Of a state dict, the weight
    is found without KEY where one alone fits the features, and the bias beside it."""
    bias: Path | None = None
    """Its bias (C,), if it is not in the weight's file."""
    columns: str = "features"
    """Of Parquet: the column of lists, or what the names of the columns begin with."""
    weight_decay: float = field(default=0.0, metadata=_MEASURING)
    """λ of the paper's loss, for the decomposition."""
    weighting: Literal["example", "class", "mixed", "mixed-example-mean"] | None = field(
        default=None, metadata=_MEASURING
    )
    """Whether each example has the same weight (the default), or each class, or examples in Σ_W and classes in Σ_B, as
    most published code has it (mixed; about the mean of the examples: mixed-example-mean). Saved moments keep their
    own."""
    metrics: str | None = field(default=None, metadata=_MEASURING)
    """Later metrics to add: all, or names with commas between them."""
    min_count: int | None = field(default=None, metadata=_MEASURING)
    """Leave out classes with fewer examples in the file, and their examples."""
    max_count: int | None = field(default=None, metadata=_MEASURING)
    """Leave out classes with more examples in the file, and their examples."""
    confidence: float | None = field(default=None, metadata=_MEASURING)
    """Add intervals at this level, such as 0.95, by the bootstrap over examples: two hundred more passes."""
    shard: str | None = field(default=None, metadata=_PARTS)
    """I/N: only the I-th of N contiguous shards of the rows, I from 1 to N."""
    classes: int | None = field(default=None, metadata=_PARTS)
    """C, where no weight tells it."""
    save: Path | None = field(default=None, metadata=_PARTS)
    """Write the moments, or with --moments the counts, to this .safetensors file. A measurement that is killed leaves
    what it has in FILE.unfinished, and the same command goes on from there."""
    moments: Path | None = field(default=None, metadata=_PARTS)
    """Merged moments, to count NC4 and the accuracies against their class means."""
    merge: tuple[Path, ...] = field(default=(), metadata=_PARTS)
    """Merge what jobs saved: moments, or with --moments the counts."""
    json: Path | None = field(default=None, metadata=_OUTPUT)
    """Write the report to this file as a JSON object instead of printing it; - prints that object."""

    @property
    def kept(self) -> CountRange:
        """The numbers of examples of the classes that are measured."""
        from neuralcollapse.measuring.count_range import CountRange

        return CountRange(self.min_count, self.max_count)

    @property
    def shard_numbers(self) -> tuple[int, int]:
        """(I, N) of --shard; (1, 1) without."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", self.shard or "1/1")
        shard, shards = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= shard <= shards:
            raise InputError(f"expected --shard I/N with 1 ≤ I ≤ N, such as 1/8, got {self.shard!r}")
        return shard, shards

    def check(self, features: Path | None) -> None:
        """Raise where options contradict one another or cannot be followed, before hours are spent on the files."""
        from neuralcollapse._checks import as_number
        from neuralcollapse.metrics.metric import NEEDS
        from neuralcollapse.metrics.registry import METRICS, chosen

        as_number(self.weight_decay, "weight decay")
        for name in chosen(metric_names(self.metrics)) if self.metrics != "all" else ():
            if "ood" in METRICS[name].needs:
                raise InputError(f"the metric {name!r} needs out-of-distribution data: measure it by nc.measure(ood=…)")
            if "examples" in METRICS[name].needs:
                raise InputError(f"the metric {name!r} needs {NEEDS['examples']}")
        if self.merge:
            given = [name for name in ("labels", "shard") if getattr(self, name) is not None]
            if features is not None or given:
                got = str(features) if features is not None else f"--{given[0]}"
                raise InputError(f"expected only saved shards with --merge, which stand for the features, got {got}")
        elif features is None:
            raise InputError("expected a file of features, or --merge with saved shards, got neither")
        if self.columns != FileOptions.columns and (features is None or features.suffix != ".parquet"):
            given_to = features or "no file"
            raise InputError(f"--columns {self.columns} is of .parquet alone, got {given_to}; leave it out")
        if self.classes is not None and self.classes < 1:
            raise InputError(f"expected at least one class, got --classes {self.classes}")
        self.shard_numbers, self.kept  # noqa: B018
        named = [split_key(path)[0] for path in (self.labels, self.weight, self.bias) if path is not None]
        read = [path for path in (features, *named, self.moments, *self.merge) if path is not None]
        written = [path for path in (self.save, self.json) if path is not None and path != STANDARD_OUTPUT]
        for path in written:
            check_written(path, [each for each in read if not each.is_dir()])  # a folder among them is refused as such
        if len({path.resolve() for path in written}) < len(written):
            raise InputError(f"expected --json with another file than --save {self.save}, got the same")
        if self.save is not None and self.save.suffix != ".safetensors":
            raise InputError(f"expected --save with a file ending in .safetensors, got {self.save}")
        if self.confidence is not None and (self.shard is not None or self.moments is not None or features is None):
            raise InputError("expected --confidence with a whole file of features, which is read again and again")
        if self.json is not None and self.shard is not None and (self.save is not None or self.moments is not None):
            raise InputError("expected no --json with moments or counts of a shard, of which there is no report")


@dataclass(frozen=True)
class JobOptions:
    """By how many jobs a file is measured, and where they run."""

    jobs: int | None = field(default=None, metadata=_PARTS)
    """Measure by so many jobs, each its own share of the rows, and merge what they found: processes of this machine, or
    with --slurm a job array. Needs --save; what jobs save meanwhile is in a folder beside that file. Jobs that are
    killed are begun again, and the same command repeated does what is missing."""
    slurm: bool = field(default=False, metadata=_RUNNING)
    """Run the --jobs as an array of Slurm jobs; all files must lie on storage that all machines share."""
    cpus_per_job: int = field(default=1, metadata=_RUNNING)
    """Processor cores of each Slurm job."""
    partition: str | None = field(default=None, metadata=_RUNNING)
    """Slurm partition; by default the cluster's own default."""
    time_limit: int = field(default=240, metadata=_RUNNING)
    """Minutes a Slurm job may take; one that needs more is stopped in time, queued again and goes on."""

    def check(self, options: FileOptions) -> None:
        """Raise where options contradict one another."""
        for needed, names in (("jobs", ["slurm"]), ("slurm", ["cpus_per_job", "partition", "time_limit"])):
            if not getattr(self, needed) and (unused := given(self, names)):
                raise InputError(f"{unused[0]} is not used here; add --{needed}, or leave it out")
        for name in ("jobs", "cpus_per_job", "time_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"expected --{name.replace('_', '-')} of at least 1, got {value}")
        if self.jobs is None:
            return
        if options.save is None:
            raise InputError("expected --save with --jobs, the file of the merged moments; got none")
        for name in ("shard", "moments", "merge", "confidence"):
            if getattr(options, name):
                raise InputError(f"expected no --{name} with --jobs, which make the shards and merge them")


@dataclass(frozen=True)
class CompareOptions:
    """How two paths are compared."""

    level: float = 0.95
    """Of the intervals, each for its own number."""
    resamples: int = 200  # measuring.bootstrap.RESAMPLES, which is not imported, because that imports PyTorch
    """Of the bootstrap over examples; twice as many make an interval's width a third less noisy."""
    seed: int = 0
    """Of the bootstrap's draws."""
    weighting: Literal["example", "class", "mixed", "mixed-example-mean"] = "example"
    """Of reports on features; see `neuralcollapse measure --help`."""
    weight_decay: float = 0.0
    """λ of the paper's loss, for reports on features."""
    metrics: str | None = None
    """Later metrics to compare too: all, or names with commas between them."""


def metric_names(metrics: str | None) -> str | list[str] | None:
    """The later metrics of an option, all or names with commas between them, as `make_report` takes them."""
    if metrics in (None, "all"):
        return metrics
    return [name.strip() for name in metrics.split(",")]
