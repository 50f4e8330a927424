"""Every strategy by name, with the paper's name for it and its reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data.naming import unknown_name
from strategies.base import Strategy
from strategies.confidence import LeastConfidence
from strategies.options import StrategyOptions
from strategies.random import Random
from strategies.scorer import PurityOptions, PurityScorer
from strategies.vlpure import VLPure


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a strategy may be built from."""

    scorer: PurityScorer | None
    purity: PurityOptions
    options: StrategyOptions

    def require_scorer(self) -> PurityScorer:
        """The purity scorer; the caller of a strategy that uses purity always gives one."""
        assert self.scorer is not None, "a strategy that uses purity was built without a scorer"
        return self.scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A registered strategy."""

    paper_name: str
    """As tables show it."""
    reference: str
    build: Callable[[Services], Strategy]
    """Makes the strategy. Modules that need torch are imported inside, so that planning does without."""
    uses_purity: bool = False
    """Whether it asks a purity scorer, so that CLIPN and the purity options change its numbers."""
    uses_domain: bool = False
    """Whether it puts the data set's domain into its prompts, so that it needs a data set that has one."""
    sections: tuple[str, ...] = ()
    """The sections of `StrategyOptions` that change its numbers."""
    loss_prediction: bool = False
    """Whether the round's classifier is trained with a head that predicts its losses."""
    head_dropout: bool = False
    """Whether the round's classifier is trained with dropout before its last layer."""
    extra_networks: str = "none"
    """For people: what is trained beside the classifier."""
    cost: str
    """For people: what a query costs, beside the training of the classifier."""


def _vlpure(inner: str, *, with_domain: bool = False) -> Callable[[Services], Strategy]:
    """VLPure in front of a registered strategy."""
    return lambda services: VLPure(
        scorer=services.require_scorer(),
        informativeness=STRATEGIES[inner].build(services),
        options=services.purity,
        with_domain=with_domain,
    )


_ONE_PASS = "one pass of the classifier over the pool"
_PURITY = "a few matrix products on stored features"

STRATEGIES: dict[str, Entry] = {
    "random": Entry(paper_name="RANDOM", reference="uniform sampling", build=lambda _: Random(), cost="nothing"),
    "conf": Entry(
        paper_name="CONF", reference="Lewis and Gale 1994", build=lambda _: LeastConfidence(), cost=_ONE_PASS
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


def find_strategy(name: str) -> Entry:
    """The entry of a strategy. Raises ValueError for an unknown name, with the nearest known one."""
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    return STRATEGIES[name]
