"""The settings of trials that differ from the paper's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from data.registry import split_protocol_of
from experiments.presets import PRESETS
from experiments.results.statistics import unique
from orchestrator.settings.grid import load_preset
from orchestrator.settings.trial import TrialConfig, flat

AXES = ("dataset", "seed", "mismatch_ratio", "id_classes", "ood_ratio", "strategy")
"""Settings that are not departures: a table has a cell or a row for each."""
OF_WEIGHTS = ("clipn.checkpoint", "clipn.pretrained", "clipn.model", "clipn.templates")
"""Settings that choose the CLIPN, which are described in words."""
PAPER_DATASETS = ("cifar10", "cifar100", "tiny-imagenet")

Settings = Mapping[str, Any]


def departures(trials: Sequence[tuple[str, Settings]]) -> list[str]:
    """The differences from the paper's recipe (preset `paper`, for DomainNet `domainnet`), one line per setting.

    `trials` are (row, settings as the ledger keeps them). Of the strategies' options only those that a trial reads
    count. If only some rows differ, they are named.
    """
    found: dict[str, list[str]] = {}
    rows = unique(row for row, _ in trials)
    for row, settings in trials:
        # Seed 0 for all: one entry of the cache serves all seeds of a row.
        for line in _departures_of(json.dumps({**settings, "seed": 0})):
            if row not in found.setdefault(line, []):
                found[line].append(row)
    others = [name for name in unique(str(settings["dataset"]) for _, settings in trials) if not _is_in_paper(name)]
    lines = [f"{name} is not a data set of the paper" for name in others]
    return lines + [line if len(of) == len(rows) else f"{line} ({', '.join(of)})" for line, of in found.items()]


@lru_cache(maxsize=4096)
def _departures_of(settings_text: str) -> tuple[str, ...]:
    trial = TrialConfig.model_validate_json(settings_text)
    paper = _paper_settings(trial.dataset)
    lines = [
        f"{name} {_text(value)} (paper: {_text(paper.get(name))})"
        for name, value in ({"rounds": trial.rounds} | trial.settings_read()).items()
        if name not in AXES and name not in OF_WEIGHTS and value != paper.get(name)
    ]
    if trial.uses_clipn:
        lines += _weights_line(json.loads(settings_text)["clipn"])
    return tuple(lines)


def _weights_line(clipn: Settings) -> list[str]:
    """One line if CLIPN's weights are not of the published kind, else no line."""
    if clipn["pretrained"] is not None:
        return [f"the plain CLIP {clipn['pretrained']} in place of CLIPN"]
    if clipn["checkpoint"] is None:
        return ["a small stand-in in place of CLIPN"]
    return [] if clipn["model"] == "ViT-B-16" else [f"CLIPN of {clipn['model']} (paper: ViT-B-16)"]


@lru_cache(maxsize=64)
def _paper_settings(dataset: str) -> Settings:
    """All settings of the paper's trials on a data set; those on CIFAR-10 for a data set that is not in the paper."""
    is_domain = split_protocol_of(dataset) == "domain"
    known = dataset if _is_in_paper(dataset) else "cifar10"
    axes = {
        "datasets": (known,), "mismatch_ratios": (0.5,), "ood_ratios": (0.5,), "strategies": ("random",), "seeds": (0,),
    }  # fmt: skip
    (trial,) = load_preset(PRESETS, "domainnet" if is_domain else "paper", axes, {}).trials()
    return flat(trial.model_dump(mode="json"))


def _is_in_paper(dataset: str) -> bool:
    return dataset in PAPER_DATASETS or split_protocol_of(dataset) == "domain"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
