"""Write docs/equations.md: from each statement of the papers to its function and its tests.

    python tools/equations.py            writes the page
    python tools/equations.py --check    fails when the committed page is out of date

The source of truth is the code: a function's docstring names its statements in a line `Source: …; ….`, and a test
belongs to a function when it calls it. A statement below with no function, with two, or without a test is an error;
so is a function of later work without a test.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "equations.md"
PNAS, ICLR = "Papyan, Han & Donoho (PNAS 2020)", "Han, Papyan & Donoho (2022)"

STATEMENTS = {
    f"{PNAS}, Definition 1": "the simplex equiangular tight frame",
    f"{PNAS}, Figure 6": "NC1, within-class variability: tr(Σ_W Σ_B⁺) / C",
    f"{ICLR}, Figure 3": "NC2, equinorm: Std_c ‖v_c‖ / Avg_c ‖v_c‖",
    f"{ICLR}, Figure 4": "NC2, equiangularity: Std cos(v_c, v_c')",
    f"{ICLR}, Figure 5": "NC2, maximal angle: Avg |cos(v_c, v_c') + 1/(C−1)|",
    f"{PNAS}, Figure 5": "NC3, self-duality: ‖Wᵀ/‖W‖_F − M̄/‖M̄‖_F‖_F²",
    f"{PNAS}, Figure 7": "NC4, mismatch with the nearest class mean",
    f"{ICLR}, Proposition 1": "the least-squares classifier W̃_LS",
    f"{ICLR}, Theorem 1": "L = L_LS + L⊥_LS",
    f"{ICLR}, Theorem 2": "L_LS = L_NC1 + L_NC2/3",
    f"{ICLR}, Theorem 3": "the loss on the central path depends on the signal-to-noise matrix alone",
    f"{ICLR}, Definition 1": "the zero-global-mean central path, L = ½ Σ_j 1/(C + ω_j²)",
    f"{ICLR}, Proposition 2": "constants of c₁ log ω + c₂ ω² + c₃ ω⁴ = a + t",
    f"{ICLR}, Proposition 2, of a general M(t)": "the rate of each singular value of a moving matrix: u_jᵀ Ṁ v_j",
    f"{ICLR}, Equation of continually renormalized gradient flow": (
        "the projection on the tangent space of {Σ_W = I}, whose normal space has dimension p(p+1)/2; the flow turns "
        "with the features"
    ),
    f"{ICLR}, Theorem 2 on the central path": "L_NC1 and L_NC2/3 as functions of the singular values",
    f"{ICLR}, Corollary 1": "max ω / min ω falls to 1, as all ω grow alike",
    f"{ICLR}, Corollary 2": "NC1–NC3 along the path, which all fall to zero",
    f"{ICLR}, Corollary 2, NC3": "NC3 on the central path, as a function of the singular values",
    f"{ICLR}, Corollary 2, NC4": "how far an example may be from its class mean for NC4 to hold on the central path",
    f"{ICLR}, Definition 2": "singular values of the signal-to-noise matrix Σ_W^{-1/2} M̄",
}


@dataclass(frozen=True)
class Function:
    """A public function and where it stands."""

    name: str
    path: str
    statements: tuple[str, ...]
    first_sentence: str


def functions() -> list[Function]:
    """The public functions, and methods of public classes, whose docstring has a Source line."""
    found = []
    for path in sorted((ROOT / "src/neuralcollapse").rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        classes = [node for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        members = [(f"{owner.name}.", node) for owner in classes for node in owner.body]
        for prefix, node in [*(("", node) for node in body), *members]:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                text = ast.get_docstring(node) or ""
                source = re.search(r"^Source: ((?:.|\n)+?)\.\n*$", text, re.MULTILINE)
                names = re.split(r";\s+", " ".join(source.group(1).split())) if source else []
                sentence = " ".join(re.split(r"\n\n", text)[0].split())
                found.append(Function(prefix + node.name, str(path.relative_to(ROOT)), tuple(names), sentence))
    return found


@functools.cache
def calls() -> list[tuple[str, str, set[str], str]]:
    """(file, test, what it calls, docstring) of every test; calls are `nc.nc1(…)`, `module.nc1(…)` or `nc1(…)`."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                called = {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
                found.append((str(path.relative_to(ROOT)), node.name, called, ast.get_docstring(node) or ""))
    return found


def tests_of(name: str, module: str, statement: str) -> list[tuple[str, str]]:
    """(file, test) of every test that calls the function of a module, or whose docstring begins with the statement.

    As in `Theorem 1: …`, or `Theorem 1 and Theorem 2: …` for a test that serves both. Reading `report.nc1` is no call;
    a method is called on any name, as `path.condition(…)`.
    """
    owner, _, method = name.rpartition(".")
    names, short = {name, f"nc.{name}", f"{module}.{name}"}, statement.rpartition("(2022), ")[2]

    def belongs(called: set[str], text: str) -> bool:
        used = any(call.endswith(f".{method}") for call in called) if owner else bool(called & names)
        return used or short in text.partition(":")[0].split(" and ")

    return [(file, test) for file, test, called, text in calls() if belongs(called, text)]


def row(statement: str, meaning: str, function: Function) -> str:
    """A line of the table.

    Raises:
        ValueError: no test calls the function.
    """
    tests = tests_of(function.name, Path(function.path).stem, statement)
    if not tests:
        raise ValueError(f"no test names {function.name}, the function of {statement}")
    listed = "<br>".join(f"[`{test}`](../{file})" for file, test in tests)
    meaning = meaning.replace("|", "\\|")
    return f"| {statement} | {meaning} | [`{function.name}`](../{function.path}) | {listed} |"


def page() -> str:
    """The page's text.

    Raises:
        ValueError: a statement without a function, with two, or without a test; or a source not in the list.
    """
    known = functions()
    named = {statement for function in known for statement in function.statements}
    if unknown := sorted(statement for statement in named if "Donoho" in statement and statement not in STATEMENTS):
        raise ValueError(f"not in the list of statements: {unknown}")
    lines = [
        "# From the papers to the code",
        "",
        "Written by `tools/equations.py` from the docstrings; do not edit.",
        "",
        "| statement | what it says | function | tests |",
        "|---|---|---|---|",
    ]
    for statement, meaning in STATEMENTS.items():
        homes = [function for function in known if statement in function.statements]
        if len(homes) != 1:
            raise ValueError(f"expected one function for {statement}, found {[home.name for home in homes]}")
        lines.append(row(statement, meaning, homes[0]))
    lines += [
        "",
        "## From later work",
        "",
        'In a report by `metrics="all"` or by name; the names are those of `neuralcollapse.METRICS`.',
        "",
        "| source | what it says | function | tests |",
        "|---|---|---|---|",
    ]
    for function in known:
        if function.statements and not set(function.statements) & STATEMENTS.keys():
            lines.append(row("; ".join(function.statements), function.first_sentence, function))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write or check the page."""
    try:
        text = page()
    except ValueError as error:
        sys.exit(f"equations: {error}")
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            sys.exit("docs/equations.md is out of date; run: python tools/equations.py")
        return
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
