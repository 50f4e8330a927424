"""Presets, overrides and the trials of a grid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from experiments.presets import ARMS, PRESETS
from orchestrator.settings.grid import GridConfig, check_arm, load_preset, merge, parse_overrides, read_yaml

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


def test_an_arm_goes_on_top_and_keeps_its_name() -> None:
    grid = GridConfig(
        **{**SMALL, "strategies": ["vlpure", "bare"]},
        trial={"rounds": 4, "purity": {"visual_similarity": False}},
        arms={"bare": {"strategy": "vlpure", "purity": {"self_temperature": False}, "rounds": 2}},
    )
    plain, bare = grid.arm_trials({"rounds": 3})[:2]
    assert (plain.arm, plain.trial.strategy, plain.trial.rounds) == ("vlpure", "vlpure", 3)
    assert (bare.arm, bare.trial.strategy, bare.trial.rounds) == ("bare", "vlpure", 2)
    assert (bare.trial.purity.self_temperature, bare.trial.purity.visual_similarity) == (False, False)


def test_a_trial_that_does_not_depend_on_an_axis_is_there_once() -> None:
    axes = {**SMALL, "ood_ratios": [0.1, 0.6], "strategies": ["conf", "id-only", "mine"]}
    grid = GridConfig(**axes, arms={"id-only": ARMS["id-only"], "mine": {"strategy": "conf"}})
    trials = grid.arm_trials()
    cells = [(t.arm, t.trial.mismatch_ratio, t.trial.ood_ratio) for t in trials if t.trial.seed == 0]
    assert sorted(cells) == [
        ("conf", 0.2, 0.1), ("conf", 0.2, 0.6), ("conf", 0.4, 0.1), ("conf", 0.4, 0.6),
        ("id-only", 0.2, 0.0), ("id-only", 0.4, 0.0),
        ("mine", 0.2, 0.1), ("mine", 0.2, 0.6), ("mine", 0.4, 0.1), ("mine", 0.4, 0.6),
    ]  # fmt: skip
    assert len(grid.trials()) == 2 * (4 + 2)  # "mine" is "conf" under another name


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"mine": {"purity": {}}}, r"arms\.mine: an arm needs a strategy"),
        ({"mine": {"strategy": "conf", "seed": 3}}, r"arms\.mine\.seed: an arm cannot set it"),
        ({"conf": {"strategy": "random"}}, r"arms\.conf: a strategy has that name"),
        ({"a,b": {"strategy": "random"}}, r"arms\.a,b: a comma"),
        (
            {"mine": {"strategy": "conf", "roundz": 3}},
            r"^arms\.mine: unknown key 'roundz' \(did you mean 'rounds'\?\); known: dataset, ",
        ),
    ],
)
def test_a_bad_arm_is_explained(arms: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GridConfig(
            **{**SMALL, "strategies": ["random", *(name for name in arms if name == "mine")]}, arms=arms
        ).trials()


def test_an_unknown_name_may_be_that_of_an_arm() -> None:
    with pytest.raises(ValueError, match=r"unknown strategy 'id-onyl' \(did you mean 'id-only'\?\)"):
        GridConfig(**{**SMALL, "strategies": ["id-onyl"]}, arms=ARMS).trials()


def test_an_axis_is_not_set_as_a_setting() -> None:
    with pytest.raises(ValueError, match=r"ood_ratio = 0\.3: it is an axis of the grid; set ood_ratios instead"):
        GridConfig(**SMALL).trials({"ood_ratio": 0.3})


def test_a_preset_says_more_of_one_table(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "datasets: [digits]\nmismatch_ratios: [0.2, 0.4]\nood_ratios: [0.6]\nstrategies: [conf, odd]\nseeds: [0]\n"
        "trial: {rounds: 5, budget: 20}\ntables: {table7: {mismatch_ratios: [0.4], trial: {rounds: 4}}}\n"
        "arms: {odd: {options: {alphamix: {}}}}\n"
    )
    arms = {"odd": {"strategy": "margin"}}

    def points(table: str, **axes: list[float]) -> list[tuple[str, float, int, int]]:
        trials = load_preset(tmp_path, "mine", axes, {}, table=table, arms=arms).arm_trials()
        return [(t.arm, t.trial.mismatch_ratio, t.trial.rounds, t.trial.budget) for t in trials]

    assert points("table7") == [("conf", 0.4, 4, 20), ("odd", 0.4, 4, 20)]
    assert len(points("table4")) == 4
    assert points("table7", mismatch_ratios=[0.3])[0] == ("conf", 0.3, 4, 20)
    (tmp_path / "mine.yaml").write_text("tables: [table7]")
    with pytest.raises(ValueError, match=r"preset mine: tables = .*expected settings under the name of each table"):
        points("table7")


def test_every_arm_of_the_commands_is_a_trial_in_every_preset() -> None:
    for name in ("demo", "demo-full", "cpu", "paper"):
        grid = load_preset(PRESETS, name, {"strategies": list(ARMS), "seeds": [0]}, {}, arms=ARMS)
        trials = grid.arm_trials({"clipn": {"captioner": "a tag"}})
        assert {trial.arm for trial in trials} == set(ARMS)


def test_a_repeated_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seeds = 0, 0: 0 is repeated"):
        GridConfig(**{**SMALL, "seeds": [0, 0]}).trials()


@pytest.mark.parametrize("name", ["demo", "demo-full", "cpu", "paper"])
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


@pytest.mark.parametrize(("name", "num_trials"), [("demo", 12), ("demo-full", 108)])
def test_the_demos_have_so_many_trials(name: str, num_trials: int) -> None:
    assert len(load_preset(PRESETS, name, {}, {}).trials()) == num_trials


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'demmo' \(did you mean 'demo'\?\)"):
        load_preset(PRESETS, "demmo", {}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [digits]\ndatasets: [cifar10]", "key 'datasets' is given twice"),
        ("datasets: [", "no valid YAML"),
        ("- digits", "expected 'key: value' pairs"),
        ("dataset: [digits]", "preset mine: unknown key 'dataset'"),
        ("seeds: []", "seeds = .*at least 1 item"),
        ("run: {scorers: 0}", r"run\.scorers = 0"),
    ],
)
def test_a_bad_preset_is_explained(tmp_path: Path, text: str, message: str) -> None:
    complete = "\n".join(f"{key}: {value}" for key, value in SMALL.items() if not text.startswith(f"{key}:"))
    (tmp_path / "mine.yaml").write_text(f"{complete}\n{text}\n" if ":" in text and "[\n" not in text else text)
    with pytest.raises(ValueError, match=message):
        load_preset(tmp_path, "mine", {}, {})


KNOWN = "known: datasets, mismatch_ratios, ood_ratios, strategies, seeds, trial, per_dataset, arms, run"
KNOWN_OF_MC = "(did you mean 'passes'?); known: passes, rate"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes: 3", f"unknown key 'axes'; {KNOWN}"),
        ("tables: {table9: {trail: {}}}", f"tables.table9: unknown key 'trail' (did you mean 'trial'?); {KNOWN}"),
        (
            "tables: {tabel9: {}}",
            "tables: unknown key 'tabel9' (did you mean 'table9'?); known: table4, table5, table6, table7, table8, "
            "table9, table10, figures",
        ),
        (
            "trial: {options: {monte_carlo: {pases: 3}}}",
            f"trial.options.monte_carlo: unknown key 'pases' {KNOWN_OF_MC}",
        ),
        ("trial: {detection: {3: 4}}", "trial.detection: unknown key '3'; known: labels"),
        (
            "per_dataset: {digits: {options: {monte_carlo: {pases: 3}}}}",
            f"per_dataset.digits.options.monte_carlo: unknown key 'pases' {KNOWN_OF_MC}",
        ),
        (
            "arms: {mine: {strategy: bald, options: {monte_carlo: {pases: 3}}}}",
            f"arms.mine.options.monte_carlo: unknown key 'pases' {KNOWN_OF_MC}",
        ),
        (
            f"trial: {{detection: {{? {'y' * 60_000} : 4}}}}",
            f"trial.detection: unknown key '{'y' * 80}'; known: labels",
        ),
    ],
)
def test_an_unknown_key_of_a_preset_is_told_with_file_place_and_allowed_keys(
    tmp_path: Path, text: str, message: str
) -> None:
    complete = "\n".join(f"{key}: {value}" for key, value in SMALL.items())
    (tmp_path / "mine.yaml").write_text(f"{complete}\n{text}\n")
    with pytest.raises(ValueError, match=f"^{re.escape(f'preset mine: {message}')}$"):
        load_preset(tmp_path, "mine", {}, {}).trials()


def test_an_unknown_key_of_an_assignment_is_not_put_down_to_the_preset() -> None:
    message = "--set: options.monte_carlo: unknown key 'Passes' (did you mean 'passes'?); known: passes, rate"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_preset(PRESETS, "demo", {}, {}).trials(parse_overrides(["options.monte_carlo.Passes=3"]))


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


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x1b[31mred", "a\u2028b", "a\u202eb", "caf\udce9"])
def test_a_name_that_cannot_be_printed_is_refused_where_it_is_given(name: str) -> None:
    with pytest.raises(ValueError, match=r"arms: '.*' has a character that cannot be printed \('"):
        check_arm(name, {"strategy": "margin"})
    grid = GridConfig(
        datasets=(f"folder:/data/{name}",),
        mismatch_ratios=(0.4,),
        ood_ratios=(0.6,),
        strategies=("random",),
        seeds=(0,),
    )
    with pytest.raises(ValueError, match=r"datasets: 'folder:/data/.*' has a character that cannot be printed") as told:
        grid.arm_trials()
    assert str(told.value).isascii()


@pytest.mark.parametrize("name", ["", " "])
def test_a_name_without_letters_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^arms: '{name}' is no name; give it letters$"):
        check_arm(name, {"strategy": "margin"})


@pytest.mark.parametrize("name", ["猫", "Łódź", "\u0645\u06cc\u200c\u062e\u0648", "a b", "=cmd()"])
def test_names_in_all_languages_are_taken(name: str) -> None:
    check_arm(name, {"strategy": "margin"})


def test_a_key_of_a_thousand_levels_is_refused_in_one_line() -> None:
    deep = ".".join(["a"] * 1000)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_overrides([f"{deep}=1", f"{deep}=2"])


def test_named_classes_take_the_place_of_the_mismatch_ratios() -> None:
    grid = GridConfig(**(SMALL | {"ood_ratios": ["all", 0.2]}))
    trials = grid.trials({"id_classes": ["digit one", "digit two"]})
    usual = grid.trials()
    assert len(usual) == 2 * len(trials)
    assert {trial.mismatch_ratio for trial in trials} == {None}
    assert {trial.ood_ratio for trial in trials} == {"all", 0.2}
    assert {trial.id_classes for trial in trials} == {("digit one", "digit two")}


@pytest.mark.parametrize("ratio", ["most", True, None])
def test_an_ood_ratio_is_a_number_or_all(ratio: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        GridConfig(**(SMALL | {"ood_ratios": [0.2, ratio]}))
    assert [error["msg"] for error in caught.value.errors()] == [
        "Value error, must be a number, or all (every OOD image)"
    ]
