"""The public names: grouped in `help(neuralcollapse)`, imported when first used, the same for a type checker."""

from __future__ import annotations

import ast
import importlib
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import neuralcollapse as nc

SOURCE = Path(nc.__file__).read_text(encoding="utf-8")
DOCUMENTED = re.findall(r"^    (\w+)  +\S", nc.__doc__ or "", re.MULTILINE)


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_every_public_name_is_in_the_docstring_once_and_in_the_order_of_all() -> None:
    assert nc.__all__ == DOCUMENTED


def test_the_docstring_says_one_line_of_each_name() -> None:
    groups = re.split(r"\n\n(?=[A-Z].*:\n)", nc.__doc__ or "")[2:]
    assert len(groups) >= 6 and all(re.match(r"[A-Z][^\n]+:(\n    \w+  +\S[^\n]+)+\n?$", group) for group in groups)
    assert max(map(len, (nc.__doc__ or "").splitlines())) <= 120


def test_the_quick_start_runs() -> None:
    start = re.search(r"Quick start:\n\n((?:    .*\n|\n)+)", nc.__doc__ or "")
    assert start is not None
    lines = textwrap.dedent(start[1]).strip().splitlines()
    assert len([line for line in lines if line]) <= 5
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    loader = [(torch.randn(12, 4), torch.arange(12) % 3)]
    exec("\n".join(lines), {"model": model, "loader": loader, "print": lambda report: None})


def test_every_name_is_that_of_its_module() -> None:
    for name, module in nc._HOME.items():
        assert getattr(nc, name) is getattr(importlib.import_module(f"neuralcollapse.{module}"), name)


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    (block,) = (
        node
        for node in ast.parse(SOURCE).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names:
            assert alias.asname == alias.name  # which exports it
            seen[alias.name] = node.module.removeprefix("neuralcollapse.")
    assert seen == nc._HOME


def test_importing_the_package_imports_neither_pytorch_nor_numpy() -> None:
    loaded = "{'torch', 'numpy', 'scipy', 'pandas'} & set(sys.modules)"
    assert run_python(f"import sys, neuralcollapse; dir(neuralcollapse); print({loaded})") == "set()\n"


def test_a_star_import_gives_every_name() -> None:
    names: dict[str, object] = {}
    exec("from neuralcollapse import *", names)
    assert set(nc.__all__) <= set(names)


def test_packages_are_attributes_without_an_import_of_their_own() -> None:
    assert run_python("import neuralcollapse as nc; print(nc.theory.__name__)") == "neuralcollapse.theory\n"


def test_public_names_can_be_pickled() -> None:
    for name in nc.__all__:
        if name != "METRICS":  # holds functions without a name
            assert pickle.loads(pickle.dumps(getattr(nc, name))) is getattr(nc, name)


def test_dir_lists_the_public_names_and_nothing_the_module_imported() -> None:
    listed = {name for name in dir(nc) if not name.startswith("__")}
    assert listed == {*nc.__all__, "moments", "metrics", "theory", "measuring"}


def test_a_misspelled_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no attribute .mesure_features. .did you mean .measure_features."):
        nc.mesure_features  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nc9'"):
        exec("from neuralcollapse import nc9")
