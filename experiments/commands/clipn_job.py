"""The job of `train_clipn.py` and its results, as values. Importing this module needs no torch.

Shapes: N images of a data set, B images trained on, C classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.console import unknown_name
from data.files import content_hash, file_hash, file_lock, write_text_atomically
from data.imageset import DataSet, Images
from data.splits.draw import OOD_ONLY
from data.splits.ratios import draw_split
from models.clipn.prompts import DEFAULT_TEMPLATES_HASH
from models.clipn.quality import DetectionQuality
from models.clipn.recipe import SmallClipnRecipe

_SEEDS = (0, 1)
"""Seeds of the trials whose ID classes the report uses if none are given."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassLabels:
    """Captions of images made of templates and the names of their classes."""

    labels: NDArray[np.int64]
    """(B,) position of each image's class in `names`."""
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipnJob:
    """One training of a CLIPN: its recipe, its architecture and its images."""

    config: dict[str, Any]
    """open_clip model config."""
    recipe: SmallClipnRecipe
    base: str | None
    """open_clip tag or weights file; None: all towers are trained."""
    model: str
    """open_clip architecture of the base."""
    images: Images
    images_fingerprint: str
    idx: NDArray[np.int64]
    """(B,) images trained on."""
    captions: ClassLabels | tuple[str, ...]
    """The classes of the images `idx`, or one caption per image of `images`."""

    @property
    def identity(self) -> str:
        """Hash, 64 hex digits, of everything that decides the weights, except device and number of threads."""
        base = self.base
        if base is not None:
            base = file_hash(Path(base)) if Path(base).is_file() else f"{self.model} {base}"
        if isinstance(self.captions, ClassLabels):
            captions: Any = [_hash(self.captions.labels), list(self.captions.names), DEFAULT_TEMPLATES_HASH]
        else:
            captions = list(self.captions)
        return content_hash(
            {
                **self.recipe.identity(),
                "config": self.config,
                "base": base,
                "images": self.images_fingerprint,
                "idx": _hash(self.idx),
                "captions": captions,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """The measured results of a training."""

    identity: str
    checkpoint: str
    config: str
    num_images: int
    """Number of training images."""
    seconds: dict[str, float]
    """Phase -> seconds, of the run that finished the training."""
    accuracy: float | None
    """Zero-shot accuracy on the test images; None without a data set to report on."""
    num_test: int
    num_classes: int
    logit_scale: float
    detection: dict[str, dict[str, Any]]
    """ID classes -> the values of DetectionQuality."""

    def text(self) -> str:
        """The report as text."""
        seconds = ", ".join(f"{phase} {value:.1f} s" for phase, value in self.seconds.items())
        lines = [f"{self.checkpoint} (with {self.config}), trained on {self.num_images:,} images; {seconds}"]
        if self.accuracy is None:
            return "\n".join([*lines, "no data set to report on; give one with --report-on"])
        lines.append(
            f"zero-shot accuracy {self.accuracy:.4f} on {self.num_test:,} test images of {self.num_classes} classes"
        )
        for name, values in self.detection.items():
            quality = DetectionQuality(**values)
            lines += [
                f"ID {name} ({quality.num_id:,} images) against the rest ({quality.num_ood:,}), scale "
                f"{self.logit_scale:.1f}:",
                "  "
                + ", ".join(
                    f"{score} AUROC {values[f'{score.lower()}_auroc']:.4f} FPR95 {values[f'{score.lower()}_fpr95']:.4f}"
                    for score in ("ATD", "CTW", "MCM")
                ),
                f"  ATD's decision keeps {quality.id_kept:.4f} of ID and rejects {quality.ood_rejected:.4f} of OOD",
            ]
        return "\n".join(lines)


class OutputFiles:
    """Paths of the checkpoint FILE.pt and, next to it, its config, its report and the state of its training."""

    def __init__(self, checkpoint: Path) -> None:
        """Name them; nothing is written yet."""
        self.checkpoint = checkpoint
        self.config = checkpoint.with_suffix(".json")
        self.report = checkpoint.with_suffix(".report.json")
        self.state = checkpoint.with_suffix(".training")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing the same checkpoint. Raises ValueError if one is writing it."""
        lock = self.checkpoint.with_name(f".{self.checkpoint.name}.lock")
        try:
            with file_lock(lock, wait=False):
                yield
        except BlockingIOError as error:
            raise ValueError(f"{self.checkpoint}: another process is training it") from error

    def report_of(self, identity: str) -> TrainingReport | None:
        """The report of this training if it has ended; None if it is to be started or continued.

        Raises ValueError if the checkpoint belongs to another training.
        """
        if not self.checkpoint.exists():
            return None
        try:
            report = TrainingReport(**json.loads(self.report.read_text(encoding="utf-8")))
        except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError, TypeError):
            if self.state.exists():  # ended between the checkpoint and the report
                return None
            report = None
        if report is None or report.identity != identity:
            raise ValueError(
                f"{self.checkpoint} exists and was made by another command; choose another -o or remove the file"
            )
        return report

    def write_report(self, report: TrainingReport) -> None:
        """Write FILE.report.json."""
        write_text_atomically(self.report, json.dumps(asdict(report), indent=2) + "\n")


def trained_classes(data: DataSet, held_out: Sequence[str]) -> list[int]:
    """The classes to train on, in order. Raises ValueError for unknown names and fewer than two classes."""
    left_out = _classes(data, held_out, "--hold-out")
    # No caption fits the images of many classes that lie together in `_ood_`.
    classes = [c for c in range(data.num_classes) if c not in left_out and data.class_names[c] != OOD_ONLY]
    if len(classes) < 2:
        raise ValueError(f"--hold-out leaves {len(classes)} classes to train on; at least 2 are needed")
    return classes


def choose_images(
    data: DataSet, classes: Sequence[int], *, span: tuple[int, int] | None, num_images: int | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training images of these classes, sorted, and the position of each one's class in `classes`: (B,), (B,) int64.

    `span` keeps of each class the images from its first number up to, without, its second. `num_images` are then drawn
    in proportion to the classes, seeded. Raises ValueError for a span that a class does not have, or too few or too
    many images.
    """
    of_class = [np.flatnonzero(data.train.labels == c) for c in classes]
    if span is not None:
        smallest = min(len(idx) for idx in of_class)
        if span[1] > smallest:
            raise ValueError(f"--subset-of-each-class {span[0]}:{span[1]}: the smallest class has {smallest} images")
        of_class = [idx[span[0] : span[1]] for idx in of_class]
    if num_images is not None:
        of_class = _draw_by_classes(of_class, num_images, np.random.default_rng(seed))
    labels = np.concatenate([np.full(len(idx), place) for place, idx in enumerate(of_class)])
    idx = np.concatenate(of_class)
    order = np.argsort(idx)
    return idx[order].astype(np.int64), labels[order].astype(np.int64)


def _draw_by_classes(
    of_class: Sequence[NDArray[np.int64]], num_images: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Draw `num_images` in all, in proportion to the classes; rounding favours the largest remainders."""
    sizes = np.array([len(idx) for idx in of_class])
    if not len(of_class) <= num_images <= sizes.sum():
        raise ValueError(f"--images is {num_images}; it must be in {len(of_class)}..{sizes.sum()}")
    shares, remainders = np.divmod(sizes * num_images, sizes.sum())
    shares[np.argsort(-remainders, kind="stable")[: num_images - shares.sum()]] += 1
    return [generator.permutation(idx)[:share] for idx, share in zip(of_class, shares, strict=True)]


def name_id_sets(
    data: DataSet | None, chosen: Sequence[Sequence[str]], held_out: Sequence[str]
) -> dict[str, list[int]]:
    """The sets of ID classes of the report, by their names in it.

    The chosen ones; without any, those that trials of mismatch ratio 0.4 with seeds 0 and 1 draw; and, if classes
    were held out, all others. Raises ValueError for unknown names and sets that leave no OOD class.
    """
    if data is None:
        if chosen:
            raise ValueError("--id-classes need a data set to report on; give one with --report-on")
        return {}
    sets = [_classes(data, names, "--id-classes") for names in chosen]
    if not sets:
        sets = [_classes_of_trial(data, seed) for seed in _SEEDS]
    if held_out:
        unseen = _classes(data, held_out, "--hold-out")
        sets.append([c for c in range(data.num_classes) if c not in unseen])
    for classes in sets:
        if not 0 < len(set(classes)) < data.num_classes:
            raise ValueError(f"--id-classes: {len(classes)} of {data.num_classes} classes; some must be ID, some OOD")
    return {", ".join(data.class_names[c] for c in classes): classes for classes in sets}


def _classes(data: DataSet, names: Sequence[str], flag: str) -> list[int]:
    """Indices of the classes with these names."""
    for name in names:
        if name not in data.class_names:
            raise unknown_name(f"class ({flag})", name, data.class_names)
    return [data.class_names.index(name) for name in names]


def _classes_of_trial(data: DataSet, seed: int) -> list[int]:
    """The ID classes of the trials with this seed and mismatch ratio 0.4 (0.5 if there are only two classes)."""
    # Of two classes, a mismatch ratio of 0.4 would leave no ID class.
    ratio = 0.4 if data.num_classes > 2 else 0.5
    split = draw_split(
        data.train.labels,
        num_classes=data.num_classes,
        mismatch_ratio=ratio,
        ood_ratio=0.0,
        budget=len(data.train),  # all of it: only the classes are asked for
        seed=seed,
    )
    return [int(c) for c in split.id_classes]


def _hash(values: NDArray[np.int64]) -> str:
    """SHA-256 of an integer array, the same on every platform."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<i8").data).hexdigest()
