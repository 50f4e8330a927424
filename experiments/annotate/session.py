"""What the annotation page shows and records: the latest round's suggestions, and the answers to them."""

from __future__ import annotations

import getpass
import statistics
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.console import RunStopped
from data.files import shown
from experiments.annotate.answers.state import NONE, UNSURE, Label, State, Suggestion, now

NextRound = Callable[[], int]
"""Ranks what is left with the answers so far, keeps the round, and returns its number. ValueError: there is none."""
LONGEST_ANSWER = 3600.0
"""Seconds: an answer that took longer was given after a break."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of the page about the image with this number; no text takes the answer back."""

    image: int
    answer: str | None
    seconds: float | None


class Session:
    """The page's view of a state that this process has locked; every method may be called from any thread."""

    def __init__(self, state: State, next_round: NextRound) -> None:
        """The state must have a round."""
        self._state, self._next_round = state, next_round
        # A number is given to an image when it is first shown and is never another's: were it the place in the listing,
        # photos added during a session would shift it, and the answer of a page still open would go to another image.
        self._images: list[str] = []
        self._numbers: dict[str, int] = {}
        self._lock, self._ranking = threading.Lock(), threading.Lock()
        self._failure: str | None = None
        self._last_view: dict[str, Any] = {}
        self._source = f"page, {_user()}"

    def view(self) -> dict[str, Any]:
        """Everything that the page shows, as JSON; while the next round is ranked, what it showed before."""
        if self._ranking.locked():
            return self._last_view | {"ranking": True}
        with self._lock:
            state, number = self._state, self._state.rounds()[-1]
            labels, expected = state.labels(), state.expected(number)
            suggestions = state.suggestions(number)
            self._last_view = {
                "ranking": False,
                "folder": shown(state.folder.absolute().name),
                "answers": _keys(state.classes),
                "round": number,
                "expected": round(expected.wanted, 1),
                "random": round(expected.at_random, 1),
                "items": [self._item(each, labels) for each in suggestions],
                "labelled": len(labels),
                "images": len(state.images()),
            }
            return self._last_view

    def _item(self, s: Suggestion, labels: dict[str, Label]) -> dict[str, Any]:
        label, nearest = labels.get(s.image), labels.get(s.nearest_labelled or "")
        return {
            "image": self._number(s.image), "name": shown(s.image), "wanted": s.wanted, "predicted": s.predicted,
            "probability": s.predicted_probability, "reason": shown(s.reason), "border": s.border,
            "copies": len(s.copies),
            "answer": label and label.answer,
            "seconds": label and label.seconds,
            "nearest": nearest and {"image": self._number(nearest.image), "answer": nearest.answer},
        }  # fmt: skip

    def _number(self, image: str) -> int:
        if image not in self._numbers:
            self._numbers[image] = len(self._images)
            self._images.append(image)
        return self._numbers[image]

    def path(self, number: int) -> Path:
        """File of the image with a number that `view` gave. Raises ValueError for other numbers."""
        return self._state.folder / self._image(number)

    def _image(self, number: int) -> str:
        if not 0 <= number < len(self._images):
            raise ValueError(f"there is no image {number} on this page; reload it")
        return self._images[number]

    def record(self, answers: Sequence[Answer]) -> None:
        """Keep answers, which are on disk when it returns.

        Raises ValueError for an unknown class or number, and while the next round is ranked; OSError for a full disk.
        Then none of them is kept.
        """
        if self._ranking.locked():
            raise ValueError("nothing was saved: the next batch is being ranked; wait for it")
        given = [
            Label(
                image=self._image(each.image),
                answer=each.answer,
                source=self._source,
                time=now(),
                seconds=None if each.seconds is None else round(min(max(each.seconds, 0.0), LONGEST_ANSWER), 2),
            )
            for each in answers
            if each.answer is not None
        ]
        with self._lock:
            self._state.record(given)
            for each in answers:
                image = self._image(each.image)
                if each.answer is None and image in self._state.labels():
                    self._state.undo(image, self._source)

    def advance(self, after: int) -> None:
        """Begin to rank the next round, unless there is one after round `after` already; `progress` tells the end."""
        # Two tabs, or a second press of the button: one round, not two.
        if not self._ranking.acquire(blocking=False):
            return
        if self._state.rounds()[-1] != after:
            self._ranking.release()
            return
        # A thread of its own, and no request that waits: Ctrl-C would have to wait for the ranking to end.
        threading.Thread(target=self._rank, daemon=True).start()

    def _rank(self) -> None:
        self._failure = "the ranking ended with an error, which is in the terminal"
        try:
            with self._lock:
                self._next_round()
            self._failure = None
        except (ValueError, OSError, ArithmeticError, MemoryError, RunStopped) as error:
            self._failure = str(error)
        finally:
            self._ranking.release()

    def progress(self) -> dict[str, Any]:
        """Whether the next round is being ranked, and why the last ranking failed, if it did."""
        is_ranking = self._ranking.locked()
        return {"ranking": is_ranking, "failure": None if is_ranking else self._failure}

    def summary(self) -> str:
        """What was labelled in the round, in one line."""
        with self._lock:
            number, labels = self._state.rounds()[-1], self._state.labels()
            suggestions = self._state.suggestions(number)
        answered = [labels[s.image] for s in suggestions if s.image in labels]
        counts = Counter(label.answer for label in answered)
        wanted = len(answered) - counts[NONE] - counts[UNSURE]
        times = [label.seconds for label in answered if label.seconds is not None]
        pace = f", {statistics.median(times):.1f} s per label" if times else ""
        return f"round {number}: {len(answered)} of {len(suggestions)} answered, {wanted} wanted{pace}"


def _keys(classes: Sequence[str]) -> list[dict[str, str]]:
    """All answers with their keys on the page: 1 to 9, 0 and u; further classes have none and are searched for."""
    keys = [(name, str(number) if number <= 9 else "") for number, name in enumerate(classes, start=1)]
    return [{"name": name, "key": key} for name, key in (*keys, (NONE, "0"), (UNSURE, "u"))]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown user"
