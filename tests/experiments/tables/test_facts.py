"""The honesty box: machines, code, departures from the paper."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.results.departures import departures
from experiments.results.details import TrialDetails
from experiments.tables.facts import departure_facts, machine_facts, seed_facts
from orchestrator.settings.reading import make_trial

CPU = {"device": "Some CPU", "threads": 1, "torch": "2.11.0", "python": "3.11.9", "gpus": 0}
GPU = CPU | {
    "device": "Some GPU",
    "threads": 2,
    "gpus": 0.25,
    "version": "0.1.0",
    "commit": "abc",
    "host": "far-away",
    "node": "6e0b3001",
}


def settings(dataset: str = "cifar10", strategy: str = "random", **changes: Any) -> dict[str, Any]:
    """The settings of a trial, as the ledger keeps them."""
    trial = make_trial(dataset=dataset, mismatch_ratio=0.2, ood_ratio=0.6, strategy=strategy, seed=0, **changes)
    return trial.model_dump(mode="json")


PAPER = {"recipe": {"name": "paper-cifar", "precision": "bf16"}}
CHECKPOINT = {"clipn": {"checkpoint": "clipn.pt"}}


def test_the_papers_settings_depart_in_nothing() -> None:
    tiny = PAPER | {"budget": 1000, "recipe": {"name": "paper-tiny", "precision": "bf16"}}
    domain = {"budget": 50, "recipe": {"name": "paper-domainnet"}}
    assert departures(
        [
            ("random", settings(**PAPER)),
            ("vlpure", settings(strategy="vlpure", **PAPER, **CHECKPOINT)),
            ("random", settings("tiny-imagenet", **tiny)),
            ("random", settings("domainnet-real", **domain)),
        ]
    ) == []  # fmt: skip


def test_departures_name_setting_value_and_rows() -> None:
    found = departures(
        [
            ("random", settings("digits", rounds=6, budget=20, **PAPER)),
            ("vlpure", settings("digits", "vlpure", rounds=6, budget=20, purity={"visual_similarity": False}, **PAPER)),
        ]
    )
    assert found == [
        "digits is not a data set of the paper",
        "rounds 6 (paper: 10)",
        "budget 20 (paper: 500)",
        "purity.visual_similarity off (paper: on) (vlpure)",
        "a small stand-in in place of CLIPN (vlpure)",
    ]


def test_another_recipe_is_a_departure() -> None:
    shorter = {"recipe": {"name": "paper-cifar", "precision": "fp32", "steps": 300}}
    assert departures([("random", settings(**shorter))]) == [
        "recipe.steps 300 (paper: 20000)",
        "recipe.precision fp32 (paper: bf16)",
    ]


def test_options_that_a_strategy_does_not_read_are_no_departure() -> None:
    options = {"lfosa": {"epochs": 5}}
    assert departures([("random", settings(options=options, **PAPER))]) == []
    assert departures([("lfosa", settings(strategy="lfosa", options=options, **PAPER))]) == [
        "options.lfosa.epochs 5 (paper: 100)"
    ]


def test_other_weights_are_said_in_words() -> None:
    plain = {"clipn": {"pretrained": "openai"}, "purity": {"detector": "mcm"}}
    small = {"clipn": {"checkpoint": "x.pt", "model": "ViT-B-32"}}
    assert "the plain CLIP openai in place of CLIPN" in departures(
        [("v", settings(strategy="vlpure", **PAPER, **plain))]
    )
    assert departures([("v", settings(strategy="vlpure", **PAPER, **small))]) == ["CLIPN of ViT-B-32 (paper: ViT-B-16)"]


def texts(facts: list[Any]) -> dict[str, str]:
    """Name -> text."""
    return {fact.name: fact.text for fact in facts}


def test_machines_and_code_are_counted_by_trials() -> None:
    details = {
        "a": TrialDetails(environments=(CPU,)),
        "b": TrialDetails(environments=(CPU, GPU)),
        "c": TrialDetails(environments=(CPU,)),
        "d": TrialDetails(),
    }
    assert texts(machine_facts(details)) == {
        "Hardware": "Some CPU (1 thread): 3 of 3 trials; Some GPU (2 threads, 0.25 of a GPU): 1 of 3 trials.",
        "Software": "torch 2.11.0, python 3.11.9.",
        "Code": "not recorded: 3 of 3 trials; version 0.1.0, commit abc: 1 of 3 trials.",
    }
    assert texts(machine_facts({"d": TrialDetails()})) == {"Machines": "not known: no record names its machine."}


def frame(**columns: list[Any]) -> pd.DataFrame:
    """Trials of one condition."""
    rows = len(columns["fingerprint"])
    shared = {"dataset": "cifar10", "mismatch_ratio": 0.2, "ood_ratio": 0.6}
    return pd.DataFrame({name: [value] * rows for name, value in shared.items()} | columns)


def test_reference_runs_are_no_departures() -> None:
    details = {"a": TrialDetails(settings=settings(**PAPER)), "b": TrialDetails(settings=settings(rounds=1, **PAPER))}
    trials = frame(fingerprint=["a", "b"], arm=["random", "full-data"], ood_ratio=[0.6, 0.0])
    assert texts(departure_facts(trials, details)) == {"Departures from the paper": "none in the settings."}
    trials["ood_ratio"] = 0.6
    assert "rounds 1 (paper: 10) (full-data)" in texts(departure_facts(trials, details))["Departures from the paper"]


def test_seeds_and_rivals_are_those_of_the_fullest_cell() -> None:
    trials = frame(fingerprint=list("abcd"), arm=["random", "random", "conf", "ll"], seed=[0, 1, 0, 0])
    (fact,) = seed_facts(trials)
    assert fact.text.startswith("2 seeds per cell: ")
    assert "With 2 rivals" in fact.text
