"""Publishes results as a folder that needs no server and can be made again: `report.py RUN_DIR... --publish DIR`.

Each publication is a folder of its own in DIR, named by its version: the date of its newest record and a checksum of
all of them. It holds what it was made from, so `report.py DIR/VERSION/records --publish ELSEWHERE` in a fresh clone,
with the packages of its constraints.txt, makes every file again to the byte. Nothing in it depends on the time or the
place of publishing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from data.files import write_text_atomically
from experiments.commands.publication import Card, Summary, citation, facts, hardware_csv, index_page, readme, zenodo
from experiments.results.from_ledgers import FoundTrials, trials_of_ledgers

ROOT = Path(__file__).resolve().parents[2]
RECORDS = "records"
"""Folder of a publication with what it was made from."""
CARD = "publication.json"
PACKAGES = ("constraints.txt", "LICENSE")
"""Files of the project that are kept with the records, so that a later clone publishes them unchanged."""
ENERGY = "emissions.csv"
"""File that CodeCarbon writes; it is read if a run folder has one."""
KEPT = ("ledger/*.json", "launch-*.json", ENERGY)
"""Files of a run folder that are published: no classifier, no lock, no log."""

WriteReport = Callable[[FoundTrials, Path, str], None]
"""Writes the report of trials into a folder, with a title."""


def publish(run_dirs: Sequence[Path], folder: Path, card: Card, write: WriteReport) -> Path:
    """Publish the records of run folders, or again those of a publication, and return the new folder.

    A version that is there already is made again and replaced. Raises ValueError for records that contradict each
    other, or that cannot be read, and for a folder that holds something else.
    """
    _check_folder(folder)
    again = len(run_dirs) == 1 and (run_dirs[0] / CARD).is_file()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as making:
        new = Path(making) / "publication"
        if again:
            shutil.copytree(run_dirs[0], new / RECORDS)
        else:
            _collect(run_dirs, new / RECORDS, card)
        summary = _fill(new, write)
        final = folder / summary.version
        if final.exists():
            final.rename(Path(making) / "old")
        new.rename(final)
    versions = {
        path.parent.parent.name: path.read_text(encoding="utf-8") for path in folder.glob(f"*/{RECORDS}/{CARD}")
    }
    titles = {version: json.loads(text)["title"] for version, text in versions.items()}
    write_text_atomically(folder / "index.html", index_page(titles))
    return final


def _check_folder(folder: Path) -> None:
    """Refuse a folder with other things in it, in which this would be lost or replace something."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not (path.name.startswith((".", "index.html")) or (path / RECORDS / CARD).is_file()):
            raise ValueError(
                f"--publish {folder}: holds {path.name}, which is no publication; name a folder of its own"
            )


def _collect(run_dirs: Sequence[Path], records: Path, card: Card) -> None:
    """Copy what is published of the run folders, which are numbered, and of the project."""
    for number, run_dir in enumerate(run_dirs, start=1):
        for source in sorted(path for pattern in KEPT for path in run_dir.glob(pattern)):
            target = records / str(number) / source.relative_to(run_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        if not (records / str(number)).is_dir():
            raise ValueError(f"{run_dir} has no ledger; name the output folder of a grid (--output-dir of its command)")
    for name in PACKAGES:
        shutil.copyfile(ROOT / name, records / name)
    (records / CARD).write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")


def _fill(new: Path, write: WriteReport) -> Summary:
    """Write everything that follows from the records in `new`."""
    records = new / RECORDS
    values = json.loads((records / CARD).read_text(encoding="utf-8"))
    card = Card(title=values["title"], authors=tuple(values["authors"]))
    folders = sorted((path for path in records.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    found = trials_of_ledgers(folders)
    if found.lines:
        # They name folders of this machine; and whoever reads a publication cannot ask.
        raise ValueError(f"records that contradict each other are not published: {found.lines[0]}")
    summary = _summary(records, folders, found)
    write(replace(found, lines=list(facts(summary))), new, f"{card.title} ({summary.version})")
    rounds = new / "rounds.csv"
    for name, text in _cells(rounds.read_text(encoding="utf-8")) if rounds.exists() else ():
        (new / "cells").mkdir(exist_ok=True)
        (new / "cells" / name).write_text(text, encoding="utf-8")
    for name in PACKAGES:
        shutil.copyfile(records / name, new / name)
    texts = {
        "README.md": readme(card, summary),
        "hardware.csv": hardware_csv(summary),
        "CITATION.cff": citation(card, summary),
        ".zenodo.json": zenodo(card, summary),
    }
    for name, text in texts.items():
        (new / name).write_text(text, encoding="utf-8")
    (new / "SHA256SUMS").write_text("".join(_checksums(new)), encoding="utf-8")
    return summary


def _summary(records: Path, folders: Sequence[Path], found: FoundTrials) -> Summary:
    """The facts, from the records alone."""
    trials = {planned.fingerprint: planned for planned in found.planned}
    rounds = [record for planned in trials.values() for record in planned.records]
    if not rounds:
        raise ValueError("there is no finished round to publish")
    seconds: dict[str, float] = {}
    for record in rounds:
        environment = record.environment
        device = f"{environment.get('device', 'unknown')}, torch {environment.get('torch', 'unknown')}"
        seconds[device] = seconds.get(device, 0.0) + sum(record.seconds.values())
    newest = datetime.fromtimestamp(max(record.time_ms for record in rounds) / 1000, tz=UTC)
    digest = hashlib.sha256()
    for name, text in _contents(records):
        digest.update(f"{name}\0{hashlib.sha256(text).hexdigest()}\n".encode())
    energy = [path for path in (folder / ENERGY for folder in folders) if path.exists()]
    return Summary(
        version=f"{newest:%Y.%m.%d}-{digest.hexdigest()[:8]}",
        date=f"{newest:%Y-%m-%d}",
        num_trials=len(trials),
        hours=sum(seconds.values()) / 3600,
        hardware={device: seconds[device] / 3600 for device in sorted(seconds)},
        kilowatt_hours=sum(map(_kilowatt_hours, energy)) if energy else None,
    )


def _kilowatt_hours(file: Path) -> float:
    """Energy of all runs in a file of CodeCarbon. Raises ValueError if it is none."""
    with file.open(encoding="utf-8", newline="") as lines:
        try:
            return sum(float(row["energy_consumed"]) for row in csv.DictReader(lines))
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{file.name} has no column energy_consumed of numbers (kWh), as CodeCarbon writes"
            ) from None


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(relative path, bytes) of every file below a folder, in the order of the paths."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _checksums(folder: Path) -> Iterator[str]:
    """The lines that `sha256sum --check` reads."""
    for name, text in _contents(folder):
        yield f"{hashlib.sha256(text).hexdigest()}  {name}\n"


def _cells(rounds_csv: str) -> Iterator[tuple[str, str]]:
    """(file name, CSV text) of each cell: the rows of rounds.csv of one data set, ratios and strategy, unchanged."""
    header, *rows = csv.reader(io.StringIO(rounds_csv))
    cells: dict[tuple[str, ...], list[list[str]]] = {}
    for row in rows:
        cells.setdefault(tuple(row[:4]), []).append(row)
    for key, lines in cells.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *lines])
        yield "-".join(re.sub(r"[^\w.-]+", "_", part) for part in key) + ".csv", text.getvalue()
