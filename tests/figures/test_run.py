"""The figures of one run, in each format and style: what they show, their sizes, their type, their captions."""

from __future__ import annotations

import contextlib
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from helpers.run_directories import make_run, record
from helpers.studies import config, history, write_run

from neuralcollapse import InputError, figures
from neuralcollapse.figures.captions import formula, latex, readable
from neuralcollapse.figures.metrics_over_epochs import FIGURES, draw_grid
from neuralcollapse.figures.study_runs import Study
from neuralcollapse.plots.options import Drawing
from neuralcollapse.training.run_directory import Run

EPOCHS = (1, 2, 5, 10, 30)
NAMES = ["overview", "portrait", "portrait-3d", "decomposition", "nc1", "nc2", "nc3", "nc4", "accuracy", "snr"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", [record(epoch) for epoch in EPOCHS])


def test_each_panel_is_the_histories_numbers(run: Run) -> None:
    lines = run.history()
    for name, (_, rows) in FIGURES.items():
        if name == "robustness":
            continue
        figure, _ = draw_grid(Study.read(run.path), name, Drawing())
        panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
        assert len(panels) == len(rows)
        for row, ax in zip(rows, panels, strict=True):
            drawn = [list(each.get_ydata()) for each in ax.lines if each.get_gid() == "curve"]
            if row.metrics == ("snr",):
                expected = [[epoch * rank for epoch in EPOCHS] for rank in (4.0, 3.0, 2.0, 1.0)]
            elif row.metrics == ("mse.ls_perp_share",):
                expected = [[line["mse.ls_perp"] / line["mse.total"] for line in lines]]
            elif row.metrics == ("test_error",):
                expected = [[1 - line["test_accuracy"] for line in lines]]
            else:
                expected = [[line[metric] or 1e-100 for line in lines] for metric in row.metrics]
            assert drawn == expected, name


SVG = Drawing(format=("svg",))


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Leave some of the figures out, which take their time."""

    def keep(*names: str) -> None:
        monkeypatch.setattr(
            "neuralcollapse.figures.metrics_over_epochs.FIGURES", {name: FIGURES[name] for name in names}
        )

    return keep


def test_every_figure_has_its_caption(run: Run) -> None:
    written = figures.draw(run.path, drawing=SVG)
    assert [path.name for path in written] == [f"{name}.{ending}" for name in NAMES for ending in ("svg", "tex", "txt")]
    folder = run.path / "figures"
    assert {path.name for path in folder.iterdir()} == {path.name for path in written}
    text = (folder / "nc1.txt").read_text()
    assert (
        "mlp on digits $1, MSE loss, λ = 0.01; seed 0 (n = 1). NC1, the variability within classes, is tr(Σ_WΣ_B⁺)/C."
        in text
    )
    assert "width ×0.5" in text
    markup = (folder / "nc1.tex").read_text()
    assert markup.startswith(
        "\\caption{NC1: variability within classes. mlp on digits \\$1, MSE loss, $\\lambda$ = 0.01"
    )
    assert r"$\mathrm{tr}(\Sigma_W\Sigma_B^{\dagger})/C$" in markup and markup.count("{") == markup.count("}")
    shown = (folder / "nc1.svg").read_text()
    assert ">epoch</text>" in shown and ">NC1: variability within classes</text>" in shown


def test_the_same_run_gives_the_same_bytes_and_a_title_can_be_left_out(tmp_path: Path, only: Any) -> None:
    only("nc1")
    run = make_run(tmp_path / "run", [record(epoch) for epoch in EPOCHS], snapshots=False)
    drawing = Drawing(format=("pdf", "svg", "png"))
    with pytest.warns(UserWarning, match="no snapshots, so there is no portrait"):
        first, again = (figures.draw(run.path, tmp_path / name, drawing=drawing) for name in ("one", "two"))
        figures.draw(run.path, tmp_path / "bare", drawing=Drawing(format=("svg",), title=False))
    assert [path.suffix for path in first] == [".pdf", ".svg", ".png", ".tex", ".txt"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert "variability within classes</text>" not in (tmp_path / "bare" / "nc1.svg").read_text()


@pytest.mark.parametrize(("style", "inches"), [("iclr", 5.5), ("neurips", 5.5), ("column", 3.25), ("talk", 10.0)])
def test_a_pdf_has_the_exact_width_embedded_type_42_fonts_and_no_small_text(
    run: Run, tmp_path: Path, style: Any, inches: float, only: Any
) -> None:
    if style != "iclr":  # one curve and the overview stand for all
        only("nc1")
    written = figures.draw(run.path, tmp_path / style, drawing=Drawing(format=("pdf",), style=style, title=False))
    for path in [path for path in written if path.suffix == ".pdf"]:
        content = path.read_bytes()
        (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", content)
        assert float(box) == pytest.approx(72 * inches, abs=0.01)
        text = content + b"".join(streams(content))
        assert b"/Type3" not in text
        assert b"/FontFile2" in text and re.search(rb"/Subtype /(TrueType|CIDFontType2)", text)
        sizes = [float(size) for size in re.findall(rb"/F[\w-]+ ([\d.]+) Tf", text)]
        assert sizes and min(sizes) >= 6, (path.name, min(sizes))


def streams(pdf: bytes) -> list[bytes]:
    """What the compressed streams of a PDF hold."""
    found = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        with contextlib.suppress(zlib.error):
            found.append(zlib.decompress(stream))
    return found


def test_robustness_is_drawn_where_it_was_measured_and_called_an_upper_bound(tmp_path: Path) -> None:
    values = dict(zip(EPOCHS, (0.02, float("nan"), 0.05, 0.07, 0.09), strict=True))
    lines = [record(epoch, robustness=mean, **{"robustness.median": mean / 2}) for epoch, mean in values.items()]
    attacked = make_run(tmp_path / "attacked", lines)
    figure, caption = draw_grid(Study.read(attacked.path), "robustness", Drawing())
    assert "(upper bound)" in figure.axes[0].get_ylabel() and "an upper bound of the smallest one" in readable(caption)


def test_a_run_trained_with_cross_entropy_shows_its_own_loss(tmp_path: Path) -> None:
    lines = [{**line, "loss": 0.5} for line in history({1: 0.5, 350: 0.6}, 1)]
    study = Study.read(write_run(tmp_path / "a", config(loss="ce"), lines))
    from neuralcollapse.figures.metrics_over_epochs import has

    assert not has(study.runs[0], FIGURES["decomposition"][1]) and has(study.runs[0], FIGURES["nc1"][1])
    with pytest.raises(InputError, match="describes training with the MSE loss; a was trained with ce"):
        figures.compare_run(tmp_path / "a")


def test_the_theory_of_a_run_says_once_what_it_leaves_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [record(1), record(2, snr=[9.0]), record(3, snr=[]), record(5), record(8)])
    with pytest.warns(UserWarning) as told:
        fit, written = figures.compare_run(run.path, drawing=SVG)
    (said,) = [str(each.message) for each in told]
    assert "leaves out epochs 2, 3 of run: not 4 finite singular values" in said
    assert list(fit.epochs) == [1, 5, 8] and {path.stem for path in written} == {"theory"}


def test_a_spectrum_that_loses_directions_is_drawn_as_far_as_it_goes(tmp_path: Path, only: Any) -> None:
    only("snr")
    study = Study.read(make_run(tmp_path / "run", [record(1), record(2, snr=[9.0]), record(3)]).path)
    figure, _ = draw_grid(study, "snr", Drawing())
    drawn = [list(each.get_ydata()) for each in figure.axes[0].lines if each.get_gid() == "curve"]
    assert drawn[0] == [4.0, 9.0, 12.0] and drawn[1] == [3.0, 9.0] and len(drawn) == 4


def test_a_run_without_a_spectrum_has_the_other_figures(tmp_path: Path, only: Any) -> None:
    only("nc1", "snr")
    run = make_run(tmp_path / "run", [record(1, snr=[]), record(2, snr=[])], snapshots=False)
    with pytest.warns(UserWarning, match="no portrait"):
        assert {path.stem for path in figures.draw(run.path, drawing=SVG)} == {"nc1"}


def test_one_epoch_is_enough(tmp_path: Path, only: Any) -> None:
    only("nc1", "accuracy")
    run = make_run(tmp_path / "run", [record(1)])
    assert len(figures.draw(run.path, drawing=SVG)) == 3 * 5


def test_what_was_not_measured_has_no_panel(tmp_path: Path, only: Any) -> None:
    only("nc1", "nc3")
    lines = [record(1), record(2)]
    for line in lines:
        del line["nc3"]
    run = make_run(tmp_path / "run", lines, snapshots=False)
    with pytest.warns(UserWarning, match="no portrait"):
        assert {path.stem for path in figures.draw(run.path, drawing=SVG)} == {"nc1"}


def test_a_log_of_another_program_is_drawn_too(tmp_path: Path) -> None:
    path = tmp_path / "monitor.jsonl"
    path.write_text("".join(f'{{"epoch": {at}, "nc1": {1 / at}, "accuracy": 0.5}}\n' for at in (1, 2, 3)))
    written = figures.draw(path, drawing=SVG)
    assert {each.stem for each in written} == {"nc1", "accuracy"}
    assert written[0].parent == tmp_path / "figures"
    path.write_text('{"epoch": 1, "mine": 2.0}\n')
    with pytest.raises(InputError, match="none of the metrics that figures show"):
        figures.draw(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"A&B_50% #{x} | [y] \$^~ <", r"A\&B\_50\% \#\{x\} \textbar{} {[}y{]} "
         r"\textbackslash{}\$\textasciicircum{}\textasciitilde{} \textless{}"),
        ("width ×0.25, λ = 0.1 ± 2", r"width $\times$0.25, $\lambda$ = 0.1 $\pm$ 2"),
    ],
)  # fmt: skip
def test_text_from_outside_is_escaped(text: str, expected: str) -> None:
    assert latex(text) == expected
    assert latex(formula(r"so $\omega_j$ is") + text) == rf"so $\omega_j$ is{expected}"
    assert readable(formula(r"so $\omega_j$ is") + text) == f"so ω_j is{text}"
