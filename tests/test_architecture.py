"""Imports go in one direction, and files stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "neuralcollapse"
LIBRARY = ("_errors", "_checks", "_files", "_linalg", "moments", "metrics", "theory", "measuring", "integrations")
LABORATORY = ("data", "networks", "training", "study", "files", "figures", "cli")
LAYERS = (*LIBRARY, *LABORATORY)  # each imports only from those before it
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}  # "" is the package itself, "metrics.mse" a module, "metrics" a folder's __init__


def imported_by(name: str, source: str, is_package: bool) -> set[str]:
    """The modules of this package that ``source`` imports, at any depth in the file, relative or absolute."""
    parents = ["neuralcollapse", *name.split(".")] if name else ["neuralcollapse"]
    if not is_package:
        parents = parents[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            targets = [(stem, alias.name) for alias in node.names]
        else:
            continue
        for stem, attribute in targets:
            if stem.split(".")[0] != "neuralcollapse":
                continue
            stem = stem.removeprefix("neuralcollapse").lstrip(".")
            submodule = f"{stem}.{attribute}".lstrip(".")
            found.add(submodule if submodule in MODULES else stem)
    return found


IMPORTS = {
    name: imported_by(name, path.read_text(encoding="utf-8"), path.name == "__init__.py")
    for name, path in MODULES.items()
}


def layer(name: str) -> str:
    return name.split(".")[0]


def test_the_walk_sees_every_form_of_import() -> None:
    source = (
        "import neuralcollapse.moments\nfrom neuralcollapse import _linalg\nfrom .geometry import x\n"
        "from ..moments import y\nfrom .. import _checks\nimport os\n"
        "def f():\n    from neuralcollapse.metrics import mse\n"
    )
    found = imported_by("metrics.collapse", source, is_package=False)
    assert {"moments", "_linalg", "_checks", "metrics.geometry", "metrics.mse"} <= found
    assert not any(name == "os" for name in found)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("", "__main__")])
def test_imports_only_from_lower_layers(name: str) -> None:
    assert layer(name) in LAYERS, f"{name} is in no known layer: {LAYERS}"
    for target in IMPORTS[name]:
        if not target:  # the public names, which belong to the library and sit just above it
            assert layer(name) in LABORATORY, f"{name} imports neuralcollapse itself, not the module it needs"
        elif layer(target) != layer(name):
            assert LAYERS.index(layer(target)) < LAYERS.index(layer(name)), f"{name} imports {target}, a layer above it"


@pytest.mark.parametrize("name", [name for name in MODULES if layer(name) not in (*LABORATORY, "__main__")])
def test_the_library_never_imports_the_experiments(name: str) -> None:
    assert not {layer(target) for target in IMPORTS[name]} & set(LABORATORY)


def test_no_cycles() -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " imports ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in IMPORTS.get(name, ()):
                visit(target, (*trail, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())
