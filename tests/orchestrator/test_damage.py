"""Damage from outside: every file of an output folder and of the cache truncated, emptied, flipped, swapped.

Whatever is read afterwards is what it was before, because it was computed again, or is refused in a line that names the
file. Of the commands, `tests/experiments/test_damaged_run.py` says so.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.cache import file_hash_once
from data.image_files import describe_file
from data.image_store import open_stored_images
from data.imageset import ArrayImages, DataSet, ImageSet, make_data_set
from models.clipn import source as clipn_source
from models.clipn.features import open_vision_language
from models.clipn.recipe import ClipRecipe, NoTowerRecipe, SmallClipnRecipe
from models.clipn.source import ClipnSource
from models.contrastive.encoder import ContrastiveFeatures
from models.contrastive.recipe import ContrastiveRecipe
from models.device import use_threads
from orchestrator.launch import last_launch, note_launch
from orchestrator.ledger.__main__ import main as check
from orchestrator.ledger.classifiers import ClassifierStore
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.output import open_output
from orchestrator.ledger.records import RoundRecord

TRIAL = {"dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": "conf", "seed": 0, "rounds": 3}
QUICK = SmallClipnRecipe(clip=ClipRecipe(steps=1), no_tower=NoTowerRecipe(steps=1, num_passes=1))
TINY = ContrastiveRecipe(width=2, epochs=1, batch_size=4, learning_rate=0.01, warmup_epochs=1)
FINGERPRINTS = ("a" * 64, "b" * 64)
MakeRecord = Callable[..., RoundRecord]


def truncate(path: Path, neighbour: Path) -> None:
    del neighbour
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def empty(path: Path, neighbour: Path) -> None:
    del neighbour
    path.write_bytes(b"")


def flip(path: Path, neighbour: Path) -> None:
    """Flip one bit in the middle as a dying disk does, which changes no time."""
    del neighbour
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def swap(path: Path, neighbour: Path) -> None:
    mine, theirs = path.read_bytes(), neighbour.read_bytes()
    path.write_bytes(theirs)
    neighbour.write_bytes(mine)


DAMAGES = (truncate, empty, flip, swap)


def small_data_set(seed: int) -> DataSet:
    pixels_NHW3 = np.random.default_rng(seed).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(20) % 2
    train, test, pretrain = (
        ImageSet(images=ArrayImages(pixels_NHW3[part]), labels=labels[part])
        for part in (slice(0, 8), slice(8, 12), slice(12, 20))
    )
    half = (0.5, 0.5, 0.5)
    return make_data_set(
        name=f"small{seed}", class_names=("cat", "dog"), train=train, test=test, pretrain=pretrain, mean=half, std=half
    )


class Place:
    """An output folder and a cache with two of each kind of file, and all that is read from them."""

    def __init__(self, folder: Path) -> None:
        self.output, self.cache, self.images = folder / "out", folder / "cache", folder / "images"
        self.complaints: list[str] = []
        for number in (0, 1):
            for part in ("train", "test"):
                path = self.images / str(number) / part / "0.png"
                path.parent.mkdir(parents=True)
                pixels_HW3 = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels_HW3).save(path)

    def make(self, make_record: MakeRecord) -> None:
        """What a run that was stopped leaves; the cache is filled by reading."""
        with open_output(self.output).locked() as output:
            for number, fingerprint in enumerate(FINGERPRINTS):
                for round_number in range(2):
                    record = make_record(round_number, accuracy=0.5 + number / 10)
                    output.ledger.append(fingerprint, TRIAL | {"seed": number}, record)
                self._store(fingerprint).save(1, {"weight": torch.full((50,), float(number))})
        for command in ("table4", "table6"):
            note_launch(output, command, [])

    def readers(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """A name and a function for each thing that is read."""
        yield "marker", lambda: open_output(self.output).grid_id
        for command in ("table4", "table6"):
            yield command, lambda command=command: last_launch(open_output(self.output), command)
        for number, fingerprint in enumerate(FINGERPRINTS):
            ledger = Ledger(self.output / "ledger")  # not through the marker, as a report reads it
            yield f"records {number}", lambda ledger=ledger, name=fingerprint: ledger.state(name)
            yield f"classifier {number}", lambda number=number: self._classifier(number)
            yield f"round 0 {number}", lambda number=number: self._first(number)
            yield f"images {number}", lambda number=number: self._images(number)
            yield f"CLIPN {number}", lambda number=number: self._features(number)
            yield f"encoder {number}", lambda number=number: self._encoder(number)
            yield f"hash {number}", lambda number=number: file_hash_once(self.images / str(number) / "train/0.png")

    def read(self) -> tuple[dict[str, Any], dict[str, str]]:
        """All values by name, and the errors of what is refused."""
        values, errors = {}, {}
        for name, reader in self.readers():
            try:
                values[name] = reader()
            except ValueError as error:
                errors[name] = str(error)
        return values, errors

    def _store(self, fingerprint: str) -> ClassifierStore:
        return ClassifierStore(self.output / "classifiers", fingerprint)

    def _classifier(self, number: int) -> bytes:
        """Trained again if it is not kept, to the same."""
        weights = self._store(FINGERPRINTS[number]).load(1)
        return np.asarray(torch.full((50,), float(number)) if weights is None else weights["weight"]).tobytes()

    def _first(self, number: int) -> bytes:
        weights = {"weight": torch.full((50,), 2.0 + number)}
        return np.asarray(self._store("x").first(f"{number}", lambda: weights)["weight"]).tobytes()

    def _images(self, number: int) -> Any:
        root = self.images / str(number)
        sets = {part: [describe_file(root / part / "0.png", root=root)] for part in ("train", "test")}
        stored = open_stored_images(root, sets, what="pictures", progress=self.complaints.append)
        pixels = [stored.images[part].load(np.arange(1)).tobytes() for part in sets]
        return pixels, stored.mean, stored.std, stored.images["train"].fingerprint

    def _features(self, number: int) -> Any:
        found = open_vision_language(small_data_set(number), ClipnSource(), progress=self.complaints.append)
        yes_CD, no_CD = found.text_features(("cat", "dog"))
        return found.image_features_ND.tobytes(), yes_CD.tobytes(), no_CD.tobytes(), found.logit_scale

    def _encoder(self, number: int) -> Any:
        found = ContrastiveFeatures(
            small_data_set(number).train.images, "simclr", TINY, device=torch.device("cpu"),
            progress=self.complaints.append,
        )  # fmt: skip
        weights = b"".join(value.numpy().tobytes() for value in found.encoder.state_dict().values())
        return weights, found.projections.tobytes()


def files_below(*folders: Path) -> list[Path]:
    """All files that hold something, locks left out."""
    files = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if path.stat().st_size and "lock" not in path.name]


def neighbour_of(path: Path, files: list[Path]) -> Path:
    """The next file of the same name or kind with other bytes; else any other file."""
    same = [other for other in files if other.suffix == path.suffix and other != path]
    same.sort(key=lambda other: (other.name != path.name, other.parent != path.parent))
    return next(other for other in [*same, *files] if other.read_bytes() != path.read_bytes())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_record: MakeRecord) -> Place:
    use_threads(1)
    monkeypatch.setattr(clipn_source, "STAND_IN_RECIPE", QUICK)
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    place = Place(tmp_path)
    place.make(make_record)
    return place


@pytest.mark.parametrize("each", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_no_damage_goes_unnoticed_and_none_is_a_traceback(
    each: int, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file suffers `each` of the damages; with one, the files take turns."""
    expected, errors = place.read()
    assert errors == {}
    assert len(expected) == 17
    assert check([str(place.output), "--verify"]) == 0
    pristine = tmp_path / "pristine"
    for folder in (place.output, place.cache):
        shutil.copytree(folder, pristine / folder.name)
    files = files_below(place.output, place.cache)
    counts: Counter[str] = Counter()
    for number, path in enumerate(files):
        for damage in (DAMAGES * 2)[number % 4 : number % 4 + each]:
            for folder in (place.output, place.cache):
                shutil.rmtree(folder)
                shutil.copytree(pristine / folder.name, folder)
            damage(path, neighbour_of(path, files))
            case = f"{damage.__name__} {path.relative_to(tmp_path)}"
            capsys.readouterr()
            assert check([str(place.output), "--verify"]) in (1, 2), case
            said = capsys.readouterr().err
            assert path.name in said or path.parent.name in said, case
            values, errors = place.read()
            for name, value in values.items():
                assert value == expected[name], f"{case}: {name} is silently wrong"
            for error in errors.values():
                assert str(tmp_path) in error, case
                assert "\n" not in error, case
            counts["refused in a line" if errors else "computed again"] += 1
    with capsys.disabled():
        print(f"\n{len(files)} files, {sum(counts.values())} damages: 0 silently wrong, 0 tracebacks; {dict(counts)}")
    assert sum(counts.values()) == each * len(files)
    assert {path.relative_to(tmp_path).parts[:2] for path in files} == {
        ("out", "vlpure.json"), ("out", "launch-table4.json"), ("out", "launch-table6.json"), ("out", "ledger"),
        ("out", "classifiers"), ("cache", "images"), ("cache", "features"), ("cache", "clipn"), ("cache", "encoders"),
        ("cache", "hashes"),
    }  # fmt: skip
