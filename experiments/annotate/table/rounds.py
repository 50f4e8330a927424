"""Rounds of a table on disk: suggestions with their features, and the answers that were filled in.

`round-N/suggestions.csv` has an empty column `answer`, which is filled in by hand or by a script and read by the next
call; `round-N/suggestions.parquet` has the features and `round-N/round.json` what was expected.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.files import write_atomically, write_text_atomically
from data.sealed import read_sealed_json, seal
from experiments.annotate.answers.labels import NONE, UNSURE, check_answer
from experiments.annotate.estimate import Draws
from experiments.annotate.formats.table import as_csv, path_cell, text_cell
from experiments.annotate.table.parquet import as_column, as_matrix

ROUND, CSV, PARQUET = "round.json", "suggestions.csv", "suggestions.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One suggested image."""

    rank: int
    image: str
    shard: int
    row: int
    wanted: float
    predicted: str
    probability: float
    border: bool
    drawn: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """The suggestions of a round with what was answered."""

    number: int
    picks: tuple[Pick, ...]
    features_QD: NDArray[np.float32]
    answers: dict[int, str]
    """Rank -> answer; without those not answered."""
    facts: dict[str, Any]

    @property
    def draws(self) -> Draws | None:
        """The answered images that were drawn at random; None without any."""
        answers = {rank: answer for rank, answer in self.answers.items() if answer != UNSURE}
        errors = [(answers[p.rank] != NONE) - p.wanted for p in self.picks if p.drawn and p.rank in answers]
        if not errors:
            return None
        names = ("by_curve", "num_free", "variance")
        return Draws(errors_M=np.array(errors), **{name: self.facts[name] for name in names})


def read_rounds(directory: Path, classes: Sequence[str]) -> Iterator[Asked]:
    """The rounds, in order. Raises ValueError for damaged files, and for answers that are no class, naming the line."""
    number = 1
    while (directory / f"round-{number}" / ROUND).exists():
        folder = directory / f"round-{number}"
        facts, was_sealed = read_sealed_json(folder / ROUND, f"round-{number}")
        if not was_sealed:
            raise ValueError(f"{folder / ROUND} has no checksum; remove {folder}, and rank again")
        table = pq.read_table(folder / PARQUET, partitioning=None)
        features_QD = as_matrix(table["features"], str(folder / PARQUET))
        picks = tuple(Pick(**row) for row in table.drop_columns(["features"]).to_pylist())
        yield Asked(
            number=number, picks=picks, features_QD=features_QD, answers=_answers(folder / CSV, classes, len(picks)),
            facts=facts,
        )  # fmt: skip
        number += 1


def _answers(path: Path, classes: Sequence[str], count: int) -> dict[int, str]:
    """Rank -> answer of the filled rows."""
    found = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            answer = (row.get("answer") or "").strip()
            if not answer:
                continue
            try:
                check_answer(answer, tuple(classes))
                rank = int(row["rank"])
                if not 1 <= rank <= count:
                    raise ValueError(f"there is no rank {rank}")
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {line}: {error}") from None
            found[rank] = answer
    return found


def write_round(
    directory: Path, number: int, picks: Sequence[Pick], features_QD: NDArray[np.float32], facts: dict[str, Any]
) -> Path:
    """Keep a round, replacing one of the same number. Returns the file to fill in."""
    folder = directory / f"round-{number}"
    columns = {name: [getattr(pick, name) for pick in picks] for name in asdict(picks[0])}
    table = pa.table({**columns, "features": as_column(features_QD)})
    write_atomically(folder / PARQUET, lambda file: pq.write_table(table, file))
    header = ("rank", "image", "answer", "wanted", "predicted", "probability", "reason")
    rows = [
        (p.rank, path_cell(p.image), "", f"{p.wanted:.4f}", text_cell(p.predicted), f"{p.probability:.4f}",
         text_cell(p.reason)) for p in picks
    ]  # fmt: skip
    write_text_atomically(folder / CSV, as_csv(header, rows))
    # Last: with it the round is there.
    write_text_atomically(folder / ROUND, json.dumps(seal(facts, f"round-{number}")) + "\n")
    return folder / CSV
