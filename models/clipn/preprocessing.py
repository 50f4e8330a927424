"""Images as CLIP's image tower wants them: bicubic resize, centre crop, CLIP's mean and standard deviation.

Shapes: B batch, H height, W width, S the tower's input size.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def resize_and_crop(image_HW3: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The image (size, size, 3) uint8: shorter side brought to `size` pixels, bicubic, then the centre cut out.

    An image whose shorter side is `size` already is only cropped. Same pixels as torchvision's Resize and CenterCrop on
    a PIL image, which the reference uses.
    """
    height, width = image_HW3.shape[:2]
    shorter, longer = sorted((height, width))
    if shorter != size:
        scaled = int(size * longer / shorter)
        width, height = (size, scaled) if width <= height else (scaled, size)
        image_HW3 = np.asarray(Image.fromarray(image_HW3).resize((width, height), Image.Resampling.BICUBIC))
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image_HW3[top : top + size, left : left + size]


def resize_batch(images_BHW3: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`resize_and_crop` of each image: (B, size, size, 3) uint8."""
    if images_BHW3.shape[1:3] == (size, size):
        return images_BHW3
    return np.stack([resize_and_crop(image_HW3, size) for image_HW3 in images_BHW3])


def network_input(images_BSS3: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """The images (B, 3, S, S) float32 on `device`: scaled to [0, 1], then CLIP's mean and deviation a channel."""
    images_B3SS = torch.from_numpy(np.ascontiguousarray(images_BSS3)).to(device).permute(0, 3, 1, 2).float().div(255)
    mean_311 = torch.tensor(CLIP_MEAN, device=device).view(3, 1, 1)
    std_311 = torch.tensor(CLIP_STD, device=device).view(3, 1, 1)
    return images_B3SS.sub(mean_311).div(std_311).contiguous()
