"""The contract between VLPure and the purity scorer: indices go in, scores come out.

Images and features stay with the scorer, so that the same request can be answered in this process or by a Ray actor
on another machine. Shapes: N unlabelled images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from strategies.purity.detectors import DETECTORS, DetectorName

IndexArray = NDArray[np.int64]


class Section(BaseModel):
    """Base of the purity step's settings: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ProbeOptions(Section):
    """Options of the logistic regression of `probe` and `fused`."""

    classes: Literal["each", "two"] = "each"
    """`each`: the K ID classes and one for OOD; `two`: ID against OOD."""
    strengths: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, strict=False)] = (
        0.1, 1.0, 10.0, 100.0,
    )  # fmt: skip
    """Values of C (weight of the labels against the L2 penalty) among which cross-validation chooses."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the cross-validation; fewer if fewer ID or fewer OOD images are labelled."""


class NeighbourOptions(Section):
    """The vote of `knn`."""

    neighbours: Annotated[int, Field(ge=1)] = 10
    """Nearest labelled images that vote; all of them if fewer are labelled."""
    threshold: Literal["vote", "learnt"] = "vote"
    """`vote`: ID if more neighbours are ID than OOD; `learnt`: the threshold that is best on the labelled images."""


class WordOptions(Section):
    """The negative words of `neglabel` and `tanl`."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the nouns and of the adjectives that is kept, those least like the class names; 0.15 as published."""
    groups: Annotated[int, Field(ge=1)] = 1
    """Groups over which the score is averaged; 100 as published for ImageNet. Grouping hurts with few classes."""
    leave_out: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Kinds of nouns excluded by the name of WordNet's file, such as animal and food (as in the published list)."""
    active: Annotated[int, Field(ge=1)] = 1000
    """Words of `tanl` that the pool activates most."""


class TanlOptions(Section):
    """How `tanl` finds the words that the pool activates most."""

    sure_images: Annotated[int, Field(ge=1)] | None = 512
    """Images of either kind, surely ID and surely OOD, on which all words are screened; None: all of them."""


class PurityOptions(Section):
    """Switches of the purity step."""

    detector: DetectorName = "atd"
    """CLIPN's agreeing-to-differ (the paper's), or another detector (`strategies.purity.detectors`)."""
    visual_similarity: bool = True
    """Weight each class by the similarity to the mean features of its labelled images (Eq. 5 to 7). Only for atd, ctw
    and mcm; off by itself with any other detector."""
    self_temperature: bool = True
    """Choose the logit scale on the labels bought so far (Eq. 8); off: use `fixed_scale`. Changes nothing for `ctw`
    without visual similarity, whose decisions are the same at every scale."""
    criterion: Literal["balanced", "plain"] = "balanced"
    """What the chosen scale (and threshold) maximises: mean of ID and OOD recall (official code), or accuracy (Eq. 8 as
    printed)."""
    fixed_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """Logit scale (1 / temperature) if none is tuned."""
    probe: ProbeOptions = ProbeOptions()
    """The logistic regression of `probe` and `fused`."""
    knn: NeighbourOptions = NeighbourOptions()
    """The vote of `knn`."""

    words: WordOptions = WordOptions()
    """The negative words of `neglabel` and `tanl`."""
    # A section of its own: an option in `words` would change the fingerprints of neglabel's records, too.
    tanl: TanlOptions = TanlOptions()
    """The search of `tanl` for active words."""

    @model_validator(mode="before")
    @classmethod
    def _no_weights_without_prototypes(cls, given: Any) -> Any:
        """Visual similarity weights need a detector that multiplies class by class."""
        detector = given.get("detector", "atd") if isinstance(given, Mapping) else None
        if not isinstance(detector, str) or detector not in DETECTORS:  # a list has no hash
            return given
        if DETECTORS[detector].takes_weights:
            return given
        if given.get("visual_similarity"):
            raise ValueError(
                f"visual_similarity = True has no meaning for the detector {detector}, which has no term per class to "
                "weight; omit it, or use atd, ctw or mcm"
            )
        return {**given, "visual_similarity": False}

    def settings_read(self) -> dict[str, Any]:
        """Switches that the detector reads, as plain values, for fingerprints and reports.

        For atd, ctw and mcm these are the switches from when they were the only ones, to keep their fingerprints.
        """
        sections = {"probe", "knn", "words", "tanl"}
        return self.model_dump(mode="json", exclude=sections - set(DETECTORS[self.detector].sections))


def recorded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A record's settings of a trial, with what a version did that did not write all of them down."""
    purity = settings.get("purity")
    # Without this a record of exact means would share a row with those that a screening has chosen the words of.
    if isinstance(purity, Mapping) and purity.get("detector") == "tanl" and "tanl" not in purity:
        return {**settings, "purity": {**purity, "tanl": {"sure_images": None}}}
    return dict(settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class PurityRequest:
    """Question to a scorer: which data set, which classes, what has been labelled, and what to score."""

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
    """(N,) how surely each image is of an ID class: in [0, 1] for atd, ctw and mcm, else in the detector's unit."""
    ood_scores: NDArray[np.float32]
    """(N,) how surely it is of none, on the scale of `id_scores`; for a detector with a threshold the threshold, the
    same for all images."""
    is_id: NDArray[np.bool_]
    """(N,) the decision: ID score above OOD score; a tie is OOD."""
    logit_scale: float
    """The scale the scores were computed with."""
    is_tuned: bool
    """Whether Eq. 8 chose it; False: tuning is off or changes nothing, or there was no labelled ID or no labelled OOD
    image yet."""
    labelled_accuracy: float | None
    """The criterion's value on the labelled images, in [0, 1]; None if neither scale nor threshold was learnt. For a
    detector that learns more than these, of images that it did not learn from."""
    num_tied_scales: int = 0
    """Number of the scales tried that are as good as the chosen one, itself included; 0 if none was tuned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFigures:
    """Time and attempts of a request, as the caller measured them."""

    seconds: float
    """Wall seconds from the first attempt to the answer."""
    queue: int = 0
    """Requests ahead of it at the scorer that answered."""
    lost: int = 0
    """Attempts without an answer."""
    tied_scales: int = 0
    """`PurityScores.num_tied_scales` of the answer."""


class PurityScorer(Protocol):
    """Answers purity requests; pure, so that a request may be sent again after a failure."""

    @property
    def last_request(self) -> RequestFigures | None:
        """Figures of the last answered request; None before the first."""
        ...

    def score(self, request: PurityRequest) -> PurityScores:
        """ID and OOD scores and the decision for each unlabelled image of the request."""
        ...

    def features(self, data_fingerprint: str, idx: IndexArray) -> NDArray[np.float32]:
        """Unit features (n, D) of some training images of a data set, in the order of `idx`: one call per round."""
        ...
