"""docs/architecture.md tells the truth: what it names exists, and each arrow of its pictures is a call in the code."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "neuralcollapse"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
NODES = dict(re.findall(r'(\w+)\["([\w.]+)"\]', "".join(PICTURES)))
FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())
MENTIONED = re.findall(r"`((?:" + "|".join(FOLDERS) + r")(?:\.(?!py`)\w+)+)`", PAGE)
NAMES = sorted({*NODES.values(), *MENTIONED})


def arrows() -> list[tuple[str, str]]:
    """(caller, callee) of every arrow, by their names in the package."""
    found = []
    for picture in PICTURES:
        names = dict(re.findall(r'(\w+)\["([\w.]+)"\]', picture))
        for line in picture.splitlines():
            if ends := re.fullmatch(r" +(\w+)(?:\[.*?\])? --> (\w+)(?:\[.*?\])?", line):
                found.append((names[ends[1]], names[ends[2]]))
    return found


def module_of(name: str) -> tuple[str, list[str]]:
    """The longest module that a dotted name begins with, and the rest."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return ".".join(parts[:length]), parts[length:]
    raise AssertionError(f"{name} is in no module")


def definitions(body: list[ast.stmt], prefix: str = "") -> dict[str, ast.AST]:
    """Functions, classes and methods by their names in the module."""
    found: dict[str, ast.AST] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[prefix + node.name] = node
            if isinstance(node, ast.ClassDef):
                found |= definitions(node.body, f"{prefix}{node.name}.")
    return found


def called_by(name: str) -> set[str]:
    """What a function or class calls, itself or in others of its module that it uses: `f` of f(…), `m` of x.m(…)."""
    module, rest = module_of(name)
    path = PACKAGE.joinpath(*module.split("."))
    source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    known = definitions(ast.parse(source.read_text(encoding="utf-8")).body)
    waiting, done, found = [".".join(rest)], set[str](), set[str]()
    while waiting:
        current = waiting.pop()
        done.add(current)
        for node in ast.walk(known[current]):
            if isinstance(node, ast.Call):
                found.add(ast.unparse(node.func).split(".")[-1])
            elif isinstance(node, ast.Name) and node.id in known and node.id not in done:
                waiting.append(node.id)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists(name: str) -> None:
    module, rest = module_of(name)
    value: object = importlib.import_module(f"neuralcollapse.{module}")
    for part in rest:
        value = getattr(value, part)


@pytest.mark.parametrize(("caller", "callee"), arrows())
def test_every_arrow_is_a_call(caller: str, callee: str) -> None:
    assert callee.split(".")[-1] in called_by(caller), f"{caller} does not call {callee}"


def test_every_line_of_the_pictures_is_read() -> None:
    lines = [line for picture in PICTURES for line in picture.splitlines() if "-->" in line]
    assert len(lines) == len(arrows()) > 30


def test_every_folder_is_in_the_table_and_none_else() -> None:
    assert sorted(re.findall(r"^\| `(\w+)/` ", PAGE, re.MULTILINE)) == FOLDERS


def test_every_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", PAGE):
        assert (ROOT / "docs" / link).resolve().is_file(), link


def test_the_page_is_one_page() -> None:
    assert len(PAGE.splitlines()) < 150
