"""Outputs of a classifier for a set of images, as arrays. Shapes: N images, K classes, D features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearHead:
    """A classifier's last layer: logits = features @ weight_KD.T + bias_K."""

    weight_KD: NDArray[np.float32]
    bias_K: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierOutputs:
    """Logits (N, K) and penultimate features (N, D) of N images, float32, in the order asked for."""

    logits_NK: NDArray[np.float32]
    features_ND: NDArray[np.float32]
    predicted_losses_N: NDArray[np.float32] | None = None
    """(N,) predicted losses of a network with a loss-prediction head; None without one."""
    head: LinearHead | None = None
    """The layer between features and logits; None if it is not a single linear layer."""

    def rows(self, keep: NDArray[np.bool_]) -> ClassifierOutputs:
        """The outputs of the images whose `keep` (N,) is True."""
        losses = self.predicted_losses_N
        return replace(
            self,
            logits_NK=self.logits_NK[keep],
            features_ND=self.features_ND[keep],
            predicted_losses_N=None if losses is None else losses[keep],
        )
