"""Writes docs/strategies.md from the registry and the strategies' own docstrings: `make docs`."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any, cast

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from strategies.options import StrategyOptions
from strategies.originals import DEFECTS, LEFT_OUT
from strategies.purity.contract import PurityOptions
from strategies.purity.detectors import DETECTORS
from strategies.registry import BEHIND_PURITY, STRATEGIES, Entry, FrozenFeatures, Services

PAGE = Path(__file__).resolve().parents[2] / "docs" / "strategies.md"
HEAD = """# Strategies

Made from the code by `make docs`; not written by hand. Names are those of `--strategies`. Settings are changed with
`--set options.<section>.<field>=<value>`; the fields stand in `strategies/options.py`. A strategy's numeric core is
compared with numbers of the original code in `tests/strategies` (`tests/golden/strategies/README.md` says which).

"Leaks and defects of the official code": what was found in the code that the authors published, or in OpenAL, the
framework behind the paper's tables; [run]: seen by running it, [read]: by reading it. A leak is a hidden label that a
query or its training reads. No strategy here can: the view of the pool that it gets holds none.

K: ID classes. Every strategy shares the round's classifier, its pass over the pool, and the tie rule: to the lowest
index.
"""

LEFT_OUT_HEAD = """## Strategies that are not here

"""


DETECTORS_HEAD = """# Purity detectors

Names are those of `--purity`; `vlpure-<detector>` names VLPure with it in a table, and `table9.py` compares them as
labels are bought. A detector without a rule of its own judges by a threshold, learnt on the labelled images (on scores
that were held out, if it learns from images); without labelled OOD images it keeps 95 % of the labelled ID images.
Settings: `strategies/purity/contract.py`. Costs are those beside image features that are stored once. Leaks and defects
of the original codes are named if these were read; none is repeated. None of them reads a label that was not bought.

Detectors without "no" texts run on any model of open_clip (`--clip-model NAME --clip-pretrained TAG`). A logit bias, as
SigLIP has it, is not used: it is the same for all texts, so it cancels in mcm, neglabel and tanl, and moves energy's
scores and their threshold alike. The logit scale of neglabel and tanl is the model's own.

Measured by `benchmarks/detectors.py` (25,000 images, 5,000 labelled, D = 512, K = 40, one thread of an AMD EPYC,
n = 1): CPU seconds of a round and MiB above the features.

| atd | mcm | energy | maxlogit | knn | probe | mahalanobis | relative-mahalanobis | fused | neglabel |
|---|---|---|---|---|---|---|---|---|---|
| 4.6 | 0.7 | 1.6 | 0.01 | 1.7 | 2.6 | 1.1 | 2.0 | 5.9 | 0.05, after 52 for each new set of classes (all 70,000 words) |
| 41 | 81 | 63 | < 1 | 244 | 300 | 436 | 494 | 378 | 1,063 |
"""
NEEDS = {
    "text": "texts of the classes (any model of open_clip)",
    "no text": '"no" texts (a CLIPN)',
    "labels": "labelled images",
    "words": "a list of negative words (shipped)",
    "captioner": "a captioner (`--captioner`, a CoCa of open_clip)",
}


class Nobody:
    """A stand-in for services that a strategy stores when it is built, but does not use."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"building a strategy asked for {name}")


def page() -> str:
    """The text of the whole page."""
    parts = [HEAD]
    for name, entry in STRATEGIES.items():
        if name.removeprefix("vlpure-") not in BEHIND_PURITY or name in BEHIND_PURITY:
            parts.append(_section(name, entry))
    behind = ", ".join(f"`vlpure-{name}`" for name in BEHIND_PURITY)
    parts.append(
        "## VLPure in front of other strategies\n\n"
        f"{behind}: the purity step as in `vlpure`, then that strategy on the "
        "images judged ID. Table 8 of the paper is `vlpure`, `vlpure-ll` and `vlpure-coreset`.\n"
    )
    parts.append(LEFT_OUT_HEAD + "".join(f"- {name}: {why}.\n" for name, why in LEFT_OUT.items()))
    return "\n".join([*parts, DETECTORS_HEAD, *(_detector(name) for name in DETECTORS)])


def _detector(name: str) -> str:
    """What the page says of one purity detector."""
    detector = DETECTORS[name]
    rows = [
        ("needs", ", ".join(NEEDS[need] for need in NEEDS if need in detector.needs)),
        ("learns from the labels", detector.learns),
        ("visual similarity weights", "on or off" if detector.takes_weights else "none"),
        ("a round costs", detector.cost),
        ("source", detector.source),
        ("settings", ", ".join(f"`purity.{section}`" for section in detector.sections) or "none of its own"),
        ("departures", detector.departures),
        ("leaks and defects of its original code", detector.defects),
    ]
    table = "\n".join(f"| {left} | {right} |" for left, right in rows)
    return f"### `{name}`\n\n| | |\n|---|---|\n{table}\n"


def _section(name: str, entry: Entry) -> str:
    """The page's section on one strategy."""
    what, departures = _told(entry)
    options = ", ".join(f"`{section}`" for section in entry.sections) or "none"
    rows = [
        ("in the paper", entry.paper_name),
        ("reference", entry.reference),
        ("networks of its own", entry.extra_networks),
        ("a query costs", entry.cost),
        ("settings", options),
        ("departures", departures),
        ("leaks and defects of the official code", DEFECTS[name]),
    ]
    table = "\n".join(f"| {left} | {right} |" for left, right in rows)
    return f"## `{name}`\n\n{what}\n\n| | |\n|---|---|\n{table}\n"


def _told(entry: Entry) -> tuple[str, str]:
    """The first sentence of the class's docstring, and its departures from the original."""
    nobody = cast(Any, Nobody())
    services = Services(
        scorer=nobody,
        purity=PurityOptions(),
        options=StrategyOptions(),
        contrastive=lambda method: nobody,
        pretrained=lambda: FrozenFeatures(scorer=nobody, data_fingerprint=""),
    )
    text = " ".join((inspect.getdoc(type(entry.build(services))) or "").split())
    found = re.search(r"Departures?( from [^:]*)?: (.*)", text)
    departures = ": ".join(part.strip() for part in found.groups() if part) if found else "none"
    # "Eq. 4" ends no sentence.
    return re.split(r"(?<!Eq)\. ", text)[0].rstrip(".") + ".", departures[0].upper() + departures[1:]


def main() -> int:
    """Write the page, and return the exit code."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
