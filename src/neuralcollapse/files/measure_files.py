"""`neuralcollapse measure`: a report from files of features, whole or from shards that jobs of an array measured."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neuralcollapse._errors import InputError
from neuralcollapse._files import to_json, write_json
from neuralcollapse.data.binary_files import machine_memory
from neuralcollapse.files.features import Classifier, LabelledFeatures, open_classifier, open_examples
from neuralcollapse.files.options import STANDARD_OUTPUT, FileOptions, metric_names
from neuralcollapse.files.passes import Part, Progress, require_classifier
from neuralcollapse.files.samples import sample_of
from neuralcollapse.files.shards import (
    Counts,
    RowRange,
    Saved,
    digest,
    join_rows,
    missing_rows,
    read_shard,
    require_once,
    write_counts,
    write_moments,
)
from neuralcollapse.files.unfinished import Unfinished
from neuralcollapse.measuring.bootstrap import RESAMPLES, Settings
from neuralcollapse.measuring.confidence import with_intervals
from neuralcollapse.measuring.count_range import CountRange
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.measuring.report import Report, make_report
from neuralcollapse.moments.class_moments import ClassMoments

if TYPE_CHECKING:
    from neuralcollapse.measuring.comparison import Comparison


@dataclass(frozen=True)
class FileMeasurement:
    """What `measure_files` measured.

    Args:
        report: None where moments or counts of a shard were only saved.
        text: the report as the options ask to print it; empty if there is none to print.
        note: a sentence about what was saved or counted; may be empty.
    """

    report: Report | None
    text: str = ""
    note: str = ""


def measure_files(
    features: Path | None, options: FileOptions, progress: Progress = lambda share: None
) -> FileMeasurement:
    """Measure a file of features or some of its rows, or merge what was saved of them.

    Args:
        features: their file; None with `options.merge`.
        progress: is called with the share of the rows that is done.

    Raises:
        InputError: options that contradict one another; files that are absent, damaged or do not fit.
    """
    options.check(features)
    try:
        if features is None:
            require_once(options.merge)
            classifier = open_classifier(None, options.weight, options.bias)
            report, note = (_merge_moments if options.moments is None else _merge_counts)(options, classifier)
        else:
            report, note = _measure(features, options, progress)
    except MemoryError as error:
        raise InputError(f"{features or options.merge[0]}: its moments do not fit in memory") from error
    return FileMeasurement(report, "" if report is None else printed(report, options.json), note)


def printed(found: Report | Comparison, json: Path | None) -> str:
    """What to print: the text without `--json`, the JSON for `--json -`, and nothing for a file, which is written."""
    if json is None:
        return f"{found}\n"
    if json == STANDARD_OUTPUT:
        return to_json(found.to_dict(), indent=2) + "\n"
    write_json(json, found.to_dict())
    return ""


def _measure(features: Path, options: FileOptions, progress: Progress) -> tuple[Report | None, str]:
    """The report of a file, or the moments or counts of a shard of it."""
    examples = open_examples(features, options.labels, options.columns)
    total, dim = examples.shape
    classifier = open_classifier(features, options.weight, options.bias, dim)
    shard, shards = options.shard_numbers
    if shards > total:
        raise InputError(f"expected --shard with at most {total} parts, the rows of {features}, got {shards}")
    rows = RowRange.of_file(features, (shard - 1) * total // shards, shard * total // shards, total)
    weighting = options.weighting or "example"
    if options.moments is not None:
        return _count(examples, classifier, rows, options, progress)
    reported = classifier is not None and (options.shard is None or options.save is None)
    if classifier is not None:
        num_classes = options.classes or len(classifier.weight)
        require_classifier(classifier, num_classes, dim)
    elif options.save is None:
        raise InputError(f"{features} has no weight: name its file by --weight, or --save moments to merge later")
    elif options.classes is None:
        raise InputError(f"expected --classes, the number of classes, because {features} comes with no weight")
    else:
        num_classes = options.classes
    # refused here, before the process is killed: the moments alone need more than the machine's memory
    needed = 8 * (num_classes * dim + (num_classes if weighting == "class" else 1) * dim**2)
    if needed > (there := machine_memory()):
        raise InputError(
            f"{features}: expected moments that fit in this machine's {there / 2**30:.1f} GiB, got {num_classes} "
            f"classes of {dim} features, weighted by {weighting}, which take {needed / 2**30:.1f} GiB"
        )
    part = Part(examples, rows, num_classes, options.kept)
    unfinished = Unfinished(options.save, part.measured(weighting, options.columns))
    left = unfinished.read()
    # a row costs the products of its features in the first pass, and scores of all classes in the second
    first = dim / (dim + 2 * num_classes + min(num_classes, dim)) if reported else 1.0
    if left is not None and isinstance(left.content, Counts) and options.save is not None and options.save.is_file():
        moments, _ = _moments_in(options.save)
    else:
        moments = part.moments(weighting, unfinished, left, lambda share: progress(share * first))
    note = f"classifier: {classifier.found} of {classifier.path}" if classifier is not None and classifier.found else ""
    if options.save is not None:
        write_moments(options.save, moments, [rows], options.kept)
        note = f"moments of {rows} of {total:,} saved in {options.save}"
    if classifier is None or not reported:
        unfinished.remove()
        return None, note
    decisions = part.decisions(
        moments, classifier, unfinished, left, lambda share: progress(first + share * (1 - first))
    )
    part_of = () if shards == 1 else (f"of shard {options.shard} alone, {rows} of {total:,}",)
    report = _report(moments, classifier, options, decisions, options.kept, part_of)
    if options.confidence is not None:
        keeps = moments.present if options.kept else None
        settings = Settings(weighting, options.weight_decay, metric_names(options.metrics))
        sample = sample_of(examples, classifier, keeps)
        report = with_intervals(report, sample, settings, options.confidence, RESAMPLES, progress)
    unfinished.remove()
    return report, note


def _count(
    examples: LabelledFeatures, classifier: Classifier | None, rows: RowRange, options: FileOptions, progress: Progress
) -> tuple[Report | None, str]:
    """NC4 and accuracies of some rows against class means that were merged before."""
    moments, saved = _merged_moments(options)
    if classifier is None:
        raise InputError(f"{examples.path} has no weight, which NC4 needs: name its file by --weight")
    require_classifier(classifier, moments.num_classes, moments.means.shape[1])
    (total, dim), expected = examples.shape, moments.means.shape[1]
    if dim != expected:
        raise InputError(f"{examples.path}: expected {expected} features as in {options.moments}, got {dim}")
    if options.classes not in (None, moments.num_classes):
        raise InputError(f"expected --classes {moments.num_classes} as in {options.moments}, got {options.classes}")
    inside = any(each.file == rows.file and each.start <= rows.start and rows.stop <= each.stop for each in saved.rows)
    too_many = rows.stop - rows.start > moments.num_examples and not saved.kept
    if too_many or (saved.rows and not inside):
        raise InputError(
            f"expected features that {options.moments} was measured on, "
            f"got {rows} of {examples.path}, which are not among them"
        )
    part = Part(examples, rows, moments.num_classes, saved.kept)
    unfinished = Unfinished(options.save, part.measured(moments.weighting, options.columns))
    decisions = part.decisions(moments, classifier, unfinished, unfinished.read(), progress)
    counts = decisions.counts
    note = f"{rows} of {total:,}: {counts.mismatches:,} NC4 mismatches, {counts.correct:,} classified correctly"
    if options.save is not None:
        against = digest(moments, classifier.weight, classifier.bias)
        write_counts(options.save, Counts(decisions.state_dict(), against), [rows])
        unfinished.remove()
        note += f", saved in {options.save}"
    whole = counts.examples == moments.num_examples
    return _report(moments, classifier, options, decisions, saved.kept) if whole else None, note


def _merge_moments(options: FileOptions, classifier: Classifier | None) -> tuple[Report | None, str]:
    if classifier is None and options.save is None:
        raise InputError("expected --weight for a report, or --save to keep the merged moments; got neither")
    merged: ClassMoments | None = None
    kept = CountRange()
    rows = []
    for path in options.merge:
        saved = read_shard(path)
        if isinstance(saved.content, Counts):
            raise InputError(f"expected moments in {path}, got counts: name the moments of these by --moments")
        rows.append((path, saved.rows))
        joined = join_rows(rows)  # here already, so that a shard given twice is found before the others are read
        if merged is None:
            merged, kept = saved.content, saved.kept
            continue
        if saved.kept != kept:
            raise InputError(
                f"{path} does not fit {options.merge[0]}: expected {kept.classes}, got {saved.kept.classes}"
            )
        try:
            merged.merge(saved.content)
        except InputError as error:
            raise InputError(f"{path} does not fit {options.merge[0]}: {error}") from None
    assert merged is not None
    _check_settings(options, merged, kept, options.merge[0])
    if options.classes not in (None, merged.num_classes):
        raise InputError(f"{options.merge[0]}: expected {options.classes} classes, got {merged.num_classes}")
    if classifier is not None:
        require_classifier(classifier, merged.num_classes, merged.means.shape[1])
    if kept and len({each.file for each in joined}) > 1:
        raise InputError(f"expected shards of one file, in which {kept.classes} were measured, got those of several")
    for gap in missing_rows(joined):
        warnings.warn(f"{gap} are in none of the shards", UserWarning, stacklevel=2)
    note = ""
    if options.save is not None:
        write_moments(options.save, merged, joined, kept)
        note = f"moments of {merged.num_examples:,} examples saved in {options.save}"
    return None if classifier is None else _report(merged, classifier, options, None, kept), note


def _merge_counts(options: FileOptions, classifier: Classifier | None) -> tuple[Report | None, str]:
    moments, merged = _merged_moments(options)
    if classifier is None:
        raise InputError("expected the classifier that the counts were made with: name its file by --weight")
    require_classifier(classifier, moments.num_classes, moments.means.shape[1])
    if options.save is not None:
        raise InputError(f"expected no --save where {options.moments} has the merged moments, got {options.save}")
    against = digest(moments, classifier.weight, classifier.bias)
    decisions = DecisionCounts(moments, classifier.weight, classifier.bias)
    rows = []
    for path in options.merge:
        saved = read_shard(path)
        found = saved.content
        if not isinstance(found, Counts):
            raise InputError(f"expected counts in {path}, got moments: merge moments without --moments")
        if found.against != against:
            raise InputError(f"{path} was counted against other moments than {options.moments} or another classifier")
        rows.append((path, saved.rows))
        decisions.merge(found.state)
    gaps = missing_rows(join_rows(rows))
    if decisions.counts.examples != moments.num_examples:
        where = f": {', '.join(gaps)} are in none of them" if gaps else ""
        raise InputError(
            f"expected counts of all {moments.num_examples} examples of {options.moments}, "
            f"got {decisions.counts.examples}{where}"
        )
    return _report(moments, classifier, options, decisions, merged.kept), ""


def _moments_in(path: Path) -> tuple[ClassMoments, Saved]:
    """The moments that a file holds, and the rest of it."""
    saved = read_shard(path)
    if isinstance(saved.content, Counts):
        raise InputError(f"expected moments in {path}, got counts")
    return saved.content, saved


def _merged_moments(options: FileOptions) -> tuple[ClassMoments, Saved]:
    """The moments of --moments, and the rest of that file."""
    assert options.moments is not None
    moments, saved = _moments_in(options.moments)
    _check_settings(options, moments, saved.kept, options.moments)
    return moments, saved


def _check_settings(options: FileOptions, moments: ClassMoments, kept: CountRange, path: Path) -> None:
    """Raise where the options ask for other moments than those saved."""
    if options.weighting not in (None, moments.weighting):
        raise InputError(f"{path}: expected moments with weighting {options.weighting}, got {moments.weighting}")
    if options.kept and options.kept != kept:
        raise InputError(f"{path}: expected moments of {options.kept.classes}, got those of {kept.classes}")


def _report(
    moments: ClassMoments,
    classifier: Classifier,
    options: FileOptions,
    decisions: DecisionCounts | None,
    kept: CountRange,
    notes: tuple[str, ...] = (),
) -> Report:
    return make_report(
        moments,
        classifier.weight,
        classifier.bias,
        weight_decay=options.weight_decay,
        metrics=metric_names(options.metrics),
        decisions=decisions,
        notes=(*notes, kept.note) if kept else notes,
    )
