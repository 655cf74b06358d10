"""The public names as a type checker sees them, in a script of a user that uses every one of them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import neuralcollapse as nc

SCRIPT = Path(__file__).parent / "helpers" / "every_public_name.py"


def test_the_script_uses_every_public_name() -> None:
    used = set(re.findall(r"\bnc\.(\w+)", SCRIPT.read_text(encoding="utf-8")))
    assert used == set(nc.__all__)


def test_it_runs() -> None:
    names = runpy.run_path(str(SCRIPT))
    assert names["variability"] > 0 and "expected dim of at least 9" in names["message"]


def test_it_is_typed_strictly() -> None:
    api = pytest.importorskip("mypy.api")
    printed, errors, code = api.run(["--strict", "--config-file=", "--follow-imports=silent", str(SCRIPT)])
    assert code == 0, printed + errors
