"""Writes a report as Markdown."""

from __future__ import annotations

from experiments.pages.content import TERMS, Report
from experiments.tables.table import Picture, Section, escape_markdown, render_markdown


def report_markdown(report: Report) -> str:
    """The report as a page in GitHub's Markdown: sections, then the honesty box. Pictures by file name."""
    parts = [f"# {escape_markdown(report.title)}\n"]
    parts += [f"**{escape_markdown(name)}**: {escape_markdown(text)}\n" for name, text in report.sentences()]
    parts += [f"{escape_markdown(line)}\n" for line in TERMS if report.findings]
    for section in report.sections:
        parts += _section(section)
    box = "\n".join(f"- **{escape_markdown(fact.name)}**: {escape_markdown(fact.text)}" for fact in report.facts)
    return "\n".join([*parts, "## What these numbers are\n", box]) + "\n"


def _section(section: Section) -> list[str]:
    if not (section.tables or section.lines or section.pictures):
        return []
    parts = [f"## {escape_markdown(section.title)}\n"]
    parts += [f"{escape_markdown(line)}\n" for line in section.lines]
    parts += [render_markdown(table) for table in section.tables]
    parts += [_picture(picture) for picture in section.pictures]
    return parts


def _picture(picture: Picture) -> str:
    caption = f"\n{escape_markdown(picture.caption)}\n" if picture.caption else ""
    return f"![{escape_markdown(picture.title)}]({picture.path.name})\n{caption}"
