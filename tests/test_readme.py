"""Every command and every line of Python in the README and on the pages of docs/ is one that works."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import neuralcollapse as nc
from neuralcollapse.cli import COMMANDS, parse

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("release_links", ROOT / "tools" / "release_links.py")
assert _SPEC is not None and _SPEC.loader is not None
release_links = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(release_links)
LINK, absolute_links, with_urls = release_links.LINK, release_links.absolute_links, release_links.with_urls
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "commands.md"),  # made from the commands
    ROOT / "results" / "README.md",
]


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line that begins with `neuralcollapse`, with its continuation lines."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ {4,}(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?neuralcollapse (.+)$", text, re.MULTILINE):
            found.append((page.name, line))
    return found


def python_blocks(page: Path) -> list[str]:
    """The fenced Python of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_is_accepted_and_a_misspelled_option_is_not(page: str, line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)
    assert name in COMMANDS, page
    parse(name, arguments)
    options = [argument for argument in arguments if argument.startswith("--")]
    wrong = options[0] + "x" if options else "--helpp"
    with pytest.raises(nc.InputError, match=f"^unknown option '{wrong}'") as error:
        parse(name, [wrong, *arguments])
    assert not options or f"'{options[0]}'" in str(error.value)  # the option that was meant


def test_the_pages_name_every_command() -> None:
    assert {line.split()[0] for _, line in commands()} == set(COMMANDS)


def test_the_readme_is_short_and_all_it_links_to_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    targets = [found["target"] for found in LINK.finditer(text)]
    assert len(targets) > 15 and all((ROOT / target.partition("#")[0]).exists() for target in targets)


def test_on_an_index_links_and_pictures_of_the_readme_are_absolute() -> None:
    url, page = "https://example.org/owner/name", (ROOT / "README.md").read_text(encoding="utf-8")
    shown = absolute_links(page, url, "v1.0")
    assert not LINK.search(shown)
    assert f"]({url}/raw/v1.0/results/digits-resnet18/figures/overview.png)" in shown
    assert f"]({url}/blob/v1.0/docs/training.md)" in shown and "](https://arxiv.org/abs/2106.02073)" in shown
    urls = tomllib.loads(with_urls((ROOT / "pyproject.toml").read_text(encoding="utf-8"), url, "v1.0"))["project"][
        "urls"
    ]
    assert urls["Source"] == url and urls["Paper"] == "https://arxiv.org/abs/2106.02073"


@pytest.mark.parametrize("page", ["README.md", "docs/measuring.md", "docs/training.md"])
def test_the_python_of_the_pages_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    loader = [(torch.randn(30, 4), torch.arange(30) % 3)]
    names: dict[str, Any] = {"nc": nc, "model": model, "loader": loader, "test_loader": loader, "other_loader": loader}
    for name in ("torchmetrics", "lightning", "transformers"):
        pytest.importorskip(name)
    names["print"] = str
    for block in python_blocks(ROOT / page):
        block = block.replace("distributed=True", "distributed=False")  # one process
        block = re.sub(r'\["nc.jsonl", .*\]\)', '"nc.jsonl")', block)  # and no logs of other libraries
        exec(block, names)
        if "monitor" in names:
            names.pop("monitor")(1)
