"""Classifiers: images in, class logits and penultimate features out.

Shapes: B batch, K ID classes, D features, H and W pixels.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.classifier.recipe import PIXEL_NETWORKS, Recipe


class ResNet18(nn.Module):
    """ResNet-18 for small images: a 3x3 stem of stride 1 and no max-pooling (He et al. 2016).

    The second normalisation of every block starts at zero, so that each block starts as the identity.
    """

    def __init__(self, num_classes: int, *, width: int = 64, head_dropout: float = 0.0) -> None:
        """`head_dropout`: share of the features dropped before the last layer, in training."""
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False), nn.BatchNorm2d(width), _relu()
        )
        widths = (width, 2 * width, 4 * width, 8 * width)
        inputs = (width, *widths[:-1])
        self.stages = nn.ModuleList(
            _stage(num_in, num_out, stride=1 if level == 0 else 2)
            for level, (num_in, num_out) in enumerate(zip(inputs, widths, strict=True))
        )
        self.head = nn.Linear(widths[-1], num_classes)
        self.stage_widths = widths
        self._head_dropout = head_dropout

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and average-pooled features (B, D = 8 x width) of normalised images (B, 3, H, W)."""
        logits_BK, features_BD, _ = self.with_stages(images_B3HW)
        return logits_BK, features_BD

    def with_stages(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits, features, and the outputs of the four stages, each (B, channels, height, width)."""
        outputs = _stage_outputs(self.stages, self.stem(images_B3HW))
        features_BD = outputs[-1].mean(dim=(2, 3))
        kept_BD = F.dropout(features_BD, self._head_dropout, self.training) if self._head_dropout else features_BD
        return self.head(kept_BD), features_BD, outputs


class ConvNet(nn.Module):
    """Network of three 3x3 convolutions with batch norms, strides 1, 2, 2, for small images and few steps.

    On the demo's digits a step takes a fourth of the time of a ResNet-18 of half the width, whose 20 convolutions cost
    a CPU their calls, not their arithmetic; see the recipe `digits`.
    """

    def __init__(self, num_classes: int, *, width: int = 16, head_dropout: float = 0.0) -> None:
        """`width`: channels of the first convolution; `head_dropout` as in ResNet18."""
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(num_in, num_out, kernel_size=3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(num_out),
                _relu(),
            )
            for num_in, num_out, stride in zip((3, *widths[:-1]), widths, (1, 2, 2), strict=True)
        )
        self.head = nn.Linear(widths[-1], num_classes)
        self.stage_widths = widths
        self._head_dropout = head_dropout

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and average-pooled features (B, D = 4 x width) of normalised images (B, 3, H, W)."""
        logits_BK, features_BD, _ = self.with_stages(images_B3HW)
        return logits_BK, features_BD

    def with_stages(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits, features, and the outputs of the three stages, each (B, channels, height, width)."""
        outputs = _stage_outputs(self.stages, images_B3HW)
        features_BD = outputs[-1].mean(dim=(2, 3))
        kept_BD = F.dropout(features_BD, self._head_dropout, self.training) if self._head_dropout else features_BD
        return self.head(kept_BD), features_BD, outputs


class LinearClassifier(nn.Module):
    """A linear layer on the features of a frozen encoder."""

    def __init__(self, num_features: int, num_classes: int, *, head_dropout: float = 0.0) -> None:
        super().__init__()
        self.head = nn.Linear(num_features, num_classes)
        self.stage_widths = (num_features,)
        self._head_dropout = head_dropout

    def forward(self, features_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K), and the unchanged features (B, D)."""
        logits_BK, _, _ = self.with_stages(features_BD)
        return logits_BK, features_BD

    def with_stages(self, features_BD: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits, features, and the features as the outputs (B, D, 1, 1) of a single stage."""
        kept_BD = F.dropout(features_BD, self._head_dropout, self.training) if self._head_dropout else features_BD
        return self.head(kept_BD), features_BD, [features_BD[:, :, None, None]]


Classifier = ResNet18 | ConvNet | LinearClassifier


class Subsample(nn.Module):
    """Layer that keeps every `step`-th pixel, those that a strided 1x1 convolution reads."""

    # torch 2.15 on an AMD EPYC (AVX2) corrupts memory in the backward pass of a strided 1x1 convolution of few channels
    # in channels-last layout (4 -> 8 channels: the process aborts); subsampling first computes the same without it.

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / step), ceil(W / step))."""
        return images_BCHW[:, :, :: self._step, :: self._step]


def build_classifier(
    recipe: Recipe, num_classes: int, *, weights_seed: int, num_features: int | None = None
) -> Classifier:
    """A classifier with initial weights that depend on `weights_seed` alone, on the CPU, in channels-last layout.

    `num_features` is the number of features of a linear head's encoder. torch's global random state is not changed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        if recipe.network not in PIXEL_NETWORKS:
            assert num_features is not None, "a linear head needs to know its encoder's features"
            return LinearClassifier(num_features, num_classes, head_dropout=recipe.head_dropout)
        make = ResNet18 if recipe.network == "resnet18" else ConvNet
        network = make(num_classes, width=recipe.width, head_dropout=recipe.head_dropout)
    return network.to(memory_format=torch.channels_last)


def zero_shot_classifier(class_features_KD: Tensor) -> LinearClassifier:
    """The classifier that chooses the class whose text feature has the largest cosine with the image's feature.

    `class_features_KD` are unit rows. Image features may have any length: it is the same factor in all logits of an
    image.
    """
    num_classes, num_features = class_features_KD.shape
    network = LinearClassifier(num_features, num_classes)
    with torch.no_grad():
        network.head.weight.copy_(class_features_KD)
        network.head.bias.zero_()
    return network


def _relu() -> nn.ReLU:
    """A ReLU that writes over its input, which no backward pass of these networks reads."""
    # Writing elsewhere takes 1.4 of the 100 ms of a width-16 step at 32 pixels, in the stem alone (one core, n = 10).
    return nn.ReLU(inplace=True)


def _stage_outputs(stages: nn.ModuleList, hidden: Tensor) -> list[Tensor]:
    """The output of each stage in order; the input of the first stage is `hidden`."""
    outputs = []
    for stage in stages:
        hidden = stage(hidden)
        outputs.append(hidden)
    return outputs


class BasicBlock(nn.Module):
    """Block of two 3x3 convolutions with a shortcut around them (He et al. 2016)."""

    # The names of the parts and the order in which they draw their weights are torchvision's, so that kept classifiers
    # stay readable and equal seeds give equal weights. Ours, because importing torchvision takes as long as a digits
    # round.
    def __init__(self, num_in: int, num_out: int, stride: int = 1, shortcut: nn.Module | None = None) -> None:
        """`shortcut` brings the input to the output's shape if they differ."""
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_out)
        self.relu = _relu()
        self.conv2 = nn.Conv2d(num_out, num_out, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_out)
        self.downsample = shortcut

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, ceil(H / stride), ceil(W / stride))."""
        hidden = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(images_BCHW)))))
        hidden += images_BCHW if self.downsample is None else self.downsample(images_BCHW)
        return self.relu(hidden)  # type: ignore[no-any-return]


def folded(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode with its batch norms folded into the convolutions before them.

    It computes the same with one kernel less per batch norm, but rounds differently. Results on a CPU, where records
    are equal to the bit, are therefore computed without it.
    """
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if not isinstance(module, BasicBlock | nn.Sequential):
            continue
        children = list(module.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return copied.to(memory_format=torch.channels_last)


def _stage(num_in: int, num_out: int, *, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or num_in != num_out:
        shortcut = nn.Sequential(
            Subsample(stride), nn.Conv2d(num_in, num_out, kernel_size=1, bias=False), nn.BatchNorm2d(num_out)
        )
    blocks = nn.Sequential(BasicBlock(num_in, num_out, stride, shortcut), BasicBlock(num_out, num_out))
    for module in blocks.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)  # each block starts as the identity
    return blocks
