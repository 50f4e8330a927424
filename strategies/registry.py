"""Every strategy by name, with the paper's name for it and its reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data.naming import unknown_name
from strategies.base import Strategy
from strategies.confidence import LeastConfidence
from strategies.random import Random
from strategies.scorer import PurityOptions, PurityScorer
from strategies.vlpure import VLPure


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a strategy may be built from."""

    scorer: PurityScorer | None
    purity: PurityOptions

    def require_scorer(self) -> PurityScorer:
        """The purity scorer; the caller of a strategy that uses purity always gives one."""
        assert self.scorer is not None, "a strategy that uses purity was built without a scorer"
        return self.scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A registered strategy."""

    paper_name: str
    reference: str
    build: Callable[[Services], Strategy]
    uses_purity: bool = False
    """Whether it asks a purity scorer, so that CLIPN and the purity options change its numbers."""


def _vlpure(informativeness: Callable[[], Strategy]) -> Callable[[Services], Strategy]:
    return lambda services: VLPure(
        scorer=services.require_scorer(), informativeness=informativeness(), options=services.purity
    )


STRATEGIES: dict[str, Entry] = {
    "random": Entry(paper_name="RANDOM", reference="uniform sampling", build=lambda _: Random()),
    "conf": Entry(paper_name="CONF", reference="Lewis and Gale 1994", build=lambda _: LeastConfidence()),
    "vlpure": Entry(
        paper_name="VLPure-AL", reference="VLPure-AL with CONF", build=_vlpure(LeastConfidence), uses_purity=True
    ),
}


def find_strategy(name: str) -> Entry:
    """The entry of a strategy. Raises ValueError for an unknown name, with the nearest known one."""
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    return STRATEGIES[name]
