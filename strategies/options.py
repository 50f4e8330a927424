"""What a user may change of the strategies: one section a family, the original studies' values by default.

Reading it needs no torch. Which sections a strategy reads stands in its registry entry; they alone enter the
fingerprint of its trials.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LearningLossOptions(Section):
    """LL (Yoo and Kweon 2019)."""

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Weight of the ranking loss beside the cross entropy."""
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Margin of the ranking loss."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Units for each of the four stages in the head."""
    detach_after: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the training after which the head no longer trains the network under it."""
    subset: Annotated[int, Field(ge=1)] | None = 10_000
    """Unlabelled images looked at in a query, drawn at random; none: all (P14)."""


class MonteCarloOptions(Section):
    """BALD, MeanSTD and VarRatio: dropout on the pooled features, in training and in the query."""

    passes: Annotated[int, Field(ge=2)] = 20
    """Random masks an image."""
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the features dropped."""


class AlphaMixOptions(Section):
    """AlphaMix (Parvaneh et al. 2022)."""

    step: Annotated[float, Field(gt=0, le=1)] = 1 / 32
    """By how much the mixing grows until enough predictions flip; at most 1."""


class ProbCoverOptions(Section):
    """ProbCover (Yehuda et al. 2022)."""

    purity: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of the balls that are to hold one cluster only; the largest radius that reaches it is taken."""
    radius: Annotated[float, Field(gt=0)] | None = None
    """Radius of a ball among unit features, in (0, 2); none: from `purity`."""


class StrategyOptions(Section):
    """All sections."""

    learning_loss: LearningLossOptions = LearningLossOptions()
    monte_carlo: MonteCarloOptions = MonteCarloOptions()
    alphamix: AlphaMixOptions = AlphaMixOptions()
    probcover: ProbCoverOptions = ProbCoverOptions()

    def read_by(self, sections: tuple[str, ...]) -> dict[str, object]:
        """Those sections as plain values, for a fingerprint."""
        return {name: getattr(self, name).model_dump(mode="json") for name in sections}
