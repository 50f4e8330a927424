"""The report of Table 9: its tables, its picture, and its honesty box."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from data.files import write_atomically, write_text_atomically
from experiments.pages.content import Report
from experiments.pages.files import ReportFiles
from experiments.pages.html import report_page
from experiments.pages.latex import report_latex
from experiments.pages.markdown import report_markdown
from experiments.plots.canvas import file_bytes
from experiments.plots.detection import draw_detection
from experiments.results.details import details_of
from experiments.results.frames import csv_text, detection_frame, rounds_frame, trials_frame
from experiments.tables.facts import describe_progress, machine_facts
from experiments.tables.table import Fact, Picture, Section, Table, render_text
from experiments.tables.table9 import table9_tables
from orchestrator.plan import PlannedTrial

DPI = 150
WHAT = (
    "AUROC and balanced accuracy are measured on the images of the pool that are not labelled yet: labels are drawn at "
    "random from the whole pool, the same ones for every detector of a seed, and no classifier is trained.",
    "The detectors' scores are ranked by ID minus OOD score. In the records and on this page `accuracy` is the "
    "balanced accuracy of the decision, and a round is a stage.",
)


def write_detection_report(
    folder: Path, planned: Sequence[PlannedTrial], *, title: str, notes: Sequence[str] = ()
) -> tuple[ReportFiles, str]:
    """Write the report of detection trials into `folder`; return the files, and the tables for a terminal.

    Written are index.html, table9.md, table9.tex, table9.csv (a row per trial and stage) and auroc.png, if there
    is something to draw. Raises OSError if the folder cannot be written.
    """
    stages, trials, rounds = detection_frame(planned), trials_frame(planned), rounds_frame(planned)
    tables = table9_tables(stages)
    pictures: dict[Picture, bytes] = {}
    if not stages.empty:
        picture = Picture(
            path=folder / "auroc.png",
            title="AUROC over labels bought",
            caption="On the unlabelled rest of the pool; bands: 95 % t-interval over seeds, from three seeds up.",
        )
        pictures[picture] = file_bytes(draw_detection(stages), "png", dpi=DPI)
    details = details_of(planned)
    facts = [
        Fact(name="Values", text="percent; mean ± half the width of the 95 % t-interval over seeds."),
        Fact(name="Trials", text=describe_progress(trials)),
        *machine_facts(details),
        *(Fact(name="Note", text=note) for note in (*WHAT, *notes)),
    ]
    section = Section(title="Results", tables=tuple(tables), pictures=tuple(pictures))
    drawn = {picture.path: content for picture, content in pictures.items()}
    report = Report(title=title, sections=(section,), facts=tuple(facts), drawn=tuple(drawn.items()))
    texts = {
        folder / "index.html": report_page(report, trials=trials, rounds=rounds, details=details, pictures=drawn),
        folder / "table9.md": report_markdown(report),
        folder / "table9.tex": report_latex(report),
        folder / "table9.csv": csv_text(stages),
    }
    for path, text in texts.items():
        write_text_atomically(path, text)
    for path, content in drawn.items():
        write_atomically(path, _writer(content))
    return ReportFiles(page=folder / "index.html", all=(*texts, *drawn)), _as_text(tables, facts)


def _as_text(tables: Sequence[Table], facts: Sequence[Fact]) -> str:
    lines = [f"{fact.name}: {fact.text}" for fact in facts if fact.name in ("Values", "Trials", "Note")]
    return "\n".join([*(render_text(table) for table in tables), *lines])


def _writer(content: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write
