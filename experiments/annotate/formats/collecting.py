"""The labels that a file of another tool holds, matched to the images and classes of a folder, or one line why not."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from data.console import unknown_name
from data.files import shown
from experiments.annotate.answers.state import NONE, UNSURE, Label

NONE_WORDS = frozenset({NONE, "_none_", "__none__", "_ood_", "__ood__"})
"""Texts that are read as "none of my classes"; none of them can be a class."""
UNSURE_WORDS = frozenset({UNSURE, "_skip_", "__skip__"})
"""Texts that are read as "cannot tell"; none of them can be a class."""


class Collector:
    """Takes what a reader finds, entry by entry, and gives the labels once all entries are known to be good."""

    def __init__(self, file: Path, *, folder: Path, classes: Sequence[str], images: Collection[str]) -> None:
        """`images` are the paths, relative to `folder` with forward slashes, that labels may be given to."""
        self.file, self.folder, self.classes = file, folder, tuple(classes)
        self.tool = "file"
        self.warnings: list[str] = []
        self._prefixes = _prefixes(folder)
        self._composed = {unicodedata.normalize("NFC", image): image for image in images}
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._found: dict[str, tuple[str, Label]] = {}
        self._missing: list[str] = []
        self._file_time = datetime.fromtimestamp(file.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def add(
        self,
        name: str,
        answer: str,
        *,
        where: str,
        by: str | None = None,
        source: str | None = None,
        time: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Take the answer to the image `name`, found at `where` ("line 7") in the file, and given by the person `by`.

        Raises ValueError for an unknown class, and for a second, different answer to the image.
        """
        meant, image = self.meant(answer, where), self.find(name)
        if image is None:
            self.missing(name)
            return
        if image in self._found and self._found[image][1].answer != meant:
            before, label = self._found[image]
            raise self.error(
                f"two labels for '{image}': '{label.answer}' ({before}) and '{meant}' ({where}); keep one of them"
            )
        author = f", {by}" if by else ""
        source = source or f"{self.tool} {self.file.name}{author}"
        label = Label(image=image, answer=meant, source=source, time=time or self._file_time, seconds=seconds)
        self._found[image] = where, label

    def missing(self, name: str) -> None:
        """Take note of an image that the folder does not have, for the error of `labels`."""
        self._missing.append(name)

    def labels(self) -> list[Label]:
        """All labels, in the order of the file. Raises ValueError if it names images that are not in the folder."""
        if self._missing:
            first = shown(self._missing[0])
            if not self._found:
                raise self.error(
                    f"this is about another folder: {self.folder} has none of its {len(self._missing):,} images "
                    f"(the first is '{first}'); paths must be relative to {self.folder}, or absolute below it"
                )
            others = f" and {len(self._missing) - 1:,} more" * (len(self._missing) > 1)
            raise self.error(f"{self.folder} has no image '{first}'{others}; remove the entries or restore the images")
        return [label for _, label in self._found.values()]

    def find(self, name: str) -> str | None:
        """The image of the folder that a tool calls `name`; None if there is none.

        Exact, relative to the folder, or with the folder's path, or the end of it, before the image's.
        """
        for spelling in (name, name.replace("\\", "/")):  # a file name may hold a backslash, and Windows writes them
            text = unicodedata.normalize("NFC", str(PurePosixPath(spelling)))
            for prefix in self._prefixes:
                rest = text.removeprefix(prefix)
                if text.startswith(prefix) and rest in self._composed:
                    return self._composed[rest]
        return None

    def find_stem(self, name: str, where: str) -> str | None:
        """The image that a tool calls `name` without the file name's suffix; None if there is none.

        Raises ValueError if it may be one of several.
        """
        exact = self.find(name)
        if exact is not None:
            return exact
        if not self._by_stem:
            for composed, image in self._composed.items():
                self._by_stem[composed.rpartition(".")[0]].append(image)
        found = self._by_stem.get(unicodedata.normalize("NFC", name), [])
        if len(found) > 1:
            raise self.error(f"{where}: '{name}' may be '{found[0]}' or '{found[1]}'; rename one of them")
        return found[0] if found else None

    def meant(self, answer: str, where: str) -> str:
        """The class that a text names, or "none of my classes" or "cannot tell". Raises ValueError for other texts."""
        text = unicodedata.normalize("NFC", answer.strip())
        for name in self.classes:
            if unicodedata.normalize("NFC", name) == text:
                return name
        if text.lower() in NONE_WORDS:
            return NONE
        if text.lower() in UNSURE_WORDS:
            return UNSURE
        complaint = unknown_name("class", shown(answer), (*self.classes, NONE, UNSURE))
        raise self.error(f"{where}: {complaint}")

    def error(self, reason: str) -> ValueError:
        """The error to raise for something wrong in the file."""
        return ValueError(f"{self.file}: {reason}")


def _prefixes(folder: Path) -> list[str]:
    """Texts that may stand before an image's path: nothing, the folder's path, and the ends of that path."""
    # Only these: "other/1.jpg" must not pass for "1.jpg" of this folder.
    parts = folder.resolve().parts[1:]
    tails = ["/".join(parts[start:]) + "/" for start in range(len(parts))]
    paths = (f"{folder.absolute()}/", f"{folder.resolve()}/", *tails)
    return ["", *(unicodedata.normalize("NFC", path) for path in paths)]


class Votes:
    """Answers of several annotators to the same images."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._cast: dict[str, list[tuple[str, str | None, str | None, float | None]]] = defaultdict(list)
        self._where: dict[str, str] = {}

    def add(
        self, name: str, answer: str, *, where: str, by: str | None, time: str | None, seconds: float | None
    ) -> None:
        """Take one annotator's answer. Raises ValueError for an unknown class."""
        self._where.setdefault(name, where)
        self._cast[name].append((self._collector.meant(answer, where), by, time, seconds))

    def count(self) -> None:
        """Hand the majority's answer for each image to the collector; a tie is "cannot tell", with a warning."""
        for name, cast in self._cast.items():
            ranked = Counter(answer for answer, *_ in cast).most_common()
            answer = ranked[0][0]
            if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
                self._collector.warnings.append(
                    f"'{name}': annotators disagree ({', '.join(f'{each} {num}' for each, num in ranked)}): set aside "
                    f"as '{UNSURE}'"
                )
                answer = UNSURE
            authors = sorted({by for _, by, _, _ in cast if by})
            times = [time for *_, time, _ in cast if time]
            paid = [seconds for *_, seconds in cast if seconds is not None]
            self._collector.add(
                name,
                answer,
                where=self._where[name],
                by=", ".join(authors) or None,
                time=max(times, default=None),
                # The sum: the label cost the time of everyone who gave it.
                seconds=sum(paid) if paid else None,
            )
