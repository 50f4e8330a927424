"""Writes a report's tables as LaTeX with booktabs: a file that compiles alone, and that a document can \\input."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from experiments.pages.content import TERMS, Report
from experiments.tables.table import Cell, Row, Section, Table

MOST_CHARACTERS = 170
"""Most characters of a row; the columns of a wider table continue in another one."""

HEAD = r"""% Compiles by itself; in another document: \usepackage{booktabs}, then \input this file.
\ifdefined\Umathchar % XeTeX, LuaTeX: the letter, if the font has it
  \protected\def\vlpureletter#1{\iffontchar\font"#1 \char"#1 \else U+#1\fi}
\else
  \protected\def\vlpureletter#1{U+#1}
\fi
\makeatletter
\ifx\documentclass\@notprerr
  \let\finishreport\relax
\else
  \documentclass[10pt]{article}
  \usepackage{booktabs}
  \usepackage[a3paper,landscape,margin=15mm]{geometry}
  \begin{document}
  \def\finishreport{\end{document}}
\fi
\makeatother
"""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    "[": "{[}",  # it would begin an optional argument after \\
    "*": "{*}",
    "\u00a0": "~",
    "±": r"\ensuremath{\pm}",
    "\u00d7": r"\ensuremath{\times}",
    "†": r"\ensuremath{^\dagger}",
}
"""Characters that TeX treats specially, and those of our texts that are not ASCII."""
LETTERS = {
    "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "å": "aa", "Å": "AA",
    "\u0131": "i",
}  # fmt: skip
"""Letters that are not an ASCII letter with a mark -> the command that prints each."""
MARKS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
"""Combining marks -> the command that puts each on a letter, in every font encoding."""


def report_latex(report: Report) -> str:
    """The report's tables and paragraphs, then the honesty box; pure ASCII."""
    parts = [HEAD, f"\\section*{{{escape_latex(report.title)}}}"]
    parts += [f"\\textbf{{{escape_latex(name)}}}: {escape_latex(text)}\n" for name, text in report.sentences()]
    parts += [f"{escape_latex(line)}\n" for line in TERMS if report.findings]
    for section in report.sections:
        parts += _section(section)
    facts = [f"  \\item[{escape_latex(fact.name)}] {escape_latex(fact.text)}" for fact in report.facts]
    parts += [r"\subsection*{What these numbers are}", r"\begin{description}", *facts, r"\end{description}"]
    return "\n".join([*parts, r"\finishreport"]) + "\n"


def render_latex(table: Table) -> str:
    """The table with booktabs: best bold, second underlined, a dagger for not separable."""
    columns = "l" + "r" * len(table.columns)
    lines = [
        r"\begin{table}[htbp]",
        r"  \centering",
        f"  \\caption{{{escape_latex(table.title)}}}",
        f"  \\begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        _line([table.corner, *table.columns]),
        r"    \midrule",
        *("    " + " & ".join([escape_latex(row.label), *map(_cell, row.cells)]) + r" \\" for row in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """The text in ASCII, escaped so that LaTeX prints it unchanged; different texts stay different.

    Letters beyond Latin are printed by engines whose font has them, and as `U+732B` by others: pdfTeX stops at a letter
    that is not declared, and XeTeX and LuaTeX silently omit letters that their fonts lack.
    """
    return "".join(SPECIAL.get(character) or _ascii(character) for character in unicodedata.normalize("NFC", text))


def _section(section: Section) -> list[str]:
    if not section.tables:
        return []
    parts = [f"\\subsection*{{{escape_latex(section.title)}}}"]
    parts += [escape_latex(line) + "\n" for line in section.lines]
    tables = [render_latex(part) for table in section.tables for part in _split(table)]
    return [*parts, *tables, r"\clearpage"]  # LaTeX fails if too many floats wait to be placed


def _line(texts: Sequence[str]) -> str:
    return "    " + " & ".join(map(escape_latex, texts)) + r" \\"


def _cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    marked = {"best": f"\\textbf{{{text}}}", "second": f"\\underline{{{text}}}"}.get(cell.mark, text)
    return marked + SPECIAL["†"] if cell.dagger else marked


def _ascii(character: str) -> str:
    if character.isascii() and character.isprintable():
        return character
    if character.isspace():
        return " "
    if character in LETTERS:
        return f"\\{LETTERS[character]}{{}}"
    parts = list(unicodedata.normalize("NFD", character))
    if len(parts) == 2 and parts[0].isascii() and parts[1] in MARKS:
        return f"\\{MARKS[parts[1]]}{{{parts[0]}}}"
    return f"\\vlpureletter{{{ord(character):04X}}}"


def _split(table: Table) -> list[Table]:
    """The table, divided into parts whose rows have at most `MOST_CHARACTERS`."""
    label_width = max(len(text) for text in (table.corner, *(row.label for row in table.rows)))
    parts: list[list[int]] = [[]]
    used = label_width
    for position, header in enumerate(table.columns):
        needed = max(len(text) for text in (header, *(row.cells[position].text for row in table.rows))) + 3
        if parts[-1] and used + needed > MOST_CHARACTERS:
            parts.append([])
            used = label_width
        parts[-1].append(position)
        used += needed
    return [
        Table(
            title=table.title if number == 0 else f"{table.title} (continued)",
            corner=table.corner,
            columns=tuple(table.columns[position] for position in part),
            rows=tuple(Row(label=row.label, cells=tuple(row.cells[p] for p in part)) for row in table.rows),
        )
        for number, part in enumerate(parts)
    ]
