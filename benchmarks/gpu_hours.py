"""Card-hours of the paper's tables by part, from measured rates."""

from __future__ import annotations

from collections import defaultdict

from experiments.commands.grid_command import GridCommand
from experiments.commands.rates import GpuRates
from experiments.presets import ARMS, PRESETS
from experiments.table4 import TABLE4
from experiments.table5 import TABLE5
from experiments.table6 import TABLE6
from experiments.table7 import TABLE7
from experiments.table8 import TABLE8
from orchestrator.settings.grid import load_preset
from orchestrator.settings.trial import TrialConfig
from strategies.registry import find_strategy

DATA = {"cifar10": (32, 50_000), "cifar100": (32, 50_000), "tiny-imagenet": (64, 100_000)}
"""Pixels a side and training images; the DomainNet domains of Table 5 are looked at through stored features."""
DOMAINNET = (224, 65_000)
"""Pixels and training images of a domain, on average."""


def paper_hours(rates: GpuRates, *, at_once: int = 4) -> dict[str, dict[str, float]]:
    """By table: card-hours of its parts with the preset `paper`, each table on its own.

    A condition's first classifier is trained once for all strategies of a seed that start from the same, a contrastive
    encoder once for each data set. Not counted: computing image features, which takes minutes, and the clustering of
    EOAL and the meta-network of MQNet, which compute on the CPU.
    """
    commands = (TABLE4, TABLE5, TABLE6, TABLE7, TABLE8)
    return {command.title: _table_hours(command, rates, at_once) for command in commands}


def _table_hours(command: GridCommand, rates: GpuRates, at_once: int) -> dict[str, float]:
    grid = load_preset(PRESETS, "paper", {}, {}, table=command.name, arms=ARMS)
    grid = grid.model_copy(update={"strategies": command.rows(grid.strategies)})
    seconds: defaultdict[str, float] = defaultdict(float)
    firsts: set[str] = set()
    encoders: set[str] = set()
    for trial in grid.trials():
        pixels, num_images = DATA.get(trial.dataset, DOMAINNET)
        for number in range(trial.rounds):
            if number == 0 and _first(trial) in firsts:
                continue
            firsts.add(_first(trial))
            parts = rates.round_seconds(trial, number, pixels=pixels, num_images=num_images, at_once=at_once)
            if trial.recipe.network != "resnet18":
                parts["passes"] = 0.0  # of a linear head over stored features
            parts[f"classifiers, {pixels} pixels"] = parts.pop("classifiers")
            for part, value in parts.items():
                seconds[part] += value
        if trial.dataset not in encoders and rates.encoder_seconds(trial, pixels=pixels, num_images=num_images):
            encoders.add(trial.dataset)
            seconds["encoders"] += rates.encoder_seconds(trial, pixels=pixels, num_images=num_images)
    return {part: value / 3600 for part, value in seconds.items() if value}


def _first(trial: TrialConfig) -> str:
    """What decides the classifier of round 0."""
    entry = find_strategy(trial.strategy)
    return str((trial.dataset, trial.split_identity(), trial.seed, trial.recipe, entry.target, entry.head_dropout))
