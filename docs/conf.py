"""The site: Sphinx, Markdown by MyST, pages with code that runs by MyST-NB, the theme Furo.

`sphinx-build -W --keep-going docs docs/_build/html` builds it; nothing on a page is loaded from the net.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path += [str(DOCS / "_ext"), str(ROOT / "src")]
# where a page runs code: the same on every machine, and from the package of this checkout
os.environ |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "80", "HF_HUB_OFFLINE": "1"}

logging.getLogger("traitlets").setLevel(logging.ERROR)

import neuralcollapse  # noqa: E402
from neuralcollapse.cli import COMMANDS, parse  # noqa: E402

project, author, version = "neuralcollapse", "The neuralcollapse maintainers", neuralcollapse.__version__
release, copyright = version, author
# a release knows its public address; without one, links to code lead to copies of the files
repository = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {}).get("Source", "")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",
    "docstrings",
    "outside_links",
    "mermaid_table",
    "run_values",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

html_theme = "furo"
html_title = "neuralcollapse"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
if repository:
    html_theme_options = {"source_repository": repository, "source_branch": "main", "source_directory": "docs/"}

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
# the notebooks are shown as they are committed; a page whose head says `execution_mode: force` runs its code here
nb_execution_mode = "off"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_render_markdown_format = "myst"

autodoc_member_order = "bysource"
maximum_signature_line_length = 88
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "code"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def help_of(command: str) -> str:
    """What `neuralcollapse COMMAND --help` prints at 80 columns."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        parse(command, ["--help"])
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines())


def commands_page() -> str:
    """The command reference, from the commands themselves."""
    lines = ["# Commands", "", "Each command with its options, as `--help` prints them.", ""]
    lines += ["| command | what it does |", "| --- | --- |"]
    lines += [f"| [`neuralcollapse {name}`](#{name}) | {summary} |" for name, (_, summary) in COMMANDS.items()]
    for name in COMMANDS:
        lines += ["", f"({name})=", f"## {name}", "", "```text", help_of(name), "```"]
    return "\n".join(lines) + "\n"


def write_if_new(path: Path, text: str) -> None:
    """Leave a file alone that is as it should be, so that only pages that change are built again."""
    if not path.is_file() or path.read_text("utf-8") != text:
        path.write_text(text, encoding="utf-8")


write_if_new(DOCS / "commands.md", commands_page())
(DOCS / "notebooks").mkdir(exist_ok=True)
for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
    address = f"https://colab.research.google.com/github/{repository.removeprefix('https://github.com/')}/blob/main"
    badge = f"[Open in Colab]({address}/notebooks/{notebook.name})" if repository else ""
    write_if_new(DOCS / "notebooks" / notebook.name, notebook.read_text("utf-8").replace("<!-- Colab -->", badge))
