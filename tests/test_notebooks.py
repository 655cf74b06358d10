"""The notebooks: they run from top to bottom, and their outputs are committed and small."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


def outputs(notebook: object) -> str:
    """The text that the cells of a notebook print."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")  # type: ignore[attr-defined]
    return "\n".join(output.text for cell in cells for output in cell.outputs if output.output_type == "stream")


def test_there_are_four() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


def test_pages_lead_to_them() -> None:
    """As the files lie in the repository; the site leads to its own copies."""
    for page in (ROOT / "docs").glob("*.md"):
        for link in re.findall(r"\]\(([^)#\s]+\.ipynb)", page.read_text("utf-8")):
            assert (page.parent / link).resolve() in NOTEBOOKS, f"{page.name}: {link}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name[:2])
def test_what_is_committed(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert "<!-- Colab -->" in notebook.cells[0].source, "where the site and a release put the link to Colab"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run once, from top to bottom"
    assert path.stat().st_size < 500_000
    assert not re.search(r"/(?:home|root|work|tmp|Users)/", path.read_text("utf-8")), "no paths of one machine"
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name[:2])
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(path, 4)
    kept = outputs(notebook)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert re.sub(r"\d", "", outputs(notebook))[:80] == re.sub(r"\d", "", kept)[:80], "the same text, up to digits"
    assert not list(tmp_path.iterdir()), "nothing is left behind"
