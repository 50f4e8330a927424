"""The state of annotating a folder: classes, images, answers and rounds, beside the folder; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.files import file_lock, shown, write_text_atomically
from data.sealed import read_sealed_json, seal
from experiments.annotate.answers.labels import NONE, UNSURE, Label, LabelLog, check_answer, check_classes

__all__ = ["NONE", "UNSURE", "Expected", "Label", "Listing", "State", "Suggestion", "now"]

MARKER, IMAGES, LABELS, ROUND, LOCK = "state.json", "images.json", "labels.jsonl", "round.json", ".lock"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One image that is worth a label, and why."""

    rank: int
    """1 for the first."""
    image: str
    wanted: float
    """Probability, from 0 to 1, that the image shows one of the classes."""
    predicted: str
    """The class that it most probably shows if it shows one."""
    predicted_probability: float
    informativeness: float
    """What the strategy expects to learn from it; larger is more. Its unit is the strategy's own."""
    nearest_labelled: str | None
    """The labelled image that looks most alike; None if none is labelled."""
    copies: tuple[str, ...]
    """Near-copies of the image, which follow its answer."""
    reason: str
    """A short sentence."""
    border: bool
    """Whether it was chosen because it lies on the border of being wanted."""
    drawn: bool = False
    """Whether it was drawn at random from all images without an answer, to check the estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What was expected when a round was suggested."""

    wanted: float
    """Expected number of wanted images among the suggestions."""
    at_random: float
    """Expected number of wanted images among as many unanswered ones drawn at random."""
    folder: float
    """Expected number of wanted images in the whole folder, with its 95 % interval."""
    low: float
    high: float
    num_images: int
    """Images in the folder."""
    by_curve: float | None = None
    """As `folder`, by the curve of scores alone; None in rounds of earlier versions, which drew nothing at random."""
    variance: float = 0.0
    """Variance of the answers about all images without one, by that curve."""
    num_free: int = 0
    """Images that could be suggested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The images of the folder."""

    images: tuple[str, ...] = ()
    """Sound images, sorted: the rows of features of one's own."""
    damaged: Mapping[str, str]
    """Damaged image -> what is wrong with it."""
    copy_of: Mapping[str, str]
    """Near-copy -> the image that stands for it."""
    identity: str = ""
    """Identity of images and features that the near-copies were found with."""


def now() -> str:
    """The time, as labels hold it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class State:
    """All that is known about a folder of photos. Made by `State.open`; everybody may read, one process may write."""

    def __init__(self, folder: Path, directory: Path, classes: tuple[str, ...]) -> None:
        """For `State.open`."""
        self.folder, self.directory, self.classes = folder, directory, classes
        self._log = LabelLog(directory / LABELS)
        self._is_locked = False
        self._listing: tuple[tuple[int, int], Listing] | None = None

    @staticmethod
    def open(folder: Path, classes: Sequence[str] | None = None, directory: Path | None = None) -> State:
        """State of the photo folder, kept in `directory` (default: `FOLDER.suggest` beside it); nothing is written yet.

        Raises ValueError for a folder that does not exist, for impossible or other class names than before, for no
        classes where there is no state, for a directory that holds other files, and for a damaged state.
        """
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder" if not folder.exists() else f"{folder}: this is not a folder")
        directory = directory or state_directory(folder)
        if directory.resolve() == folder.resolve():
            raise ValueError(f"{directory} is the photo folder itself; keep the state in another one")
        names = None if classes is None else check_classes(classes)
        marker = directory / MARKER
        if not marker.exists():
            if directory.exists() and (not directory.is_dir() or any(e.name != LOCK for e in directory.iterdir())):
                raise ValueError(f"{directory} holds other files and no {MARKER}; choose another one with -o")
            if names is None:
                raise ValueError(f"{folder} has no state yet, so its classes are needed, such as --classes cat,dog")
            return State(folder, directory, names)
        kept = tuple(_read(marker, MARKER)["classes"])
        if names is not None and names != kept:
            raise ValueError(
                f"the state in {directory} is about the classes {', '.join(kept)}, not {', '.join(names)}; leave "
                "--classes out, or choose another state with -o"
            )
        return State(folder, directory, kept)

    @contextmanager
    def locked(self) -> Iterator[State]:
        """Make the state if it is new, and keep other writers out of it while inside.

        Raises ValueError if another process writes to it.
        """
        try:
            with file_lock(self.directory / LOCK, wait=False):
                if not (self.directory / MARKER).exists():
                    self._write(self.directory / MARKER, MARKER, {"format": FORMAT, "classes": list(self.classes)})
                self._is_locked = True
                try:
                    yield self
                finally:
                    self._is_locked = False
        except BlockingIOError:
            raise ValueError(
                f"another process is writing to {self.directory}, perhaps an open page; end it, or choose another "
                "state with -o"
            ) from None

    def labels(self) -> dict[str, Label]:
        """The latest answer about each labelled image."""
        return self._log.latest()

    def history(self) -> tuple[Label, ...]:
        """All answers ever given, oldest first; one that was taken back has an empty text after it."""
        return self._log.history()

    def record(self, labels: Iterable[Label]) -> None:
        """Keep answers, which are on disk when it returns; a second answer about an image replaces the first.

        Raises ValueError, and keeps none of them, for an unknown answer or an image that is not in the folder.
        """
        assert self._is_locked, "only inside locked()"
        labels, listing = tuple(labels), self.listing()
        known = {*listing.images, *listing.copy_of, *listing.damaged}
        for label in labels:
            check_answer(label.answer, self.classes)
            if label.image not in known:
                raise ValueError(f"{shown(label.image)} is no image of {self.folder}")
        self._log.append(labels)

    def undo(self, image: str, source: str = "undo") -> None:
        """Take the answer about an image back: it counts as not labelled. Its history is kept."""
        assert self._is_locked, "only inside locked()"
        if image not in self._log.latest():
            raise ValueError(f"{shown(image)} has no answer that could be taken back")
        self._log.append([Label(image=image, answer="", source=source, time=now())])

    def listing(self) -> Listing:
        """The images of the folder when it was last listed; empty before that."""
        path = self.directory / IMAGES
        if not path.exists():
            return Listing(damaged={}, copy_of={})
        stat = path.stat()
        if self._listing is None or self._listing[0] != (stat.st_mtime_ns, stat.st_ino):
            content = _read(path, IMAGES)
            listing = Listing(**{**content, "images": tuple(content["images"])})
            self._listing = (stat.st_mtime_ns, stat.st_ino), listing
        return self._listing[1]

    def write_listing(self, listing: Listing) -> None:
        """Keep the list of the folder's images."""
        self._write(
            self.directory / IMAGES,
            IMAGES,
            {
                "images": list(listing.images),
                "damaged": dict(listing.damaged),
                "copy_of": dict(listing.copy_of),
                "identity": listing.identity,
            },
        )

    def images(self) -> tuple[str, ...]:
        """The sound images of the folder, sorted, near-copies included; an image's number is its place here."""
        return self.listing().images

    def image_path(self, number: int) -> Path:
        """Path of the image with this number. Raises ValueError for a number that no image has."""
        images = self.images()
        if not 0 <= number < len(images):
            raise ValueError(f"there is no image {number}: the folder has {len(images)}")
        return self.folder / images[number]

    def rounds(self) -> list[int]:
        """Numbers of the rounds that were suggested, from 1."""
        found = (path.parent.name.removeprefix("round-") for path in self.directory.glob(f"round-*/{ROUND}"))
        return sorted(int(number) for number in found if number.isdigit())

    def round_folder(self, number: int) -> Path:
        """Folder for whatever belongs to a round."""
        return self.directory / f"round-{number}"

    def suggestions(self, number: int) -> tuple[Suggestion, ...]:
        """The suggestions of a round, by rank."""
        return _suggestions(self._round(number)["suggestions"])

    def unwanted(self, number: int) -> tuple[Suggestion, ...]:
        """A sample of the images that the round's ranking took for unwanted, least wanted first."""
        return _suggestions(self._round(number)["unwanted"])

    def expected(self, number: int) -> Expected:
        """What was expected of a round."""
        return Expected(**self._round(number)["expected"])

    def settings(self, number: int) -> dict[str, Any]:
        """How a round was ranked: detector, strategy, weights, numbers of labels, as names -> values."""
        return dict(self._round(number)["settings"])

    def write_round(
        self,
        number: int,
        suggestions: Sequence[Suggestion],
        expected: Expected,
        *,
        unwanted: Sequence[Suggestion] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a round's suggestions, replacing those of an earlier call for the same round."""
        content = {
            "round": number,
            "time": now(),
            "suggestions": [asdict(each) for each in suggestions],
            "unwanted": [asdict(each) for each in unwanted],
            "expected": asdict(expected),
            "settings": dict(settings or {}),
        }
        self._write(self.round_folder(number) / ROUND, f"round-{number}", content)

    def _round(self, number: int) -> dict[str, Any]:
        path = self.round_folder(number) / ROUND
        if not path.exists():
            raise ValueError(f"there is no round {number} in {self.directory}")
        return _read(path, f"round-{number}")

    def _write(self, path: Path, name: str, content: dict[str, Any]) -> None:
        assert self._is_locked or name == MARKER, "only inside locked()"
        write_text_atomically(path, json.dumps(seal(content, name)) + "\n")


def state_directory(folder: Path) -> Path:
    """Default folder of the state of a photo folder: beside it, as `FOLDER.suggest`."""
    # "." and ".." have no name of their own.
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    return folder.with_name(f"{folder.name}.suggest")


def _suggestions(content: Iterable[Mapping[str, Any]]) -> tuple[Suggestion, ...]:
    return tuple(Suggestion(**{**each, "copies": tuple(each["copies"])}) for each in content)


def _read(path: Path, name: str) -> dict[str, Any]:
    """The content of one of the state's files. Raises ValueError, naming the file, if it is damaged."""
    try:
        content, was_sealed = read_sealed_json(path, name)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}; {_CURE}") from None
    if not was_sealed:
        raise ValueError(f"{path} cannot be used: it has no checksum; {_CURE}")
    return content


_CURE = f"all answers are in {LABELS} beside it, which can be given with --labels to a new state (-o)"
