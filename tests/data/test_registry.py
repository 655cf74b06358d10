"""A data set is known by one entry of the registry: it is then named, found, listed and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import dataset_files as write

from neuralcollapse import InputError
from neuralcollapse import data as datasets
from neuralcollapse.data import registry
from neuralcollapse.data.idx import has_idx, read_idx

LETTERS = registry.Source(
    ("a", "b", "c"),
    (registry.Format("Letters", ("letters", "EMNIST/raw"), has_idx, read_idx),),
    "four IDX files",
    "from its authors",
)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(registry.DATASETS, "letters", LETTERS)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NEURALCOLLAPSE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("place", ["letters", "EMNIST/raw"])
def test_one_entry_is_all_that_a_data_set_needs(tmp_path: Path, place: str) -> None:
    images = write.random_images(6, 5, 4)
    folder = write.write_idx(tmp_path / place, (images, [0, 1, 2, 0, 1, 2]), (images[:3], [2, 1, 0]))
    assert "letters" in datasets.names()
    data = datasets.load("letters", tmp_path, examples_per_class=1)
    assert (data.title, data.class_names, data.source) == ("Letters", ("a", "b", "c"), str(folder))
    assert sorted(data.train.labels.tolist()) == [0, 1, 2] and data.test.labels.tolist() == [2, 1, 0]
    (found,) = (each for each in datasets.available(tmp_path) if each.name == "letters")
    assert (found.title, found.train, found.test, found.problem) == ("Letters", (2, 2, 2), 3, "")


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^letters not found: looked for four IDX files in {tmp_path}/letters.*from"):
        datasets.load("letters", tmp_path)
    (found,) = (each for each in datasets.available(tmp_path) if each.name == "letters")
    assert found.problem == "not found" and found.path == str(tmp_path / "letters")


def test_a_misspelled_name_gets_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"^unknown data set 'leters' \(did you mean 'letters'\?\); expected one of"):
        datasets.load("leters")


@pytest.mark.parametrize("name", datasets.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(datasets, name).__module__.startswith("neuralcollapse.data.")


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        datasets.lod  # type: ignore[attr-defined]  # noqa: B018
