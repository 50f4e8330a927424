"""Estimates what a grid costs on a GPU before any of its rounds has run, from measurements of `make gpu-check`.

Card time is the time for which a card is occupied: with four trials at a time, a quarter of the time that each takes.
Image sizes that were not measured are scaled by their number of pixels from the nearest measured size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.settings.trial import TrialConfig
from strategies.options import DetectorOptions

BATCH, WIDTH, DETECTOR_BATCH = 64, 64, 128
"""Batch size and width of the measured ResNet-18, and batch size of the measured detectors."""
TEST_SHARE = 0.2
"""Approximate number of test images per training image."""
PURITY_IMAGES = 40_000
"""Images of the measured purity request."""
BEST_WAY = "compiled and recorded"
DETECTORS_LIKE: Mapping[str, tuple[str, int]] = {
    "lfosa": ("lfosa", 1), "eoal": ("eoal", 1), "eaoa": ("lfosa", 1), "e2oal": ("lfosa", 1), "bual": ("lfosa", 3),
}  # fmt: skip
"""Strategy -> the measured detector whose step stands for that of its own, and the trainings per round.

The last three are not measured: theirs is the network of LfOSA's with another loss.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRates:
    """Measured rates of one card."""

    source: str
    """Name of the file with the measurements."""
    device: str
    step_ms: Mapping[tuple[int, int], tuple[float, str]]
    """(Image size, trials at a time) -> card milliseconds per step and training, and how the card was shared."""
    detector_ms: Mapping[str, Mapping[int, float]]
    """Measured detector -> image size -> milliseconds per step, alone on the card."""
    contrastive_ms: Mapping[int, float]
    """Image size -> milliseconds per step of CSI's encoder with 32 images."""
    pool_images: Mapping[int, float]
    """Image size -> images per second of a pass over the pool."""
    head_ms: float
    """Milliseconds per step of a linear head on stored features."""
    purity_seconds: float

    @classmethod
    def read(cls, path: Path) -> GpuRates:
        """Read the rates from a file of `gpu_check.py -o`. Raises ValueError for any other file."""
        try:
            return cls.of_figures(json.loads(path.read_text(encoding="utf-8")), source=path.name)
        except FileNotFoundError:
            raise ValueError(f"--rates {path}: no such file; make gpu-check writes one") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"--rates {path}: gpu-check figures are missing or invalid ({type(error).__name__}: {error}); run "
                "its parts steps, passes and trainings"
            ) from None

    @classmethod
    def of_figures(cls, found: Mapping[str, Any], *, source: str = "this run") -> GpuRates:
        """The rates in the figures of a gpu-check. Raises KeyError if a part is missing."""
        step_ms: dict[tuple[int, int], tuple[float, str]] = {}
        for row in found["steps"]:
            key = (int(row["pixels"]), int(row["trials"]))
            if row["way"] == BEST_WAY and (key not in step_ms or row["ms"] < step_ms[key][0]):
                step_ms[key] = (float(row["ms"]), str(row["sharing"]))
        if not step_ms:
            raise KeyError("no step that is compiled and recorded")
        return cls(
            source=source,
            device=str(found["device"]),
            step_ms=step_ms,
            detector_ms={name: _by_size(found[f"{name}_ms"]) for name in ("lfosa", "eoal")},
            contrastive_ms=_by_size(found["csi_ms"]),
            pool_images=_by_size(found["pool_images_a_second"]),
            head_ms=float(found["head_ms"]),
            purity_seconds=float(found["purity_seconds"]),
        )

    def step(self, pixels: int, at_once: int) -> tuple[float, str]:
        """Card milliseconds per step with at most `at_once` trials at a time, and how they share the card."""
        trials = max((number for _, number in self.step_ms if number <= at_once), default=1)
        known = {size: ms for (size, number), (ms, _) in self.step_ms.items() if number == trials}
        sharing = next(words for (_, number), (_, words) in self.step_ms.items() if number == trials)
        return _scaled(known, pixels), sharing

    def round_seconds(
        self, trial: TrialConfig, round_number: int, *, pixels: int, num_images: int, at_once: int
    ) -> dict[str, float]:
        """Card seconds of a round by part: the classifier, and from round 1 on the query before it."""
        parts = {"classifiers": self._classifier(trial, round_number, pixels, at_once)}
        images = _scaled_down(self.pool_images, pixels)
        parts["passes"] = TEST_SHARE * num_images / images
        if round_number == 0:
            return parts
        parts["passes"] += num_images / images
        if trial.strategy in DETECTORS_LIKE:
            like, trainings = DETECTORS_LIKE[trial.strategy]
            options = getattr(trial.options, trial.strategy)
            assert isinstance(options, DetectorOptions)
            steps = trainings * options.epochs * max(1, round(round_number * trial.budget / options.batch_size))
            ms = _scaled(self.detector_ms[like], pixels) * options.batch_size / DETECTOR_BATCH
            ms = ms if trial.recipe.network == "resnet18" else self.head_ms
            parts[f"detectors of {trial.strategy}"] = steps * ms / 1e3
        if trial.uses_purity:
            parts["purity"] = self.purity_seconds * num_images / PURITY_IMAGES
        return parts

    def encoder_seconds(self, trial: TrialConfig, *, pixels: int, num_images: int) -> float:
        """Card seconds of the contrastive encoder of a trial's data set; 0 for a strategy without one."""
        if trial.strategy not in ("mqnet", "ccal"):
            return 0.0
        recipe = trial.options.contrastive
        encoders = 2 if trial.strategy == "ccal" else 1
        return (
            encoders * recipe.epochs * (num_images // recipe.batch_size) * _scaled(self.contrastive_ms, pixels)
            * recipe.batch_size / 32 / 1e3
        )  # fmt: skip

    def words(self, at_once: int) -> str:
        """The rates as one line of text."""
        steps = [self.step(pixels, at_once) for pixels in (32, 64)]
        shared = f"{at_once} trial(s) on a card ({steps[0][1]})"
        passes = ", ".join(f"{rate:,.0f} images/s at {size}" for size, rate in self.pool_images.items())
        return (
            f"rates of {self.source}: {self.device}, {shared}: {steps[0][0]:.2f} ms per step and training at 32 "
            f"pixels, {steps[1][0]:.2f} at 64; pool passes {passes} pixels; ResNet-18 of width 64, batch 64, bf16"
        )

    def _classifier(self, trial: TrialConfig, round_number: int, pixels: int, at_once: int) -> float:
        recipe = trial.recipe
        if recipe.network == "zero-shot":
            return 0.0
        steps = recipe.num_steps((round_number + 1) * trial.budget)
        if recipe.network == "linear":
            return steps * self.head_ms / 1e3
        ms, _ = self.step(pixels, at_once)
        return steps * ms * recipe.batch_size / BATCH * (recipe.width / WIDTH) ** 2 / 1e3


def _by_size(values: Mapping[str, float]) -> dict[int, float]:
    return {int(size): float(value) for size, value in values.items()}


def _scaled(ms: Mapping[int, float], pixels: int) -> float:
    """Milliseconds at an image size: measured, or scaled from the nearest size by the number of pixels."""
    nearest = min(ms, key=lambda size: abs(size - pixels))
    return ms[nearest] * (pixels / nearest) ** 2


def _scaled_down(rate: Mapping[int, float], pixels: int) -> float:
    """The rate at an image size: measured, or scaled from the nearest size by the number of pixels."""
    nearest = min(rate, key=lambda size: abs(size - pixels))
    return rate[nearest] / (pixels / nearest) ** 2
