"""Each public name has a docstring with its arguments, shapes, errors, source and a running example.

That the examples run is seen by pytest itself (`--doctest-modules`).
"""

from __future__ import annotations

import inspect
import re

import pytest

import neuralcollapse as nc

TEXT = {name: inspect.getdoc(getattr(nc, name)) or "" for name in nc.__all__}
FUNCTIONS = [name for name in nc.__all__ if callable(getattr(nc, name)) and not inspect.isclass(getattr(nc, name))]
MEASURED = [
    name
    for name in FUNCTIONS
    if inspect.unwrap(getattr(nc, name)).__module__.startswith("neuralcollapse.metrics.") and name != "compute_metrics"
]
WITHOUT_FIELDS = {"ClassReports", "History", "METRICS", "NC2", "InputError"}  # their docstrings say what they hold


def test_there_are_as_many_as_the_package_exports() -> None:
    assert len(TEXT) == len(nc.__all__) >= 40 and len(FUNCTIONS) >= 20 and len(MEASURED) >= 11


@pytest.mark.parametrize("name", nc.__all__)
def test_a_sentence_and_an_example(name: str) -> None:
    first = TEXT[name].split("\n\n")[0]
    assert first.rstrip().endswith((".", ":", "collapse")) or len(first) > 20
    assert re.search(r"^Example:\n    >>> ", TEXT[name], re.MULTILINE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_shapes_and_errors_of_a_function(name: str) -> None:
    taken = [each for each in inspect.signature(getattr(nc, name)).parameters if each not in ("args", "kwargs")]
    listed = TEXT[name].partition("Args:\n")[2]
    for each in taken:
        assert re.search(rf"\b{each}\b", listed), f"{each} is not explained"
    assert "Raises:" in TEXT[name]
    tensors = re.findall(r"Float\[|Integer\[|Tensor", str(inspect.signature(getattr(nc, name))))
    assert not tensors or re.search(r"\([a-zA-Z, ]*[nCcpm], ?[a-zA-Z]?\)", TEXT[name]), "no shape"


@pytest.mark.parametrize("name", MEASURED)
def test_the_source_of_what_is_measured(name: str) -> None:
    assert re.search(r"^Source: .+\(.*\d{4}.*\)|\.metrics\.geometry`", TEXT[name], re.MULTILINE)


@pytest.mark.parametrize("name", [n for n in nc.__all__ if inspect.isclass(getattr(nc, n)) and n not in WITHOUT_FIELDS])
def test_the_fields_of_a_class(name: str) -> None:
    assert "Attributes:\n" in TEXT[name] or "Args:\n" in TEXT[name]
