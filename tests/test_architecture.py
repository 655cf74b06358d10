"""The shape of the package: imports go one way, one name means one thing, the terminal belongs to the commands."""

from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "neuralcollapse"
BASE = ("_errors", "_interrupts", "_checks", "_files", "_linalg", "_html")
LIBRARY = (*BASE, "moments", "metrics", "theory", "plots", "measuring", "integrations")
LABORATORY = ("data", "networks", "training", "study", "files", "figures", "report", "cli")
LAYERS = (*LIBRARY, *LABORATORY)  # each imports only from those before it
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}  # "" is the package itself, "metrics.mse" a module, "metrics" a folder's __init__
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
SAME_CLASS_NAME = {"NeuralCollapse": "one for each framework, as each of its users imports it"}


def imported_by(tree: ast.Module) -> set[str]:
    """The modules of this package that a module imports, at any depth in the file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            targets = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for stem, attribute in targets:
            if stem.split(".")[0] == "neuralcollapse":
                stem = stem.removeprefix("neuralcollapse").lstrip(".")
                submodule = f"{stem}.{attribute}".lstrip(".")
                found.add(submodule if submodule in MODULES else stem)
    return found


IMPORTS = {name: imported_by(tree) for name, tree in TREES.items()}


def layer(name: str) -> str:
    return name.split(".")[0]


def test_the_walk_sees_every_form_of_import() -> None:
    source = (
        "import neuralcollapse.moments\nfrom neuralcollapse import _linalg\nimport os\n"
        "from neuralcollapse.metrics.geometry import x\ndef f():\n    from neuralcollapse.metrics import mse\n"
    )
    assert imported_by(ast.parse(source)) == {"moments", "_linalg", "metrics.geometry", "metrics.mse"}


@pytest.mark.parametrize("name", MODULES)
def test_imports_are_absolute(name: str) -> None:
    for node in ast.walk(TREES[name]):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{name}, line {node.lineno}"


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("", "__main__")])
def test_imports_only_from_lower_layers(name: str) -> None:
    assert layer(name) in LAYERS, f"{name} is in no known layer: {LAYERS}"
    for target in IMPORTS[name]:
        if not target:  # the public names, which belong to the library and sit just above it
            assert layer(name) in LABORATORY, f"{name} imports neuralcollapse itself, not the module it needs"
        elif layer(target) != layer(name):
            assert LAYERS.index(layer(target)) < LAYERS.index(layer(name)), f"{name} imports {target}, a layer above it"


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


def bound_in(tree: ast.Module) -> set[str]:
    """The names that a module defines or imports at its top level, other than modules of this package."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = f"{node.module}.{alias.name}".removeprefix("neuralcollapse.")
                found |= {alias.asname or alias.name} if module not in MODULES else set()
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("package", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_no_module_has_the_name_of_what_its_package_exports(package: str) -> None:
    inside = {path.stem for path in MODULES[package].parent.glob("*.py")}
    inside |= {path.parent.name for path in MODULES[package].parent.glob("*/__init__.py")}
    exported = getattr(importlib.import_module(f"neuralcollapse.{package}".rstrip(".")), "__all__", ())
    assert not inside & {*bound_in(TREES[package]), *exported}


def test_no_two_public_classes_have_one_name() -> None:
    homes = defaultdict(list)
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name not in SAME_CLASS_NAME:
                homes[node.name].append(name)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


@pytest.mark.parametrize("name", [name for name in MODULES if layer(name) not in ("cli", "__main__")])
def test_only_the_commands_write_to_the_terminal(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            to_a_file = any(keyword.arg == "file" for keyword in node.keywords)
            assert node.func.id != "print" or to_a_file, f"{name}, line {node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {module.split(".")[0] for module in modules} & {"rich", "tyro"}, f"{name}, line {node.lineno}"


def test_nothing_speaks_of_the_folder_that_held_the_experiments() -> None:
    assert not (PACKAGE / "lab").exists()
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*"), *ROOT.glob("*/*.py")]
    for path in [*pages, *MODULES.values()]:
        if path.name != "CHANGELOG.md":
            text = path.read_text(encoding="utf-8")
            assert not {"neuralcollapse" + end for end in (".lab", "/lab") if "neuralcollapse" + end in text}, path
