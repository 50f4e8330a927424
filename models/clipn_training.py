"""Training a small CLIPN from labelled images: a CLIP first, then its "no" tower.

The captions are templates filled with class names, so a step needs one text a class, not one an image.

Shapes: N images, B batch, C classes, T templates, L tokens, D embedding, P "no" prompts, W text width, S image size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from data.progress import Progress, StepReporter
from models.clipn import Clipn
from models.clipn_losses import binary_opposite_loss, contrastive_loss, semantic_opposite_loss
from models.clipn_recipe import ClipRecipe, NoTowerRecipe, SmallClipnRecipe
from models.preprocessing import network_input, resize_batch
from models.prompts import class_phrases, default_templates
from models.text_features import tokenize_classes


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
        with torch.random.fork_rng(devices=[]):  # open_clip draws initial weights from torch's global generator
            torch.manual_seed(recipe.seed)
            clipn = Clipn(config)
        generator = torch.Generator().manual_seed(recipe.seed)
        images_N3SS = network_input(resize_batch(images_NHW3, clipn.image_size), clipn.device)
        labels_N = torch.from_numpy(labels)
        tokens_CTL = tokenize_classes(class_phrases(class_names), default_templates(), clipn.context_length)
        train_clip(clipn, images_N3SS, labels_N, tokens_CTL, recipe.clip, generator, progress)
        train_no_tower(clipn, images_N3SS, labels_N, tokens_CTL, recipe.clip, recipe.no_tower, generator, progress)
    return clipn.eval()


def train_clip(
    clipn: Clipn,
    images_N3SS: torch.Tensor,
    labels_N: torch.Tensor,
    tokens_CTL: torch.Tensor,
    recipe: ClipRecipe,
    generator: torch.Generator,
    progress: Progress,
) -> None:
    """Stage 1, in place: image tower and text tower, by CLIP's loss of images against one text a class."""
    trained = [*clipn.visual.parameters(), *_all_but_token_table(clipn.text)]
    with torch.no_grad():
        clipn.logit_scale.fill_(math.log(recipe.logit_scale))
    optimiser = _adamw(trained, recipe.learning_rate, recipe.weight_decay)
    reporter = StepReporter("training a small CLIP", recipe.steps, progress)
    clipn.train()
    for step in range(recipe.steps):
        _set_rate(optimiser, recipe.learning_rate * _warmup_and_cosine(step, recipe.warmup_steps, recipe.steps))
        idx_B = torch.randint(len(images_N3SS), (recipe.batch_size,), generator=generator)
        images_B3SS = augment(images_N3SS[idx_B], recipe, generator)
        image_features_BD = functional.normalize(clipn.encode_image(images_B3SS), dim=1)
        text_features_CD = functional.normalize(clipn.encode_yes(_draw_captions(tokens_CTL, generator)), dim=1)
        loss = contrastive_loss(image_features_BD, text_features_CD, labels_N[idx_B], recipe.logit_scale)
        _step(optimiser, loss, step)
        reporter.done(step + 1)


def train_no_tower(
    clipn: Clipn,
    images_N3SS: torch.Tensor,
    labels_N: torch.Tensor,
    tokens_CTL: torch.Tensor,
    clip_recipe: ClipRecipe,
    recipe: NoTowerRecipe,
    generator: torch.Generator,
    progress: Progress,
) -> None:
    """Stage 2, in place: the "no" tower starts as the text tower and learns by ITBO + weight x TSO, all halved.

    Image features are computed once, for a few augmented passes; "yes" features once for every caption.
    """
    clipn.copy_text_to_no()
    clipn.eval()
    features_MD, labels_M = _augmented_features(clipn, images_N3SS, labels_N, clip_recipe, recipe.num_passes, generator)
    yes_CTD = _yes_features(clipn, tokens_CTL)
    classes_C = torch.arange(len(tokens_CTL))
    scale = clip_recipe.logit_scale
    trained = [*_all_but_token_table(clipn.text_no), clipn.prompt_no]
    optimiser = _adamw(trained, recipe.learning_rate, recipe.weight_decay)
    reporter = StepReporter('training the "no" text tower', recipe.steps, progress)
    for step in range(recipe.steps):
        _set_rate(optimiser, recipe.learning_rate * _warmup_and_cosine(step, 0, recipe.steps))
        idx_B = torch.randint(len(features_MD), (recipe.batch_size,), generator=generator)
        template_C = torch.randint(tokens_CTL.shape[1], (len(tokens_CTL),), generator=generator)
        yes_CD = yes_CTD[classes_C, template_C]
        field_CLW = _draw_fields(clipn.prompt_no, len(tokens_CTL), generator)
        no_CD = functional.normalize(clipn.encode_no(tokens_CTL[classes_C, template_C], field_CLW), dim=1)
        match_mask_BC = labels_M[idx_B, None] == classes_C
        matches, others = binary_opposite_loss(features_MD[idx_B], yes_CD, no_CD, match_mask_BC, scale)
        loss = (matches + others + recipe.semantic_weight * semantic_opposite_loss(yes_CD, no_CD)) / 2
        _step(optimiser, loss, step)
        reporter.done(step + 1)


def augment(images_B3SS: torch.Tensor, recipe: ClipRecipe, generator: torch.Generator) -> torch.Tensor:
    """The images (B, 3, S, S), each randomly turned, zoomed and shifted (bilinear; the border repeats), plus noise."""
    uniform_4B = torch.rand(4, len(images_B3SS), generator=generator) * 2 - 1
    angle_B = uniform_4B[0] * math.radians(recipe.max_degrees)
    zoom_B = 1 + uniform_4B[1] * recipe.max_zoom
    cos_B, sin_B = angle_B.cos() / zoom_B, angle_B.sin() / zoom_B
    shift_2B = 2 * recipe.max_shift * uniform_4B[2:]  # an image spans 2 units of grid_sample
    rows = [torch.stack([cos_B, -sin_B, shift_2B[0]], dim=1), torch.stack([sin_B, cos_B, shift_2B[1]], dim=1)]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images_B3SS.shape), align_corners=False)
    moved_B3SS = functional.grid_sample(images_B3SS, grid, padding_mode="border", align_corners=False)
    return moved_B3SS + recipe.noise * torch.randn(moved_B3SS.shape, generator=generator)


@torch.no_grad()
def _augmented_features(
    clipn: Clipn,
    images_N3SS: torch.Tensor,
    labels_N: torch.Tensor,
    recipe: ClipRecipe,
    num_passes: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit image features (M, D) of the images and of `num_passes` augmented copies, and their labels (M,)."""
    passes = [images_N3SS, *(augment(images_N3SS, recipe, generator) for _ in range(num_passes))]
    parts = [clipn.encode_image(part) for images in passes for part in torch.split(images, 256)]
    return functional.normalize(torch.cat(parts), dim=1), labels_N.repeat(len(passes))


@torch.no_grad()
def _yes_features(clipn: Clipn, tokens_CTL: torch.Tensor) -> torch.Tensor:
    """Unit text features (C, T, D) of every caption."""
    parts = [clipn.encode_yes(part) for part in torch.split(tokens_CTL.flatten(0, 1), 256)]
    return functional.normalize(torch.cat(parts), dim=1).reshape(*tokens_CTL.shape[:2], -1)


def _draw_captions(tokens_CTL: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Token ids (C, L): each class in a template of its own."""
    template_C = torch.randint(tokens_CTL.shape[1], (len(tokens_CTL),), generator=generator)
    return tokens_CTL[torch.arange(len(tokens_CTL)), template_C]


def _draw_fields(prompt_PLW: torch.Tensor, num_texts: int, generator: torch.Generator) -> torch.Tensor:
    """What is added to each text's embedding (num_texts, L, W): a prompt or the mean of all, each equally likely."""
    choice = torch.randint(len(prompt_PLW) + 1, (num_texts,), generator=generator)
    return torch.cat([prompt_PLW, prompt_PLW.mean(dim=0, keepdim=True)])[choice]


def _all_but_token_table(tower: nn.Module) -> list[nn.Parameter]:
    """A text tower's parameters without its token embeddings, which would take most of the optimiser's time."""
    return [parameter for name, parameter in tower.named_parameters() if name != "token_embedding.weight"]


def _adamw(parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """CLIP's optimiser; gains and biases are not decayed."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def _warmup_and_cosine(step: int, warmup_steps: int, steps: int) -> float:
    """Share of the peak rate at a step: a linear rise, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameters the same rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def _step(optimiser: torch.optim.Optimizer, loss: torch.Tensor, step: int) -> None:
    """One step down the loss. Raises ValueError where the loss is no number."""
    if not torch.isfinite(loss):
        raise ValueError(f"the loss is {float(loss.detach())} at step {step}; lower the learning rate")
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimiser.step()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread inside: sums then do not depend on the machine's number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
