"""The words beside a figure: what it shows, of which runs, how many seeds, and in what they are not the paper's."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

from neuralcollapse.figures.study_runs import Study, StudyRun

EVENTS = (
    "Open triangles: the first measured epoch without a training error; full ones: that from which the error stays "
    "zero, alone where it is the first, too; dotted lines: the learning rate was divided."
)
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': r"\textquotedbl{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "×": r"$\times$", "‖": r"$\|$", "±": r"$\pm$"}
    | {"–": "--", "“": "``", "”": "''", "λ": r"$\lambda$", "ω": r"$\omega$", "τ": r"$\tau$", "γ": r"$\gamma$"}
    | {"↑": r"$\uparrow$", "−": "$-$", "∈": r"$\in$", "⊥": r"$\perp$"}
    | {"[": "{[}", "]": "{]}"}  # after \\ a bracket would be its argument
)
_PLAIN = {
    r"^{\dagger}": "⁺", r"^{\top}": "ᵀ", r"^{\perp}_{\mathrm{LS}}": "⊥_LS", r"^{\perp}": "⊥", r"^{-1/2}": "^(−1/2)",
    r"_{\mathrm{NC1}}": "_NC1", r"_{\mathrm{NC2/3}}": "_NC2/3", r"^{\mathrm{path}}": "^path", r"\mathrm{tr}": "tr",
    r"\log": "log", r"\Sigma": "Σ", r"\|": "‖", r"\bar{M}": "M̄", r"\lambda": "λ", r"\omega": "ω", r"^2": "²",
    "-1": "−1", " - ": " − ",
}  # fmt: skip


def formula(text: str) -> str:
    """Mark a text of ours, whose formulas stand between dollars, as apart from text from outside."""
    return re.sub(r"\$([^$\n]+)\$", lambda found: f"\0{found[1]}\0", text)


def latex(text: str) -> str:
    """Text for LaTeX, escaped; formulas marked by `formula` stay."""
    parts = " ".join(text.split()).split("\0")
    return "".join(f"${part}$" if place % 2 else part.translate(_LATEX) for place, part in enumerate(parts))


def readable(text: str) -> str:
    """Text without markup; formulas in plain characters."""
    parts = " ".join(text.split()).split("\0")
    for place in range(1, len(parts), 2):
        for markup, plain in _PLAIN.items():
            parts[place] = parts[place].replace(markup, plain)
    return "".join(parts)


def subject(study: Study) -> str:
    """Whose numbers they are: network, data, loss, epochs and seeds."""
    runs = [each for each in study.runs if each.records.records]
    networks = listed(dict.fromkeys(each.model_title for each in runs)) or "one network"
    data = listed(study.datasets)
    trained = listed(list(study.losses.values()))
    words = [networks, f" on {data}" if data else "", f", {trained} loss" if trained else ""]
    if (config := runs[0].config) and len({each.cell for each in runs}) == 1:
        words += [f", {change}" for change in config.changes()] + [f", λ = {config.measured_weight_decay:g}"]
    counts = {cell: sum(each.cell == cell for each in runs) for cell in (each.cell for each in runs)}
    seeds = sorted({each.records.seed for each in runs if each.records.seed is not None})
    few, many = min(counts.values()), max(counts.values())
    if len(runs) == 1:
        words.append(f"; seed {seeds[0]} (n = 1)." if seeds else " (n = 1).")
    elif many == 1:
        words.append(f"; one run each (n = 1){f', seed {seeds[0]}' if len(seeds) == 1 else ''}.")
    else:
        number = f"n = {few} seeds" if few == many else f"n = {few} to {many} seeds, written in each panel of several"
        words.append(
            f"; {number}: lines are means over the seeds, geometric on logarithmic axes but arithmetic for shares, "
            "bands one standard deviation (of the logarithm, likewise), thin lines the seeds."
        )
    return "".join(words)


def state(study: Study) -> list[str]:
    """What was not run, what has not ended, and the departures from the paper's protocol; a sentence each."""
    said = []
    absent = [
        f"{network} on {dataset}" + ("" if not study.group(dataset, network) else f" with {title}")
        for dataset, network, (loss, title) in itertools.product(study.datasets, study.networks, study.losses.items())
        if not study.group(dataset, network, loss)
    ]
    if absent:
        said.append(f"Not run: {', '.join(dict.fromkeys(absent))}.")
    if unmeasured := [each for each in study.runs if not each.records.records]:
        said.append(f"Nothing measured yet: {where(unmeasured, study.runs)}.")
    if going_on := unfinished(study):
        said.append(f"Not at their end: {going_on}.")
    if departed := departures(study, "Reduced: "):
        said.append(f"{departed}.")
    return said


def unfinished(study: Study) -> str:
    """Which runs have not ended, and why; empty where all have."""
    return "; ".join(grouped(study.runs, lambda run: [run.records.unfinished] if run.records.unfinished else []))


def departures(study: Study, reduced: str) -> str:
    """In what runs depart from the paper's protocol, after `reduced` where one is smaller; empty where none does."""
    words = "; ".join(grouped(study.runs, lambda run: run.departures))
    kind = reduced if any(run.reduced for run in study.runs) else ""
    protocol = "not the paper's protocol of full width, all examples and 350 epochs of tuned SGD"
    return f"{kind}{protocol}, but {words}" if words else ""


def grouped(runs: Sequence[StudyRun], words: Callable[[StudyRun], Sequence[str]]) -> list[str]:
    """Each phrase once, with the runs that it holds for unless it holds for all."""
    phrases = dict.fromkeys(phrase for run in runs for phrase in words(run))
    holding = {phrase: [run for run in runs if phrase in words(run)] for phrase in phrases}
    common = [phrase for phrase, having in holding.items() if len(having) == len(runs)]
    others = [f"{phrase} ({where(having, runs)})" for phrase, having in holding.items() if len(having) < len(runs)]
    return [*([", ".join(common)] if common else []), *others]


def where(chosen: Sequence[StudyRun], runs: Sequence[StudyRun]) -> str:
    """Which of several runs, in few words: `digits`, `VGG with MSE`, `DenseNet on MNIST, digits`."""
    for place in range(3):
        names = dict.fromkeys(run.cell[place] for run in chosen)
        if sum(run.cell[place] in names for run in runs) == len(chosen):
            titles = {run.records.loss: run.loss_title for run in runs}
            return ", ".join(titles.get(name, name) if place == 2 else name for name in names)
    datasets: dict[tuple[str, str], dict[str, None]] = {}  # by network, and loss unless all of the cell are meant
    for run in chosen:
        cell = [each for each in runs if each.cell[:2] == run.cell[:2]]
        loss = "" if all(each in chosen for each in cell) else f" with {run.loss_title}"
        datasets.setdefault((run.network, loss), {})[run.records.dataset] = None
    alike: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for (network, loss), trained_on in datasets.items():
        alike.setdefault((tuple(trained_on), loss), []).append(network)
    parts = []
    for (pictured, loss), networks in alike.items():
        everywhere = {run.records.dataset for run in runs if run.network in networks}
        every = {run.network for run in runs if run.records.dataset in pictured} == set(networks)
        words = [] if every else [listed(networks)]
        words += [] if set(pictured) == everywhere and not every else [listed(pictured)]
        parts.append(" on ".join(words) + loss)
    return ", ".join(parts)


def listed(names: Sequence[str] | dict[str, None] | tuple[str, ...]) -> str:
    """`a, b and c`."""
    *others, last = [name for name in names if name] or [""]
    return f"{', '.join(others)} and {last}" if others else last
