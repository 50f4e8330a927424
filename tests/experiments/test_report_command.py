"""report.py: the same report from ledgers, from several of them, and from MLflow alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.results.from_ledgers import row_names, trials_of_ledgers, with_missing_seeds
from orchestrator.launch import note_launch
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.output import OutputFolder, open_output
from orchestrator.plan import PlannedTrial
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig
from orchestrator.tracking.content import GridCard
from orchestrator.tracking.tracker import Mirror
from tests.experiments import synthetic
from tests.experiments.in_process import run_here

SMALL: dict[str, Any] = {
    "conditions": synthetic.CONDITIONS[:1],
    "strategies": ("random", "vlpure"),
    "recipe": {"name": "cpu"},
    "rounds": 3,
}
run = partial(run_here, "report")


def write(folder: Path, trials: list[TrialConfig]) -> Path:
    """A run folder that holds `trials`."""
    synthetic.write_ledger(folder / "ledger", trials)
    return folder


def test_the_report_of_a_folder_has_its_values(tmp_path: Path) -> None:
    trials = synthetic.grid(seeds=range(3), **SMALL)
    write(tmp_path / "run", trials[:-1])
    outcome = run(str(tmp_path / "run"), "--title", "My <title>")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert f"report: {tmp_path / 'run' / 'report' / 'index.html'}" in outcome.stdout
    frame = pd.read_csv(tmp_path / "run" / "report" / "trials.csv")
    assert frame["strategy"].tolist() == ["random"] * 3 + ["vlpure"] * 3
    assert frame["status"].tolist() == ["finished"] * 5 + ["missing"]
    records = synthetic.records_of(trials[0])
    assert frame["last_accuracy"][0] == records[-1].accuracy
    assert "(2 of 3 seeds)" in outcome.stdout
    assert "<h1>My &lt;title&gt;</h1>" in (tmp_path / "run" / "report" / "index.html").read_text()


def test_folders_are_merged_and_a_trial_counts_once(tmp_path: Path) -> None:
    trials = synthetic.grid(seeds=range(3), **SMALL)
    first, second = write(tmp_path / "a", trials[:4]), write(tmp_path / "b", trials[2:])
    found = trials_of_ledgers([first, second])
    assert (found.lines, found.by_command) == ([], {})
    assert [each.trial for each in found.planned] == sorted(trials, key=lambda each: (each.strategy, each.seed))


def test_of_two_the_longer_counts(tmp_path: Path) -> None:
    (trial,) = synthetic.grid(seeds=[0], **(SMALL | {"strategies": ("random",)}))
    ledger = Ledger(tmp_path / "a" / "ledger")
    ledger.append(synthetic.fingerprint(trial), trial.model_dump(mode="json"), synthetic.records_of(trial)[0])
    found = trials_of_ledgers([tmp_path / "a", write(tmp_path / "b", [trial])])
    assert ([len(each.records) for each in found.planned], found.lines) == ([3], [])


def test_records_that_differ_are_named_and_the_first_count(tmp_path: Path) -> None:
    (trial,) = synthetic.grid(seeds=[0], **(SMALL | {"strategies": ("random",)}))
    records = synthetic.records_of(trial)
    other = Ledger(tmp_path / "b" / "ledger")
    for record in [records[0], replace(records[1], accuracy=0.5), records[2]]:
        other.append(synthetic.fingerprint(trial), trial.model_dump(mode="json"), record)
    first = write(tmp_path / "a", [trial])
    found = trials_of_ledgers([first, tmp_path / "b"])
    assert [each.records for each in found.planned] == [tuple(records)]
    assert found.lines == [
        f"cifar10 mismatch 0.2 ood 0.2 random seed 0: round 1 in {tmp_path / 'b'} has other numbers than in {first}; "
        f"those of {first} are used"
    ]


def test_more_rounds_than_the_first_settings_say_are_kept(tmp_path: Path) -> None:
    (trial,) = synthetic.grid(seeds=[0], **(SMALL | {"strategies": ("random",)}))
    ledger = Ledger(tmp_path / "ledger")
    settings = trial.model_copy(update={"rounds": 2}).model_dump(mode="json")
    for record in synthetic.records_of(trial):
        ledger.append(synthetic.fingerprint(trial), settings, record)
    (planned,) = trials_of_ledgers([tmp_path]).planned
    assert (planned.trial.rounds, planned.is_finished) == (3, True)


def test_a_seed_that_only_another_row_has_is_missing(tmp_path: Path) -> None:
    trials = synthetic.grid(seeds=range(2), **SMALL)
    whole = with_missing_seeds(trials_of_ledgers([write(tmp_path, trials[:3])]).planned)
    assert [(each.row, each.trial.seed, len(each.records)) for each in whole] == [
        ("random", 0, 3),
        ("random", 1, 3),
        ("vlpure", 0, 3),
        ("vlpure", 1, 0),
    ]


def trial(strategy: str = "vlpure", **changes: Any) -> TrialConfig:
    """A trial with any setting changed."""
    axes = {"dataset": "cifar10", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": strategy, "seed": 0}
    return make_trial(**(axes | changes))


def planned_of(trial: TrialConfig, arm: str = "") -> PlannedTrial:
    return PlannedTrial(trial=trial, fingerprint="", data_fingerprint="", arm=arm)


ARMS = {
    "vlpure-fixed-scale": {"strategy": "vlpure", "purity": {"self_temperature": False}},
    "vlpure-bare": {"strategy": "vlpure", "purity": {"self_temperature": False, "visual_similarity": False}},
    "vlpure-clip": {"strategy": "vlpure", "recipe": {"name": "paper-clip-linear"}},
    "easy": {"strategy": "conf", "ood_ratio": 0.1},
}


def test_rows_are_named_by_the_arm_that_states_most() -> None:
    bare = {"self_temperature": False, "visual_similarity": False}
    trials = [
        trial(),
        trial(purity={"self_temperature": False}),
        trial(purity=bare),
        trial(recipe={"name": "paper-clip-linear", "precision": "bf16"}),
        trial("conf"),
        trial("conf", ood_ratio=0.1),
    ]
    assert row_names(list(map(planned_of, trials)), ARMS) == [
        "vlpure",
        "vlpure-fixed-scale",
        "vlpure-bare",
        "vlpure-clip",
        "conf",
        "easy",
    ]


def test_a_tanl_record_from_before_the_screening_is_a_row_of_its_own(tmp_path: Path) -> None:
    now = [trial(purity={"detector": "tanl"}, seed=seed) for seed in range(2)]
    ledger = Ledger(tmp_path / "ledger")
    for each in now:
        ledger.append(synthetic.fingerprint(each), each.model_dump(mode="json"), synthetic.records_of(each)[0])
    before = now[0].model_dump(mode="json")
    del before["purity"]["tanl"]
    ledger.append("0" * 64, before, synthetic.records_of(now[0])[0])
    found = trials_of_ledgers([tmp_path]).planned
    assert sorted(row_names(found, {})) == ["vlpure", "vlpure", "vlpure (purity.tanl.sure_images=null)"]


def test_settings_that_no_arm_states_stand_behind_the_name() -> None:
    trials = [
        trial(),
        trial(seed=1),
        trial(purity={"fixed_scale": 5.0}),
        trial("conf"),
        trial("conf", recipe={"steps": 7}, options={"lfosa": {"epochs": 3}}),
        trial("conf", rounds=3),
        trial("conf", dataset="tiny-imagenet", budget=1000),  # another data set has settings of its own
    ]
    assert row_names(list(map(planned_of, trials)), ARMS) == [
        "vlpure",
        "vlpure",
        "vlpure (purity.fixed_scale=5.0)",
        "conf",
        "conf (recipe.steps=7)",
        "conf",
        "conf",
    ]


def test_the_arm_that_a_trial_was_planned_for_names_its_row() -> None:
    planned = [planned_of(trial(purity={"self_temperature": False}), arm="mine"), planned_of(trial("conf"))]
    assert row_names(planned, ARMS) == ["mine", "conf"]


def test_tables_and_rows_are_those_of_the_commands_that_ran_the_trials(tmp_path: Path) -> None:
    condition = {"conditions": synthetic.CONDITIONS[:1], "recipe": {"name": "cpu"}, "rounds": 3, "seeds": range(2)}
    plain = synthetic.grid(strategies=("random", "conf", "vlpure"), **condition)
    bare = synthetic.grid(
        strategies=("vlpure",), purity={"self_temperature": False, "visual_similarity": False}, **condition
    )
    ledger = synthetic.write_ledger(tmp_path / "run" / "ledger", [*plain, *bare])
    output = OutputFolder(path=tmp_path / "run", grid_id=None)
    without_random = [each for each in plain if each.strategy != "random"]
    of_arms = [replace(each, arm="vlpure-bare") for each in synthetic.plan(bare, ledger)]
    note_launch(output, "table7", [*synthetic.plan(without_random, ledger)[:2], *of_arms])
    found = trials_of_ledgers([output.path])
    assert [each.row for each in found.planned if each.trial.seed == 0] == ["random", "conf", "vlpure", "vlpure-bare"]
    outcome = run(str(output.path))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "Table 7: AUBC" in outcome.stdout
    assert "(conf)" in outcome.stdout  # the best baseline is one that was launched, in all its seeds
    assert "fixed scale, no visual weights (vlpure-bare)" in outcome.stdout
    assert "Without tuning the logit scale is 10" in outcome.stdout
    assert "Others: cifar10: AUBC" in outcome.stdout
    others = outcome.stdout.partition("Others:")[2]
    assert "random" in others
    assert "vlpure-bare" not in others.partition("Values:")[0]


def test_a_launch_that_cannot_be_read_is_named_and_its_rows_guessed(tmp_path: Path) -> None:
    write(tmp_path, synthetic.grid(seeds=range(1), **SMALL))
    (tmp_path / "launch-table4.json").write_text("{")
    found = trials_of_ledgers([tmp_path])
    assert [each.row for each in found.planned] == ["random", "vlpure"]
    (line,) = found.lines
    assert "launch-table4.json cannot be read" in line
    assert "guessed from the settings" in line


BAD_INPUT = {
    "nothing": ([], "nothing to report: give a RUN_DIR"),
    "no ledger": (["tests"], "tests has no ledger; name the output folder of a grid"),
    "both": (["tests", "--from-mlflow", "sqlite:///x.db", "--experiment", "x"], "give RUN_DIRs or --from-mlflow"),
    "no experiment": (["--from-mlflow", "sqlite:///x.db"], "--from-mlflow needs --experiment NAME"),
    "experiment alone": (["tests", "--experiment", "x"], "give --from-mlflow URI too"),
    "data root alone": (["tests", "--data-root", "x"], "--data-root is read only with --data"),
    "no server": (["--from-mlflow", "http://127.0.0.1:9", "--experiment", "x"], "MLflow at http://127.0.0.1:9: no"),
}


@pytest.mark.parametrize(("words", "message"), BAD_INPUT.values(), ids=list(BAD_INPUT))
def test_bad_input_is_one_line_and_exit_2(words: list[str], message: str) -> None:
    outcome = run(*words)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_an_empty_or_damaged_ledger_is_said(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    with pytest.raises(ValueError, match="has no trial in its ledger yet"):
        trials_of_ledgers([tmp_path])
    (settings,) = synthetic.grid(seeds=[0], **(SMALL | {"strategies": ("random",)}))
    ledger = Ledger(tmp_path / "ledger")
    ledger.append("f00", settings.model_dump(mode="json") | {"old": 1}, synthetic.records_of(settings)[0])
    with pytest.raises(
        ValueError, match=r"f00.json: its settings do not fit this version \(unknown key 'old'; known: dataset, "
    ):
        trials_of_ledgers([tmp_path])


@pytest.mark.timeout(300)
def test_mlflow_alone_gives_the_same_tables(tmp_path: Path, empty_store: Path) -> None:
    trials = synthetic.grid(seeds=range(3), **SMALL)
    done, failed = trials[:-1], trials[-1]
    ledger = synthetic.write_ledger(tmp_path / "run" / "ledger", done)
    ledger.fail(synthetic.fingerprint(failed), failed.model_dump(mode="json"), "it broke")
    (tmp_path / "run" / "vlpure.json").write_text('{"format": 1, "grid_id": "g"}')
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"
    planned = synthetic.plan(trials, ledger)
    output = open_output(tmp_path / "run")
    note_launch(output, "table4", planned)
    Mirror(planned, output, uri=uri, experiment="mine", card=GridCard(title="Grid", table="table4")).catch_up(
        final=True
    )
    from_folder = run(str(tmp_path / "run"), "-o", str(tmp_path / "one"), "-q")
    from_server = run("--from-mlflow", uri, "--experiment", "mine", "-o", str(tmp_path / "two"), "-q")
    assert (from_folder.returncode, from_server.returncode) == (0, 0), from_folder.stderr + from_server.stderr
    for name in ("trials.csv", "rounds.csv", "report-comparisons.csv"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text(), name
    tables = [(tmp_path / name / "report.md").read_text().partition("## What it costs")[0] for name in ("one", "two")]
    assert tables[0].splitlines()[1:] == tables[1].splitlines()[1:]  # all but the title
    assert "it broke" in (tmp_path / "two" / "index.html").read_text()
    assert run("--from-mlflow", uri, "--experiment", "their").stderr == (
        f"report.py: error: no experiment 'their' at {uri}; known experiments: Default, mine\n"
    )
