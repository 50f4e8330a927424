"""Which settings of the trials are not the paper's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from data.registry import split_protocol_of
from experiments.flags import PRESETS
from experiments.reporting.formats import join
from experiments.reporting.statistics import unique
from orchestrator.grid import load_preset
from strategies.registry import find_strategy

OF_NO_NUMBER = ("data_root", "on_bad_image", "dataset", "seed", "mismatch_ratio", "ood_ratio", "strategy")
"""Settings that are axes, or change no number."""
OF_WEIGHTS = ("clipn.checkpoint", "clipn.pretrained", "clipn.model", "clipn.templates")
"""Which CLIPN: said in words."""
PAPER_DATASETS = ("cifar10", "cifar100", "tiny-imagenet")

Settings = Mapping[str, Any]


def departures(trials: Sequence[tuple[str, Settings]]) -> list[str]:
    """What differs from the paper's recipe (preset `paper`, for DomainNet `domainnet`), a line a setting.

    `trials` are (row, settings as the ledger keeps them). Of the strategies' options only those that a trial reads
    count. Where only some rows depart, they are named.
    """
    found: dict[str, list[str]] = {}
    rows = unique(row for row, _ in trials)
    for row, settings in trials:
        for line in _departures_of(json.dumps({**settings, "seed": 0})):
            if row not in found.setdefault(line, []):
                found[line].append(row)
    others = [name for name in unique(str(settings["dataset"]) for _, settings in trials) if not _is_in_paper(name)]
    lines = [f"{name} is no data set of the paper" for name in others]
    return lines + [line if len(of) == len(rows) else f"{line} ({join(of)})" for line, of in found.items()]


@lru_cache(maxsize=4096)
def _departures_of(settings_text: str) -> tuple[str, ...]:
    settings = json.loads(settings_text)
    paper = _paper_settings(str(settings["dataset"]))
    lines = []
    for path, value in _leaves(settings):
        name = ".".join(path)
        if path[0] in OF_NO_NUMBER or name in OF_WEIGHTS or not _is_read(path, settings):
            continue
        of_paper = _at(paper, path)
        if value != of_paper:
            lines.append(f"{name} {_text(value)} (paper: {_text(of_paper)})")
    if _reads_clipn(settings):
        lines += _weights_line(settings["clipn"])
    return tuple(lines)


def _weights_line(clipn: Settings) -> list[str]:
    """Whether CLIPN's weights are of the published kind."""
    if clipn["pretrained"] is not None:
        return [f"the plain CLIP {clipn['pretrained']} in place of CLIPN"]
    if clipn["checkpoint"] is None:
        return ["a small stand-in in place of CLIPN"]
    return [] if clipn["model"] == "ViT-B-16" else [f"CLIPN of {clipn['model']} (paper: ViT-B-16)"]


@lru_cache(maxsize=64)
def _paper_settings(dataset: str) -> Settings:
    """All settings of the paper's trials on a data set; for one it does not have, those of CIFAR-10."""
    is_domain = split_protocol_of(dataset) == "domain"
    known = dataset if _is_in_paper(dataset) else "cifar10"
    axes = {
        "datasets": (known,), "mismatch_ratios": (0.5,), "ood_ratios": (0.5,), "strategies": ("random",), "seeds": (0,),
    }  # fmt: skip
    (trial,) = load_preset(PRESETS, "domainnet" if is_domain else "paper", axes, {}).trials()
    settings: Settings = trial.model_dump(mode="json")
    return settings


def _is_in_paper(dataset: str) -> bool:
    return dataset in PAPER_DATASETS or split_protocol_of(dataset) == "domain"


def _is_read(path: Sequence[str], settings: Settings) -> bool:
    """Whether the trial reads a setting."""
    if path[0] == "options":
        return path[1] in find_strategy(settings["strategy"]).sections
    if path[0] == "num_id_classes":
        return split_protocol_of(settings["dataset"]) == "domain"
    if path[0] == "purity":
        return find_strategy(settings["strategy"]).uses_purity
    if path[0] == "clipn":
        return _reads_clipn(settings)
    return path[-1] != "eval_batch_size"


def _reads_clipn(settings: Settings) -> bool:
    return find_strategy(settings["strategy"]).uses_purity or settings["recipe"]["encoder"] == "clipn"


def _leaves(settings: Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _at(settings: Settings, path: Sequence[str]) -> Any:
    value: Any = settings
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    return join(map(str, value)) if isinstance(value, list) else str(value)
