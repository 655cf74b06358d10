"""Figures and tables of runs, studies, sweeps and the theory, drawn from run directories alone.

What draws which figure of the paper (Han, Papyan & Donoho, 2022):

    ========  ====================================================  ==============================================
    figure    what it shows                                         function
    ========  ====================================================  ==============================================
    Fig. 1    features, class means and classifier at the simplex   `portrait.portrait`; moving: `animate_run`
    Fig. 2    the MSE loss and its parts L_NC1, L_NC2/3, L⊥_LS      `curves.decomposition`
    Fig. 3    NC2: equal norms                                      `curves.nc2_equinorm`
    Fig. 4    NC2: equal angles                                     `curves.nc2_equiangularity`
    Fig. 5    NC2: maximal angles                                   `curves.nc2_maximal_angle`
    Table 1   improvement after zero training error                 `table1.write_table1`
    ========  ====================================================  ==============================================

The functions of `curves` and `portrait` draw into axes they are given; `animate_run` and `write_table1` write files.
`draw_run` (run.py) arranges the curves for one run, `draw_study` (study.py) as networks × data sets, `draw_sweep`
(sweep.py) over the values of a setting; `compare_run` and `draw_simulation` (theory.py) show the closed form of the
central path. Nothing here trains or measures.
"""

from __future__ import annotations

from pathlib import Path

from neuralcollapse._checks import InputError
from neuralcollapse.figures.animation import animate_run
from neuralcollapse.figures.run import draw_run
from neuralcollapse.figures.study import draw_study
from neuralcollapse.figures.sweep import draw_sweep
from neuralcollapse.figures.theory import compare_run, draw_simulation

__all__ = ["animate_run", "compare_run", "draw", "draw_run", "draw_simulation", "draw_study", "draw_sweep"]


def draw(path: Path, out: Path | None = None, *, animate: bool = False) -> list[Path]:
    """Draw a run, or a whole study.

    Args:
        path: a run directory, or the folder of a study.
        out: the folder of the files; by default `figures/` in `path`.
        animate: animate the portrait of a run, too.

    Raises:
        InputError: neither a run nor a folder of runs, and whatever `draw_run`, `draw_study` and `animate_run` raise.
    """
    if (path / "config.json").is_file():
        return draw_run(path, out) + (animate_run(path, out) if animate else [])
    if animate:
        raise InputError(f"--animate shows one run over its epochs, and {path} is not a run directory")
    return draw_study(path, out)
