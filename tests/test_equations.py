"""docs/equations.md leads from every statement to one function and its tests, and is up to date."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "equations.py"


@pytest.fixture
def equations() -> ModuleType:
    spec = importlib.util.spec_from_file_location("equations", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "equations", module)
        spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(equations: ModuleType) -> None:
    assert equations.PAGE.read_text(encoding="utf-8") == equations.page()


def test_every_linked_file_exists(equations: ModuleType) -> None:
    for function in equations.functions():
        assert (equations.ROOT / function.path).is_file()


def test_a_statement_without_a_function_or_with_two_is_an_error(
    equations: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = equations.functions()
    home = next(function for function in known if f"{equations.ICLR}, Theorem 1" in function.statements)
    for changed in ([f for f in known if f is not home], [*known, home]):
        monkeypatch.setattr(equations, "functions", lambda changed=changed: changed)
        with pytest.raises(ValueError, match=r"expected one function for .*Theorem 1"):
            equations.page()


def test_a_function_without_a_test_is_an_error(equations: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equations, "tests_of", lambda name, module, statement: [])
    with pytest.raises(ValueError, match="no test names"):
        equations.page()


def test_an_unlisted_source_is_an_error(equations: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    known = equations.functions()
    stray = equations.Function("stray", "nowhere.py", (f"{equations.ICLR}, Theorem 9",), "A stray.")
    monkeypatch.setattr(equations, "functions", lambda: [*known, stray])
    with pytest.raises(ValueError, match="not in the list"):
        equations.page()
