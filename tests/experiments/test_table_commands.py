"""table5.py to table8.py: what each plans, that they share their trials, and each run for real, small."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from experiments.commands.grid_command import GridCommand
from experiments.presets import ARMS, PRESETS
from orchestrator.settings.grid import TABLES, load_preset, read_yaml
from orchestrator.settings.trial import TrialConfig
from tests.factories import make_captioner

ROOT = Path(__file__).parents[2]
NAMES = (*(f"table{number}" for number in range(4, 9)), "table10")
TINY = ["--set", "recipe.steps=5", "--set", "recipe.width=2", "--set", "recipe.batch_size=8"]
Plan = Callable[..., str]


def command_of(name: str) -> GridCommand:
    command = getattr(importlib.import_module(f"experiments.{name}"), name.upper())
    assert isinstance(command, GridCommand)
    return command


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Plan:
    """What a dry run of a command prints."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(name: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words, "--dry-run"])
        assert importlib.import_module(f"experiments.{name}").main() == 0
        assert not (tmp_path / "runs").exists()
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("name", NAMES)
def test_a_command_is_called_as_its_file(name: str) -> None:
    command = command_of(name)
    assert (command.name, command.title) == (name, f"Table {name.removeprefix('table')}")


def test_table_9_has_zoc_if_a_captioner_is_given(plan: Plan, tmp_path: Path) -> None:
    assert "vlpure-zoc" not in (without := plan("table9", "--preset", "demo", "--seeds", "0"))
    paths = make_captioner(tmp_path)
    words = ("--captioner", paths["captioner"], "--captioner-model", paths["captioner_model"])
    told = plan("table9", "--preset", "demo", "--seeds", "0", *words)
    assert told.count("vlpure-zoc") == 1
    assert "digits: captions for zoc: to be computed first, once (1.26 MB in the cache): time not known yet" in told
    # The others' trials are the same with it: one line for their features, and one trial more.
    assert (without.count("CLIPN's features"), told.count("CLIPN's features")) == (1, 1)
    assert "left: 13 trials" in without
    assert "left: 14 trials" in told


def test_presets_speak_of_tables_and_arms_that_exist() -> None:
    assert set(TABLES) == {*NAMES, "table9", "figures"}
    for path in PRESETS.glob("*.yaml"):
        content = read_yaml(path.read_text(), origin=path.name)
        assert set(content.get("tables", {})) <= set(TABLES)
        assert set(content.get("arms", {})) <= set(ARMS)


@pytest.mark.parametrize("preset", ["demo", "demo-full", "cpu", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_every_table_has_trials_in_every_preset(name: str, preset: str) -> None:
    command = command_of(name)
    grid = load_preset(PRESETS, preset, {"seeds": [0]}, {}, table=name, arms=ARMS)
    rows = command.rows(grid.strategies)
    trials = grid.model_copy(update={"strategies": rows}).arm_trials()
    assert {trial.arm for trial in trials} == set(rows)


def points(name: str) -> set[tuple[str, float, float]]:
    trials = load_preset(PRESETS, "paper", {"seeds": [0]}, {}, table=name, arms=ARMS).trials()
    return {(trial.dataset, trial.mismatch_ratio, trial.ood_ratio) for trial in trials}


def test_the_paper_preset_has_the_papers_conditions() -> None:
    assert {name for name, *_ in points("table5")} == {
        f"domainnet-{domain}" for domain in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
    }
    sets = ("cifar10", "cifar100", "tiny-imagenet")
    assert points("table6") == {(name, ratio, 0.6) for name in sets for ratio in (0.2, 0.3, 0.4)}
    assert points("table7") == points("table8") == {(name, 0.4, ratio) for name in sets for ratio in (0.1, 0.6)}


def test_the_paper_preset_trains_as_the_paper() -> None:
    def trials(name: str, arm: str) -> list[tuple[str, int, int, object, int]]:
        axes = {"seeds": [0], "strategies": [arm], "mismatch_ratios": [0.5 if name == "table5" else 0.4]}
        found = load_preset(PRESETS, "paper", axes, {}, table=name, arms=ARMS).trials()
        return [(t.dataset, t.budget, t.rounds, t.recipe.encoder, t.recipe.num_steps(64)) for t in found]

    assert trials("table6", "vlpure-clip") == [
        ("cifar10", 500, 4, "clipn", 500), ("cifar100", 500, 4, "clipn", 500),
        ("tiny-imagenet", 1000, 4, "clipn", 1000),
    ]  # fmt: skip
    assert set(trials("table5", "vlpure-domain")) == {
        (f"domainnet-{domain}", 50, 10, "timm:vit_base_patch16_224.augreg_in21k", 100)
        for domain in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
    }
    domainnet = load_preset(PRESETS, "domainnet", {}, {}).trials()
    assert set(domainnet) >= set(
        load_preset(PRESETS, "paper", {"strategies": ["random", "vlpure"]}, {}, table="table5").trials()
    )


@pytest.mark.parametrize("preset", ["demo", "demo-full", "cpu", "paper"])
def test_what_tables_7_and_8_have_in_common_with_table_4_is_the_same_trial(preset: str) -> None:
    def trials(table: str) -> set[TrialConfig]:
        axes = {"strategies": ["random", "coreset", "vlpure"]}
        return set(load_preset(PRESETS, preset, axes, {}, table=table, arms=ARMS).trials())

    assert trials("table7") == trials("table8")
    assert trials("table7") < trials("table4") or preset in ("demo", "cpu")
    assert trials("table7") <= trials("table4")


def test_rows(plan: Plan) -> None:
    words = ["--preset", "demo-full", "--seeds", "0", "--mismatch-ratios", "0.4", "--ood-ratios", "0.6"]
    assert "Table 6: 3 trials, 0 finished" in plan("table6", *words)
    assert "Table 7: 12 trials, 0 finished" in plan("table7", *words)  # eight baselines and four of VLPure
    assert "Table 8: 11 trials, 0 finished" in plan("table8", *words)  # eight baselines and three of VLPure
    only = plan("table7", *words, "--strategies", "conf,vlpure-bare")
    assert "Table 7: 2 trials, 0 finished" in only


def test_lite_is_the_first_seed_of_every_cell(plan: Plan) -> None:
    whole = plan("table4", "--preset", "demo-full", "--seeds", "0")
    assert "Table 4: 36 trials, 0 finished" in whole  # nine strategies in four conditions
    assert plan("table4", "--preset", "demo-full", "--lite") == whole
    assert plan("table4", "--preset", "demo-full", "--seeds", "1") != whole


def run(name: str, output: Path, cache: Path, *words: str) -> str:
    """What a command prints that ends well."""
    result = subprocess.run(
        [sys.executable, f"experiments/{name}.py", "--preset", "demo", "--address", "local", "-o", str(output), *words],
        cwd=ROOT,
        env=os.environ | {"VLPURE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tables_share_one_folder_and_run_a_common_trial_once(tmp_path: Path, shared_cache: Path) -> None:
    words = [
        "--ood-ratios",
        "0.6",
        "--mismatch-ratios",
        "0.4",
        "--seeds",
        "0-1",
        "--rounds",
        "2",
        "--no-tracking",
        *TINY,
    ]
    seventh = run("table7", tmp_path / "run", shared_cache, *words, "--strategies", "random,vlpure,vlpure-bare")
    assert "6 trials, 0 finished, 6 to run" in seventh
    assert "fixed scale, no visual weights (vlpure-bare)" in seventh
    eighth = run("table8", tmp_path / "run", shared_cache, *words, "--strategies", "random,conf,vlpure")
    assert "6 trials, 4 finished, 2 to run" in eighth  # RANDOM and VLPure are there
    assert "vlpure - conf" in eighth
    sixth = run("table6", tmp_path / "run", shared_cache, *words)
    assert "6 trials, 0 finished, 6 to run (8 rounds)" in sixth
    assert "zero-shot" in sixth
    for name, num_trials in (("table6", 6), ("table7", 6), ("table8", 6)):
        trials = pd.read_csv(tmp_path / "run" / name / "trials.csv")
        assert trials["status"].tolist() == ["finished"] * num_trials
        assert (tmp_path / "run" / name / f"{name}.md").read_text().startswith(f"# Table {name[-1]}\n")
    assert len(list((tmp_path / "run" / "ledger").glob("*.json"))) == 6 + 2 + 6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_table_5_on_drawings(tmp_path: Path, shared_cache: Path) -> None:
    def call(*words: str) -> None:
        subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=os.environ | {"VLPURE_CACHE": str(shared_cache)}, check=True,
            capture_output=True, timeout=400,
        )  # fmt: skip

    images, clipn = tmp_path / "images", tmp_path / "clipn"
    call("-m", "data.drawings", str(images), "--num-train", "6", "--num-test", "2")
    call(
        "experiments/train_clipn.py", "--dataset", f"folder:{images / 'drawings'}", "--steps-clip", "4", "--steps-no",
        "2", "--feature-passes", "1", "-o", f"{clipn}.pt",
    )  # fmt: skip
    out = run(
        "table5", tmp_path / "run", shared_cache, "--data-root", str(images), "--clipn-checkpoint", f"{clipn}.pt",
        "--clip-model", f"{clipn}.json", "--datasets", "domainnet-sketch", "--strategies",
        "random,vlpure,vlpure-domain", "--seeds", "0", "--rounds", "2", "--no-tracking",
    )  # fmt: skip
    assert "3 trials, 0 finished, 3 to run (6 rounds)" in out
    trials = pd.read_csv(tmp_path / "run" / "table5" / "trials.csv")
    assert trials["strategy"].tolist() == ["random", "vlpure", "vlpure-domain"]
    assert trials["fingerprint"].nunique() == 3
