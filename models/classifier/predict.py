"""Prediction: the outputs of a classifier in one pass over images.

Shapes: N images, K ID classes, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.imageset import Images
from models.classifier.inputs import FeatureRows, Normalise
from models.classifier.networks import folded
from models.classifier.outputs import ClassifierOutputs, LinearHead
from models.classifier.recipe import Recipe
from models.classifier.resident import loaded_ahead, resident_rows
from models.classifier.steps import autocast

CPU_BATCH = 64
"""Largest number of images per batch on a CPU, whose caches hold no more: 2,734 images/s against 1,278 in batches of
512 (ResNet-18 of width 16, one thread of an AMD EPYC, n = 1)."""


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
    """The network's outputs, in evaluation mode and without augmentation, for the images `idx`.

    If the GPU's memory does not hold a batch, the pass continues with batches half as large, once. Raises MemoryError
    if it does not hold these either, and ValueError without images.
    """
    if not len(idx):
        raise ValueError("no image to predict for")
    network.eval()
    size = recipe.eval_batch_size if device.type == "cuda" else min(recipe.eval_batch_size, CPU_BATCH)
    rows = _Pass(network, images, idx, recipe=recipe, normalise=normalise, device=device).outputs(size)
    logits_NK, features_ND, *losses = (torch.cat(parts).cpu().numpy() for parts in zip(*rows, strict=True))
    return ClassifierOutputs(
        logits_NK=logits_NK,
        features_ND=features_ND,
        predicted_losses_N=losses[0] if losses else None,
        head=_head_of(network),
    )


class _Pass:
    """One pass of a network over some images. Nothing in it waits for a GPU: the caller does, once."""

    def __init__(
        self,
        network: nn.Module,
        images: Images | FeatureRows,
        idx: NDArray[np.int64],
        *,
        recipe: Recipe,
        normalise: Normalise,
        device: torch.device,
    ) -> None:
        """Prepare the pass: on a GPU batch norms are folded into the convolutions, and resident inputs are used."""
        on_gpu = device.type == "cuda"
        # Not on a CPU: folding rounds differently, and records on a CPU are equal to the bit.
        self._network = folded(network) if on_gpu else network
        self._images, self._idx = images, idx
        self._recipe, self._normalise, self._device = recipe, normalise, device
        self._rows_A = resident_rows(images, device) if on_gpu else None
        self._idx_N = torch.from_numpy(idx).to(device) if self._rows_A is not None else None

    def outputs(self, size: int) -> list[list[Tensor]]:
        """The outputs of each batch, on the device."""
        rows: list[list[Tensor]] = []
        smallest, start = max(1, size // 2), 0
        with autocast(self._recipe, self._device):  # once for all batches, which then share the weights' casts
            while start < len(self._idx):
                done = self._some(start, size)
                rows += done
                start += size * len(done)
                if start < len(self._idx):  # the memory was too small for the next batch
                    if size == smallest:
                        raise MemoryError(
                            f"the GPU's memory does not hold {size} images in prediction: lower "
                            f"recipe.eval_batch_size (now {self._recipe.eval_batch_size}), which keeps every finished "
                            "round, or give a trial more of a card (--gpus-per-trial)"
                        )
                    size = smallest
        return rows

    def _some(self, start: int, size: int) -> list[list[Tensor]]:
        """The outputs of batches from `start` on, until the end or until the memory is too small."""
        rows: list[list[Tensor]] = []
        with suppress(torch.OutOfMemoryError):
            for inputs in self._inputs(start, size):
                rows.append(self._outputs(inputs))  # noqa: PERF401 - what was done before memory ran out is kept
        return rows

    def _inputs(self, start: int, size: int) -> Iterator[Tensor]:
        """Batches of inputs on the device."""
        if self._rows_A is None or self._idx_N is None:
            if self._device.type == "cuda":
                yield from loaded_ahead(self._images, self._idx[start:], size, self._device)
                return
            for at in range(start, len(self._idx), size):
                yield torch.from_numpy(self._images.load(self._idx[at : at + size]))
            return
        for picked_B in torch.split(self._idx_N[start:], size):
            yield self._rows_A[picked_B]

    def _outputs(self, inputs: Tensor) -> list[Tensor]:
        """The network's outputs for a batch."""
        outputs = self._network(inputs if inputs.ndim == 2 else self._normalise(inputs))
        return [output.float() for output in outputs]


def _head_of(network: nn.Module) -> LinearHead | None:
    """The network's last layer if it is a linear layer called `head`, else None."""
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Linear):
        return None
    return LinearHead(weight_KD=head.weight.float().cpu().numpy(), bias_K=head.bias.float().cpu().numpy())
