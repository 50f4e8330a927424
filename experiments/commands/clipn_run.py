"""Trains a CLIPN for `train_clipn.py`, writes it, and measures it on test images.

Shapes: N test images, C classes, D embedding.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import FrameType

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.pretrained import get_pretrained_cfg

from data.console import Progress
from data.files import write_text_atomically
from data.imageset import DataSet, Images, IndexArray
from data.stopping import SIGNALS
from experiments.commands.clipn_job import ClassLabels, ClipnJob, OutputFiles, TrainingReport
from models.clipn.captions import Captions, ClassCaptions, PairCaptions
from models.clipn.encode import ImageRows, encode_classes
from models.clipn.model import Clipn
from models.clipn.pretrained import load_pretrained_clip
from models.clipn.prompts import class_phrases, default_templates
from models.clipn.quality import measure_detection, zero_shot_accuracy
from models.clipn.snapshots import FileSnapshots
from models.clipn.tokens import tokenize_classes
from models.clipn.training import CaptionedImages, new_clipn, train_clip, train_no_tower
from models.clipn.weights import save_clipn
from models.device import use_threads


def train_and_report(
    job: ClipnJob,
    files: OutputFiles,
    tested: DataSet | None,
    id_sets: Mapping[str, Sequence[int]],
    *,
    device: str,
    cpus: int,
    save_every: float,
    progress: Progress,
) -> TrainingReport:
    """Train from the end of the saved state, write checkpoint, config and report, and return the report.

    Raises ValueError for a missing GPU, texts that are too long, and a state that is another training's; Ctrl-C keeps
    the state and raises KeyboardInterrupt.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but torch sees no GPU here; use --device cpu")
    use_threads(cpus)
    started = time.perf_counter()
    with stop_between_steps() as stop:
        snapshots = FileSnapshots(
            files.state, identity=job.identity, every_seconds=save_every, wants_stop=lambda: stop.wanted
        )
        if snapshots.found:
            progress(f"continuing from {files.state} ({snapshots.found})")
        try:
            clipn = _train(job, device, snapshots, progress)
        except KeyboardInterrupt:
            if files.state.exists():
                progress(f"the state is kept in {files.state}; the same command continues from there")
            raise
    trained = time.perf_counter()
    save_clipn(clipn, files.checkpoint, epoch=1, name="train_clipn")
    write_text_atomically(files.config, json.dumps(_written_config(job), indent=2) + "\n")
    report = _measure(clipn, job, files, tested, id_sets, progress)
    seconds = {"training": trained - started, "report": time.perf_counter() - trained}
    report = replace(report, seconds=seconds)
    files.write_report(report)
    # Last: until the report is written, the state is what an interrupted training continues from.
    snapshots.remove()
    return report


def _train(job: ClipnJob, device: str, snapshots: FileSnapshots, progress: Progress) -> Clipn:
    """Train the CLIPN, and return it in evaluation mode."""
    recipe = job.recipe
    generator = torch.Generator(device).manual_seed(recipe.seed)
    if job.base is None:
        clipn = new_clipn(job.config, recipe.seed)
        # Convolutions of few channels are 1.5 times faster on a CPU in this layout (ResNet, width 16, 32 pixels).
        clipn.visual.to(memory_format=torch.channels_last)
    else:
        clipn = load_pretrained_clip(job.model, job.base, progress=progress)
    clipn.to(device)
    data = CaptionedImages(images=_Chosen(job.images, job.idx), captions=_captions(job, clipn.context_length))
    clip_recipe = recipe.clip
    if job.base is None:
        train_clip(clipn, data, clip_recipe, generator, progress, snapshots)
    else:
        clip_recipe = replace(clip_recipe, logit_scale=float(clipn.logit_scale.detach().exp()))
    train_no_tower(clipn, data, clip_recipe, recipe.no_tower, generator, progress, snapshots)
    return clipn.eval()


def _captions(job: ClipnJob, context_length: int) -> Captions:
    """The texts of the training images."""
    if isinstance(job.captions, ClassLabels):
        tokens_CTL = tokenize_classes(job.captions.names, default_templates(), context_length)
        return ClassCaptions(job.captions.labels, tokens_CTL)
    return PairCaptions([job.captions[i] for i in job.idx], context_length)


def _measure(
    clipn: Clipn,
    job: ClipnJob,
    files: OutputFiles,
    tested: DataSet | None,
    id_sets: Mapping[str, Sequence[int]],
    progress: Progress,
) -> TrainingReport:
    """Measure the CLIPN on the test images of `tested`, and return the report."""
    scale = float(clipn.logit_scale.detach().exp())
    report = TrainingReport(
        identity=job.identity,
        checkpoint=str(files.checkpoint),
        config=str(files.config),
        num_images=len(job.idx),
        seconds={},
        accuracy=None,
        num_test=0,
        num_classes=0,
        logit_scale=scale,
        detection={},
    )
    if tested is None:
        return report
    progress(f"measuring on {len(tested.test):,} test images")
    features_ND = ImageRows(clipn, tested.test.images).compute(0, len(tested.test))
    tokens_CTL = tokenize_classes(class_phrases(tested.class_names), default_templates(), clipn.context_length)
    yes_CD, no_CD = (features.cpu().numpy() for features in encode_classes(clipn, tokens_CTL))
    labels = tested.test.labels
    detection = {
        name: asdict(measure_detection(features_ND, np.isin(labels, classes), yes_CD[classes], no_CD[classes], scale))
        for name, classes in id_sets.items()
    }
    return replace(
        report,
        accuracy=zero_shot_accuracy(features_ND, labels, yes_CD),
        num_test=len(labels),
        num_classes=tested.num_classes,
        detection=detection,
    )


def _written_config(job: ClipnJob) -> dict[str, object]:
    """The architecture of the checkpoint, with the settings that the base's weights add to it."""
    known = get_pretrained_cfg(job.model, job.base) if job.base else {}
    return job.config | ({"quick_gelu": True} if known.get("quick_gelu") else {})


class _Chosen:
    """A subset of an image set, indexed by position in the subset."""

    def __init__(self, images: Images, idx: IndexArray) -> None:
        """Image i is `images`' image `idx[i]`."""
        self._images = images
        self._idx = idx

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the whole set."""
        return self._images.fingerprint

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self._images.image_size

    def __len__(self) -> int:
        """Number of chosen images."""
        return len(self._idx)

    def load(self, idx: IndexArray) -> NDArray[np.uint8]:
        """Pixels of the chosen images `idx`, uint8 (B, H, W, 3)."""
        return self._images.load(self._idx[idx])


class _Stop:
    """Whether Ctrl-C was pressed."""

    wanted = False


@contextmanager
def stop_between_steps() -> Iterator[_Stop]:
    """Let the first stop signal wait for the end of a step; a second one does not wait."""
    stop = _Stop()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        stop.wanted = True
        restore()

    for number, handler in before.items():
        # A signal that is ignored, as SIGHUP under nohup, stays ignored.
        if number == signal.SIGINT or handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
