"""Reader for a ledger file that may be torn or altered: what is wrong with it, and which rounds can be trusted.

The ledger replaces its files as a whole, so a damaged one was damaged from outside: a dying disk, a copy that broke
off, an editor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from data.sealed import Damaged, Newer, unseal
from orchestrator.ledger.ledger import CHECKSUM, FORMAT, TrajectoryState, check_fields, check_version, record_checksum
from orchestrator.ledger.plausible import Implausible, check_plausible, typed
from orchestrator.ledger.records import RoundRecord

RECORDS = '"records": ['
"""Text that the ledger writes before the first record; the settings of the trial come earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """Result of reading one file."""

    state: TrajectoryState | None
    """The part that can be trusted: everything, or the rounds before the first damaged one; None if nothing can."""
    problem: str | None
    """The first thing that is wrong; None for a sound file."""
    is_ours: bool = True
    """False for a file of another version, which is for that version to read."""


def examine(path: Path) -> Examined:
    """Read one ledger file without trusting it. Raises OSError if it cannot be read at all."""
    content, problem = _parse(path.read_bytes())
    if content is None:
        return Examined(state=None, problem=problem)
    try:
        if content.get("format") != FORMAT:
            check_version(content, path.stem)
        is_sealed = _check_header(content, path.stem)
        records, wrong = _trusted(content["records"], path.stem, content["trial"], is_sealed=is_sealed)
    except Newer as error:
        return Examined(state=None, problem=str(error), is_ours=False)
    except Damaged as error:
        return Examined(state=None, problem=str(error))
    state = TrajectoryState(
        fingerprint=content["fingerprint"],
        trial=content["trial"],
        records=records,
        error=content.get("error") if problem is None and wrong is None else None,
    )
    # A tear comes after every record that was salvaged, so what is wrong within those is reported first.
    return Examined(state=state, problem=wrong or problem)


def _parse(raw: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """JSON object of the file, or of a torn file its whole part; and what is wrong."""
    problem = None
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        text, problem = raw[: error.start].decode(), f"it is damaged at byte {error.start}"
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = "it is empty" if not raw.strip(b"\0 \n") else f"it is torn or damaged at character {error.pos}"
        return _whole_part(text), problem or where
    except ValueError as error:
        return None, str(error)
    except RecursionError:
        return None, "it is nested too deeply"
    return (content, problem) if isinstance(content, dict) else (None, "it holds no ledger entry")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a number")


def _whole_part(text: str) -> dict[str, Any] | None:
    """Header and whole records of a text that breaks off or is garbled among its records."""
    start = text.find(RECORDS)
    if start < 0:
        return None
    try:
        content: dict[str, Any] = json.loads(text[:start] + RECORDS + "]}")
    except (ValueError, RecursionError):
        return None
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    position = start + len(RECORDS)
    while True:
        try:
            record, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            return content
        content["records"].append(record)
        if not text.startswith(", ", position):
            return content
        position += len(", ")


def _check_header(content: dict[str, Any], fingerprint: str) -> bool:
    """Whether the file has a seal. Raises Damaged for what is wrong with all but the records, Newer as `unseal`."""
    if content.get("fingerprint") != fingerprint:
        found = str(content.get("fingerprint"))[:12]
        raise Damaged(f"it belongs to the trial {found}..., not to the one in its name")
    if not isinstance(content.get("trial"), dict) or not isinstance(content.get("records"), list):
        raise Damaged("it holds no trial with records")
    unknown = content.keys() - {"format", "seal", *TrajectoryState.__slots__}
    try:
        _, is_sealed = unseal({name: content[name] for name in content if name != "records"}, fingerprint)
    except Damaged:
        check_fields(unknown, is_sealed=False)
        raise
    check_fields(unknown, is_sealed=is_sealed)
    if not isinstance(content.get("error", ""), str | None):
        raise Damaged("it has other fields than a ledger entry")
    return is_sealed


def _trusted(
    raw: Sequence[Any], fingerprint: str, trial: Mapping[str, Any], *, is_sealed: bool
) -> tuple[tuple[RoundRecord, ...], str | None]:
    """The records before the first that is wrong, and what is wrong with that one. Raises Newer for a newer one."""
    records: list[RoundRecord] = []
    for number, values in enumerate(raw):
        try:
            has_checksum = is_sealed or (isinstance(values, dict) and CHECKSUM in values)
            values, is_whole = _without_checksum(values, fingerprint, is_sealed=is_sealed)
            record = typed(values)
            check_plausible(record, records, trial, has_checksum=has_checksum)
        except (TypeError, Implausible) as error:
            wrong = str(error) if isinstance(error, Implausible) else f"is damaged ({error})"
            return tuple(records), f"record {number} {wrong}"
        if not is_whole:
            return tuple(records), f"record {number} is damaged (its checksum is not that of its content)"
        records.append(record)
    return tuple(records), None


def _without_checksum(values: Any, fingerprint: str, *, is_sealed: bool) -> tuple[dict[str, Any], bool]:
    """Fields of a record, and whether they are as they were written. Raises TypeError, Newer."""
    if not isinstance(values, dict):
        raise TypeError("it is not a record")
    rest = {name: value for name, value in values.items() if name != CHECKSUM}
    has_checksum = is_sealed or CHECKSUM in values
    is_whole = not has_checksum or values.get(CHECKSUM) == record_checksum(rest, fingerprint)
    if is_whole and has_checksum:
        check_fields(rest.keys() - RoundRecord.__slots__, is_sealed=True)
    return rest, is_whole
