"""Stored features in the place of pixels, and the names of the frozen encoders they come from. Needs no torch.

Shapes: N images, B batch, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from data.files import content_hash
from models.clipn.source import cached_file_hash

if TYPE_CHECKING:
    from models.classifier.inputs import BatchSource


class FeatureRows:
    """What a linear head is trained on and looks at."""

    def __init__(
        self,
        rows_NF: NDArray[np.float32],
        *,
        identity: str,
        crops: Callable[[NDArray[np.int64]], BatchSource] | None = None,
    ) -> None:
        """`identity` stands for all that decides the rows' numbers: the images, the weights, the preprocessing.

        `crops` gives random crops of the images at those positions, to train on in place of the rows.
        """
        self._rows_NF = rows_NF
        self.identity = identity
        self.crops = crops

    @property
    def num_features(self) -> int:
        """F."""
        return int(self._rows_NF.shape[1])

    def __len__(self) -> int:
        """N."""
        return len(self._rows_NF)

    def load(self, idx: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows (B, F) float32, in the order of `idx`."""
        return np.asarray(self._rows_NF[idx])


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderName:
    """A frozen encoder as a user writes it.

    timm:<model>            a timm model with its published weights
    timm:<model>@<file>     the same architecture with weights from a file (safetensors or .pth)
    untrained:<model>       a timm model with random weights of a fixed seed, for trying things out
    clipn                   the image tower of the trial's CLIPN, features as they come (not of unit length)
    """

    kind: Literal["timm", "untrained", "clipn"]
    model: str = ""
    file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> EncoderName:
        """The encoder that `text` names. Raises ValueError for text that has none of the forms above."""
        kind, _, rest = text.partition(":")
        model, _, file = rest.partition("@")
        if text == "clipn":
            return cls(kind="clipn")
        if kind == "timm" and model:
            return cls(kind="timm", model=model, file=Path(file).expanduser() if file else None)
        if kind == "untrained" and model and not file:
            return cls(kind="untrained", model=model)
        raise ValueError(
            f"recipe.encoder = {text!r}: expected clipn, timm:<model>, timm:<model>@<file of weights> or "
            "untrained:<model>"
        )

    def identity(self, *, clipn: str | None) -> str:
        """64 hex digits that identify the weights; `clipn` is the identity of the trial's CLIPN.

        A file counts by its bytes. Raises ValueError where there is no such file.
        """
        weights = {"clipn": clipn} if self.kind == "clipn" else {"model": self.model, "kind": self.kind}
        return content_hash(weights | ({"file": cached_file_hash(self.file)} if self.file else {}))
