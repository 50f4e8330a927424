"""One pass over images: whatever a classifier says of them, for whoever asks.

Shapes: N images, K ID classes, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data.imageset import Images
from models.batches import Normalise
from models.devices import autocast
from models.feature_rows import FeatureRows
from models.outputs import ClassifierOutputs, LinearHead
from models.recipe import Recipe

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
    """What the network, in evaluation mode and without augmentation, says of the images `idx`."""
    network.eval()
    rows: list[list[torch.Tensor]] = []
    size = recipe.eval_batch_size if device.type == "cuda" else min(recipe.eval_batch_size, CPU_BATCH)
    for start in range(0, len(idx), size):
        inputs = torch.from_numpy(images.load(idx[start : start + size])).to(device)
        with autocast(recipe, device):
            outputs = network(inputs if inputs.ndim == 2 else normalise(inputs))
        rows.append([output.float() for output in outputs])
    if not rows:
        raise ValueError("no image to look at")
    logits_NK, features_ND, *losses = (torch.cat(parts).cpu().numpy() for parts in zip(*rows, strict=True))
    return ClassifierOutputs(
        logits_NK=logits_NK,
        features_ND=features_ND,
        predicted_losses_N=losses[0] if losses else None,
        head=_head_of(network),
    )


def _head_of(network: nn.Module) -> LinearHead | None:
    """The network's last layer, where it has one called `head`."""
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Linear):
        return None
    return LinearHead(weight_KD=head.weight.float().cpu().numpy(), bias_K=head.bias.float().cpu().numpy())
