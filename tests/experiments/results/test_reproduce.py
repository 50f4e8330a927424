"""The command that reruns a trial: parsed as trial.py parses it, it has the same fingerprint."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from experiments import trial as command
from experiments.commands.flags import trial_overrides
from experiments.presets import PRESETS
from experiments.results.reproduce import trial_command
from orchestrator.settings.grid import load_preset
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig

AXES: dict[str, Any] = {"mismatch_ratio": 0.2, "ood_ratio": 0.6, "seed": 3}


def parsed(line: str) -> TrialConfig:
    """The trial that trial.py makes of a command line."""
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", "experiments/trial.py")
    args = command.make_parser().parse_args(words)
    (trial,) = command._grid(args).trials(trial_overrides(args))
    return trial


def fingerprint(trial: TrialConfig) -> str:
    """What identifies a trial on some data with some CLIPN."""
    return trial.fingerprint(data_fingerprint="data", clipn_identity="clipn")


SETTINGS = {
    "all defaults": {"dataset": "cifar10", "strategy": "random"},
    "a preset's recipe with a change": {
        "dataset": "digits",
        "strategy": "vlpure",
        "recipe": {"name": "demo", "steps": 7},
    },
    "switches of the purity step": {
        "dataset": "cifar100",
        "strategy": "vlpure",
        "purity": {"self_temperature": False, "visual_similarity": False, "fixed_scale": 2.5},
    },
    "passes in place of steps": {"dataset": "cifar10", "strategy": "conf", "recipe": {"epochs": 3}},
    "passes and steps": {"dataset": "cifar10", "strategy": "conf", "recipe": {"epochs": 3, "steps": 77}},
    "another recipe": {"dataset": "cifar10", "strategy": "conf", "recipe": {"name": "paper-clip-linear"}},
    "named ID classes": {
        "dataset": "folder:pets",
        "strategy": "vlpure",
        "mismatch_ratio": None,
        "ood_ratio": "all",
        "id_classes": ["egret, white", "dog"],
    },
    "a share at the start": {
        "dataset": "cifar10",
        "strategy": "conf",
        "initial_share": 0.01,
        "class_draw": "open-set-annotation",
    },
    "a domain": {"dataset": "domainnet-real", "strategy": "vlpure-domain", "recipe": {"name": "paper-domainnet"}},
    "milestones": {"dataset": "cifar10", "strategy": "conf", "recipe": {"milestones": [0.1, 0.2, 0.9]}},
    "paths that a shell and YAML would take apart": {
        "dataset": "folder:/tmp/my images",
        "strategy": "vlpure",
        "data_root": "/tmp/a b",
        "clipn": {"checkpoint": "it's: [1].pt", "model": "null", "domain": "1e3"},
    },
    "options": {"dataset": "cifar10", "strategy": "mqnet", "options": {"mqnet": {"target_passes": None, "epochs": 2}}},
    "all labels": {"dataset": "cifar10", "strategy": "random", "rounds": 1, "full_data": True},
    "no labels": {"dataset": "digits", "strategy": "random", "rounds": 1, "recipe": {"name": "zero-shot"}},
    "a detection trial": {
        "dataset": "digits",
        "strategy": "vlpure",
        "rounds": 2,
        "purity": {"detector": "probe", "probe": {"folds": 3}},
        "detection": {"labels": [0, 15]},
    },
    "negative words": {
        "dataset": "digits",
        "strategy": "vlpure",
        "purity": {"detector": "neglabel", "words": {"share": 0.15, "groups": 100, "leave_out": ["animal", "food"]}},
    },
    "flags": {"dataset": "cifar10", "strategy": "ll", "rounds": 3, "budget": 40, "on_bad_image": "skip"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_the_command_gives_the_trial_back(settings: dict[str, Any]) -> None:
    trial = make_trial(**(AXES | settings))
    again = parsed(trial_command(trial))
    assert fingerprint(again) == fingerprint(trial)
    assert (again.label, again.rounds, again.data_root) == (trial.label, trial.rounds, trial.data_root)
    if trial.uses_clipn:
        assert again.clipn == trial.clipn


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_trial_of_a_preset_is_given_back(preset: str) -> None:
    for trial in load_preset(PRESETS, preset, {"seeds": (2,), "ood_ratios": (0.2,)}, {}).trials():
        line = trial_command(trial)
        assert fingerprint(parsed(line)) == fingerprint(trial)
        assert f"--preset {preset}" in line
        assert "--set" not in line


def test_only_what_differs_is_said() -> None:
    trial = make_trial(
        **AXES, dataset="digits", strategy="vlpure", rounds=6, budget=20, recipe={"name": "demo", "steps": 7}
    )
    assert trial_command(trial) == (
        "python experiments/trial.py --dataset digits --mismatch-ratio 0.2 --ood-ratio 0.6 --strategy vlpure --seed 3 "
        "--preset demo-full --set recipe.steps=7"
    )
