"""One pass over images: whatever a classifier says of them, for whoever asks.

Shapes: N images, K ID classes, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.imageset import Images
from models.classifier.inputs import FeatureRows, Normalise
from models.classifier.outputs import ClassifierOutputs, LinearHead
from models.classifier.recipe import Recipe
from models.classifier.steps import autocast

CPU_BATCH = 64
"""Most images a batch on a CPU, whose caches hold no more: 2,734 images/s against 1,278 in batches of 512 (ResNet-18 of
width 16, one thread of an AMD EPYC, n = 1)."""


@torch.inference_mode()
def predict(
    network: nn.Module,
    images: Images | FeatureRows,
    idx: NDArray[np.int64],
    *,
    recipe: Recipe,
    normalise: Normalise,
    device: torch.device,
) -> ClassifierOutputs:
    """What the network, in evaluation mode and without augmentation, says of the images `idx`.

    Where the GPU's memory does not hold a batch, it goes on with batches half as large, once. Raises MemoryError where
    it does not hold these either, and ValueError without images.
    """
    if not len(idx):
        raise ValueError("no image to look at")
    network.eval()
    rows: list[list[Tensor]] = []
    size = recipe.eval_batch_size if device.type == "cuda" else min(recipe.eval_batch_size, CPU_BATCH)
    smallest, start = max(1, size // 2), 0
    while start < len(idx):
        outputs = _outputs(
            network, images, idx[start : start + size], recipe=recipe, normalise=normalise, device=device
        )
        if outputs is not None:
            rows.append(outputs)
            start += size
        elif size > smallest:
            size = smallest
        else:
            raise MemoryError(
                f"the GPU's memory does not hold {size} images while nothing is trained: lower recipe.eval_batch_size "
                f"(now {recipe.eval_batch_size}), which changes no number and keeps every finished round, or give a "
                "trial more of a card (--gpus-per-trial)"
            )
    logits_NK, features_ND, *losses = (torch.cat(parts).cpu().numpy() for parts in zip(*rows, strict=True))
    return ClassifierOutputs(
        logits_NK=logits_NK,
        features_ND=features_ND,
        predicted_losses_N=losses[0] if losses else None,
        head=_head_of(network),
    )


def _outputs(
    network: nn.Module,
    images: Images | FeatureRows,
    idx: NDArray[np.int64],
    *,
    recipe: Recipe,
    normalise: Normalise,
    device: torch.device,
) -> list[Tensor] | None:
    """The network's outputs for a batch, on the device; None where its memory does not suffice."""
    try:
        inputs = torch.from_numpy(images.load(idx)).to(device)
        with autocast(recipe, device):
            outputs = network(inputs if inputs.ndim == 2 else normalise(inputs))
        return [output.float() for output in outputs]
    except torch.OutOfMemoryError:
        return None


def _head_of(network: nn.Module) -> LinearHead | None:
    """The network's last layer, where it has one called `head`."""
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Linear):
        return None
    return LinearHead(weight_KD=head.weight.float().cpu().numpy(), bias_K=head.bias.float().cpu().numpy())
