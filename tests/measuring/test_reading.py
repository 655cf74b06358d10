"""Numbers in words: what is said at which number, never more than is measured, and nothing of what is not."""

from __future__ import annotations

import html.parser
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks import Network, loader

import neuralcollapse as nc
from neuralcollapse.measuring.reading import MARKS, reading

COLLAPSED = {
    "accuracy": 1.0,
    "nc1": 1e-4,
    "nc2.equinorm_means": 0.01,
    "nc2.maximal_angle_means": 0.01,
    "nc3": 0.01,
    "nc4_mismatch": 0.0,
    "mse.total": 1.0,
    "mse.ls_perp": 0.01,
    "dim": 50,
    "classes_present": 10,
}


def said(**changes: Any) -> dict[str, tuple[str, str]]:
    return {each.about: (each.level, each.text) for each in reading({**COLLAPSED, **changes})}


def test_a_collapsed_network_is_called_so() -> None:
    found = said()
    assert list(found) == ["error", "nc1", "nc2", "nc3", "nc4", "path"]
    assert {level for level, _ in found.values()} == {"good"}
    # 1e-4 · 10/9 is the mean ratio of variances, of which the root is 0.0105
    assert found["nc1"][1] == "NC1 is 0.0001: collapsed. Examples spread 1.1 % as far as class means do."
    assert found["path"][1] == "L⊥_LS is 1 % of the MSE loss: near the central path."


@pytest.mark.parametrize(
    ("about", "changes", "level"),
    [
        ("error", {"accuracy": 0.999}, "part"),
        ("error", {"accuracy": 0.98}, "bad"),
        ("error", {"accuracy": 0.3, "train_accuracy": 1.0}, "good"),
        ("nc1", {"nc1": 0.0}, "good"),
        ("nc1", {"nc1": 0.002}, "part"),
        ("nc1", {"nc1": 0.2}, "bad"),
        ("nc1", {"nc1": "inf"}, "bad"),
        ("nc1", {"nc1": math.nan}, "bad"),
        ("nc2", {"nc2.equinorm_means": 0.1}, "part"),
        ("nc2", {"nc2.maximal_angle_means": 0.3}, "bad"),
        ("nc2", {"nc2.maximal_angle_means": "nan"}, "bad"),
        ("nc2", {"nc2.maximal_angle_means": 0.04, "dim": 2000}, "part"),  # random directions would be 0.018 from it
        ("nc2", {"dim": 5}, "none"),
        ("nc3", {"nc3": 0.05}, "part"),
        ("nc3", {"nc3": 2.0}, "bad"),
        ("nc3", {"nc3": "nan"}, "bad"),
        ("nc4", {"nc4_mismatch": 1e-6}, "part"),
        ("nc4", {"nc4_mismatch": 0.5}, "bad"),
        ("path", {"mse.ls_perp": 0.1}, "part"),
        ("path", {"mse.ls_perp": 0.9}, "bad"),
    ],
)
def test_what_is_said_at_which_number(about: str, changes: dict[str, Any], level: str) -> None:
    assert said(**changes)[about][0] == level


def test_a_share_is_never_rounded_to_none_or_all() -> None:
    assert "0.0017 % of" in said(accuracy=1 - 1.7e-5)["error"][1]
    assert "99.99966 %" in said(**{"mse.ls_perp": 1 - 3.4e-6})["path"][1]
    assert "on 100 % of" in said(nc4_mismatch=1.0)["nc4"][1]


def test_what_was_not_measured_is_not_spoken_of() -> None:
    assert len(reading({"epoch": 3, "nc3": None, "accuracy": None, "layer": "head"})) == 0
    assert [each.about for each in reading({"nc1": 0.5})] == ["nc1"]
    assert "path" not in {each.about for each in reading(COLLAPSED, loss="ce")}
    assert "path" in {each.about for each in reading(COLLAPSED, loss="mse")}
    for total in (0.0, math.inf, math.nan):
        assert "path" not in said(**{"mse.total": total})


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ((0.5, 0.0, 0.0), "From epoch 2 on there is no training error"),
        ((0.0, 0.1, 0.0), "first zero at epoch 1, and stays zero from epoch 3"),
        ((0.5, 0.0, 0.1), "first zero at epoch 2, and there are errors at the end again"),
    ],
)
def test_the_two_events_are_told_apart(errors: tuple[float, ...], words: str) -> None:
    records = [{"epoch": epoch, "train_error": e, "nc1": 4.0 / 100**epoch} for epoch, e in enumerate(errors, 1)]
    text = str(reading(records[-1], records))
    assert words in text and "NC1 fell 10,000-fold, from 0.04 at epoch 1 to 4e-06 at epoch 3." in text


# --- what notebooks and terminals show ---

HOSTILE = "<script>alert(1)</script>"


class Balanced(html.parser.HTMLParser):
    """Checks that every tag is closed, and keeps what there is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def objects(tmp_path: Path) -> list[Any]:
    torch.manual_seed(0)
    model = Network()
    monitor = nc.Monitor(model, loader(), class_names=[HOSTILE, "cat", "dog"])
    monitor(1), monitor(2)
    return [
        nc.measure(model, loader(), class_names=[HOSTILE, "cat", "dog"], metrics="all"),
        nc.measure_features(torch.randn(20, 3), torch.arange(20) % 2, layer=HOSTILE),
        nc.measure_layers(model, loader()),
        nc.History.from_monitor(monitor, run=HOSTILE),
        nc.CentralPath([0.5, 1.0, 2.0], num_classes=4, samples_per_class=10),
        nc.CentralPath(0.5, num_classes=4, samples_per_class=10, flow="multiplicative"),
        nc.CentralPath([0.0, 1.0], num_classes=3, samples_per_class=10),
        nc.CentralPath([0.0, 0.0], num_classes=3, samples_per_class=10),
    ]


def test_notebooks_show_balanced_html_without_scripts_or_colours(objects: list[Any]) -> None:
    for each in objects:
        shown = each._repr_html_()
        tags = Balanced(shown).tags
        assert not {"script", "style", "img", "link"} & set(tags) and HOSTILE not in shown
        assert not re.search(r"color:|#[0-9a-f]{3,6}\b", shown), "seen on light and dark pages alike"
        assert "table" in tags
    assert "&lt;script&gt;" in objects[0]._repr_html_() and "&lt;script&gt;" in objects[3]._repr_html_()


def test_the_terminal_shows_80_columns(objects: list[Any]) -> None:
    for each in (*objects[1:3], *objects[4:]):
        assert max(map(len, str(each).splitlines())) <= 82, each


def test_a_report_speaks_of_its_least_collapsed_class(objects: list[Any]) -> None:
    report = objects[0]
    worst = report.per_class.least_collapsed(1)[0]
    last = report.reading().sentences[-1]
    assert last.about == "classes" and worst.name in last.text and f"{worst.nc1_share / report.nc1:.1%}" in last.text
    assert str(last) in "\n".join(line.strip() for line in str(report).splitlines()).replace("\n", " ")
    assert last.text.startswith("The least collapsed class") and set(MARKS) >= {each.level for each in report.reading()}
    json.dumps([vars(each) for each in report.reading()])


def test_the_loss_of_one_singular_value_at_several_times() -> None:
    path = nc.CentralPath(0.5, num_classes=4, samples_per_class=10)
    several = path.loss([0.0, 10.0])
    assert several.tolist() == [pytest.approx(path.loss(0.0)), pytest.approx(path.loss(10.0))]
    assert path.loss(0.0) == pytest.approx(0.5 / (4 + 0.25))
