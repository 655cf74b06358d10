"""Write the tables of README.md and results/README.md from the histories in results/: single runs, and the study.

python tools/results.py            writes both pages
python tools/results.py --check    fails if one is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from neuralcollapse.training.run_directory import Run

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- {} table -->", "<!-- end of {} table -->"
RUNS = ("digits-resnet18", "mnist-resnet18", "fashion-mnist-resnet18", "cifar10-resnet18")
STUDY = ROOT / "results" / "study"
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
    return next((record for record in history if record["train_error"] == 0), None)


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
        ROOT / "results" / "README.md": {"results": runs_table(""), "study": study_table()},
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
