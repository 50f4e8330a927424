"""Frozen encoders under a linear head: their features of a data set's images, computed once and stored.

Shapes: N images, B batch, F features, S the encoder's image size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.console import Progress
from data.imageset import DataSet, Images
from models.classifier.crops import CropSource, Tower
from models.classifier.inputs import FeatureRows
from models.classifier.recipe import EncoderName
from models.clipn.encode import network_input, resize_batch
from models.clipn.features import VisionLanguageTowers
from models.clipn.hub import quiet_hub
from models.clipn.preprocessing import Preprocessing
from models.clipn.source import ClipnSource
from models.feature_store import FeatureKey, open_features

BATCH_SIZE = 128
UNTRAINED_SEED = 0

MakeCrops = Callable[[NDArray[np.int64]], CropSource]
"""A function that returns the images at the given positions, to be cropped at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A frozen network with the identity of its preprocessing; loaded only if features have to be computed."""

    identity: str
    preprocessing: str
    load: Callable[[], Tower]


def frozen_features(
    data: DataSet,
    name: str,
    *,
    clipn: ClipnSource,
    device: torch.device,
    progress: Progress,
    crops: bool = False,
) -> tuple[FeatureRows, FeatureRows]:
    """Features of the training and of the test images by the encoder of that name, from the store or computed now.

    `crops`: train the head on random crops of the training images, which the encoder then encodes in each step.
    Raises ValueError for an encoder that does not exist, and for weights that are missing and cannot be downloaded.
    """
    parsed = EncoderName.parse(name)
    encoder = _clipn_encoder(data, clipn, progress) if parsed.kind == "clipn" else _timm_encoder(parsed)
    return (
        _stored(
            data.train.images, encoder, device, progress, crops=_crops(data.train.images, encoder) if crops else None
        ),
        _stored(data.test.images, encoder, device, progress),
    )


def _crops(images: Images, encoder: Encoder) -> MakeCrops:
    """A function that returns images to be cropped; the tower is loaded at its first call."""
    tower = cache(encoder.load)
    return lambda idx: CropSource(pixels_NHH3=images.load(idx), tower=tower())


def _stored(
    images: Images, encoder: Encoder, device: torch.device, progress: Progress, *, crops: MakeCrops | None = None
) -> FeatureRows:
    key = FeatureKey(
        kind="encoder features",
        content=images.fingerprint,
        weights=encoder.identity,
        preprocessing=encoder.preprocessing,
        precision="float32",
    )
    stored = open_features(key, len(images), lambda: _Rows(images, encoder, device), progress=progress)
    return FeatureRows(stored.rows_ND, identity=key.folder.name, crops=crops)


class _Rows:
    """Source of an entry's rows: row i is the encoder's feature of image i."""

    def __init__(self, images: Images, encoder: Encoder, device: torch.device) -> None:
        tower = encoder.load()
        self._network, self._prepare = tower.network.to(device).eval(), tower.prepare
        self._images, self._device = images, device
        self.facts: dict[str, float] = {}

    @torch.inference_mode()
    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """Features (B, F) float32 of the images `start` to `stop` (excluded)."""
        rows = []
        for at in range(start, stop, BATCH_SIZE):
            pixels = self._images.load(np.arange(at, min(at + BATCH_SIZE, stop)))
            rows.append(self._network(self._prepare(pixels, self._device)).float().cpu())
        return torch.cat(rows).numpy()


def _clipn_encoder(data: DataSet, source: ClipnSource, progress: Progress) -> Encoder:
    """The image tower of a CLIPN as an encoder."""
    towers = VisionLanguageTowers(data, source, progress)
    prepared = towers.preprocessing

    def load() -> Tower:
        clipn = towers.load()
        return Tower(
            network=clipn.visual,
            prepare=partial(_clip_input, clipn.image_size, prepared),
            image_size=clipn.image_size,
            mean=prepared.mean,
            std=prepared.std,
        )

    return Encoder(identity=towers.weights, preprocessing=f"{prepared.words}; features as they come", load=load)


def _clip_input(
    size: int, preprocessing: Preprocessing, pixels_BHW3: NDArray[np.uint8], device: torch.device
) -> Tensor:
    return network_input(resize_batch(pixels_BHW3, size, preprocessing), device, preprocessing)


def _timm_encoder(name: EncoderName) -> Encoder:
    """A timm model without its head as an encoder. Raises ValueError for a model that timm does not have."""
    import timm
    from timm.data.config import resolve_model_data_config

    _check_model(name)
    published = timm.get_pretrained_cfg(name.model)
    config = resolve_model_data_config({}, pretrained_cfg=published.to_dict() if published else None)  # type: ignore[no-untyped-call]

    def load() -> Tower:
        return Tower(
            network=_timm_network(name),
            prepare=partial(_timm_input, config),
            image_size=config["input_size"][-1],
            mean=config["mean"],
            std=config["std"],
        )

    prepared = {field: config[field] for field in ("input_size", "mean", "std", "interpolation")}
    return Encoder(identity=name.identity(clipn=None), preprocessing=f"timm: centre crop, {prepared}", load=load)


def _check_model(name: EncoderName) -> None:
    """Raise ValueError for a model that timm does not have."""
    import timm

    if not timm.is_model(name.model):
        raise ValueError(f"recipe.encoder: timm has no model {name.model!r}; timm.list_models() lists all")


def _timm_network(name: EncoderName) -> nn.Module:
    import timm

    with torch.random.fork_rng(devices=[]):
        # timm draws initial weights from the global generator; a fixed seed gives equal untrained networks.
        torch.manual_seed(UNTRAINED_SEED)
        if name.kind == "untrained" or name.file is not None:
            network = timm.create_model(name.model, num_classes=0)
            if name.file is not None:
                _load_file(network, name.file)
            return network
        try:
            with quiet_hub():
                return timm.create_model(name.model, pretrained=True, num_classes=0)
        except Exception as error:  # network libraries raise many kinds; all mean that the file cannot be had
            published = timm.get_pretrained_cfg(name.model)
            origin = (published.hf_hub_id or published.url) if published else None
            raise ValueError(
                f"recipe.encoder: the published weights of {name.model} are missing and cannot be downloaded "
                f"({type(error).__name__}); download the weights file of {origin} elsewhere and give its path: "
                f"recipe.encoder=timm:{name.model}@PATH"
            ) from error


def _load_file(network: nn.Module, path: Path) -> None:
    """Put a file's tensors into the network. Raises the errors of `_fitting`."""
    network.load_state_dict(_fitting(network, path))


def _fitting(network: nn.Module, path: Path) -> dict[str, Tensor]:
    """The network's tensors out of a file; those of a head that the network does not have are ignored.

    Raises ValueError for missing tensors and tensors of another shape.
    """
    from models.clipn.weights import read_tensors

    tensors = read_tensors(path, setting="recipe.encoder")
    wanted = network.state_dict()
    missing = sorted(set(wanted) - set(tensors))
    wrong = sorted(name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape)
    if missing or wrong:
        raise ValueError(
            f"recipe.encoder: {path} does not fit the architecture: missing {missing[:3]}, of another shape {wrong[:3]}"
        )
    return {name: tensors[name] for name in wanted}


def check_encoder(text: str) -> None:
    """Raise ValueError for an encoder that timm does not have, or whose weights file does not fit it.

    Published weights are not looked at, nor are a CLIPN's.
    """
    name = EncoderName.parse(text)
    if name.kind == "clipn":
        return
    import timm

    _check_model(name)
    if name.file is None:
        return
    with torch.device("meta"):  # without memory or arithmetic for its weights
        network = timm.create_model(name.model, num_classes=0)
    _fitting(network, name.file)


def _timm_input(config: dict[str, Any], pixels_BHW3: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Images (B, 3, S, S): shorter side resized (bicubic), centre cropped, normalised by the model's statistics."""
    size = config["input_size"][-1]
    images = torch.from_numpy(np.ascontiguousarray(resize_batch(pixels_BHW3, size))).to(device)
    images_B3SS = images.permute(0, 3, 1, 2).float().div(255)
    mean, std = (torch.tensor(config[name], device=device).view(3, 1, 1) for name in ("mean", "std"))
    return images_B3SS.sub(mean).div(std)
