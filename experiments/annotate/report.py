"""What the command prints about a folder, a round and what came of it; reads the state only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from data.files import shown
from experiments.annotate.answers.state import NONE, UNSURE, State

MOST_NAMED = 5
"""Damaged images that are named; a folder may have thousands."""


def folder_lines(state: State, num_other: int, weights: str) -> list[str]:
    """Lines about the photos of the folder."""
    listing = state.listing()
    lines = [
        f"{shown(str(state.folder))}: {len(listing.images):,} images, {len(listing.damaged):,} damaged, "
        f"{_counted(len(listing.copy_of), 'near-copy', 'near-copies')} set aside"
        # Phones write HEIC: without the list, a folder of theirs looks smaller than it is for no reason.
        + (f", {_counted(num_other, 'file', 'files')} not JPEG, PNG, GIF, WebP or BMP" if num_other else "")
    ]
    lines += [f"  left out: {shown(name)}: {listing.damaged[name]}" for name in sorted(listing.damaged)[:MOST_NAMED]]
    if len(listing.damaged) > MOST_NAMED:
        lines.append(f"  and {len(listing.damaged) - MOST_NAMED:,} more, named in {state.directory / 'images.json'}")
    gone = len(state.labels().keys() - {*listing.images, *listing.damaged})
    if gone:
        lines.append(f"{_counted(gone, 'answer is', 'answers are')} about images that are gone or changed their names")
    lines.append(f"features: {len(listing.images):,} images, {weights} (once; the next call takes seconds)")
    return lines


def outcome_lines(state: State) -> list[str]:
    """One line per round with answers: wanted images expected among the answered ones, and found."""
    labels, lines = state.labels(), []
    for number in state.rounds():
        answered = [(each, labels[each.image]) for each in state.suggestions(number) if each.image in labels]
        told = [(each, label) for each, label in answered if label.answer != UNSURE]
        if not told:
            continue
        came = sum(label.answer != NONE for _, label in told)
        unsure = len(answered) - len(told)
        expected = sum(each.wanted for each, _ in told)
        lines.append(
            f"round {number}: {came} of {len(told)} answered images are wanted; {expected:.0f} were expected"
            + (f"; {unsure} could not be told and are set aside" if unsure else "")
        )
    return lines


def round_lines(state: State, number: int) -> list[str]:
    """Lines about a new round."""
    suggestions, settings = state.suggestions(number), state.settings(number)
    return [
        _how(settings, len(suggestions)),
        *what_is_known({**asdict(state.expected(number)), **settings}, number, len(suggestions)),
    ]


def what_is_known(facts: Mapping[str, Any], number: int, count: int) -> list[str]:
    """Lines about the estimate and what is expected of `count` suggestions; `facts` are a round's."""
    return [
        f"about {facts['folder']:,.0f} ({facts['low']:,.0f} to {facts['high']:,.0f}) of {facts['num_images']:,} show "
        f"one of your classes; {_checked(facts)}",
        f"round {number}: {facts['wanted']:.0f} of {count} expected to be wanted; at random it would be "
        f"{facts['at_random']:.0f}",
    ]


def _checked(settings: Mapping[str, Any]) -> str:
    """What the estimate of the folder rests on."""
    if not settings["answers"]:
        return "a guess until some are labelled"
    drawn = settings.get("random answers", 0)
    if not drawn:
        # Of 800 wanted in 2,000, 660 to 760 were estimated after the first round (docs/annotate_results.md).
        return "likely too low, since the labels are of images that looked wanted, and none was drawn at random"
    return f"checked with {_counted(drawn, 'image', 'images')} drawn at random"


def _how(settings: Mapping[str, Any], count: int) -> str:
    """How a round was ranked."""
    border = f"; {settings['border cases']} of {count} are border cases, to learn from"
    if settings.get("drawn at random"):
        border += f", {settings['drawn at random']} drawn at random, to check the estimate"
    if not settings["answers"]:
        by = "by looks alone" if settings["detector"] in ("probe", "knn") else "by the class names alone"
        return f"no labels yet: ranked {by}, spread over looks{border}"
    return (
        f"{settings['answers']} answers, {settings['wanted answers']} of them wanted: ranked by "
        f"{settings['detector']}, then {settings['strategy']}{border}"
    )


def _counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many}"
