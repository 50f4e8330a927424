"""The labelled set as an image folder for `--dataset folder:DIR`, with a card that says where every label is from."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from data.files import write_text_atomically
from experiments.annotate.answers.state import NONE, UNSURE, Label, State, now
from experiments.annotate.formats.exporting import place

OOD_FOLDER = "_ood_"
"""Name of the folder of images that show none of the classes."""
TEST_SHARE = 5
"""One image of so many is held out for `test/`, which an image folder must have, and at least one of each class."""
LONGEST_NAME = 200
"""Bytes of a file's name; most file systems allow 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A labelled image in the finished set."""

    file: str
    """Path relative to the set, with forward slashes."""
    label: Label


def finish(state: State, target: Path) -> list[str]:
    """Write the labelled images to `target`, which must be empty or absent. Returns lines that say what is there.

    Images are hard links where the disk allows, else copies. Left out, and named in the lines: images that nobody could
    tell, near-copies, classes with fewer than two images, and images that are gone.

    Raises ValueError if fewer than two classes remain, or if `target` holds files.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is not empty; name a new folder for the finished set")
    by_folder, notes = _usable(state)
    if len(by_folder.keys() - {OOD_FOLDER}) < 2:
        raise ValueError(
            f"a set needs at least two classes with two labelled images each; {state.directory} has "
            f"{len(by_folder.keys() - {OOD_FOLDER})}: label more"
        )
    placed = [each for folder, labels in by_folder.items() for each in _placed(folder, labels)]
    for each in placed:
        place(state.folder / each.label.image, target / each.file)
    card = _card(state, placed, notes)
    write_text_atomically(target / "card.json", json.dumps(card, indent=1) + "\n")
    write_text_atomically(target / "README.md", _readme(card))
    classes = ",".join(f'"{name}"' if "," in name else name for name in state.classes if name in by_folder)
    return [
        f"{target}: {len(placed):,} images, {len(by_folder.get(OOD_FOLDER, ())):,} of them of none of the classes",
        *notes,
        f"next: python experiments/trial.py --dataset {shlex.quote(f'folder:{target}')} --id-classes "
        f"{shlex.quote(classes)} --ood-ratio all",
    ]


def _usable(state: State) -> tuple[dict[str, list[Label]], list[str]]:
    """Labels by the folder they go to, in the order of the classes, and a line for each kind that is left out."""
    copies, found, notes = state.listing().copy_of, defaultdict(list), []
    left_out = {"near-copies of other images": 0, "answers 'cannot tell'": 0, "images that are gone from the folder": 0}
    for label in state.labels().values():
        if label.answer == UNSURE:
            left_out["answers 'cannot tell'"] += 1
        elif label.image in copies:
            left_out["near-copies of other images"] += 1
        elif not (state.folder / label.image).is_file():
            left_out["images that are gone from the folder"] += 1
        else:
            found[OOD_FOLDER if label.answer == NONE else label.answer].append(label)
    notes += [f"left out: {number:,} {what}" for what, number in left_out.items() if number]
    usable = {}
    for name in (*state.classes, OOD_FOLDER):
        if len(found[name]) >= 2:
            usable[name] = sorted(found[name], key=lambda label: label.image)
        elif name != OOD_FOLDER or found[name]:
            what = "'none of my classes'" if name == OOD_FOLDER else f"class '{name}'"
            notes.append(f"left out: {what} with {len(found[name])} image(s); two are needed, to train and to test")
    return usable, notes


def _placed(folder: str, labels: Sequence[Label]) -> Iterable[Placed]:
    """Paths of the images of one class, in `train/` or `test/`, with at least one in each."""
    # By a hash of the name and not a draw: an image keeps its part when more are labelled and the set is made again.
    order = sorted(labels, key=lambda label: _number(label.image))
    held_out = {label.image for label in order if _number(label.image) % TEST_SHARE == 0}
    if not held_out:
        held_out = {order[0].image}
    elif len(held_out) == len(order):
        held_out.remove(order[-1].image)
    taken: set[str] = set()
    for label in labels:
        name = _flat_name(label.image, taken)
        taken.add(name.casefold())
        yield Placed(file=f"{'test' if label.image in held_out else 'train'}/{folder}/{name}", label=label)


def _number(image: str) -> int:
    """A number that only the image's name decides."""
    return int.from_bytes(sha256(image.encode("utf-8", "surrogateescape")).digest()[:8])


def _flat_name(image: str, taken: set[str]) -> str:
    """A file name for an image of a nested folder: class folders hold no folders."""
    path = PurePosixPath(image)
    name = "__".join(path.parts)
    if len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME or name.casefold() in taken:
        name = f"{_number(image):016x}{path.suffix}"
    return name


def _card(state: State, placed: Sequence[Placed], notes: Sequence[str]) -> dict[str, Any]:
    """What there is to know about the set, as JSON."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"train": 0, "test": 0})
    people: dict[str, list[str]] = defaultdict(list)
    for each in placed:
        part, folder, _ = each.file.split("/", 2)
        counts[folder][part] += 1
        people[each.label.source].append(each.label.time)
    seconds = [each.label.seconds for each in placed if each.label.seconds is not None]
    return {
        "made": now(),
        "photos": state.folder.absolute().name,
        "images_in_folder": len(state.images()),
        "classes": list(state.classes),
        "counts": dict(counts),
        "left_out": list(notes),
        "labelled_by": {
            source: {"labels": len(times), "first": min(times), "last": max(times)}
            for source, times in sorted(people.items())
        },
        "seconds_of_labelling": round(sum(seconds), 1),
        "rounds": [{"round": number} | state.settings(number) for number in state.rounds()],
        "images": [
            {
                "file": each.file, "photo": each.label.image, "answer": each.label.answer,
                "source": each.label.source, "time": each.label.time, "seconds": each.label.seconds,
            }
            for each in placed
        ],
    }  # fmt: skip


def _readme(card: dict[str, Any]) -> str:
    """The card for people."""
    total = {part: sum(each[part] for each in card["counts"].values()) for part in ("train", "test")}
    last = card["rounds"][-1] if card["rounds"] else {}
    lines = [
        f"# Labelled images of {card['photos']}",
        "",
        f"{total['train']:,} images to train and {total['test']:,} to test, chosen and labelled out of "
        f"{card['images_in_folder']:,}; `_ood_` holds those that show none of the classes.",
        "",
        "| class | train | test |",
        "|---|---:|---:|",
        *(f"| {_cell(name)} | {each['train']:,} | {each['test']:,} |" for name, each in card["counts"].items()),
        "",
        "| labelled by | labels | from | to |",
        "|---|---:|---|---|",
        *(
            f"| {_cell(source)} | {each['labels']:,} | {each['first']} | {each['last']} |"
            for source, each in card["labelled_by"].items()
        ),
        "",
        f"{len(card['rounds'])} rounds; the last one was ranked with: "
        + (", ".join(f"{name} {value}" for name, value in last.items() if name != "round") or "nothing noted")
        + f". Seconds of labelling: {card['seconds_of_labelling']:,}.",
        "",
        *(f"- {note}" for note in card["left_out"]),
        "",
        "The images were chosen by a model, those of `test/` too: accuracy on them is no fair estimate for the folder. "
        "`card.json` names the photo, the source and the time of every label. Images may be hard links to the photos: "
        "replace them, do not edit them in place.",
    ]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _cell(text: str) -> str:
    """A text for a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
