"""The report in a browser: it opens without a network, and every view does what it is for."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reports import EPOCHS, HOSTILE, NAMES

import neuralcollapse as nc
from neuralcollapse.report import report_measurement, write_report
from neuralcollapse.report.explanations import FAMILIES
from neuralcollapse.training.run_directory import Run

Open = Callable[..., Any]


def test_opens_without_a_network_and_without_an_error(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    page.draw_all()
    assert page.errors == []
    assert page.requests == [run_page.as_uri()]
    assert run_page.stat().st_size < 8_000_000
    assert page("[...panels].every((panel) => panel.plot.data.length > 0)")


def test_text_from_outside_is_text(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    page.draw_all()
    assert page("document.querySelectorAll('script').length") == 3  # the data, plotly, the page's own
    assert page("document.querySelectorAll('#view b').length") == page("document.querySelectorAll('.readout b').length")
    assert page("document.querySelector('h1').textContent").startswith(HOSTILE)
    classes = page("[...document.querySelectorAll('#panel-pair select option')].map((option) => option.textContent)")
    assert classes[: len(NAMES)] == list(NAMES)
    assert HOSTILE in page("document.querySelector('pre').textContent")
    assert HOSTILE in page("document.querySelector('.reading').textContent")
    ticks = page("document.querySelector('#panel-matrix .plot').textContent")
    assert "<script>alert…" in ticks
    assert "b & <b>bold</…" in ticks
    assert page.errors == []


def test_the_slider_moves_every_panel(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    page.draw_all()
    before = page("[...panels].map((panel) => [panel.node.id, panel.node.textContent])")
    page.page.focus("#epoch")
    page.page.keyboard.press("Home")
    page.page.keyboard.press("ArrowRight")
    assert page("document.querySelector('.timeline output').textContent") == f"Epoch {EPOCHS[1]}"
    after = dict(page("[...panels].map((panel) => [panel.node.id, panel.node.textContent])"))
    for name, text in before:
        assert after[name] != text, name
    lines = page(
        "[...panels].filter((panel) => panel.plot.layout.shapes).map((panel) => panel.plot.layout.shapes[0].x0)"
    )
    assert len(lines) >= 12
    assert set(lines) == {EPOCHS[1]}
    angles = page("document.querySelector('#panel-matrix .plot').data[0].z[0][1]")
    assert angles == pytest.approx(page("anglesOf(unpack(DATA.runs[0].snapshots.sets[1]), 5)[0][1]"))


def test_a_panel_out_of_sight_follows_when_it_is_seen(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    page.draw_all()
    page("document.querySelector('#panel-any').panel.visible = false")
    page.page.focus("#epoch")
    page.page.keyboard.press("Home")
    epoch = "document.querySelector('#panel-any .plot').layout.shapes[0].x0"
    assert page(epoch) == EPOCHS[-1]
    page("nearby.observe(document.querySelector('#panel-any'))")
    page("document.querySelector('#panel-any').scrollIntoView()")
    page.until(f"{epoch} === {EPOCHS[0]}")


def test_the_events_are_two_and_the_rate_is_marked(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    page.draw_all()
    shapes = page("document.querySelector('#panel-nc1 .plot').layout.shapes.map((shape) => shape.x0)")
    assert shapes == [13, 3, 8, 8]  # the epoch; first zero error; it stays zero; the rate is divided
    key = page("document.querySelector('.key').textContent")
    assert "first epoch without a training error: 3" in key
    assert "no training error from epoch 8 on" in key


def test_play_goes_through_the_epochs(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    page("""(() => {
      window.shown = [];
      const label = document.querySelector('.timeline output');
      new MutationObserver(() => shown.push(label.textContent)).observe(label, {childList: true});
    })()""")
    page.page.click("text=▶ Play")
    page.until("shown.length > 0 && document.querySelector('.timeline button').textContent === '▶ Play'")
    assert page("shown") == [f"Epoch {epoch}" for epoch in EPOCHS]


def test_a_click_on_a_pair_shows_its_two_classes(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    page.draw_all()
    page("document.querySelector('#panel-matrix').scrollIntoView({block: 'center'})")
    page.page.wait_for_timeout(200)
    place = page("""(() => {
      const plot = document.querySelector('#panel-matrix .plot'), {left, top} = plot.getBoundingClientRect();
      const {xaxis, yaxis} = plot._fullLayout;
      return {x: left + xaxis._offset + xaxis.d2p(4), y: top + yaxis._offset + yaxis.d2p(1)};
    })()""")
    page.page.mouse.move(place["x"] - 2, place["y"] - 2)
    page.page.mouse.click(place["x"], place["y"])
    page.until("document.querySelector('#panel-pair .readout').textContent.includes('b & <b>bold</b> and plain')")
    traces = page("document.querySelector('#panel-pair .plot').data.map((trace) => trace.name)")
    assert "plain: features" in traces
    assert "b &amp; &lt;b&gt;bold&lt;/b&gt;: features" in traces
    chosen = page("[...document.querySelectorAll('#panel-pair select')].map((select) => select.selectedIndex)")
    assert chosen == [1, 4]


def test_any_classes_can_be_chosen_for_the_portrait(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    assert page("document.querySelector('#panel-portrait .plot').data[0].type") == "scatter3d"
    page.page.select_option("#panel-portrait label:nth-child(4) select", label="none: a plane")
    assert page("document.querySelector('#panel-portrait .plot').data[0].type") == "scatter"
    page.page.select_option("#panel-portrait label:nth-child(1) select", label="plain")
    traces = page("document.querySelector('#panel-portrait .plot').data")
    shown = [trace["name"] for trace in traces if trace["showlegend"]]
    assert shown[0] == "plain"
    assert len(shown) == 3
    before = page("document.querySelector('#panel-portrait .plot').data.length")
    page.page.check("#panel-portrait input[type=checkbox]")
    assert page("document.querySelector('#panel-portrait .plot').data.length") == before + 3


def test_points_outside_the_frame_are_counted(run_page: Path, opened: Open, run: Path) -> None:
    page = opened(run_page)
    page.page.focus("#epoch")
    page.page.keyboard.press("Home")
    arrays = Run.open(run).snapshot(1)
    seen = _projected(arrays, (0, 1, 2, 3))
    outside = int((np.abs(seen) > 1.6).any(axis=1).sum())
    assert outside > 0
    assert f"{outside} of {len(seen)} features lie outside" in page(
        "document.querySelector('#panel-portrait .readout').textContent"
    )
    page.page.select_option("#panel-portrait label:nth-child(5) select", label="fitted to this epoch")
    assert " 0 of 24 features lie outside" in page("document.querySelector('#panel-portrait .readout').textContent")


@pytest.mark.parametrize("classes", [(0, 1, 2), (4, 2, 0, 1)])
def test_the_portrait_is_the_projection_of_the_whole_features(
    run_page: Path, opened: Open, run: Path, classes: tuple[int, ...]
) -> None:
    page = opened(run_page)
    found = page(f"project(unpack(DATA.runs[0].snapshots.sets[2]), {list(classes)}).features.flat()")
    expected = _projected(Run.open(run).snapshot(EPOCHS[2]), classes)
    assert np.array(found) == pytest.approx(expected, abs=2e-4)  # features are kept in 16 bits


def test_cosines_are_those_of_the_centred_class_means(run_page: Path, opened: Open, run: Path) -> None:
    page = opened(run_page)
    arrays = Run.open(run).snapshot(13)
    means = arrays["class_means"].astype(float) - arrays["global_mean"]
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    expected = unit @ unit.T + 1 / 4
    found = np.array(page("anglesOf(unpack(DATA.runs[0].snapshots.sets.at(-1)), 5)"), dtype=float)
    away = ~np.eye(5, dtype=bool)
    assert found[away] == pytest.approx(expected[away], abs=1e-6)


def test_a_note_tells_of_what_is_drawn(run_page: Path, tmp_path: Path, opened: Open) -> None:
    """Diamonds where a page has the classifier, which that of a measurement has not."""
    measured = nc.measure_features(np.eye(6)[:, :4], [0, 0, 0, 1, 1, 1], np.ones((2, 4)))
    report_measurement(measured, tmp_path / "measured.html")
    for path, drawn in ((run_page, True), (tmp_path / "measured.html", False)):
        page = opened(path)
        page.draw_all()
        symbols = page("document.querySelector('#panel-pair .plot').data.map((trace) => trace.marker?.symbol)")
        assert ("diamond" in symbols) is drawn
        assert page("document.querySelector('#view').textContent.includes('Diamonds')") is drawn


def test_the_numbers_of_a_panel_are_saved(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    page.draw_all()
    with page.page.expect_download() as download:
        page.page.click("#panel-nc1 >> text=CSV")
    rows = list(csv.reader(io.StringIO(Path(download.value.path()).read_text("utf-8"))))
    assert rows[0] == ["epoch", "NC1"]
    assert [int(row[0]) for row in rows[1:]] == list(EPOCHS)
    assert [float(row[1]) for row in rows[1:]] == pytest.approx([6 / epoch for epoch in EPOCHS], rel=1e-4)
    with page.page.expect_download() as download:
        page.page.click("#panel-matrix >> text=CSV")
    rows = list(csv.reader(io.StringIO(Path(download.value.path()).read_text("utf-8"))))
    assert rows[0][1:4] == [NAMES[0], NAMES[1], "'=1+1"]  # no formula for a spreadsheet
    with page.page.expect_download() as download:
        page.page.click("#panel-nc1 >> text=SVG")
    assert Path(download.value.path()).read_text("utf-8").startswith("<svg")


def test_axes_change_between_logarithmic_and_linear(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    page.draw_all()
    axis = "document.querySelector('#panel-nc1 .plot').layout.{}axis.type"
    assert (page(axis.format("x")), page(axis.format("y"))) == ("log", "log")
    page.page.click("#panel-nc1 >> text=log")
    page.page.select_option(".timeline select", "linear")
    assert (page(axis.format("x")), page(axis.format("y"))) == ("linear", "linear")


def test_a_number_is_explained_with_its_formula(run_page: Path, opened: Open) -> None:
    page = opened(run_page)
    page.page.click("#panel-nc1 summary")
    assert page("document.querySelector('#panel-nc1 details math').getBoundingClientRect().width") > 20
    explained = page("document.querySelectorAll('.explanations article p').length")
    assert explained == page("document.querySelectorAll('.explanations article math').length") >= 12


def test_every_later_metric_has_its_formula(tmp_path: Path, opened: Open) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 4
    arrays = {"features": rng.normal(size=(60, 6)), "labels": labels, "weight": rng.normal(size=(4, 6))}
    np.savez(tmp_path / "features.npz", **arrays)
    page = opened(write_report(tmp_path / "features.npz"))
    rows = page("[...document.querySelectorAll('#numbers tbody td:first-child')].map((cell) => cell.textContent)")
    families = page("[...document.querySelectorAll('#numbers tr.group')].map((row) => row.textContent)")
    assert families == [family for family in FAMILIES if family in families] and len(families) == 6
    explained = page("[...document.querySelectorAll('tr[id^=explain-]')].map((row) => row.cells[0].textContent)")
    assert len(explained) > 50 and set(explained) <= set(rows)
    assert page("document.querySelectorAll('tr[id^=explain-] math').length") == len(explained)
    assert page("document.querySelectorAll('#numbers tbody math').length") == len(rows)
    assert page("document.querySelectorAll('merror').length") == 0


def test_nothing_lies_over_a_legend_and_every_axis_has_ticks(tmp_path: Path, opened: Open) -> None:
    lines = [{"epoch": e, "nc1": 1 + 1e-3 * e, "nc2.equinorm_means": 0.14, "accuracy": 1 - 1e-3 / e} for e in (1, 2, 3)]
    page = opened(nc.History.from_records(lines).report(tmp_path / "page.html"))
    page.draw_all()
    assert page("document.querySelectorAll('.modebar-btn').length") == 0
    for panel in ("nc1", "equinorm", "accuracy"):
        ticks = page(f"[...document.querySelectorAll('#panel-{panel} .ytick text')].map((tick) => tick.textContent)")
        assert len(ticks) > 1 and len(set(ticks)) == len(ticks), (panel, ticks)


def test_nothing_is_wider_than_the_window_in_either_theme(run_page: Path, opened: Open) -> None:
    page = opened(run_page, color_scheme="dark")
    page.draw_all()
    assert page("document.documentElement.dataset.theme") == "dark"
    for width in (390, 1024, 1600):
        page.page.set_viewport_size({"width": width, "height": 900})
        page.until(f"document.documentElement.scrollWidth <= {width}")
        page.page.click("#theme")
    assert page("document.documentElement.dataset.theme") == "light"
    assert page.errors == []


def test_a_study_is_filtered_and_a_click_opens_a_run(study: Path, opened: Open, tmp_path: Path) -> None:
    page = opened(write_report(study, tmp_path / "study.html"))
    page.draw_all()
    assert page("document.querySelectorAll('#runs tbody tr').length") == 14
    assert page("document.querySelectorAll('#facets .panel').length") == 4
    assert page("document.querySelectorAll('#runs svg').length") == 14
    assert page("[...document.querySelectorAll('#not-run li')].map((cell) => cell.textContent)") == [
        "CIFAR10 (JPEG), vgg, ce"
    ]
    page.page.select_option("#filters label:nth-child(2) select", "vgg11")
    assert page("document.querySelectorAll('#runs tbody tr').length") == 6
    assert page("document.querySelectorAll('#facets .panel').length") == 2
    assert page("document.querySelector('#filters output').textContent") == "6 of 14 runs"
    page.page.fill("#filters input", "cifar10")
    assert page("document.querySelectorAll('#runs tbody tr').length") == 2
    page.page.click("#runs tbody a")
    page.until("document.querySelector('.timeline output')?.textContent === 'Epoch 10'")
    page.page.click("text=← All runs")
    page.until("document.querySelectorAll('#runs tbody tr').length === 14")
    assert page.errors == []


def test_a_study_compares_losses_seeds_and_settings(study: Path, opened: Open, tmp_path: Path) -> None:
    page = opened(write_report(study, tmp_path / "study.html"))
    page.draw_all()
    names = page("document.querySelector('#facets .plot').data.map((trace) => trace.name).filter(Boolean)")
    assert [name for name in names if "n = 2" in name]
    traces = page("document.querySelector('#facets .plot').data")
    bands = [trace["y"] for trace in traces if trace.get("fill") == "tonexty"]
    assert bands[0] == pytest.approx([12, 3, 1.2], rel=1e-4)  # the seed with twice the other's NC1, 6 / epoch
    differences = page("document.querySelector('#panel-difference .plot').data[0].x")
    assert len(differences) == 6
    page.page.select_option("#panel-scatter label:nth-child(1) select", "nc3")
    assert page("document.querySelector('#panel-scatter .plot').layout.xaxis.title.text") == "NC3"
    compared = page("document.querySelector('#compared').textContent")
    assert "seed" in compared
    assert page.errors == []


def test_a_thousand_classes(many_classes: Path, opened: Open, tmp_path: Path) -> None:
    path = write_report(many_classes, tmp_path / "run.html")
    assert path.stat().st_size < 8_000_000
    page = opened(path)
    page.draw_all()
    assert page("document.querySelector('#panel-matrix .plot').data[0].z.length") == 40
    assert "40 of 1000 classes" in page("document.querySelector('#panel-matrix .readout').textContent")
    assert page.errors == []


def _projected(arrays: dict[str, np.ndarray], classes: tuple[int, ...]) -> np.ndarray:
    """Features of some classes in the space of their means, at mean norm 1: by a basis of that space."""
    chosen = list(classes)
    means = arrays["class_means"][chosen].astype(float)
    origin = means.mean(axis=0)
    directions = np.linalg.svd(means - origin, full_matrices=False)[2][: len(chosen) - 1].T
    seen = (means - origin) @ directions
    left, _, right = np.linalg.svd(seen.T @ _corners(len(chosen)))
    turned = directions @ left @ right
    scale = np.linalg.norm((means - origin) @ turned, axis=1).mean()
    found = [
        (arrays["features"][arrays["labels"] == label].astype(float) - origin) @ turned / scale for label in chosen
    ]
    return np.concatenate(found)


def _corners(number: int) -> np.ndarray:
    """The simplex with the first corner up and the others below it."""
    angles = np.radians([90, 210, 330])
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if number == 3:
        return circle
    below = np.column_stack([circle * np.sqrt(8) / 3, np.full(3, -1 / 3)])
    return np.concatenate([[[0, 0, 1]], below])
