"""States of small photo folders with a round suggested, ranked by nobody: the figures follow from the ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.annotate.answers.state import Expected, Listing, State, Suggestion
from tests.experiments.annotate.photos import suggestion, write_photos

CLASSES = ("cat", "dog", "horse")


def expected(num_images: int, wanted: float = 4.2) -> Expected:
    """What a round expects."""
    return Expected(wanted=wanted, at_random=2.0, folder=10.0, low=8.0, high=12.0, num_images=num_images)


def make_state(root: Path, names: Sequence[str], *, classes: Sequence[str] = CLASSES) -> State:
    """A state of the folder `photos` below `root`, whose images are listed."""
    images = write_photos(root / "photos", names)
    state = State.open(root / "photos", classes)
    with state.locked():
        state.write_listing(Listing(images=images, damaged={}, copy_of={}))
    return state


def suggest_round(state: State, images: Sequence[str], *, number: int = 1) -> tuple[Suggestion, ...]:
    """Keep these images as a round, the wanted class changing from one to the next. The state is locked."""
    suggestions = tuple(
        suggestion(rank, image, predicted=state.classes[rank % len(state.classes)])
        for rank, image in enumerate(images, start=1)
    )
    state.write_round(number, suggestions, expected(len(state.images())), settings={"detector": "mcm"})
    return suggestions


def next_rounds(state: State, size: int) -> Callable[[], int]:
    """A ranking by name: the first `size` images without an answer are the next round."""

    def following() -> int:
        left = [image for image in state.images() if image not in state.labels()][:size]
        if not left:
            raise ValueError("every image has an answer")
        number = (state.rounds() or [0])[-1] + 1
        suggest_round(state, left, number=number)
        return number

    return following
