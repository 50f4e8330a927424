"""Hash, mean and standard deviation over all pixels of an image set, computed block by block.

Shapes: N images of a set, B of a block, H and W height and width, C = 3 channels.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray


class PixelHash:
    """Hash of pixel blocks that are added one after another; it does not depend on the size of the blocks."""

    def __init__(self, image_size: int) -> None:
        """Start with no images of height and width `image_size`."""
        self._hash = hashlib.sha256(f"uint8 RGB {image_size}x{image_size}\n".encode())

    def update(self, pixels_BHWC: NDArray[np.uint8]) -> None:
        """Add a block of images, uint8 (B, H, W, 3)."""
        self._hash.update(np.ascontiguousarray(pixels_BHWC).data)

    def hexdigest(self) -> str:
        """The hash (64 hex digits) of all images added so far."""
        return self._hash.hexdigest()

    @classmethod
    def of(cls, pixels_NHWC: NDArray[np.uint8]) -> str:
        """The hash (64 hex digits) of a whole array (N, H, W, 3), read block by block."""
        pixel_hash = cls(int(pixels_NHWC.shape[1]))
        for start in range(0, len(pixels_NHWC), 1024):
            pixel_hash.update(pixels_NHWC[start : start + 1024])
        return pixel_hash.hexdigest()


class ChannelStatistics:
    """Mean and standard deviation per channel of pixel blocks added one after another, from exact integer sums."""

    def __init__(self) -> None:
        """Start with no pixels."""
        self._num_pixels = 0
        self._sum_C = np.zeros(3, dtype=np.int64)
        self._sum_of_squares_C = np.zeros(3, dtype=np.int64)

    def update(self, pixels_BHWC: NDArray[np.uint8]) -> None:
        """Add a block of images, uint8 (B, H, W, 3)."""
        for channel in range(3):
            counts = np.bincount(pixels_BHWC[..., channel].reshape(-1), minlength=256)
            levels = np.arange(256)
            self._sum_C[channel] += counts @ levels
            self._sum_of_squares_C[channel] += counts @ levels**2
        self._num_pixels += pixels_BHWC[..., 0].size

    def result(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of each channel, in [0, 1] units; a constant channel has 1/255 as deviation."""
        assert self._num_pixels > 0
        mean = [int(total) / self._num_pixels / 255 for total in self._sum_C]
        # Python integers: the product of pixel count and sum of squares can exceed 64 bits.
        variances = [
            (self._num_pixels * int(squares) - int(total) ** 2) / self._num_pixels**2
            for squares, total in zip(self._sum_of_squares_C, self._sum_C, strict=True)
        ]
        # The floor of one grey level keeps a division by the deviation finite.
        std = [max(math.sqrt(variance), 1.0) / 255 for variance in variances]
        return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
