"""A table in words to Markdown and LaTeX; text from outside is escaped in both."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Entry = tuple[str, int | None]

LATEX_HEAD = "% \\input this file; the document needs \\usepackage{booktabs} and \\usepackage[utf8]{inputenc}\n"
_HEADINGS = ("zero error", "last epoch", "improvement")
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # after \\ a bracket would be its argument
    "]": "{]}",
    "×": r"$\times$",
    "–": "--",
    "‖": r"$\|$",
    "“": "``",
    "”": "''",
}


@dataclass
class Table:
    """A table in words, before it becomes Markdown or LaTeX.

    Args:
        title: its caption.
        losses: what stands over each three columns.
        rows: data set, network, then three entries for each loss; an entry is a text and its note's number, or None.
        summary: the lines below, in the same columns.
        notes: what the marks say.
        remarks: sentences below the table.
    """

    title: str
    losses: list[str]
    rows: list[list[Entry]] = field(default_factory=list)
    summary: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def note(self, text: str) -> int | None:
        """The number of a note, which is added when no cell had it before."""
        if not text:
            return None
        if text not in self.notes:
            self.notes.append(text)
        return self.notes.index(text)


def markdown(table: Table) -> str:
    """The table as Markdown: heading, table, notes, remarks."""
    heads = ["data set", "network", *(f"{loss}: {heading}" for loss in table.losses for heading in _HEADINGS)]
    lines = [f"# {_markdown(table.title)}", "", _pipes([_markdown(head) for head in heads])]
    lines.append(_pipes(["---", "---", *["---:"] * (3 * len(table.losses))]))
    for row in table.rows:
        lines.append(_pipes([_markdown(text) + _sup(mark) for text, mark in row]))
    for summary in table.summary:
        lines.append(_pipes([f"**{_markdown(text)}**" if text else "" for text in summary]))
    notes = [f"{_sup(number)} {_markdown(note)}" for number, note in enumerate(table.notes)]
    lines += ["", "<br>\n".join(notes), ""] if notes else [""]
    return "\n".join([*lines, " ".join(_markdown(remark) for remark in table.remarks), ""])


def latex(table: Table) -> str:
    """The table as a LaTeX `table` for booktabs."""
    spans = [f"\\multicolumn{{3}}{{c}}{{{_latex(loss)}}}" for loss in table.losses]
    rules = [f"\\cmidrule(lr){{{3 + 3 * place}-{5 + 3 * place}}}" for place in range(len(table.losses))]
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        f"\\caption{{{_latex(table.title)}}}",
        f"\\begin{{tabular}}{{ll{'rrr' * len(table.losses)}}}",
        r"\toprule",
        _ampersands(["", "", *spans]),
        " ".join(rules),
        _ampersands(["data set", "network", *_HEADINGS * len(table.losses)]),
        r"\midrule",
    ]
    before = None
    for row in table.rows:
        if before is not None and row[0] != before and len(table.rows) > len({row[0] for row in table.rows}):
            lines.append(r"\addlinespace")
        name = "" if row[0] == before else _latex(row[0][0])
        lines.append(_ampersands([name, *(_latex(text) + _superscript(mark) for text, mark in row[1:])]))
        before = row[0]
    lines.append(r"\midrule")
    lines += [_ampersands([_latex(text) for text in summary]) for summary in table.summary]
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        "",
        r"\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
    ]
    lines += [f"{_superscript(number)} {_latex(note)}\\\\" for number, note in enumerate(table.notes)]
    lines += [*(_latex(remark) for remark in table.remarks), r"\end{minipage}", r"\end{table}", ""]
    return "\n".join(lines)


def letter(number: int) -> str:
    """The mark of a note: a … z, aa, ab, …"""
    return (letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _markdown(text: str) -> str:
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", one_line.replace("&", "&amp;"))


def _latex(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    return re.sub(r"^([+-][\d.]+)$", r"$\1$", escaped)


def _sup(mark: int | None) -> str:
    return "" if mark is None else f"<sup>{letter(mark)}</sup>"


def _superscript(mark: int | None) -> str:
    return "" if mark is None else f"\\textsuperscript{{{letter(mark)}}}"


def _pipes(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ampersands(cells: list[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
