"""What the package says of itself: its metadata, and the commands that install what is missing."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

import neuralcollapse as nc
from neuralcollapse._errors import install

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a wheel of this checkout is installed."""
    lines = [f"{need}; extra == '{extra}'" for extra, needs in EXTRAS.items() for need in needs]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [*PROJECT["dependencies"], *lines])


@pytest.mark.usefixtures("installed")
def test_the_command_that_installs_what_is_missing_has_the_lower_bounds_of_the_project() -> None:
    assert install("pandas") == "pip install 'pandas>=2.2'"
    assert install("transformers", "accelerate") == "pip install 'transformers>=4.50' 'accelerate>=1'"
    assert install("unheard-of") == "pip install unheard-of"
    lab = install(extra="lab")
    assert all(f"'{need}'" in lab for need in EXTRAS["lab"]) and "torchmetrics" not in lab and "torch>=" not in lab


def test_in_a_checkout_that_was_never_installed_it_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert install("pandas") == "pip install pandas"


def test_no_message_asks_for_an_index_that_may_not_have_this_package() -> None:
    known = {re.split("[<>=]", need)[0] for needs in EXTRAS.values() for need in needs}
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "pip install 'neuralcollapse" not in text, path
        for call in re.findall(r"install\(('[^)]*)\)", text):
            assert set(re.findall(r"'([\w-]+)'", call)) <= known, path


def test_the_versions_of_the_files_agree() -> None:
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {nc.__version__}\n" in cited
    assert f"version = {{{nc.__version__}}}" in (ROOT / "CITATION.bib").read_text(encoding="utf-8")
    environment = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "python>=3.11" in environment and PROJECT["requires-python"] == ">=3.11"
