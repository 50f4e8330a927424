"""Presets, overrides and the trials of a grid."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.flags import PRESETS
from orchestrator.grid import GridConfig, load_preset, merge, parse_overrides, read_yaml

SMALL = {
    "datasets": ["digits"], "mismatch_ratios": [0.2, 0.4], "ood_ratios": [0.6], "strategies": ["random", "conf"],
    "seeds": [0, 1],
}  # fmt: skip


def test_every_seed_comes_with_all_its_cells_before_the_next() -> None:
    trials = GridConfig(**SMALL).trials()
    assert [trial.seed for trial in trials] == [0] * 4 + [1] * 4
    assert len({trial.label for trial in trials}) == 8


def test_settings_are_layered() -> None:
    grid = GridConfig(
        **SMALL,
        trial={"budget": 5, "recipe": {"steps": 7, "width": 4}},
        per_dataset={"digits": {"recipe": {"steps": 8}}},
    )
    (trial, *_) = grid.trials({"recipe": {"width": 2}, "rounds": 3})
    assert (trial.budget, trial.recipe.steps, trial.recipe.width, trial.rounds) == (5, 8, 2, 3)


def test_a_repeated_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seeds = 0, 0: a value is repeated"):
        GridConfig(**{**SMALL, "seeds": [0, 0]}).trials()


@pytest.mark.parametrize("name", ["demo", "cpu", "paper"])
def test_the_presets_fit(name: str) -> None:
    trials = load_preset(PRESETS, name, {}, {}).trials()
    assert len({trial.label for trial in trials}) == len(trials) > 0


def test_the_paper_preset_is_the_papers_grid() -> None:
    grid = load_preset(PRESETS, "paper", {}, {})
    trials = grid.trials()
    assert len(trials) == 3 * 3 * 4 * len(grid.strategies) * 5
    assert {(t.dataset, t.budget, t.rounds, t.recipe.steps) for t in trials} == {
        ("cifar10", 500, 10, 20_000), ("cifar100", 500, 10, 20_000), ("tiny-imagenet", 1000, 10, 20_000),
    }  # fmt: skip


def test_the_demo_has_108_trials() -> None:
    assert len(load_preset(PRESETS, "demo", {}, {}).trials()) == 108


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'demmo' \(did you mean 'demo'\?\)"):
        load_preset(PRESETS, "demmo", {}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [digits]\ndatasets: [cifar10]", "key 'datasets' is given twice"),
        ("datasets: [", "no valid YAML"),
        ("- digits", "expected 'key: value' pairs"),
        ("dataset: [digits]", "dataset: extra inputs are not permitted"),
        ("seeds: []", "seeds = .*at least 1 item"),
        ("run: {scorers: 0}", r"run\.scorers = 0"),
    ],
)
def test_a_bad_preset_is_explained(tmp_path: Path, text: str, message: str) -> None:
    complete = "\n".join(f"{key}: {value}" for key, value in SMALL.items() if not text.startswith(f"{key}:"))
    (tmp_path / "mine.yaml").write_text(f"{complete}\n{text}\n" if ":" in text and "[\n" not in text else text)
    with pytest.raises(ValueError, match=message):
        load_preset(tmp_path, "mine", {}, {})


def test_assignments_are_nested_and_typed() -> None:
    assert parse_overrides(["recipe.steps=300", "recipe.flip=false", "purity.criterion=plain", "data_root="]) == {
        "recipe": {"steps": 300, "flip": False}, "purity": {"criterion": "plain"}, "data_root": None,
    }  # fmt: skip


@pytest.mark.parametrize("assignment", ["steps", "=3"])
def test_a_bad_assignment_is_explained(assignment: str) -> None:
    with pytest.raises(ValueError, match=f"--set {assignment}: expected key=value"):
        parse_overrides([assignment])


def test_merge_does_not_change_its_arguments() -> None:
    first, second = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(first, second) == {"a": {"b": 1, "c": 2}}
    assert first == {"a": {"b": 1}}


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("2E4", 20000.0), ("0.5", 0.5), ("7", 7), ("1e", "1e")])
def test_numbers_are_read_as_people_write_them(text: str, value: object) -> None:
    read = read_yaml(f"value: {text}", origin="x")["value"]
    assert read == value
    assert type(read) is type(value)
