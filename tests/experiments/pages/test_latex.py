"""Tables in LaTeX: what is printed is what was meant, and it compiles by itself and inside another document."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.pages.content import Report
from experiments.pages.latex import MOST_CHARACTERS, escape_latex, render_latex, report_latex
from experiments.tables.table import Cell, Fact, Row, Section, Table

NASTY = '50 % & $x_1$ #3 {a} ~ ^ \\ <b> | "q" [1] * ± † é 漢'


def table(columns: int = 2, *, text: str = "62.00 ± 4.97", label: str = NASTY) -> Table:
    """A table of one row."""
    cells = tuple(
        Cell(text=text, mark=("best", "second", "")[number % 3], dagger=number == 1) for number in range(columns)
    )
    headers = tuple(f"{number} %" for number in range(columns))
    return Table(title="a_b", corner="m / O", columns=headers, rows=(Row(label=label, cells=cells),))


def report(*tables: Table) -> Report:
    """A report of one section."""
    section = Section(title="R & D", lines=(NASTY,), tables=tables)
    return Report(title=NASTY, sections=(section,), facts=(Fact(name="100 %", text=NASTY),), drawn=())


def test_marks_by_hand() -> None:
    lines = render_latex(table(3, label="x")).splitlines()
    assert lines[2:8] == [
        r"  \caption{a\_b}",
        r"  \begin{tabular}{lrrr}",
        r"    \toprule",
        r"    m / O & 0 \% & 1 \% & 2 \% \\",
        r"    \midrule",
        r"    x & \textbf{62.00 \ensuremath{\pm} 4.97} & \underline{62.00 \ensuremath{\pm} 4.97}\ensuremath{^\dagger} "
        r"& 62.00 \ensuremath{\pm} 4.97 \\",
    ]


def test_special_characters_are_escaped() -> None:
    assert escape_latex("a_b & 5 % of $x") == r"a\_b \& 5 \% of \$x"
    assert escape_latex("é漢±") == r"\'{e}\vlpureletter{6F22}\ensuremath{\pm}"
    assert escape_latex(NASTY).isascii()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("folder:/data/猫", r"folder:/data/\vlpureletter{732B}"),
        ("folder:/data/犬", r"folder:/data/\vlpureletter{72AC}"),
        ("Łódź", r"\L{}\'{o}d\'{z}"),
        ("Lodz", "Lodz"),
        ("e\u0301 ş ą", r"\'{e} \c{s} \vlpureletter{0105}"),  # the ogonek is in few font encodings
        ("② 2", r"\vlpureletter{2461} 2"),
        ("a\nb\x1b", r"a b\vlpureletter{001B}"),
    ],
)
def test_letters_survive_or_stay_distinct(text: str, printed: str) -> None:
    assert escape_latex(text) == printed


def test_a_wide_table_is_continued() -> None:
    text = report_latex(report(table(30, label="x")))
    rows = [line for line in text.splitlines() if line.startswith("    x &")]
    assert len(rows) == 3
    assert sum(row.count("62.00") for row in rows) == 30
    assert text.count("a\\_b (continued)") == 2
    assert max(row.count("62.00") for row in rows) * len("62.00 ± 4.97 & ") < MOST_CHARACTERS


def compiled(folder: Path, name: str) -> str:
    """What pdflatex logs, after a good end."""
    outcome = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", name],
        cwd=folder, capture_output=True, check=False, timeout=200,
    )  # fmt: skip
    log = outcome.stdout.decode(errors="replace")
    assert outcome.returncode == 0, log[-3000:]
    return log


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_it_compiles_by_itself_and_inside_a_document(tmp_path: Path) -> None:
    many = [table(30, label="x") for _ in range(20)]  # more floats than LaTeX holds back
    (tmp_path / "alone.tex").write_text(report_latex(report(table(), *many[:8])))
    log = compiled(tmp_path, "alone.tex")
    assert "Overfull \\hbox" not in log
    letters = tuple(
        Row(label=f"folder:/data/{name}", cells=(Cell(text="1"),)) for name in ("猫", "犬", "Łódź ß ą ñ Ñ İ")
    )
    named = Table(title="folder:/data/猫", corner="x", columns=("y",), rows=letters)
    (tmp_path / "letters.tex").write_text(report_latex(report(named)))
    assert "Missing character" not in compiled(tmp_path, "letters.tex")
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{alone}\input{alone}The end.\end{document}"
    )
    compiled(tmp_path, "paper.tex")
