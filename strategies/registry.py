"""Every strategy by name, with the paper's name for it and its reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from data.console import unknown_name
from models.contrastive.recipe import Method
from strategies.alphamix import AlphaMix
from strategies.base import IndexArray, Strategy
from strategies.ccal import Ccal
from strategies.learning_loss import LearningLoss
from strategies.monte_carlo import Measure, MonteCarlo, mean_deviation, mutual_information, variation_ratio
from strategies.mqnet import Mqnet
from strategies.options import StrategyOptions
from strategies.plugin import load_strategy, make_plugin, source_identity
from strategies.purity.contract import PurityOptions, PurityScorer
from strategies.random import Random
from strategies.typiclust import TypiClust
from strategies.uncertainty import Entropy, LeastConfidence, Margin
from strategies.vlpure import VLPure

if TYPE_CHECKING:
    from models.classifier.target import Target
    from models.contrastive.encoder import ContrastiveFeatures  # torch, which planning does without


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenFeatures:
    """Image features of the frozen pre-trained tower, shared with the purity step so that nothing is computed twice.

    The scorer holds them. Behind Ray a call carries all rows asked for (51 MB for 25,000 images of 512 dimensions), so
    a strategy asks once per round.
    """

    scorer: PurityScorer
    data_fingerprint: str

    def rows(self, idx: IndexArray) -> NDArray[np.float32]:
        """Unit features (n, D) of training images, in the order of `idx`."""
        return self.scorer.features(self.data_fingerprint, idx)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts that a strategy may be built from."""

    scorer: PurityScorer | None
    purity: PurityOptions
    options: StrategyOptions
    contrastive: Callable[[Method], ContrastiveFeatures]
    """The frozen encoder of the trial's data set, trained at the first use of its features."""
    pretrained: Callable[[], FrozenFeatures]
    """The pre-trained image tower's features; only for an entry with `uses_pretrained`."""

    def require_scorer(self) -> PurityScorer:
        """The purity scorer; the caller of a strategy that uses purity always gives one."""
        assert self.scorer is not None, "a strategy that uses purity was built without a scorer"
        return self.scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A registered strategy."""

    paper_name: str
    """Name that tables show."""
    reference: str
    build: Callable[[Services], Strategy]
    """Makes the strategy. It imports modules that need torch inside, so that planning needs none."""
    uses_purity: bool = False
    """Whether it uses a purity scorer, so that CLIPN and the purity options change its numbers."""
    uses_pretrained: bool = False
    """Whether it reads features of the pre-trained image tower, so that CLIPN's image tower changes its numbers."""
    uses_domain: bool = False
    """Whether its prompts contain the data set's domain, so that it needs a data set that has one."""
    sections: tuple[str, ...] = ()
    """The sections of `StrategyOptions` that change its numbers."""
    target: Callable[[Services], Target] | None = None
    """Makes the lessons of the round's classifier: network, training images, objective. None: the common classifier."""
    head_dropout: bool = False
    """Whether the round's classifier is trained with dropout before its last layer."""
    source: str | None = None
    """Identity of the code, for strategies from elsewhere."""
    numbers: int = 1
    """Version of its numbers, for strategies here: raised when they change, so that earlier records are not continued.

    For a change of all strategies there is NUMBERS_VERSION.
    """
    extra_networks: str = "none"
    """Networks trained in addition to the classifier, for people."""
    cost: str
    """Cost of a query in addition to the training of the classifier, for people."""


def _vlpure(inner: str, *, with_domain: bool = False) -> Callable[[Services], Strategy]:
    """Builder of VLPure in front of a registered strategy."""
    return lambda services: VLPure(
        scorer=services.require_scorer(),
        informativeness=STRATEGIES[inner].build(services),
        options=services.purity,
        with_domain=with_domain,
    )


def _learning_loss(services: Services) -> Strategy:
    return LearningLoss(services.options.learning_loss)


def _loss_prediction(services: Services) -> Target:
    from models.classifier.loss_prediction import LossPredictionTarget

    options = services.options.learning_loss
    return LossPredictionTarget(
        hidden=options.hidden,
        weight=options.weight,
        margin=options.margin,
        detach_after=options.detach_after,
        identity=options.model_dump(mode="json"),
    )


def _coreset(services: Services) -> Strategy:
    from strategies.coreset import Coreset

    return Coreset()


def _balanced_coreset(services: Services) -> Strategy:
    from strategies.coreset import BalancedCoreset

    return BalancedCoreset()


def _badge(services: Services) -> Strategy:
    from strategies.badge import Badge

    return Badge()


def _alphamix(services: Services) -> Strategy:
    return AlphaMix(services.options.alphamix)


def _probcover(services: Services) -> Strategy:
    from strategies.probcover import ProbCover

    encoder = services.contrastive("simclr")
    # The projections, in which SimCLR's loss compares images, not the features before them as in the original code.
    return ProbCover(lambda idx: np.asarray(encoder.projections)[idx], services.options.probcover)


def _pretrained_probcover(services: Services) -> Strategy:
    from strategies.probcover import ProbCover

    features = services.pretrained()
    return ProbCover(features.rows, services.options.probcover)


def _typiclust(services: Services) -> Strategy:
    return TypiClust(services.pretrained().rows)


def _herding(*, weighted: bool) -> Callable[[Services], Strategy]:
    def build(services: Services) -> Strategy:
        from strategies.uherding import UHerding

        return UHerding(services.pretrained().rows, services.options.uherding, weighted=weighted)

    return build


def _neat(*, passive: bool) -> Callable[[Services], Strategy]:
    def build(services: Services) -> Strategy:
        from strategies.neat import Neat

        return Neat(services.pretrained().rows, services.options.neat, passive=passive)

    return build


def _lfosa(services: Services) -> Strategy:
    from strategies.lfosa import Lfosa

    return Lfosa(services.options.lfosa)


def _eaoa(services: Services) -> Strategy:
    from strategies.eaoa import Eaoa

    return Eaoa(services.options.eaoa)


def _bual(services: Services) -> Strategy:
    from strategies.bual import Bual

    return Bual(services.options.bual)


def _poal(_: Services) -> Strategy:
    from strategies.poal import Poal

    return Poal()


def _eoal(services: Services) -> Strategy:
    from strategies.eoal import Eoal

    return Eoal(services.options.eoal)


def _e2oal(*, is_own: bool) -> Callable[[Services], Strategy]:
    def build(services: Services) -> Strategy:
        from strategies.e2oal import E2oal

        return E2oal(services.pretrained().rows, services.options.e2oal, is_own=is_own)

    return build


def _e2oal_target(services: Services) -> Target:
    from strategies.e2oal import E2oalTarget

    return E2oalTarget(services.pretrained().rows, temperature=services.options.e2oal.temperature)


def _mqnet(informativeness: Literal["ll", "conf"]) -> Callable[[Services], Strategy]:
    def build(services: Services) -> Strategy:
        encoder = services.contrastive("csi")
        return Mqnet(lambda: encoder.projections, services.options.mqnet, informativeness=informativeness)

    return build


def _ccal(services: Services) -> Strategy:
    semantic, distinctive = services.contrastive("simclr"), services.contrastive("csi")
    return Ccal(lambda: semantic.view_projections, lambda: distinctive.view_projections, services.options.ccal)


def _dropout(paper_name: str, reference: str, measure: Measure) -> Entry:
    """Entry of Monte-Carlo dropout with the given measure of disagreement."""
    return Entry(
        paper_name=paper_name,
        reference=reference,
        build=lambda services: MonteCarlo(measure, services.options.monte_carlo),
        sections=("monte_carlo",),
        head_dropout=True,
        cost=f"{_ONE_PASS}; one product with its last layer per mask",
    )


def _behind_purity(inner: str, entry: Entry) -> Entry:
    """Entry of VLPure with the given strategy in place of CONF (Table 8)."""
    return replace(
        entry,
        paper_name=f"VLPure-AL + {entry.paper_name}",
        reference=f"VLPure-AL with {entry.paper_name}",
        build=_vlpure(inner),
        uses_purity=True,
        cost=f"{_PURITY}, and {entry.paper_name} on what is left",
    )


_ONE_PASS = "one pass of the classifier over the pool"
_PURITY = "a few matrix products on stored features"

STRATEGIES: dict[str, Entry] = {
    "random": Entry(paper_name="RANDOM", reference="uniform sampling", build=lambda _: Random(), cost="nothing"),
    "conf": Entry(
        paper_name="CONF", reference="Lewis and Gale 1994", build=lambda _: LeastConfidence(), cost=_ONE_PASS
    ),
    "margin": Entry(
        paper_name="MARGIN", reference="Scheffer, Decomain and Wrobel 2001", build=lambda _: Margin(), cost=_ONE_PASS
    ),
    "entropy": Entry(paper_name="ENTROPY", reference="Settles 2009", build=lambda _: Entropy(), cost=_ONE_PASS),
    "ll": Entry(
        paper_name="LL",
        reference="Yoo and Kweon 2019",
        build=_learning_loss,
        sections=("learning_loss",),
        target=_loss_prediction,
        extra_networks="a loss-prediction head, trained with the classifier",
        cost=_ONE_PASS,
    ),
    "coreset": Entry(
        paper_name="CORESET",
        reference="Sener and Savarese 2018",
        build=_coreset,
        cost=f"{_ONE_PASS} and the labelled images; a matrix-vector product per pick",
    ),
    "coreset-balanced": Entry(
        paper_name="CORESET (class-balanced)",
        reference="after Bengar et al. 2022",
        build=_balanced_coreset,
        cost=f"{_ONE_PASS} and the labelled images; a matrix-vector product per pick",
    ),
    "bald": _dropout("BALD", "Houlsby et al. 2011; Gal, Islam and Ghahramani 2017", mutual_information),
    "meanstd": _dropout("MeanSTD", "Kampffmeyer, Salberg and Jenssen 2016", mean_deviation),
    "varratio": _dropout("VarRatio", "Freeman 1965; Gal, Islam and Ghahramani 2017", variation_ratio),
    "badge": Entry(
        paper_name="BADGE",
        reference="Ash et al. 2020",
        build=_badge,
        cost=f"{_ONE_PASS}; two matrix-vector products per pick",
    ),
    "alphamix": Entry(
        paper_name="AlphaMix",
        reference="Parvaneh et al. 2022",
        build=_alphamix,
        sections=("alphamix",),
        cost=f"{_ONE_PASS} and the labelled images; a k-means of the candidates",
    ),
    "probcover": Entry(
        paper_name="ProbCover",
        reference="Yehuda et al. 2022",
        build=_probcover,
        sections=("probcover", "contrastive"),
        extra_networks="a SimCLR encoder, once per data set",
        cost="products of all pool features with each other, in blocks",
    ),
    "probcover-pretrained": Entry(
        paper_name="ProbCover (pre-trained features)",
        reference="Yehuda et al. 2022, on the features of the purity step's image tower",
        build=_pretrained_probcover,
        uses_pretrained=True,
        sections=("probcover",),
        cost="products of all pool features with each other, in blocks",
    ),
    "typiclust": Entry(
        paper_name="TypiClust",
        reference="Hacohen, Dekel and Weinshall 2022, on the features of the purity step's image tower",
        build=_typiclust,
        uses_pretrained=True,
        cost="a k-means of all image features, and distances within its clusters",
    ),
    "uherding": Entry(
        paper_name="UHerding",
        reference="Bae et al. 2025, on the features of the purity step's image tower",
        build=_herding(weighted=True),
        uses_pretrained=True,
        sections=("uherding",),
        cost=f"{_ONE_PASS}; products of all stored features of the pool with each other, in blocks",
    ),
    "maxherding": Entry(
        paper_name="MaxHerding",
        reference="Bae, Noh and Sutherland 2024, on the features of the purity step's image tower",
        build=_herding(weighted=False),
        uses_pretrained=True,
        sections=("uherding",),
        cost="products of all stored features of the pool with each other, in blocks",
    ),
    "lfosa": Entry(
        paper_name="LfOSA",
        reference="Ning et al. 2022",
        build=_lfosa,
        sections=("lfosa",),
        extra_networks="a detector of K + 1 classes, each round",
        cost="one pass of the detector over the pool; a mixture per class",
    ),
    "eoal": Entry(
        paper_name="EOAL",
        reference="Safaei et al. 2024",
        build=_eoal,
        sections=("eoal",),
        extra_networks="a detector of K + 1 classes with K binary heads, each round",
        cost="one pass of the detector over the pool; a clustering of the images predicted known",
    ),
    "eaoa": Entry(
        paper_name="EAOA",
        reference="Zong and Huang 2025",
        build=_eaoa,
        sections=("eaoa",),
        extra_networks="a detector of K + 1 classes with an energy penalty, each round",
        cost=f"{_ONE_PASS}, one of the detector over it and the labelled images; a product of their features",
    ),
    "bual": Entry(
        paper_name="BUAL",
        reference="Zong et al. 2024",
        build=_bual,
        sections=("bual",),
        extra_networks="a detector of K + 1 classes, a classifier, and its negative training, each round",
        cost="a pass over the pool for every 5 epochs of the negative training",
    ),
    "poal": Entry(
        paper_name="POAL",
        reference="Zhan et al. 2022",
        build=_poal,
        cost=f"{_ONE_PASS} and the labelled images; a factorisation of D x D",
    ),
    "e2oal": Entry(
        paper_name="E2OAL",
        reference="Zong et al. 2026",
        build=_e2oal(is_own=False),
        numbers=2,
        uses_pretrained=True,
        sections=("e2oal",),
        extra_networks="a network with a classification and an evidential head, each round",
        cost="some 25 k-means of the labelled images' features; one pass of that network over the pool",
    ),
    "e2oal-own": Entry(
        paper_name="E2OAL (own network judged)",
        reference="Zong et al. 2026; accuracy of its own network, as in its paper",
        build=_e2oal(is_own=True),
        numbers=2,
        uses_pretrained=True,
        sections=("e2oal",),
        target=_e2oal_target,
        extra_networks="none: the classifier itself has both heads and is trained on the labelled OOD images too",
        cost="some 25 k-means of the labelled images' features; one pass of the classifier over the pool",
    ),
    "mqnet": Entry(
        paper_name="MQNet",
        reference="Park et al. 2022",
        build=_mqnet("ll"),
        sections=("mqnet", "learning_loss", "contrastive"),
        target=_loss_prediction,
        extra_networks="a CSI encoder, once per data set; a loss-prediction head; a small meta-network, each round",
        cost=f"{_ONE_PASS}; cosines with the labelled images; the meta-network's training",
    ),
    "mqnet-conf": Entry(
        paper_name="MQNet (CONF)",
        reference="Park et al. 2022",
        build=_mqnet("conf"),
        sections=("mqnet", "contrastive"),
        extra_networks="a CSI encoder, once per data set; a small meta-network, each round",
        cost=f"{_ONE_PASS}; cosines with the labelled images; the meta-network's training",
    ),
    "ccal": Entry(
        paper_name="CCAL",
        reference="Du et al. 2021",
        build=_ccal,
        sections=("ccal", "contrastive"),
        extra_networks="a SimCLR and a CSI encoder, once per data set",
        cost="cosines of 40 views per image, stored once, with the labelled images",
    ),
    "neat": Entry(
        paper_name="NEAT",
        reference="Mao, Xu and Guo 2024, on the features of the purity step's image tower",
        build=_neat(passive=False),
        uses_pretrained=True,
        sections=("neat",),
        cost=f"{_ONE_PASS}; a product of its stored features with those of the labelled images",
    ),
    "neat-passive": Entry(
        paper_name="NEAT (passive)",
        reference="Mao, Xu and Guo 2024: the vote alone",
        build=_neat(passive=True),
        uses_pretrained=True,
        sections=("neat",),
        cost="a product of the pool's stored features with those of the labelled images",
    ),
    "vlpure": Entry(
        paper_name="VLPure-AL",
        reference="VLPure-AL with CONF",
        build=_vlpure("conf"),
        uses_purity=True,
        cost=f"{_PURITY}, and CONF on what is left",
    ),
    "vlpure-domain": Entry(
        paper_name="VLPure-AL (domain prompt)",
        reference="VLPure-AL with CONF and the domain's name in the prompts",
        build=_vlpure("conf", with_domain=True),
        uses_purity=True,
        uses_domain=True,
        cost=f"{_PURITY}, and CONF on what is left",
    ),
}


BEHIND_PURITY = (
    "margin", "entropy", "ll", "coreset", "coreset-balanced", "bald", "meanstd", "varratio", "badge", "alphamix",
    "uherding",
)  # fmt: skip
"""The standard strategies that can stand behind the purity step, as `vlpure-<name>`; CONF does so in `vlpure`."""

STRATEGIES |= {f"vlpure-{name}": _behind_purity(name, STRATEGIES[name]) for name in BEHIND_PURITY}


def _not_loaded(_: Services) -> Strategy:
    raise AssertionError("a strategy whose code was not loaded cannot be built")


FOREIGN = Entry(
    paper_name="not known",
    reference="not known",
    build=_not_loaded,
    extra_networks="not known",
    cost="not known",
)
"""Entry of every strategy from elsewhere whose code is not loaded: it uses no purity and no section of the options."""


def settings_entry(name: str) -> Entry:
    """Entry that lists which settings a strategy reads; the strategy's code is never imported.

    Reports and other readers of records use it: a strategy that is not registered here is only a name to them.
    """
    # Never find_strategy() here: a name in somebody's run folder would then run that person's code.
    return STRATEGIES.get(name, FOREIGN)


def find_strategy(name: str, *, others: Iterable[str] = ()) -> Entry:
    """Entry of a strategy: registered here, offered by an installed package, or `module:Class`.

    Raises ValueError for an unknown name, with the nearest known one (or the nearest of `others`, other names that the
    caller accepts), and for a class that is not a strategy.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    offered = offered_strategies()
    where = offered.get(name, name)
    if ":" not in where:
        raise unknown_name("strategy", name, [*STRATEGIES, *offered, *others])
    found = load_strategy(where)
    return replace(
        FOREIGN,
        paper_name=found.__name__,
        reference=where,
        build=lambda _: make_plugin(found, where),
        source=f"{found.__name__} {source_identity(found)}",
    )


GROUP = "vlpure.strategies"


def offered_strategies() -> dict[str, str]:
    """Names of the strategies that installed packages offer, with the location of each (`module:Class`).

    Raises ValueError if two packages offer different ones under one name.
    """
    offered: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        if offered.setdefault(point.name, point.value) != point.value:
            raise ValueError(
                f"strategy {point.name}: two installed packages offer it ({offered[point.name]} and {point.value}); "
                f"remove one, or name the class itself: --strategies {point.value}"
            )
    return offered
