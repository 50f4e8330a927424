"""Labels into a state from files, and a round out of it into another tool's files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data.console import Progress
from data.files import shown
from experiments.annotate.answers.state import NONE, UNSURE, Label, State
from experiments.annotate.formats import registry


def take_labels(state: State, files: Sequence[Path], *, report: Progress) -> None:
    """Record the labels in files, of which all are read before any is kept; each file is reported in a line.

    Raises ValueError for a file that `registry.read` refuses, and for two files that disagree about an image.
    """
    listing = state.listing()
    images = {*listing.images, *listing.copy_of, *listing.damaged}
    found: dict[str, Label] = {}
    by_file: list[tuple[Path, list[Label]]] = []
    for file in files:
        read = registry.read(file, folder=state.folder, classes=state.classes, images=images)
        for warning in read.warnings:
            report(f"{file}: {warning}")
        for label in read.labels:
            other = found.setdefault(label.image, label)
            if other.answer != label.answer:
                raise ValueError(
                    f"two labels for '{shown(label.image)}': '{other.answer}' ({other.source}) and '{label.answer}' "
                    f"({label.source}); keep one of them"
                )
        by_file.append((file, read.labels))
    for file, labels in by_file:
        new = _news(state, labels)
        before = state.labels()
        num_changed = sum(label.image in before for label in new)
        state.record(new)
        counts = Counter(label.answer for label in labels)
        report(
            f"{file}: {len(labels):,} labels, {len(labels) - counts[NONE] - counts[UNSURE]:,} of them wanted; "
            f"{len(new) - num_changed:,} new, {num_changed:,} changed"
        )


def _news(state: State, labels: Sequence[Label]) -> list[Label]:
    """The labels of a source that differ from what it said the last time it was read, and from what is known."""
    # The same command line is run round after round, with the same --labels: an answer that was corrected on the page
    # meanwhile must not be undone by the file that it corrects.
    said = {(label.source, label.image): label.answer for label in state.history()}
    known = state.labels()
    return [
        label
        for label in labels
        if said.get((label.source, label.image)) != label.answer
        and (label.image not in known or known[label.image].answer != label.answer)
    ]


def export_round(state: State, form: str, *, report: Progress) -> Path:
    """Write the latest round for another tool, and report what to do with it. Returns the folder of the files.

    Raises ValueError for an unknown format, and before the first round.
    """
    rounds = state.rounds()
    if not rounds:
        raise ValueError(f"{state.directory} has no round yet; nothing is suggested that could be exported")
    directory = _new_folder(state.round_folder(rounds[-1]) / form)
    suggestions = state.suggestions(rounds[-1])
    for line in registry.write(form, directory, state.folder, state.classes, suggestions, state.labels()):
        report(line)
    return directory


def _new_folder(path: Path) -> Path:
    """The path, with a number behind it if something is there already."""
    # Never written over: people fill in a CSV file, or sort images into folders, in the very place of the export.
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def unfinished_round(state: State) -> int | None:
    """Number of the latest round if some of it is answered and some is not; None otherwise.

    A round of which nothing is answered is not begun: ranking it again loses nothing.
    """
    rounds = state.rounds()
    if not rounds:
        return None
    labels = state.labels()
    answered = [each.image in labels for each in state.suggestions(rounds[-1])]
    return rounds[-1] if any(answered) and not all(answered) else None
