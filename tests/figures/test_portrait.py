"""Fig. 1: what is projected, what the frame holds, what is said of the rest."""

from __future__ import annotations

import numpy as np
from helpers.run_directories import DIM, snapshot
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from neuralcollapse.figures.portrait import portrait, portrait_legend, project


@given(seed=st.integers(0, 1000), count=st.sampled_from([2, 3, 4]), turn=st.integers(0, 1000))
def test_a_collapsed_network_is_the_simplex_however_it_is_turned(seed: int, count: int, turn: int) -> None:
    content = snapshot(0.0, seed)
    rotation = np.linalg.qr(np.random.default_rng(turn).normal(size=(DIM, DIM)))[0]
    for name in ("class_means", "weight", "features"):
        content[name] = content[name] @ rotation
    view = project(content, tuple(range(count)))
    np.testing.assert_allclose(np.linalg.norm(view.simplex, axis=1), 1, atol=1e-12)
    cosines = view.simplex @ view.simplex.T
    np.testing.assert_allclose(cosines[~np.eye(count, dtype=bool)], -1 / (count - 1), atol=1e-12)
    np.testing.assert_allclose(view.means, view.simplex, atol=1e-5)
    np.testing.assert_allclose(view.classifier, view.simplex, atol=1e-5)
    for label, features in enumerate(view.features):
        np.testing.assert_allclose(features, np.repeat(view.simplex[[label]], 6, axis=0), atol=1e-5)


def test_features_outside_the_frame_are_counted_and_all_others_are_in_it() -> None:
    for count, projection in ((3, None), (4, "3d")):
        content = snapshot(0.3)
        content["features"][:2] += 100 * (content["class_means"][0] - content["class_means"][1])
        view = project(content, tuple(range(count)))
        ax = portrait(view, Figure().add_subplot(projection=projection))
        (text,) = (text for text in ax.texts if text.get_gid() == "outside")
        assert text.get_text() == f"2 of {6 * count} features outside"
        middle, half = view.frame()
        assert sum((np.abs(features - middle) <= half).all(axis=1).sum() for features in view.features) == 6 * count - 2
        middle, half = view.frame(limit=np.inf)
        assert all((np.abs(features - middle) <= half).all() for features in view.features)
        assert not [text for text in portrait(project(snapshot(0.1), range(count)), ax).texts if text.get_gid() == "x"]


def test_an_inset_enlarges_the_first_class_where_it_has_become_small() -> None:
    ax = portrait(project(snapshot(0.01), (0, 1, 2), ["cat"]), Figure().add_subplot(), zoom=True)
    (inset,) = ax.child_axes
    name, times = inset.get_title().split(", × ")
    drawn = np.diff(ax.get_xlim())[0] * 0.38 / np.diff(inset.get_xlim())[0]
    assert name == "cat" and abs(float(times) / drawn - 1) < 0.06
    assert not portrait(project(snapshot(1.0), (0, 1, 2)), Figure().add_subplot(), zoom=True).child_axes


def test_names_of_classes_are_not_read_as_formulas() -> None:
    view = project(snapshot(0.1), (0, 1, 2), ["$x", "7"])
    labels = [str(handle.get_label()) for handle in portrait_legend(view)]
    assert labels[4:] == [r"\$x", "class 7", "class 2"]


def test_the_legend_shows_class_means_as_they_are_drawn() -> None:
    for count, projection in ((3, None), (4, "3d")):
        view = project(snapshot(0.1), range(count))
        ax = portrait(view, Figure().add_subplot(projection=projection))
        (handle,) = (each for each in portrait_legend(view) if each.get_label() == "class mean")
        drawn = max(
            ax.collections, key=lambda each: max(np.append(each.get_sizes(), 0)) if hasattr(each, "get_sizes") else 0
        )
        hollow = not len(drawn.get_facecolor()) or not drawn.get_facecolor()[0][3]
        assert (handle.get_markerfacecolor() == "none") == hollow == (count == 4)
