"""Write the tables of results/README.md and README.md from the histories in results/.

python tools/results.py            writes both
python tools/results.py --check    fails when one is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from neuralcollapse.lab.runs import Run

ROOT = Path(__file__).resolve().parents[1]
PAGES = {ROOT / "README.md": "results/", ROOT / "results" / "README.md": ""}
BEGIN, END = "<!-- results table -->", "<!-- end of results table -->"
ORDER = ("digits-resnet18", "mnist-resnet18", "fashion-mnist-resnet18", "cifar10-resnet18")
COLUMNS = (
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


def row(path: Path, prefix: str) -> list[str]:
    """One run, as cells."""
    run = Run.open(path)
    config, history = run.config, run.history()
    last: dict[str, Any] = history[-1]
    first = next(record for record in history if record["train_error"] == 0)
    return [
        f"[{config['dataset_title']}]({prefix}{path.name}/figures/overview.png), {config['num_examples']:,}",
        f"{config['model']}, width ×{config['width']:g}",
        f"{last['epoch']} ({first['epoch']})",
        f"{config['measured_weight_decay']:g}",
        f"{100 * first['test_accuracy']:.2f} % → {100 * last['test_accuracy']:.2f} %",
        f"{last['nc1']:.2g}",
        f"{last['nc2.maximal_angle_means']:.3f}",
        f"{last['nc3']:.3f}",
        f"{last['mse.ls_perp'] / last['mse.total']:.3f}",
    ]


def table(prefix: str) -> str:
    """All runs."""
    rows = [row(ROOT / "results" / name, prefix) for name in ORDER]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in ([*COLUMNS], ["---"] * len(COLUMNS), *rows))


def main() -> None:
    """Write or check both pages."""
    for page, prefix in PAGES.items():
        text = page.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END)[2]
        fresh = f"{before}{BEGIN}\n{table(prefix)}\n{END}{after}"
        if "--check" not in sys.argv[1:]:
            page.write_text(fresh, encoding="utf-8")
        elif text != fresh:
            sys.exit(f"{page.relative_to(ROOT)} is out of date; run: python tools/results.py")


if __name__ == "__main__":
    main()
