"""Answers to "what does this image show", as an append-only file that survives a kill at any moment.

One JSON object per line, each with a checksum of its own. Names of files that are not UTF-8 are kept: JSON writes their
bytes, which Python holds as lone surrogates, as escapes such as \\udce9.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.console import unknown_name
from data.files import make_folder, shown, sync_folder
from data.sealed import Damaged, seal, unseal

NONE = "none of my classes"
"""The answer for an image that shows none of the wanted classes."""
UNSURE = "cannot tell"
"""The answer for an image that is to be set aside."""
RESERVED = (NONE, UNSURE, "_none_", "_ood_", "_skip_", "__none__", "__ood__", "__skip__")
"""Names that no class may have: the two answers, and what files of other tools call them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One answer about one image."""

    image: str
    """Path relative to the photo folder, with forward slashes; bytes that are not UTF-8 are lone surrogates."""
    answer: str
    """A class name, `NONE` or `UNSURE`."""
    source: str
    """Who or what gave the answer, for example "page" or the name of a file."""
    time: str
    """When, in UTC, as 2026-11-27T03:40:00Z."""
    seconds: float | None = None
    """How long the answer took, in seconds; None if unknown."""


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The class names without blanks around them.

    Raises ValueError for fewer than two, for empty, equal (whatever their case) and reserved names, and for names that
    cannot be names of folders.
    """
    names = tuple(" ".join(name.split()) for name in classes)
    if "" in names:
        raise ValueError(f"class {names.index('') + 1} of {len(names)} is empty; write names such as cat,dog,horse")
    lower: dict[str, str] = {}
    for name in names:
        if name.casefold() in RESERVED:
            raise ValueError(
                f"'{name}' cannot be the name of a class: it has a meaning of its own here; choose another"
            )
        # --finish makes a folder per class, and other tools read those.
        if not name.isprintable() or name.startswith((".", "-")) or set(name) & set('/\\:*?"<>|'):
            raise ValueError(f"'{shown(name)}' cannot be the name of a class: it could not be the name of a folder")
        if name.casefold() in lower:
            raise ValueError(f"the class '{name}' is given twice")
        lower[name.casefold()] = name
    if len(names) < 2:
        raise ValueError(f"{len(names)} class is given; at least two are needed, such as --classes cat,dog")
    return names


def check_answer(answer: str, classes: Sequence[str]) -> None:
    """Raise ValueError unless the answer is one of the classes, `NONE` or `UNSURE`."""
    if answer not in (*classes, NONE, UNSURE):
        raise unknown_name("answer", answer, (*classes, NONE, UNSURE))


class LabelLog:
    """The file of all answers, oldest first; the last one about an image counts."""

    def __init__(self, path: Path) -> None:
        """Reads nothing yet. `path` need not exist."""
        self._path = path
        self._forget()

    def _forget(self) -> None:
        self._history: list[Label] = []
        self._latest: dict[str, Label] = {}
        self._end = 0
        self._inode: int | None = None

    def latest(self) -> dict[str, Label]:
        """The answer that counts for each labelled image, in the order in which the images were first answered."""
        self._read()
        return dict(self._latest)

    def history(self) -> tuple[Label, ...]:
        """All answers ever given, oldest first; an answer taken back is one with an empty text."""
        self._read()
        return tuple(self._history)

    def append(self, labels: Iterable[Label]) -> None:
        """Add answers; they are on disk when it returns. The caller holds the state's lock.

        Raises OSError if the disk is full; the file is then as it was.
        """
        self._read()
        labels = tuple(labels)
        lines = "".join(json.dumps(seal(asdict(label), _SEALED_AS)) + "\n" for label in labels).encode("ascii")
        if not labels:
            return
        made, is_new = make_folder(self._path.parent), not self._path.exists()
        with self._path.open("ab", buffering=0) as file:
            # What a killed process left of its last line, which nobody was told is kept.
            if file.seek(0, os.SEEK_END) != self._end:
                file.truncate(self._end)
            try:
                left = memoryview(lines)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(self._end)
                raise OSError(error.errno, error.strerror, str(self._path)) from error
            self._inode = os.fstat(file.fileno()).st_ino
        if is_new:
            for folder in (self._path.parent, *(each.parent for each in reversed(made))):
                sync_folder(folder)
        self._end += len(lines)
        self._take(labels)

    def _take(self, labels: Iterable[Label]) -> None:
        for label in labels:
            self._history.append(label)
            if label.answer:
                self._latest[label.image] = label
            else:
                self._latest.pop(label.image, None)

    def _read(self) -> None:
        """Read what was added since the last call. Raises ValueError for a damaged line, with its number."""
        try:
            with self._path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._end:
                    self._forget()
                    self._inode = stat.st_ino
                file.seek(self._end)
                content = file.read()
        except FileNotFoundError:
            self._forget()
            return
        # Without its end the last line is one whose writer was killed before anybody was told that it is kept.
        whole = content[: content.rfind(b"\n") + 1]
        self._take(list(self._parsed(whole)))
        self._end += len(whole)

    def _parsed(self, content: bytes) -> Iterator[Label]:
        for number, line in enumerate(content.splitlines(), start=len(self._history) + 1):
            try:
                yield Label(**_unsealed(line))
            except (ValueError, TypeError, RecursionError) as error:
                reason = error if isinstance(error, Damaged) else "it is torn or damaged"
                raise ValueError(
                    f"{self._path}: line {number} is not what was written ({reason}); remove that line, and answer "
                    "its image again"
                ) from None


_SEALED_AS = "label"


def _unsealed(line: bytes) -> dict[str, Any]:
    content, was_sealed = unseal(json.loads(line), _SEALED_AS)
    if not was_sealed:
        raise Damaged("it has no checksum")
    return content
