"""What a classifier says of images, as arrays. Shapes: N images, K ID classes, D features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierOutputs:
    """Logits (N, K) and penultimate features (N, D) of N images, float32, in the order asked for."""

    logits_NK: NDArray[np.float32]
    features_ND: NDArray[np.float32]

    def rows(self, keep: NDArray[np.bool_]) -> ClassifierOutputs:
        """The outputs of the images where `keep` (N,) is True."""
        return ClassifierOutputs(logits_NK=self.logits_NK[keep], features_ND=self.features_ND[keep])
