"""Training of a small CLIPN from captioned images: a CLIP first, then its "no" tower.

Class-labelled images are captioned by templates filled with class names: a step then needs one text per class, not one
per image.

Shapes: N images, B batch, C classes, T templates, U texts in total, M texts of a step, L tokens, D embedding,
P "no" prompts, F cached image features, W text width, S image size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from data.console import Progress, StepReporter
from data.imageset import ArrayImages, Images
from models.clipn.captions import Captions, ClassCaptions
from models.clipn.encode import network_input, normalised, resize_batch
from models.clipn.losses import binary_opposite_loss, contrastive_loss, semantic_opposite_loss
from models.clipn.model import Clipn
from models.clipn.prompts import class_phrases, default_templates
from models.clipn.recipe import ClipRecipe, NoTowerRecipe, SmallClipnRecipe
from models.clipn.snapshots import NoSnapshots, Snapshots, Stage
from models.clipn.tokens import tokenize_classes
from models.device import process_memory
from models.graphs import Replays, recorder

_ENCODE_BATCH = 256
"""Images or texts per forward pass without gradient."""
_AUGMENT_BLOCK = 640
"""Images augmented at a time for the cached features, which limits the memory. The draws depend on it."""
_CHECK_EVERY = 100
"""Steps on a GPU between two checks that the loss is finite; a check waits for the device."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaptionedImages:
    """Training data of a CLIPN: N images and their texts."""

    images: Images
    captions: Captions
    pixels_NSS3: torch.Tensor | None = None
    """All images on a GPU, uint8 in the tower's size; None if they are loaded in each step."""

    def load(self, idx_B: torch.Tensor, clipn: Clipn) -> torch.Tensor:
        """The image tower's input (B, 3, S, S) float32 for the images `idx_B`, on the device of its weights."""
        if self.pixels_NSS3 is not None:
            return normalised(self.pixels_NSS3[idx_B])
        pixels_BHW3 = self.images.load(idx_B.cpu().numpy())
        return network_input(resize_batch(pixels_BHW3, clipn.image_size), clipn.device)

    @property
    def is_static(self) -> bool:
        """Whether a step on them can be recorded: all its inputs lie on the device, and their sizes do not change."""
        return self.pixels_NSS3 is not None and self.captions.is_static

    def on_device(self, clipn: Clipn) -> CaptionedImages:
        """The data on the weights' device: on a GPU the texts and, if they fit into a share of memory, all pixels."""
        if clipn.device.type != "cuda":
            return self
        pixels_NSS3 = None
        if len(self.images) * clipn.image_size**2 * 3 <= process_memory(clipn.device) // 4:
            blocks = torch.split(torch.arange(len(self.images)), _AUGMENT_BLOCK)
            pixels = (resize_batch(self.images.load(idx.numpy()), clipn.image_size) for idx in blocks)
            pixels_NSS3 = torch.cat([torch.from_numpy(np.ascontiguousarray(part)).to(clipn.device) for part in pixels])
        return CaptionedImages(images=self.images, captions=self.captions.to(clipn.device), pixels_NSS3=pixels_NSS3)


def new_clipn(config: Mapping[str, Any], seed: int) -> Clipn:
    """A CLIPN with random weights that depend on the seed alone; torch's global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):  # open_clip draws initial weights from the global generator
        torch.manual_seed(seed)
        return Clipn(config)


def train_small_clipn(
    images_NHW3: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    config: Mapping[str, Any],
    recipe: SmallClipnRecipe,
    progress: Progress,
) -> Clipn:
    """A CLIPN of architecture `config` trained from scratch on the CPU, in evaluation mode.

    `labels` (N,) are indices into `class_names`. Equal arguments give equal weights, to the bit on one machine: one
    torch thread is used and every draw comes from the recipe's seed.
    """
    with _one_thread():
        clipn = new_clipn(config, recipe.seed)
        generator = torch.Generator().manual_seed(recipe.seed)
        tokens_CTL = tokenize_classes(class_phrases(class_names), default_templates(), clipn.context_length)
        data = CaptionedImages(images=ArrayImages(images_NHW3), captions=ClassCaptions(labels, tokens_CTL))
        train_clip(clipn, data, recipe.clip, generator, progress)
        train_no_tower(clipn, data, recipe.clip, recipe.no_tower, generator, progress)
    return clipn.eval()


def train_clip(
    clipn: Clipn,
    data: CaptionedImages,
    recipe: ClipRecipe,
    generator: torch.Generator,
    progress: Progress,
    snapshots: Snapshots | None = None,
) -> None:
    """Train stage 1, in place: image tower and text tower, by CLIP's loss of images against texts.

    `generator` is one of the weights' device; a GPU draws other numbers than a CPU. With `snapshots` the stage
    continues where a kept state ends. On a GPU the step is recorded and replayed.
    """
    trained = [*clipn.visual.parameters(), *_all_but_token_table(clipn.text)]
    with torch.no_grad():
        clipn.logit_scale.fill_(math.log(recipe.logit_scale))
    optimiser = _adamw(trained, recipe.learning_rate, recipe.weight_decay)
    stage = Stage(name="clip", steps=recipe.steps, clipn=clipn, optimiser=optimiser, generator=generator)
    snapshots = snapshots or NoSnapshots()
    first = snapshots.restore(stage)
    data = data.on_device(clipn)
    descent = _Descent(optimiser, clipn.device)

    def step() -> None:
        idx_B = torch.randint(len(data.images), (recipe.batch_size,), generator=generator, device=generator.device)
        images_B3SS = augment(data.load(idx_B, clipn), recipe, generator)
        image_features_BD = functional.normalize(clipn.encode_image(images_B3SS), dim=1)
        texts_M, target_B = data.captions.draw(idx_B, generator)
        tokens_ML = data.captions.tokens_UL[texts_M].to(clipn.device)
        text_features_MD = functional.normalize(clipn.encode_yes(tokens_ML), dim=1)
        descent(contrastive_loss(image_features_BD, text_features_MD, target_B.to(clipn.device), recipe.logit_scale))

    clipn.train()
    what = _named("training a small CLIP", first)
    rates = [
        recipe.learning_rate * _warmup_and_cosine(number, recipe.warmup_steps, recipe.steps)
        for number in range(recipe.steps)
    ]
    _take_steps(
        step,
        descent,
        rates,
        stage=stage,
        first=first,
        is_static=data.is_static,
        what=what,
        progress=progress,
        snapshots=snapshots,
    )


def train_no_tower(
    clipn: Clipn,
    data: CaptionedImages,
    clip_recipe: ClipRecipe,
    recipe: NoTowerRecipe,
    generator: torch.Generator,
    progress: Progress,
    snapshots: Snapshots | None = None,
) -> None:
    """Train stage 2, in place: the "no" tower starts as the text tower and learns by ITBO + weight x TSO, all halved.

    Image features are computed once, for a few augmented passes; "yes" features once for every text. The logit scale
    and the augmentation are `clip_recipe`'s; `generator` and `snapshots` are as for `train_clip`.
    """
    clipn.copy_text_to_no()
    clipn.eval()
    trained = [*_all_but_token_table(clipn.text_no), clipn.prompt_no]
    optimiser = _adamw(trained, recipe.learning_rate, recipe.weight_decay)
    stage = Stage(name="no_tower", steps=recipe.steps, clipn=clipn, optimiser=optimiser, generator=generator)
    snapshots = snapshots or NoSnapshots()
    first = snapshots.restore(stage)
    data = data.on_device(clipn)
    if stage.features_MD is None:
        stage.features_MD = _augmented_features(clipn, data, clip_recipe, recipe.num_passes, generator, progress)
        snapshots.offer(stage, 0)
    tokens_UL, features_FD = data.captions.tokens_UL.to(clipn.device), stage.features_MD
    yes_UD = _yes_features(clipn, tokens_UL)
    descent = _Descent(optimiser, clipn.device)

    def step() -> None:
        device = generator.device
        idx_B = torch.randint(len(features_FD), (recipe.batch_size,), generator=generator, device=device)
        texts_M, target_B = data.captions.draw(idx_B % len(data.images), generator)
        field_MLW = _draw_fields(clipn.prompt_no, len(texts_M), generator)
        no_MD = functional.normalize(clipn.encode_no(tokens_UL[texts_M], field_MLW), dim=1)
        match_mask_BM = (target_B[:, None] == torch.arange(len(texts_M), device=device)).to(clipn.device)
        yes_MD, scale = yes_UD[texts_M], clip_recipe.logit_scale
        matches, others = binary_opposite_loss(features_FD[idx_B], yes_MD, no_MD, match_mask_BM, scale)
        descent((matches + others + recipe.semantic_weight * semantic_opposite_loss(yes_MD, no_MD)) / 2)

    what = _named('training the "no" text tower', first)
    rates = [recipe.learning_rate * _warmup_and_cosine(number, 0, recipe.steps) for number in range(recipe.steps)]
    _take_steps(
        step,
        descent,
        rates,
        stage=stage,
        first=first,
        is_static=data.captions.is_static,
        what=what,
        progress=progress,
        snapshots=snapshots,
    )


def _take_steps(
    step: Callable[[], None],
    descent: _Descent,
    rates: Sequence[float],
    *,
    stage: Stage,
    first: int,
    is_static: bool,
    what: str,
    progress: Progress,
    snapshots: Snapshots,
) -> None:
    """Take the steps from `first` on, each at its rate; on a GPU they are recorded once and replayed, if static."""
    reporter = StepReporter(what, len(rates) - first, progress)
    with recorder(stage.clipn.device, stage.generator, wanted=is_static) as record:
        replays = Replays(record)
        for number in range(first, len(rates)):
            descent.rate = rates[number]
            replays(stage.name, step)
            descent.check(number, is_last=number + 1 == len(rates))
            reporter.done(number + 1 - first)
            snapshots.offer(stage, number + 1)


class _Descent:
    """Steps of an optimiser, which stop if the loss is not finite: at once, on a GPU within `_CHECK_EVERY` steps."""

    def __init__(self, optimiser: torch.optim.Optimizer, device: torch.device) -> None:
        self._optimiser = optimiser
        self._on_gpu = device.type == "cuda"
        self._is_bad = torch.zeros((), dtype=torch.bool, device=device)
        self._bad_loss = math.nan
        if self._on_gpu:  # a recorded step reads it from there; a restored state has it elsewhere
            for group in optimiser.param_groups:
                group["lr"] = torch.as_tensor(group["lr"], device=device).clone()

    @property
    def rate(self) -> float:
        """The learning rate of all parameters."""
        return float(self._optimiser.param_groups[0]["lr"])

    @rate.setter
    def rate(self, rate: float) -> None:
        for group in self._optimiser.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def __call__(self, loss: torch.Tensor) -> None:
        """Take one step down the loss; on a CPU a loss that is not finite is only noted."""
        if self._on_gpu:
            self._is_bad |= ~torch.isfinite(loss.detach())
        elif not torch.isfinite(loss):
            self._is_bad.fill_(True)
            self._bad_loss = float(loss.detach())
            return
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimiser.step()

    def check(self, number: int, *, is_last: bool) -> None:
        """Raise ValueError if the loss of step `number`, or on a GPU of a step before it, was not finite."""
        if self._on_gpu:
            if (is_last or number % _CHECK_EVERY == 0) and bool(self._is_bad):
                raise ValueError(f"the loss is not finite at step {number} or just before; lower the learning rate")
        elif bool(self._is_bad):
            raise ValueError(f"the loss is {self._bad_loss} at step {number}; lower the learning rate")


def _named(what: str, first: int) -> str:
    """The name of a stage for progress lines, which count the steps of this run."""
    return f"{what}, continued after step {first}" if first else what


def augment(images_B3SS: torch.Tensor, recipe: ClipRecipe, generator: torch.Generator) -> torch.Tensor:
    """The images (B, 3, S, S), randomly rotated, zoomed and shifted (bilinear; the border repeats), plus noise.

    The draws are made on the generator's device.
    """
    device = generator.device
    if recipe.flip:
        flips_B = torch.rand(len(images_B3SS), generator=generator, device=device) < 0.5
        images_B3SS = torch.where(flips_B[:, None, None, None].to(images_B3SS.device), images_B3SS.flip(3), images_B3SS)
    uniform_4B = torch.rand(4, len(images_B3SS), generator=generator, device=device) * 2 - 1
    angle_B = uniform_4B[0] * math.radians(recipe.max_degrees)
    zoom_B = 1 + uniform_4B[1] * recipe.max_zoom
    cos_B, sin_B = angle_B.cos() / zoom_B, angle_B.sin() / zoom_B
    shift_2B = 2 * recipe.max_shift * uniform_4B[2:]  # an image spans 2 units of grid_sample
    rows = [torch.stack([cos_B, -sin_B, shift_2B[0]], dim=1), torch.stack([sin_B, cos_B, shift_2B[1]], dim=1)]
    moves_B23 = torch.stack(rows, dim=1).to(images_B3SS.device)
    grid = functional.affine_grid(moves_B23, list(images_B3SS.shape), align_corners=False)
    moved_B3SS = functional.grid_sample(images_B3SS, grid, padding_mode="border", align_corners=False)
    noise_B3SS = recipe.noise * torch.randn(moved_B3SS.shape, generator=generator, device=device)
    return moved_B3SS + noise_B3SS.to(moved_B3SS.device)


@torch.no_grad()
def _augmented_features(
    clipn: Clipn,
    data: CaptionedImages,
    recipe: ClipRecipe,
    num_passes: int,
    generator: torch.Generator,
    progress: Progress,
) -> torch.Tensor:
    """Unit image features (F, D) of the images and then of `num_passes` augmented copies, so F = (1 + passes) x N."""
    num_images = len(data.images)
    reporter = StepReporter("image features", (1 + num_passes) * num_images, progress)
    parts = []
    for number in range(1 + num_passes):
        for start in range(0, num_images, _AUGMENT_BLOCK):
            stop = min(start + _AUGMENT_BLOCK, num_images)
            idx_B = torch.arange(start, stop, device=generator.device)
            images_B3SS = data.load(idx_B, clipn)
            if number > 0:
                images_B3SS = augment(images_B3SS, recipe, generator)
            parts += [clipn.encode_image(part) for part in torch.split(images_B3SS, _ENCODE_BATCH)]
            reporter.done(number * num_images + stop)
    return functional.normalize(torch.cat(parts), dim=1)


@torch.no_grad()
def _yes_features(clipn: Clipn, tokens_UL: torch.Tensor) -> torch.Tensor:
    """Unit text features (U, D) of every text."""
    parts = [clipn.encode_yes(part) for part in torch.split(tokens_UL, _ENCODE_BATCH)]
    return functional.normalize(torch.cat(parts), dim=1)


def _draw_fields(prompt_PLW: torch.Tensor, num_texts: int, generator: torch.Generator) -> torch.Tensor:
    """Fields (num_texts, L, W) to add to the texts' embeddings: a prompt or the mean of all, each equally likely."""
    choice = torch.randint(len(prompt_PLW) + 1, (num_texts,), generator=generator, device=generator.device)
    return torch.cat([prompt_PLW, prompt_PLW.mean(dim=0, keepdim=True)])[choice.to(prompt_PLW.device)]


def _all_but_token_table(tower: nn.Module) -> list[nn.Parameter]:
    """A text tower's parameters without its token embeddings."""
    # Their table would take most of the optimiser's time.
    return [parameter for name, parameter in tower.named_parameters() if name != "token_embedding.weight"]


def _adamw(parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with CLIP's settings; gains and biases are not decayed."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    on_gpu = parameters[0].is_cuda  # on a GPU its step is recorded
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True, capturable=on_gpu)


def _warmup_and_cosine(step: int, warmup_steps: int, steps: int) -> float:
    """The rate at a step as a share of its peak: a linear rise, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread inside."""
    # Sums then do not depend on the machine's number of cores, and equal seeds give equal weights.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
