"""Whole figures, their captions and Table 1, written to files, from whatever `History.read` reads.

What draws which figure of the paper (Han, Papyan & Donoho, 2022):

    ========  ====================================================  ==============================================
    figure    what it shows                                         where
    ========  ====================================================  ==============================================
    Fig. 1    features, class means and classifier at the simplex   `portrait.portrait`; moving: `animate_run`
    Fig. 2    the MSE loss and its parts L_NC1, L_NC2/3, L⊥_LS      `FIGURES`, "decomposition"
    Figs. 3–5 NC2: equal norms, equal angles, maximal angles        `FIGURES`, "nc2"
    Table 1   improvement after zero training error                 `table1.write_table1`
    ========  ====================================================  ==============================================

The panels are those of `neuralcollapse.plots`; here they are arranged, captioned and written. `draw` takes a run, a
study or a log; `draw_sweep` (sweep.py) shows the values of a setting; `compare_run` and `draw_simulation` (theory.py)
and `compare_study` (theory_study.py) the closed form of the central path. Nothing here trains or measures.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

from neuralcollapse._checks import InputError
from neuralcollapse.figures.animation import animate_run
from neuralcollapse.figures.metrics_over_epochs import FIGURES, draw_grids, has
from neuralcollapse.figures.overview import draw_portraits
from neuralcollapse.figures.study_runs import Study
from neuralcollapse.figures.sweep import draw_sweep
from neuralcollapse.figures.table1 import write_table1
from neuralcollapse.figures.theory import compare_run, draw_simulation
from neuralcollapse.figures.theory_study import compare_study
from neuralcollapse.measuring.run_readers import as_folder
from neuralcollapse.plots import style
from neuralcollapse.plots.options import Drawing

__all__ = ["Drawing", "animate_run", "compare_run", "compare_study", "draw", "draw_simulation", "draw_sweep"]


def draw(path: Path, out: Path | None = None, *, drawing: Drawing | None = None, animate: bool = False) -> list[Path]:
    """Draw a run, a study, or the log of another program.

    Args:
        path: what `History.read` takes.
        out: the folder of the files; by default `figures/` in the folder `path`, or beside the file.
        drawing: formats, size and title.
        animate: animate the portrait of a run, too.

    Returns:
        The files written: each figure in each format, and its caption as .tex and .txt. The figures are those of
        `FIGURES` whose metrics were measured; of a run with snapshots also `overview`, `portrait` and
        `portrait-3d` (Fig. 1); of several runs of ours also `table1.md`, `table1.tex` and `table1.csv`.

    Raises:
        InputError: nothing known is there, nothing was measured yet, or a file is damaged.
    """
    drawing, path = drawing or Drawing(), as_folder(path)
    run = (path / "config.json").is_file()
    if animate and not run:
        raise InputError(f"--animate shows one run over its epochs, and {path} is not a run directory")
    study = Study.read(path)
    if not any(has(each, rows) for each in study.runs for _, rows in FIGURES.values()):
        raise InputError(f"{path} has none of the metrics that figures show; history.metrics lists what it has")
    folder = (path if path.is_dir() else path.parent) / "figures" if out is None else out
    with matplotlib.rc_context(style.rc(drawing)):
        written = draw_portraits(study.runs[0], folder, drawing) if run else []
        written += draw_grids(study, folder, drawing)
    if len(study.runs) > 1 and all(each.config for each in study.runs):
        written += write_table1(study, folder)
    return written + (animate_run(path, folder) if animate else [])
