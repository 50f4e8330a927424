"""The folder of the presets (YAML), and the arms that tables and figures add to the plain strategies, by name.

`--strategies conf,id-only,zero-shot` names two of these arms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strategies.purity.detectors import DETECTORS

PRESETS = Path(__file__).parent

OTHER_DETECTORS = tuple(name for name in DETECTORS if name != "atd")
"""All purity detectors except the paper's, which `vlpure` has."""


def _detector(name: str) -> dict[str, Any]:
    """The purity settings of an arm with that detector.

    Visual weights are stated where there are none: an arm is told from the others by what it states, and
    `vlpure-no-visual` states as much of them.
    """
    return {"detector": name} | ({} if DETECTORS[name].takes_weights else {"visual_similarity": False})


ARMS: dict[str, dict[str, Any]] = {
    # Reference runs: the results of a perfect purity step, of all labels, and of no label at all.
    "id-only": {"strategy": "conf", "ood_ratio": 0.0},
    "full-data": {"strategy": "random", "full_data": True, "ood_ratio": 0.0, "rounds": 1},
    "zero-shot": {
        "strategy": "random", "ood_ratio": 0.0, "rounds": 1, "recipe": {"name": "zero-shot", "precision": "fp32"},
    },
    "linear-probe": {
        "strategy": "random", "full_data": True, "ood_ratio": 0.0, "rounds": 1, "recipe": {"name": "paper-clip-linear"},
    },
    # Table 6: VLPure with a linear head on CLIPN's image tower as the classifier.
    "vlpure-clip": {"strategy": "vlpure", "recipe": {"name": "paper-clip-linear"}},
    # Table 7: VLPure without one of its parts, or without both.
    "vlpure-fixed-scale": {"strategy": "vlpure", "purity": {"self_temperature": False}},
    "vlpure-no-visual": {"strategy": "vlpure", "purity": {"visual_similarity": False}},
    "vlpure-bare": {"strategy": "vlpure", "purity": {"self_temperature": False, "visual_similarity": False}},
    # Table 9: VLPure with another detector in place of ATD with visual weights.
    **{f"vlpure-{name}": {"strategy": "vlpure", "purity": _detector(name)} for name in OTHER_DETECTORS},
}  # fmt: skip
