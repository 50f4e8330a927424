"""The contract between VLPure and whoever scores purity: indices go in, scores come out.

Images and features stay with the scorer, so that the same request can be answered in this process or by a Ray actor
on another machine. Shapes: N unlabelled images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

IndexArray = NDArray[np.int64]


class PurityOptions(BaseModel):
    """The switches of the purity step."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    detector: Literal["atd", "ctw", "mcm"] = "atd"
    """CLIPN's agreeing-to-differ (the paper's), CLIPN's competing-to-win, or maximum concept matching, which needs no
    "no" texts and learns a threshold on the labels bought so far (`strategies.purity.judge`)."""
    visual_similarity: bool = True
    """Weight each class by the similarity to the mean features of its labelled images (Eq. 5 to 7)."""
    self_temperature: bool = True
    """Choose the logit scale on the labels bought so far (Eq. 8); off: use `fixed_scale`. Changes nothing for `ctw`
    without visual similarity, whose decisions are the same at every scale."""
    criterion: Literal["balanced", "plain"] = "balanced"
    """What the chosen scale (and threshold) maximises: mean of ID and OOD recall (official code), or accuracy (Eq. 8 as
    printed)."""
    fixed_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """Logit scale (1 / temperature) where none is tuned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurityRequest:
    """What a scorer needs to know: which data set, which classes, what has been labelled, and what to score."""

    data_fingerprint: str
    class_names: tuple[str, ...]
    labelled_id_idx: IndexArray
    labelled_id_labels: IndexArray
    labelled_ood_idx: IndexArray
    unlabelled_idx: IndexArray
    options: PurityOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class PurityScores:
    """The scorer's answer, in the order of the request's `unlabelled_idx`."""

    id_scores: NDArray[np.float32]
    """(N,) how surely each image is of an ID class, in [0, 1]."""
    ood_scores: NDArray[np.float32]
    """(N,) how surely it is of none, on the scale of `id_scores`; for MCM the threshold, the same for all images."""
    is_id: NDArray[np.bool_]
    """(N,) the decision: ID score above OOD score; a tie is OOD."""
    logit_scale: float
    """The scale the scores were computed with."""
    is_tuned: bool
    """Whether Eq. 8 chose it; False: tuning is off or changes nothing, or there was no labelled ID or no labelled OOD
    image yet."""
    labelled_accuracy: float | None
    """The criterion's value on the labelled images, in [0, 1]; None where neither scale nor threshold was learnt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFigures:
    """What a request took, as the one who asked saw it."""

    seconds: float
    """From the first attempt to the answer."""
    queue: int = 0
    """Requests ahead of it at the scorer that answered."""
    lost: int = 0
    """Attempts without an answer."""


class PurityScorer(Protocol):
    """Answers purity requests; pure, so that a request may be sent again after a failure."""

    @property
    def last_request(self) -> RequestFigures | None:
        """What the last answered request took; None before the first."""
        ...

    def score(self, request: PurityRequest) -> PurityScores:
        """ID and OOD scores and the decision for each unlabelled image of the request."""
        ...
