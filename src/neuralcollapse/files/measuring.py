"""`neuralcollapse measure`: a report from files of features, whole or by parts that jobs of an array measured."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from neuralcollapse._checks import InputError, check_classifier, first_bad_row
from neuralcollapse._files import replace_file
from neuralcollapse.files import Block, Classifier, Examples, open_classifier, open_examples
from neuralcollapse.files.options import STANDARD_OUTPUT, Options
from neuralcollapse.files.parts import (
    Counts,
    Part,
    Span,
    digest,
    join,
    missing,
    read_part,
    require_once,
    write_counts,
    write_moments,
)
from neuralcollapse.files.rows import machine_bytes
from neuralcollapse.measuring.report import Report, make_report
from neuralcollapse.measuring.tally import Tally
from neuralcollapse.moments.class_moments import ClassMoments, Weighting


@dataclass(frozen=True)
class Outcome:
    """What came of it: a report, if one was to be had, what to print of it, and what else to say."""

    report: Report | None
    said: str = ""
    text: str = ""


def measure_files(
    features: Path | None, options: Options, progress: Callable[[float], object] = lambda share: None
) -> Outcome:
    """Do what the options ask.

    Args:
        features: their file; None with ``options.merge``.
        progress: is told the share of the rows that is done.

    Raises:
        InputError: options that do not go together; files that are absent, damaged or do not fit.
    """
    options.check(features)
    try:
        outcome = _merge(options) if features is None else _measure(features, options, progress)
    except MemoryError as error:
        raise InputError(f"{features or options.merge[0]}: what is measured of it does not fit in memory") from error
    if outcome.report is None:
        return outcome
    if options.json is None:
        return replace(outcome, text=f"{outcome.report}\n")
    text = json.dumps(outcome.report.to_dict(), indent=2) + "\n"
    if options.json == STANDARD_OUTPUT:
        return replace(outcome, text=text)
    replace_file(options.json, lambda file: file.write(text.encode()))
    return outcome


def _measure(features: Path, options: Options, progress: Callable[[float], object]) -> Outcome:
    """The report of a file, or the moments or counts of some of its rows."""
    examples = open_examples(features, options.labels, options.columns)
    classifier = open_classifier(features, options.weight, options.bias)
    span = _span(examples, options)
    if options.moments is not None:
        return _count(examples, classifier, span, options, progress)
    whole = span.stop - span.start == examples.rows
    reported = classifier is not None and (whole or options.save is None)
    if classifier is None and options.save is None:
        raise InputError(f"{features} has no weight: name its file by --weight, or --save moments to merge later")
    passes = _Passes(examples, span, 2 if reported else 1, progress)
    moments = passes.moments(_classes(examples, classifier, options), options.weighting or "example")
    said = ""
    if options.save is not None:
        write_moments(options.save, moments, [span])
        said = f"moments of rows {span.start} to {span.stop - 1} of {examples.rows:,} saved in {options.save}"
    if not reported:
        return Outcome(None, said)
    assert classifier is not None
    return Outcome(_report(moments, classifier, options, passes.tally(moments, classifier)), said)


def _count(
    examples: Examples, classifier: Classifier | None, span: Span, options: Options, progress: Callable[[float], object]
) -> Outcome:
    """NC4 and accuracies of some rows against class means that were merged before."""
    moments, spans = _moments(options)
    if classifier is None:
        raise InputError(f"{examples.path} has no weight, which NC4 needs: name its file by --weight")
    _check_classifier(classifier, moments.num_classes, moments.means.shape[1])
    if examples.dim != moments.means.shape[1]:
        raise InputError(
            f"{examples.path}: expected {moments.means.shape[1]} features as in {options.moments}, got {examples.dim}"
        )
    if options.classes not in (None, moments.num_classes):
        raise InputError(f"expected --classes {moments.num_classes} as in {options.moments}, got {options.classes}")
    inside = any(own.file == span.file and own.start <= span.start and span.stop <= own.stop for own in spans)
    if span.stop - span.start > moments.num_examples or (spans and not inside):
        raise InputError(
            f"expected features that {options.moments} was measured on, "
            f"got rows {span.start} to {span.stop - 1} of {examples.path}, which are not among them"
        )
    tally = _Passes(examples, span, 1, progress).tally(moments, classifier)
    said = (
        f"rows {span.start} to {span.stop - 1} of {examples.rows:,}: "
        f"{tally.mismatches:,} NC4 mismatches, {tally.correct:,} classified correctly"
    )
    if options.save is not None:
        against = digest(moments, classifier.weight, classifier.bias)
        counts = Counts(*tally.counts, against)
        write_counts(options.save, counts, span)
        said += f", saved in {options.save}"
    if tally.examples < moments.num_examples:
        return Outcome(None, said)
    return Outcome(_report(moments, classifier, options, tally), said)


def _merge(options: Options) -> Outcome:
    """One report from the parts that jobs saved."""
    require_once(options.merge)
    classifier = open_classifier(None, options.weight, options.bias)
    if options.moments is not None:
        return _merge_counts(options, classifier)
    if classifier is None and options.save is None:
        raise InputError("expected --weight for a report, or --save to keep the merged moments; got neither")
    merged: ClassMoments | None = None
    spans = []
    for path in options.merge:
        part = read_part(path)
        if isinstance(part.content, Counts):
            raise InputError(f"{path} holds counts: give the moments they were counted against by --moments")
        spans.append((path, part.spans))
        join(spans)  # here, so that a part given twice is found before the rest is read
        if merged is None:
            merged = part.content
            continue
        try:
            merged.merge(part.content)
        except InputError as error:
            raise InputError(f"{path} does not fit {options.merge[0]}: {error}") from None
    assert merged is not None
    _check_weighting(options, merged, options.merge[0])
    if options.classes not in (None, merged.num_classes):
        raise InputError(f"{options.merge[0]}: expected {options.classes} classes, got {merged.num_classes}")
    if classifier is not None:
        _check_classifier(classifier, merged.num_classes, merged.means.shape[1])
    joined = join(spans)
    for gap in missing(joined):
        warnings.warn(f"{gap} are in none of the parts", UserWarning, stacklevel=2)
    said = ""
    if options.save is not None:
        write_moments(options.save, merged, joined)
        said = f"moments of {merged.num_examples:,} examples saved in {options.save}"
    return Outcome(None if classifier is None else _report(merged, classifier, options, None), said)


def _merge_counts(options: Options, classifier: Classifier | None) -> Outcome:
    moments, _ = _moments(options)
    if classifier is None:
        raise InputError("expected --weight, of the classifier that the counts were made with, got none")
    if options.save is not None:
        raise InputError(f"expected no --save, {options.moments} has the merged moments already; got {options.save}")
    _check_classifier(classifier, moments.num_classes, moments.means.shape[1])
    against = digest(moments, classifier.weight, classifier.bias)
    tally = Tally(moments, classifier.weight, classifier.bias)
    parts: list[Part] = []
    for path in options.merge:
        part = read_part(path)
        if not isinstance(part.content, Counts):
            raise InputError(f"{path} holds moments, expected counts: merge moments without --moments")
        if part.content.against != against:
            raise InputError(f"{path} was counted against other moments than {options.moments} or another classifier")
        parts.append(part)
        counted = part.content
        tally.add_counts(counted.examples, counted.mismatches, counted.correct, counted.nearest_correct)
    gaps = missing(join((part.path, part.spans) for part in parts))
    if tally.examples != moments.num_examples:
        where = f": {', '.join(gaps)} are in none of them" if gaps else ""
        raise InputError(
            f"expected counts of all {moments.num_examples} examples of {options.moments}, got {tally.examples}{where}"
        )
    return Outcome(_report(moments, classifier, options, tally))


class _Passes:
    """Passes over some rows of a file.

    Args:
        passes: how many there will be, for the progress.
    """

    def __init__(self, examples: Examples, span: Span, passes: int, progress: Callable[[float], object]) -> None:
        self._examples, self._span, self._progress = examples, span, progress
        self._total, self._done = passes * (span.stop - span.start), 0

    def moments(self, num_classes: int, weighting: Weighting) -> ClassMoments:
        """Of these rows."""
        _require_memory(self._examples, num_classes, weighting)
        moments = ClassMoments(num_classes, self._examples.dim, weighting=weighting)
        self._each(num_classes, lambda block: moments.update(block.features, block.labels))
        return moments

    def tally(self, moments: ClassMoments, classifier: Classifier) -> Tally:
        """Of these rows, against the class means of ``moments``."""
        tally = Tally(moments, classifier.weight, classifier.bias)
        self._each(moments.num_classes, lambda block: tally.add(block.features, block.labels))
        return tally

    def _each(self, num_classes: int, use: Callable[[Block], None]) -> None:
        for block in self._examples.blocks(self._span.start, self._span.stop):
            try:
                use(block)
            except InputError as error:
                raise _located(self._examples, block, num_classes, error) from None
            self._done += len(block.labels)
            self._progress(self._done / self._total)


def _located(examples: Examples, block: Block, num_classes: int, error: InputError) -> InputError:
    """The same error with its file and the row's number there."""
    wrong = ((block.labels < 0) | (block.labels >= num_classes)).nonzero()[:, 0].tolist()
    if wrong:
        row = block.start + wrong[0]
        label = int(block.labels[wrong[0]])
        return InputError(f"{examples.labels_path}: expected labels in 0..{num_classes - 1}, got {label} in row {row}")
    if not bool(block.features.isfinite().all()):
        row = block.start + first_bad_row(block.features)
        return InputError(f"{examples.path}: expected finite features, got NaN or infinity in row {row}")
    return InputError(f"{examples.path}: {error}")


def _span(examples: Examples, options: Options) -> Span:
    part, parts = options.part
    if parts > examples.rows:
        raise InputError(
            f"expected --shard with at most {examples.rows} parts, the rows of {examples.path}, got {parts}"
        )
    start, stop = ((i * examples.rows) // parts for i in (part - 1, part))
    return Span.of(examples.path, start, stop, examples.rows)


def _classes(examples: Examples, classifier: Classifier | None, options: Options) -> int:
    if classifier is None:
        if options.classes is None:
            raise InputError(f"expected --classes, the number of classes, because {examples.path} comes with no weight")
        return options.classes
    num_classes = options.classes or len(classifier.weight)
    _check_classifier(classifier, num_classes, examples.dim)
    return num_classes


def _check_classifier(classifier: Classifier, num_classes: int, dim: int) -> None:
    try:
        check_classifier(classifier.weight, classifier.bias, num_classes, dim)
    except InputError as error:
        raise InputError(f"{classifier.path}: {error}") from None


def _require_memory(examples: Examples, num_classes: int, weighting: str) -> None:
    """Raise where the state alone is more than the machine has, instead of being killed halfway."""
    scatters = num_classes if weighting == "class" else 1
    needed = 8 * (num_classes * examples.dim + scatters * examples.dim**2)
    if (there := machine_bytes()) is not None and needed > there:
        raise InputError(
            f"{examples.path}: expected moments that fit in this machine's {there / 2**30:.1f} GiB, got {num_classes} "
            f"classes of {examples.dim} features, each {weighting} counting alike, which take {needed / 2**30:.1f} GiB"
        )


def _moments(options: Options) -> tuple[ClassMoments, tuple[Span, ...]]:
    """Of --moments, and the rows they are of, if it says."""
    assert options.moments is not None
    part = read_part(options.moments)
    if isinstance(part.content, Counts):
        raise InputError(f"{options.moments} holds counts, expected moments")
    _check_weighting(options, part.content, options.moments)
    return part.content, part.spans


def _check_weighting(options: Options, moments: ClassMoments, path: Path) -> None:
    if options.weighting not in (None, moments.weighting):
        raise InputError(f"{path}: expected moments with weighting {options.weighting}, got {moments.weighting}")


def _report(moments: ClassMoments, classifier: Classifier, options: Options, tally: Tally | None) -> Report:
    return make_report(
        moments,
        classifier.weight,
        classifier.bias,
        weight_decay=options.weight_decay,
        metrics=options.metric_names,
        tally=tally,
    )
