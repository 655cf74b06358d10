"""Write the tables of README.md and results/README.md from the histories in results/: single runs, and the study.

python tools/results.py            writes both pages
python tools/results.py --check    fails if one is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from neuralcollapse.figures.study_runs import Study
from neuralcollapse.figures.theory_study import FLOWS, summary
from neuralcollapse.measuring.events import first_zero_error, stays_zero_error
from neuralcollapse.training.run_directory import Run

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- {} table -->", "<!-- end of {} table -->"
RUNS = ("digits-resnet18", "mnist-resnet18", "fashion-mnist-resnet18", "cifar10-resnet18")
STUDY = ROOT / "results" / "study"
REGIME = ROOT / "results" / "paper-regime"
ORDER = {
    "dataset": ("digits", "mnist", "fashion-mnist", "cifar10"),
    "model": ("vgg11", "resnet18", "densenet40"),
    "loss": ("mse", "ce"),
}
RUN_COLUMNS = (
    "data, training examples",
    "network",
    "epochs (zero error at)",
    "λ",
    "test accuracy at zero error → at the end",
    "NC1",
    "NC2, maximal angle of means",
    "NC3",
    "L⊥_LS / L",
)
STUDY_COLUMNS = (
    "data, training and test images",
    "network",
    "loss",
    "zero error at epoch",
    "test accuracy at zero error → at the end",
    "NC1",
    "NC2, maximal angle of means",
    "NC3",
    "NC4",
    "L⊥_LS / L",
)


def zero_error(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first measured epoch without a training error."""
    first = first_zero_error(history)
    return next((record for record in history if record["epoch"] == first), None)


def accuracies(history: list[dict[str, Any]]) -> str:
    """Test accuracy at the first epoch without a training error and at the last."""
    first, last = zero_error(history), history[-1]
    if first is None:
        return f"never; {100 * last['test_accuracy']:.2f} % at the end"
    return f"{100 * first['test_accuracy']:.2f} % → {100 * last['test_accuracy']:.2f} %"


def off_path(record: dict[str, Any]) -> str:
    """L⊥_LS / L, the distance from the central path."""
    return f"{record['mse.ls_perp'] / record['mse.total']:.3f}"


def run_row(path: Path, prefix: str) -> list[str]:
    """One run as a row of the table."""
    run = Run.open(path)
    config, history = run.config, run.history()
    last, first = history[-1], zero_error(history)
    return [
        f"[{config.dataset_title}]({prefix}{path.name}/figures/overview.png), {config.num_examples:,}",
        f"{config.model}, width ×{config.width:g}",
        f"{last['epoch']} ({first['epoch'] if first else 'never'})",
        f"{config.measured_weight_decay:g}",
        accuracies(history),
        f"{last['nc1']:.2g}",
        f"{last['nc2.maximal_angle_means']:.3f}",
        f"{last['nc3']:.3f}",
        off_path(last),
    ]


def study_row(run: Run) -> list[str]:
    """One run of the study as a row of the table: first measured epoch → last."""
    config, history = run.config, run.history()
    begin, last, first = history[0], history[-1], zero_error(history)

    def change(name: str, form: str, scale: float = 1.0) -> str:
        return f"{scale * float(begin[name]):{form}} → {scale * float(last[name]):{form}}"

    status = run.status().status or "begun"
    unfinished = "" if status == "finished" else f", {status}"
    return [
        f"{config.dataset_title}, {config.num_examples:,} and {config.num_test_examples:,}",
        config.model,
        config.loss.upper(),
        f"{first['epoch'] if first else 'never'} of {config.epochs}{unfinished}",
        accuracies(history),
        change("nc1", ".2g"),
        change("nc2.maximal_angle_means", ".2g"),
        change("nc3", ".2g"),
        f"{change('nc4_mismatch', '.2f', 100)} %",
        off_path(last) if config.loss == "mse" else "–",
    ]


REGIME_COLUMNS = (
    "data",
    "network",
    "loss, seeds",
    "λ, epochs",
    "zero error: first, stays",
    "test accuracy: first zero error, stays, end (%)",
    "NC1",
    "L⊥/L from the tenth measured epoch on: largest median over the seeds; largest of any seed, running averages",
    "when the error stays zero",
    "at the end",
    "L_NC1/L at the end",
    "L_NC2/3 / L_NC1 at the end, C/ω²",
)


def regime_row(runs: list[Run]) -> list[str]:
    """The seeds of one cell: medians; L⊥/L by running averages and, in brackets, by re-estimated ones."""
    config, histories = runs[0].config, [run.history() for run in runs]
    at = [{"first": first_zero_error(h), "stays": stays_zero_error(h), "end": h[-1]["epoch"]} for h in histories]
    records = [
        {name: next((r for r in h if r["epoch"] == epoch), h[-1]) for name, epoch in events.items()}
        for h, events in zip(histories, at, strict=True)
    ]

    def middle(values: Any, form: str) -> str:
        return f"{median(values):{form}}"

    def share(record: dict[str, Any], part: str = "ls_perp", prefix: str = "") -> float:
        return float(record[f"{prefix}mse.{part}"] / record[f"{prefix}mse.total"])

    def both(pick: Any) -> str:
        return f"{pick(''):.3f} ({pick('re_estimated.'):.3f})"

    def medians(prefix: str) -> list[float]:
        """Over the seeds, at each epoch at which all were measured, from the tenth on."""
        measured = [{record["epoch"]: record for record in history} for history in histories]
        epochs = sorted(set.intersection(*map(set, measured)))[9:]
        return [median(share(records[epoch], prefix=prefix) for records in measured) for epoch in epochs]

    cells = [
        config.dataset_title,
        ", ".join([f"{config.model} ×{config.width:g}", *config.image_description()]),
        f"{config.loss.upper()}, {len(runs)}",
        f"{config.measured_weight_decay:g}, {config.epochs}",
        f"{median(e['first'] for e in at):.0f}, {median(e['stays'] for e in at):.0f}",
        ", ".join(
            middle([100 * r[name]["test_accuracy"] for r in records], ".2f") for name in ("first", "stays", "end")
        ),
        middle([r["end"]["nc1"] for r in records], ".2g"),
    ]
    if config.loss != "mse":
        return cells + ["–"] * 5
    return [
        *cells,
        both(lambda prefix: max(medians(prefix))) + f"; {max(share(r) for h in histories for r in h[9:]):.2f}",
        both(lambda prefix: median(share(r["stays"], prefix=prefix) for r in records)),
        both(lambda prefix: median(share(r["end"], prefix=prefix) for r in records)),
        middle([share(r["end"], "nc1") for r in records], ".2f"),
        middle([r["end"]["mse.nc23"] / r["end"]["mse.nc1"] for r in records], ".4f")
        + ", "
        + middle([path_ratio(run) for run in runs], ".4f"),
    ]


def path_ratio(run: Run) -> float:
    """C/ω² at the last snapshot, ω² the mean square of the singular values of (Σ_W + λI)^{-1/2} M̄.

    Σ_W is that of the features kept; at the end it is far below λ.
    """
    kept = run.snapshot(max(run.snapshots()))
    means = kept["class_means"].astype(float)
    deviations = kept["features"] - means[kept["labels"]]
    sizes, vectors = np.linalg.eigh(deviations.T @ deviations / len(deviations))
    whitened = (means - means.mean(axis=0)) @ vectors / np.sqrt(sizes.clip(min=0) + run.config.measured_weight_decay)
    return float(len(means) * (len(means) - 1) / np.square(whitened).sum())


def regime_table() -> str:
    """The cells of the study in the paper's regime that have been run, in the order of the grid."""
    cells: dict[tuple[int, ...], list[Run]] = {}
    for path in sorted(REGIME.glob("*/config.json")):
        run = Run.open(path.parent)
        cells.setdefault(tuple(order.index(getattr(run.config, name)) for name, order in ORDER.items()), []).append(run)
    return table(REGIME_COLUMNS, [regime_row(runs) for _, runs in sorted(cells.items())])


THEORY_COLUMNS = (
    "data",
    "network, seeds",
    "mean ω grows by a factor",
    *(f"off the flow {name}" for name in FLOWS.values()),
    "the same from the tenth measured epoch on",
    "ω like epoch to the power",
    "max ω / min ω: first, least, last",
)


def theory_table() -> str:
    """The MSE cells of the study in the paper's regime against the closed forms, medians over the seeds."""
    rows = []
    for row in summary(Study.read(REGIME)).to_dict("records"):
        spread = (f"{row[f'max/min {when}']:.2g}" for when in ("first", "least", "last"))
        rows.append(
            [
                row["dataset"],
                f"{row['network']}, {row['n']}",
                f"{row['growth']:,.0f}",
                *(f"{100 * row[flow]:.0f} %" for flow in FLOWS),
                ", ".join(f"{100 * row[f'{flow} from the tenth']:.0f} %" for flow in FLOWS),
                f"{row['exponent']:.2f}",
                ", ".join(spread),
            ]
        )
    return table(THEORY_COLUMNS, rows)


def table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in ([*columns], ["---"] * len(columns), *rows))


def runs_table(prefix: str) -> str:
    """The single runs, for a page from which results/ is at ``prefix``."""
    return table(RUN_COLUMNS, [run_row(ROOT / "results" / name, prefix) for name in RUNS])


def study_table() -> str:
    """The runs of the study, in the order of the grid."""
    runs = [Run.open(path.parent) for path in STUDY.glob("*/config.json")]
    runs.sort(key=lambda run: [order.index(getattr(run.config, name)) for name, order in ORDER.items()])
    return table(STUDY_COLUMNS, [study_row(run) for run in runs if run.history()])


def written(text: str, name: str, content: str) -> str:
    """The page with a new table between its marks."""
    begin, end = BEGIN.format(name), END.format(name)
    if begin not in text or end not in text:
        sys.exit(f"a page lacks the marks {begin} and {end}")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def main() -> None:
    """Write or check both pages."""
    pages = {
        ROOT / "README.md": {"results": runs_table("results/")},
        ROOT / "results" / "README.md": {
            "results": runs_table(""),
            "study": study_table(),
            "regime": regime_table(),
            "theory": theory_table(),
        },
    }
    for page, tables in pages.items():
        text = fresh = page.read_text(encoding="utf-8")
        for name, content in tables.items():
            fresh = written(fresh, name, content)
        if "--check" not in sys.argv[1:]:
            page.write_text(fresh, encoding="utf-8")
        elif text != fresh:
            sys.exit(f"{page.relative_to(ROOT)} is out of date; run: python tools/results.py")


if __name__ == "__main__":
    main()
