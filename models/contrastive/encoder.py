"""Contrastive encoders: SimCLR and CSI, trained once per data set without labels and then frozen.

Sources: Chen et al., A Simple Framework for Contrastive Learning (ICML 2020); Tack et al., CSI (NeurIPS 2020).

Shapes: N images, B batch, D = 128 projection, S = 4 rotations.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from data.cache import ENCODERS, Entry, clear_write_errors
from data.console import Progress, StepReporter
from data.files import content_hash
from data.imageset import Images
from data.sealed import Damaged, Newer
from models.classifier.networks import ResNet18
from models.contrastive.losses import Lars, nt_xent, warmup_cosine
from models.contrastive.recipe import ContrastiveRecipe, Method
from models.contrastive.views import Views
from models.feature_store import FeatureKey, open_features
from models.graphs import CompiledForward, Replays, compiled_forward, recorder, worth_compiling
from models.sealed_weights import load_weights, save_weights

DIMS = 128
ROTATIONS = 4
VIEWS = 10
"""Number of random views whose mean is a view feature (CCAL)."""
VIEW_CROP = (0.54, 0.54)
CHECKPOINT_EVERY = 60.0
"""Seconds between two states of a training on disk."""


class ContrastiveEncoder(nn.Module):
    """A ResNet-18 with a projection of its features, and a head that predicts the rotation of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        body = ResNet18(1, width=width)
        num_features = body.head.in_features
        body.head = nn.Linear(num_features, ROTATIONS)
        self.body = body
        self.projection = nn.Sequential(nn.Linear(num_features, num_features), nn.ReLU(), nn.Linear(num_features, DIMS))

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Projections (B, D), of any length, and rotation logits (B, S) of images in [0, 1]."""
        rotation_BS, features_BF = self.body((images_B3HW - 0.5) / 0.5)
        return self.projection(features_BF), rotation_BS


class ContrastiveFeatures:
    """Features of all training images of a data set by a frozen encoder; each is computed once and memory-mapped."""

    def __init__(
        self,
        images: Images,
        method: Method,
        recipe: ContrastiveRecipe,
        *,
        device: torch.device,
        progress: Progress,
        pool_idx: NDArray[np.int64] | None = None,
    ) -> None:
        """`pool_idx`: the images to train on if the recipe has `pool_only`; nothing is computed yet."""
        assert recipe.pool_only == (pool_idx is not None)
        self._images, self._method, self._recipe = images, method, recipe
        self._device, self._progress = device, progress
        self._train_idx = np.arange(len(images)) if pool_idx is None else np.sort(pool_idx)

    @cached_property
    def projections(self) -> NDArray[np.float32]:
        """Projections (N, D) of the unchanged images, not normalised; read-only."""
        return open_features(
            self._key("projections"),
            len(self._images),
            lambda: _Rows(self._images, self.encoder, self._device, _project),
            progress=self._progress,
        ).rows_ND

    @cached_property
    def view_projections(self) -> NDArray[np.float32]:
        """Projections (N, S, D): the mean over random views per rotation, equal seeds for all images; read-only."""
        rows = open_features(
            self._key(f"mean projections of {VIEWS} views of {ROTATIONS} rotations"),
            len(self._images),
            lambda: _Rows(self._images, self.encoder, self._device, self._project_views),
            progress=self._progress,
        ).rows_ND
        return rows.reshape(len(rows), ROTATIONS, DIMS)

    @cached_property
    def encoder(self) -> ContrastiveEncoder:
        """The encoder, in evaluation mode: from the cache, or trained now; one process trains and others wait."""
        entry = Entry(kind=ENCODERS, key=self._identity[:32], what=f"{self._method} encoder")
        path = entry.folder / ENCODERS.files
        encoder = _new_encoder(self._recipe)
        weights = _load(path, self._progress)
        if weights is None:
            with entry.locked(self._progress):
                weights = _load(path, self._progress)
                if weights is None:
                    pixels = self._images.load(self._train_idx)
                    training = _Training(encoder, pixels, self._method, self._recipe, self._device, self._progress)
                    training.run(entry.folder / "state.pt")
                    weights = {name: value.cpu() for name, value in encoder.state_dict().items()}
                    _save(path, weights)
                    (entry.folder / "state.pt").unlink(missing_ok=True)
        encoder.load_state_dict(weights)
        return encoder.to(self._device).eval()

    @cached_property
    def _identity(self) -> str:
        """Identity (64 hex digits) of all that decides the encoder."""
        idx = hashlib.sha256(self._train_idx.astype("<i8").tobytes()).hexdigest()
        return content_hash({"images": self._images.fingerprint, "idx": idx, **self._recipe.identity(self._method)})

    def _key(self, kind: str) -> FeatureKey:
        return FeatureKey(
            kind=f"{self._method} {kind}",
            content=self._images.fingerprint,
            weights=self._identity,
            preprocessing="pixels / 255",
            precision="float32",
        )

    def _project_views(self, encoder: ContrastiveEncoder, images_B3HW: Tensor, first: int) -> Tensor:
        """Mean projections (B, S D) of views; drawn from seeds 0, 1, ... and the position of the first image."""
        views = Views(crop=VIEW_CROP, flip=self._recipe.flip, colour=self._recipe.colour)
        total_BSD = torch.zeros(len(images_B3HW), ROTATIONS, DIMS, device=images_B3HW.device)
        for seed in range(VIEWS):
            generator = torch.Generator(device=images_B3HW.device).manual_seed(seed * 2**32 + first)
            for turns in range(ROTATIONS):
                view = views.draw(images_B3HW.rot90(turns, (2, 3)), generator)
                total_BSD[:, turns] += encoder(view)[0] / VIEWS
        return total_BSD.flatten(1)


def _project(encoder: ContrastiveEncoder, images_B3HW: Tensor, first: int) -> Tensor:
    return encoder(images_B3HW)[0]  # type: ignore[no-any-return]


class _Rows:
    """Source of a store entry's rows: a function of the encoder for each image."""

    BATCH = 256

    def __init__(
        self,
        images: Images,
        encoder: ContrastiveEncoder,
        device: torch.device,
        compute: Callable[[ContrastiveEncoder, Tensor, int], Tensor],
    ) -> None:
        self._images, self._encoder, self._device, self._compute = images, encoder, device, compute
        self.facts: dict[str, float] = {}

    @torch.inference_mode()
    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """The rows `start` to `stop` (excluded)."""
        rows = []
        for at in range(start, stop, self.BATCH):
            pixels = torch.from_numpy(self._images.load(np.arange(at, min(at + self.BATCH, stop)))).to(self._device)
            rows.append(self._compute(self._encoder, _images(pixels), at).float().cpu())
        return torch.cat(rows).numpy()


class _Training:
    """Training of one encoder. Every pass draws from its own seed, so that a state between two passes is enough."""

    def __init__(
        self,
        encoder: ContrastiveEncoder,
        pixels_NHW3: NDArray[np.uint8],
        method: Method,
        recipe: ContrastiveRecipe,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._encoder = encoder.to(device).train()
        self._pixels = torch.from_numpy(pixels_NHW3).to(device)
        self._method, self._recipe, self._device, self._progress = method, recipe, device, progress
        self._views = Views(crop=(recipe.smallest_crop, 1.0), flip=recipe.flip, colour=recipe.colour)
        self._batch = min(recipe.batch_size, len(pixels_NHW3))
        self._optimiser = self._make_optimiser()
        self._forward = CompiledForward(None)

    def _make_optimiser(self) -> torch.optim.Optimizer:
        recipe, parameters = self._recipe, list(self._encoder.parameters())
        if self._method == "csi" and recipe.lars:
            return Lars(parameters, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
        return torch.optim.SGD(
            parameters, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )

    def run(self, state: Path) -> None:
        """Take all passes, from the state on disk if there is one. Raises ArithmeticError if the training diverges."""
        first, epochs = self._restore(state), self._recipe.epochs
        self._rate_on_device()
        what = f"{self._method} encoder: passes over {len(self._pixels):,} images"
        reporter = StepReporter(what, epochs - first, self._progress)
        last_kept = time.monotonic()
        generator = torch.Generator(device=self._device)
        compiles = worth_compiling(self._device, (epochs - first) * (len(self._pixels) // self._batch))
        self._forward = CompiledForward(compiled_forward if compiles else None)
        with recorder(self._device, generator, wanted=True) as record:
            replays = Replays(record)
            for epoch in range(first, epochs):
                self._pass(epoch, generator, replays)
                if time.monotonic() - last_kept > CHECKPOINT_EVERY:
                    self._keep(state, epoch + 1)
                    last_kept = time.monotonic()
                reporter.done(epoch + 1 - first)
        if not all(bool(torch.isfinite(value).all()) for value in self._encoder.state_dict().values()):
            raise ArithmeticError(
                f"the {self._method} encoder's training diverged; lower options.contrastive.learning_rate"
            )

    def _rate_on_device(self) -> None:
        """On a GPU, make the rate a tensor there, where a recorded step reads it."""
        # A restored state has it elsewhere; torch moves only the optimiser's other state, the momenta.
        if self._device.type == "cuda":
            for group in self._optimiser.param_groups:
                group["lr"] = torch.as_tensor(group["lr"], device=self._device).clone()

    def _pass(self, epoch: int, generator: torch.Generator, replays: Replays) -> None:
        recipe = self._recipe
        seed = int(np.random.SeedSequence((recipe.seed, epoch)).generate_state(1, np.uint64)[0] >> np.uint64(1))
        generator.manual_seed(seed)
        order = torch.randperm(len(self._pixels), generator=generator, device=self._device)
        num_steps = len(order) // self._batch

        def work(picked_B: Tensor) -> None:
            self._forward.run(self._encoder, lambda: self._step(picked_B, generator), self._method)

        for step in range(num_steps):
            self._set_rate(
                warmup_cosine(
                    epoch + step / num_steps,
                    base=recipe.learning_rate,
                    epochs=recipe.epochs,
                    warmup=recipe.warmup_epochs,
                )
            )
            replays(self._method, work, order[step * self._batch : (step + 1) * self._batch])

    def _set_rate(self, rate: float) -> None:
        for group in self._optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _step(self, picked_B: Tensor, generator: torch.Generator) -> None:
        """Take one step on the images at those positions."""
        images = _images(self._pixels[picked_B])
        in_bf16 = self._recipe.precision == "bf16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=in_bf16):
            loss = self._loss(images, generator)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()

    def _loss(self, images_B3HW: Tensor, generator: torch.Generator) -> Tensor:
        """The loss () of a batch. SimCLR: two views. CSI: two views in all rotations, which count as other images, and
        the prediction of the rotation."""
        turns = range(ROTATIONS if self._method == "csi" else 1)
        views = [self._views.draw(images_B3HW, generator) for _ in range(2)]
        turned = torch.cat([view.rot90(turn, (2, 3)) for view in views for turn in turns])
        projections, rotation = self._encoder(turned.contiguous(memory_format=torch.channels_last))
        loss = nt_xent(projections.float(), self._recipe.temperature)
        if self._method == "csi":
            turned_by = torch.arange(ROTATIONS, device=self._device).repeat_interleave(len(images_B3HW)).repeat(2)
            loss = loss + F.cross_entropy(rotation.float(), turned_by)
        return loss

    def _keep(self, path: Path, epoch: int) -> None:
        kept = {"epoch": epoch, "encoder": self._encoder.state_dict(), "optimiser": self._optimiser.state_dict()}
        _save(path, kept)

    def _restore(self, path: Path) -> int:
        """Restore a kept state. Returns the number of passes done, 0 without a state."""
        kept = _load(path, self._progress)
        if kept is None:
            return 0
        self._encoder.load_state_dict(kept["encoder"])
        self._optimiser.load_state_dict(kept["optimiser"])
        self._progress(f"{self._method} encoder: continued after pass {kept['epoch']:,}")
        return int(kept["epoch"])


def _new_encoder(recipe: ContrastiveRecipe) -> ContrastiveEncoder:
    """A new encoder with the initial weights of the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return ContrastiveEncoder(recipe.width).to(memory_format=torch.channels_last)


def _images(pixels_BHW3: Tensor) -> Tensor:
    """Images (B, 3, H, W) float32 in [0, 1] from pixels (B, H, W, 3) uint8."""
    return (pixels_BHW3.float() / 255.0).permute(0, 3, 1, 2)


def _save(path: Path, content: dict[str, Any]) -> None:
    with clear_write_errors(path.parent):
        save_weights(path, content, name=_seal_name(path))


def _load(path: Path, progress: Progress) -> dict[str, Any] | None:
    """The content of a weights file, on the CPU; None if it is missing or, after a report, if it is damaged."""
    try:
        kept: dict[str, Any] = load_weights(path, name=_seal_name(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Damaged:
        progress(f"{path} is damaged; its content is computed again")
        return None
    except Newer as error:
        raise ValueError(f"{path}: {error}; set VLPURE_CACHE to another folder") from None
    return kept


def _seal_name(path: Path) -> str:
    """The name that the file's seal covers: the encoder's identity (its folder's name) and the file's name."""
    return f"{path.parent.name}/{path.name}"
