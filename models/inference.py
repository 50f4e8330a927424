"""One pass over images: whatever a classifier says of them, for whoever asks.

Shapes: N images, K ID classes, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data.imageset import Images
from models.devices import autocast
from models.outputs import ClassifierOutputs
from models.recipe import Recipe
from models.training import Normalise


@torch.inference_mode()
def predict(
    network: nn.Module,
    images: Images,
    idx: NDArray[np.int64],
    *,
    recipe: Recipe,
    normalise: Normalise,
    device: torch.device,
) -> ClassifierOutputs:
    """What the network, in evaluation mode and without augmentation, says of the images `idx`."""
    network.eval()
    logits, features = [], []
    for start in range(0, len(idx), recipe.eval_batch_size):
        pixels = torch.from_numpy(images.load(idx[start : start + recipe.eval_batch_size])).to(device)
        with autocast(recipe, device):
            batch_logits, batch_features = network(normalise(pixels))
        logits.append(batch_logits.float().cpu())
        features.append(batch_features.float().cpu())
    if not logits:
        raise ValueError("no image to look at")
    return ClassifierOutputs(logits_NK=torch.cat(logits).numpy(), features_ND=torch.cat(features).numpy())
