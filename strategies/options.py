"""Options of the strategies that a user may change: one section per family, by default the original studies' values.

Reading them needs no torch. The registry entry of a strategy lists the sections it reads; only these enter the
fingerprint of its trials.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.classifier.recipe import PIXEL_NETWORKS, Fraction, Recipe
from models.contrastive.recipe import ContrastiveRecipe


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LearningLossOptions(Section):
    """LL (Yoo and Kweon 2019)."""

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Weight of the ranking loss relative to the cross entropy."""
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Margin of the ranking loss."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Units for each of the four stages in the head."""
    detach_after: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the training after which the head no longer trains the network under it."""
    subset: Annotated[int, Field(ge=1)] | None = 10_000
    """Number of unlabelled images considered in a query, drawn at random; none: all."""


class MonteCarloOptions(Section):
    """BALD, MeanSTD and VarRatio: dropout on the pooled features, in training and in the query."""

    passes: Annotated[int, Field(ge=2)] = 20
    """Random masks per image."""
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the features dropped."""


class AlphaMixOptions(Section):
    """AlphaMix (Parvaneh et al. 2022)."""

    step: Annotated[float, Field(gt=0, le=1)] = 1 / 32
    """Step by which the mixing grows until enough predictions flip, in (0, 1]."""


class ProbCoverOptions(Section):
    """ProbCover (Yehuda et al. 2022)."""

    purity: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of the balls that are to hold one cluster only; the largest radius that reaches it is taken."""
    radius: Annotated[float, Field(gt=0, lt=2)] | None = None
    """Radius of a ball among unit features, in (0, 2); none: from `purity`."""


class DetectorOptions(Section):
    """Training of a detector of OOD images, each round, on all labelled images; the rest is as the classifier's."""

    epochs: Annotated[int, Field(ge=1)]
    """Passes over the labelled images."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images per step."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    """Initial learning rate of SGD with momentum 0.9."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    """L2 penalty."""
    milestones: tuple[Fraction, ...] = Field(default=(0.2, 0.4, 0.6, 0.8), strict=False)
    """Shares of the epochs after which the learning rate is halved."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest rotation of training images, either way, in degrees."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    """Temperature by which the logits are divided in training."""

    def recipe(self, base: Recipe) -> Recipe:
        """Recipe of the detector's training; network, flip, crop and arithmetic are the classifier's."""
        return base.model_copy(
            update={
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "learning_rate": self.learning_rate,
                "momentum": 0.9,
                "weight_decay": self.weight_decay,
                "milestones": self.milestones,
                "decay": 0.5,
                # A linear head trains on stored features, which cannot be rotated.
                "rotation": self.rotation if base.network in PIXEL_NETWORKS else 0.0,
                "head_dropout": 0.0,
            }
        )


class LfosaOptions(DetectorOptions):
    """LfOSA (Ning et al. 2022)."""

    epochs: Annotated[int, Field(ge=1)] = 100


class EoalOptions(DetectorOptions):
    """EOAL (Safaei et al. 2024)."""

    epochs: Annotated[int, Field(ge=1)] = 300
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Weight of the OOD images against the ID images in the binary classifiers' loss, once any are labelled."""
    regulariser: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    """Weight of the pull of OOD features to their clusters' centres."""
    finch: Literal["0.1.9", "0.2.3"] = "0.2.3"
    """Variant of the clustering, named by the release that gives the same result."""
    diversity: bool = True
    """Whether the query goes round clusters of the images predicted known."""


class E2oalOptions(DetectorOptions):
    """E2OAL (Zong et al. 2026); `e2oal-own` trains by the trial's recipe and reads the last three only."""

    epochs: Annotated[int, Field(ge=1)] = 200
    milestones: tuple[Fraction, ...] = Field(default=(0.3, 0.6, 0.9), strict=False)
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Temperature of the cross entropy on the ID images."""
    precision: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Precision that the queries are to have; the width of the next one follows that of the last."""
    divergence: Literal["official", "jensen-shannon"] = "official"
    """Divergence that informativeness is made of: that of the official code, or the one that it is named after."""


class MqnetOptions(Section):
    """MQNet (Park et al. 2022)."""

    epochs: Annotated[int, Field(ge=1)] = 100
    """Epochs of the meta-network's training; each has at least 100 steps."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    """Learning rate of the meta-network's plain SGD."""
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Margin of the ranking loss."""
    target_passes: Annotated[int, Field(ge=1)] | None = 50
    """Augmented passes of which each training pass takes one as its targets, in turn; none: one clean pass."""


class CcalOptions(Section):
    """CCAL (Du et al. 2021)."""

    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 100.0
    """Slope k of the squashed semantic score."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Threshold t of the squashed semantic score."""


class NeatOptions(Section):
    """NEAT (Mao, Xu and Guo 2024)."""

    neighbours: Annotated[int, Field(ge=1)] = 10
    """Number k of nearest labelled images that vote."""


class UHerdingOptions(Section):
    """UHerding (Bae et al. 2025) and MaxHerding (Bae, Noh and Sutherland 2024)."""

    uncertainty: Literal["margin", "entropy", "confidence"] = "margin"
    """UHerding's weight of an image: 1 - margin, entropy, or 1 - the largest probability."""
    cover_ood: bool = True
    """Whether labelled OOD images cover their neighbourhood as labelled ID images do."""


class EaoaOptions(DetectorOptions):
    """EAOA (Zong and Huang 2025)."""

    epochs: Annotated[int, Field(ge=1)] = 200
    milestones: tuple[Fraction, ...] = Field(default=(0.3, 0.6, 0.9), strict=False)
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    energy_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    """Weight of the energy penalty relative to the cross entropy, once an OOD image is labelled."""
    known_energy: Annotated[float, Field(allow_inf_nan=False)] = -25.0
    """Energy above which a labelled ID image is penalised."""
    unknown_energy: Annotated[float, Field(allow_inf_nan=False)] = -7.0
    """Energy below which a labelled OOD image is penalised."""
    neighbours: Annotated[int, Field(ge=1)] = 250
    """Nearest pool images of each labelled image."""
    width: Annotated[int, Field(ge=1)] = 5
    """Candidates of the first query, in multiples of the images asked per class."""
    precision: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Precision of a query after which the width stays."""
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Difference from that precision up to which the width stays."""


class BualOptions(DetectorOptions):
    """BUAL (Zong et al. 2024); the settings are those of each of its three trainings."""

    epochs: Annotated[int, Field(ge=1)] = 100
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    milestones: tuple[Fraction, ...] = Field(default=(), strict=False)
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Not read: BUAL's losses have none."""
    measure: Literal["confidence", "margin", "entropy"] = "confidence"
    """How the confidence of summed probabilities is measured."""
    unlabelled: Annotated[int, Field(ge=1)] = 5000
    """Unlabelled images in the negative training."""
    check_every: Annotated[int, Field(ge=1)] = 5
    """Negative epochs between two passes over the pool."""
    patience: Annotated[int, Field(ge=1)] | None = 5
    """Checks with the same picked set (but for 1 %) after which the negative training ends; none: it never does."""


class StrategyOptions(Section):
    """The options of all strategies, by section."""

    learning_loss: LearningLossOptions = LearningLossOptions()
    monte_carlo: MonteCarloOptions = MonteCarloOptions()
    alphamix: AlphaMixOptions = AlphaMixOptions()
    probcover: ProbCoverOptions = ProbCoverOptions()
    lfosa: LfosaOptions = LfosaOptions()
    eoal: EoalOptions = EoalOptions()
    e2oal: E2oalOptions = E2oalOptions()
    mqnet: MqnetOptions = MqnetOptions()
    ccal: CcalOptions = CcalOptions()
    eaoa: EaoaOptions = EaoaOptions()
    bual: BualOptions = BualOptions()
    neat: NeatOptions = NeatOptions()
    uherding: UHerdingOptions = UHerdingOptions()
    contrastive: ContrastiveRecipe = ContrastiveRecipe()

    def read_by(self, sections: tuple[str, ...]) -> dict[str, object]:
        """Values of the named sections as plain data, for a fingerprint."""
        return {name: getattr(self, name).model_dump(mode="json") for name in sections}
