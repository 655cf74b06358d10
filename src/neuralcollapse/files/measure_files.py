"""`neuralcollapse measure`: a report from files of features, whole or from shards that jobs of an array measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from neuralcollapse._checks import check_classifier, first_bad_row
from neuralcollapse._errors import InputError
from neuralcollapse._files import to_json, write_json
from neuralcollapse.data.binary_files import machine_memory
from neuralcollapse.files.features import Classifier, LabelledFeatures, open_classifier, open_examples
from neuralcollapse.files.options import STANDARD_OUTPUT, FileOptions, metric_names
from neuralcollapse.files.samples import sample_of
from neuralcollapse.files.shards import (
    Counts,
    RowRange,
    digest,
    join_rows,
    missing_rows,
    read_shard,
    require_once,
    write_counts,
    write_moments,
)
from neuralcollapse.measuring.bootstrap import RESAMPLES, Settings
from neuralcollapse.measuring.confidence import intervals_of
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.measuring.report import Report, make_report
from neuralcollapse.moments.class_moments import ClassMoments

Progress = Callable[[float], object]


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
            report, note = (_merge_moments if options.moments is None else _merge_counts)(options)
        else:
            report, note = _measure(features, options, progress)
    except MemoryError as error:
        raise InputError(f"{features or options.merge[0]}: its moments do not fit in memory") from error
    text = ""
    if report is not None:
        if options.json is None:
            text = f"{report}\n"
        elif options.json == STANDARD_OUTPUT:
            text = to_json(report.to_dict(), indent=2) + "\n"
        else:
            write_json(options.json, report.to_dict())
    return FileMeasurement(report, text, note)


def _measure(features: Path, options: FileOptions, progress: Progress) -> tuple[Report | None, str]:
    """The report of a file, or the moments or counts of a shard of it."""
    examples = open_examples(features, options.labels, options.columns)
    total, dim = examples.shape
    classifier = open_classifier(features, options.weight, options.bias, dim)
    shard, shards = options.shard_numbers
    if shards > total:
        raise InputError(f"expected --shard with at most {total} parts, the rows of {features}, got {shards}")
    rows = RowRange.of_file(features, (shard - 1) * total // shards, shard * total // shards, total)
    if options.moments is not None:
        return _count(examples, classifier, rows, options, progress)
    reported = classifier is not None and (shards == 1 or options.save is None)
    if classifier is not None:
        num_classes = options.classes or len(classifier.weight)
        _check_classifier(classifier, num_classes, dim)
    elif options.save is None:
        raise InputError(f"{features} has no weight: name its file by --weight, or --save moments to merge later")
    elif options.classes is None:
        raise InputError(f"expected --classes, the number of classes, because {features} comes with no weight")
    else:
        num_classes = options.classes
    weighting = options.weighting or "example"
    # refused here, before the process is killed: the moments alone need more than the machine's memory
    needed = 8 * (num_classes * dim + (num_classes if weighting == "class" else 1) * dim**2)
    if needed > (there := machine_memory()):
        raise InputError(
            f"{features}: expected moments that fit in this machine's {there / 2**30:.1f} GiB, got {num_classes} "
            f"classes of {dim} features, weighted by {weighting}, which take {needed / 2**30:.1f} GiB"
        )
    moments = ClassMoments(num_classes, dim, weighting=weighting)
    passes = 2 if reported else 1
    _feed(moments.update, examples, rows, num_classes, lambda share: progress(share / passes))
    note = f"classifier: {classifier.found} of {classifier.path}" if classifier is not None and classifier.found else ""
    if options.save is not None:
        write_moments(options.save, moments, [rows])
        note = f"moments of {rows} of {total:,} saved in {options.save}"
    if classifier is None or not reported:
        return None, note
    decisions = DecisionCounts(moments, classifier.weight, classifier.bias)
    _feed(decisions.add, examples, rows, num_classes, lambda share: progress((1 + share) / 2))
    report = _report(moments, classifier, options, decisions)
    if options.confidence is not None:
        sample = sample_of(examples, classifier)
        settings = Settings(weighting, options.weight_decay, metric_names(options.metrics))
        intervals = intervals_of(sample, settings, options.confidence, RESAMPLES, 0, progress)
        report = replace(report, confidence=intervals)
    return report, note


def _count(
    examples: LabelledFeatures, classifier: Classifier | None, rows: RowRange, options: FileOptions, progress: Progress
) -> tuple[Report | None, str]:
    """NC4 and accuracies of some rows against class means that were merged before."""
    moments, measured = _merged_moments(options)
    if classifier is None:
        raise InputError(f"{examples.path} has no weight, which NC4 needs: name its file by --weight")
    _check_classifier(classifier, moments.num_classes, moments.means.shape[1])
    (total, dim), expected = examples.shape, moments.means.shape[1]
    if dim != expected:
        raise InputError(f"{examples.path}: expected {expected} features as in {options.moments}, got {dim}")
    if options.classes not in (None, moments.num_classes):
        raise InputError(f"expected --classes {moments.num_classes} as in {options.moments}, got {options.classes}")
    inside = any(each.file == rows.file and each.start <= rows.start and rows.stop <= each.stop for each in measured)
    if rows.stop - rows.start > moments.num_examples or (measured and not inside):
        raise InputError(
            f"expected features that {options.moments} was measured on, "
            f"got {rows} of {examples.path}, which are not among them"
        )
    decisions = DecisionCounts(moments, classifier.weight, classifier.bias)
    _feed(decisions.add, examples, rows, moments.num_classes, progress)
    counted = f"{decisions.mismatches:,} NC4 mismatches, {decisions.correct:,} classified correctly"
    note = f"{rows} of {total:,}: {counted}"
    if options.save is not None:
        against = digest(moments, classifier.weight, classifier.bias)
        write_counts(options.save, Counts(decisions.state_dict(), against), rows)
        note += f", saved in {options.save}"
    whole = decisions.examples == moments.num_examples
    return _report(moments, classifier, options, decisions) if whole else None, note


def _merge_moments(options: FileOptions) -> tuple[Report | None, str]:
    require_once(options.merge)
    classifier = open_classifier(None, options.weight, options.bias)
    if classifier is None and options.save is None:
        raise InputError("expected --weight for a report, or --save to keep the merged moments; got neither")
    merged: ClassMoments | None = None
    rows = []
    for path in options.merge:
        moments, own = read_shard(path)
        if isinstance(moments, Counts):
            raise InputError(f"expected moments in {path}, got counts: name the moments of these by --moments")
        rows.append((path, own))
        join_rows(rows)  # here already, so that a shard given twice is found before the others are read
        if merged is None:
            merged = moments
            continue
        try:
            merged.merge(moments)
        except InputError as error:
            raise InputError(f"{path} does not fit {options.merge[0]}: {error}") from None
    assert merged is not None
    _check_weighting(options, merged, options.merge[0])
    if options.classes not in (None, merged.num_classes):
        raise InputError(f"{options.merge[0]}: expected {options.classes} classes, got {merged.num_classes}")
    if classifier is not None:
        _check_classifier(classifier, merged.num_classes, merged.means.shape[1])
    joined = join_rows(rows)
    for gap in missing_rows(joined):
        warnings.warn(f"{gap} are in none of the shards", UserWarning, stacklevel=2)
    note = ""
    if options.save is not None:
        write_moments(options.save, merged, joined)
        note = f"moments of {merged.num_examples:,} examples saved in {options.save}"
    return None if classifier is None else _report(merged, classifier, options, None), note


def _merge_counts(options: FileOptions) -> tuple[Report | None, str]:
    require_once(options.merge)
    classifier = open_classifier(None, options.weight, options.bias)
    moments, _ = _merged_moments(options)
    if classifier is None:
        raise InputError("expected the classifier that the counts were made with: name its file by --weight")
    _check_classifier(classifier, moments.num_classes, moments.means.shape[1])
    if options.save is not None:
        raise InputError(f"expected no --save where {options.moments} has the merged moments, got {options.save}")
    against = digest(moments, classifier.weight, classifier.bias)
    decisions = DecisionCounts(moments, classifier.weight, classifier.bias)
    rows = []
    for path in options.merge:
        found, own = read_shard(path)
        if not isinstance(found, Counts):
            raise InputError(f"expected counts in {path}, got moments: merge moments without --moments")
        if found.against != against:
            raise InputError(f"{path} was counted against other moments than {options.moments} or another classifier")
        rows.append((path, own))
        decisions.merge(found.state)
    gaps = missing_rows(join_rows(rows))
    if decisions.examples != moments.num_examples:
        where = f": {', '.join(gaps)} are in none of them" if gaps else ""
        raise InputError(
            f"expected counts of all {moments.num_examples} examples of {options.moments}, "
            f"got {decisions.examples}{where}"
        )
    return _report(moments, classifier, options, decisions), ""


def _feed(
    update: Callable[[Tensor, Tensor], object],
    examples: LabelledFeatures,
    rows: RowRange,
    num_classes: int,
    progress: Progress,
) -> None:
    """Call `update(features, labels)` for each block of the rows; an error names the file and the row."""
    for block in examples.blocks(rows.start, rows.stop):
        try:
            update(block.features, block.labels)
        except InputError as error:
            outside = ((block.labels < 0) | (block.labels >= num_classes)).nonzero()[:, 0].tolist()
            path, why = examples.path, str(error)
            if outside:
                path, found = examples.labels_path, int(block.labels[outside[0]])
                why = f"expected labels in 0..{num_classes - 1}, got {found} in row {block.start + outside[0]}"
            elif not bool(block.features.isfinite().all()):
                row = block.start + first_bad_row(block.features)
                why = f"expected finite features, got NaN or infinity in row {row}"
            raise InputError(f"{path}: {why}") from None
        progress((block.start + len(block.labels) - rows.start) / (rows.stop - rows.start))


def _check_classifier(classifier: Classifier, num_classes: int, dim: int) -> None:
    try:
        check_classifier(classifier.weight, classifier.bias, num_classes, dim)
    except InputError as error:
        raise InputError(f"{classifier.path}: {error}") from None


def _merged_moments(options: FileOptions) -> tuple[ClassMoments, tuple[RowRange, ...]]:
    """The moments of --moments, and the rows that they are of, where the file says so."""
    assert options.moments is not None
    moments, rows = read_shard(options.moments)
    if isinstance(moments, Counts):
        raise InputError(f"expected moments in {options.moments}, got counts")
    _check_weighting(options, moments, options.moments)
    return moments, rows


def _check_weighting(options: FileOptions, moments: ClassMoments, path: Path) -> None:
    if options.weighting not in (None, moments.weighting):
        raise InputError(f"{path}: expected moments with weighting {options.weighting}, got {moments.weighting}")


def _report(
    moments: ClassMoments, classifier: Classifier, options: FileOptions, decisions: DecisionCounts | None
) -> Report:
    weights, decay = (classifier.weight, classifier.bias), options.weight_decay
    return make_report(
        moments, *weights, weight_decay=decay, metrics=metric_names(options.metrics), decisions=decisions
    )
