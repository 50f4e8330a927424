"""One's own open-set pool: named ID classes, a folder of OOD images, every OOD image in the pool."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.registry import open_data_set
from experiments.commands.clipn_job import trained_classes
from experiments.pages.html import _data
from experiments.pages.sprites import NO_SPRITES
from experiments.plots.canvas import condition_text, has_no_ratios
from experiments.results.frames import csv_text, rounds_frame, trials_frame
from experiments.results.from_ledgers import cell_of, row_names
from experiments.results.statistics import ALL_OOD, NAMED_CLASSES, CellKey, Condition
from experiments.tables.table import render_text
from experiments.tables.table4 import table4_tables
from orchestrator.ledger.words import describe_trial
from orchestrator.plan import PlannedTrial
from orchestrator.tracking.content import trial_axes, trial_params
from orchestrator.tracking.summaries import cell_of as summary_of
from tests.factories import make_planned

Trial = Callable[..., int]


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trial:
    """trial.py's main on a folder of 3 classes with test images and 7 OOD images in `_ood_`."""
    generator = np.random.default_rng(0)
    for part, sizes in {"train": {"ant": 8, "bee": 8, "cat": 4, "_ood_": 7}, "test": {"ant": 2, "bee": 2}}.items():
        for name, size in sizes.items():
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for number in range(size):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> int:
        from experiments.trial import main

        tiny = ["--rounds", "2", "--budget", "9", "--set", "recipe.name=digits", "--set", "recipe.steps=2"]
        given = ["trial.py", "--dataset", "folder:pets", "--strategy", "random", *tiny, *words]
        monkeypatch.setattr(sys, "argv", given)
        return main()

    return call


def test_own_pool_from_the_command_line(trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trial("--id-classes", "bee,ant", "--ood-ratio", "all", "-o", "out") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "folder:pets ID classes ant, bee ood all random seed 0"
    (path,) = (tmp_path / "out" / "ledger").glob("*.json")
    state = json.loads(path.read_text())
    assert (state["trial"]["id_classes"], state["trial"]["ood_ratio"]) == (["ant", "bee"], "all")
    # 16 ID and 11 OOD images; the initial 9 are int(9 x 16/27) ID and int(9 x 11/27) OOD images.
    first, second = state["records"]
    assert (first["num_id"], first["num_ood"]) == (5, 3)
    assert second["num_id"] + second["num_ood"] == 17
    assert trial("--id-classes", " ant,bee", "--ood-ratio", "all", "-o", "out") == 0
    assert capsys.readouterr().out.splitlines()[:-1] == printed[:-1]
    assert describe_trial(state["trial"]) == printed[0]


def test_a_share_at_the_start_records_how_many_id_images_are_found(trial: Trial, tmp_path: Path) -> None:
    words = ["--id-classes", "bee,ant", "--ood-ratio", "all", "--set", "initial_share=0.25", "-o", "out"]
    assert trial(*words) == 0
    (path,) = (tmp_path / "out" / "ledger").glob("*.json")
    first, second = json.loads(path.read_text())["records"]
    assert (first["num_id"], first["num_ood"], first["diagnostics"]) == (4, 0, {"recall": 0.25})
    assert second["diagnostics"] == {"recall": second["num_id"] / 16}
    assert second["num_id"] + second["num_ood"] == 13


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--id-classes", "ant,be"], "unknown class 'be' (did you mean 'bee'?)"),
        (["--id-classes", "ant,cat"], "the ID class 'cat' has no test images"),
        (["--id-classes", "ant", "--ood-ratio", "all"], "id_classes names 1 ID class, so accuracy is always 1"),
        (["--id-classes", "ant,ant"], "argument --id-classes: the class 'ant' is given twice"),
        (["--id-classes", "ant,"], "argument --id-classes: a class name is empty"),
        (["--id-classes", "ant,bee", "--mismatch-ratio", "0.5"], "--mismatch-ratio and --id-classes: both choose"),
        (["--id-classes", "ant,\u200fbee"], "id_classes: '\\u200fbee' has a character that cannot be printed"),
        (["--ood-ratio", "every"], "argument --ood-ratio: invalid ood_ratio value: 'every'"),
        (["--mismatch-ratio", "0.5"], "the class '_ood_' has no test images, so it can only be OOD"),
    ],
)
def test_bad_input_is_one_line(
    trial: Trial, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = trial(*words)
    except SystemExit as stopped:
        code = int(str(stopped.code))
    printed = capsys.readouterr().err
    assert (code, printed.count("\n")) == (2, 1)
    assert message in printed


def test_a_clipn_is_not_trained_on_images_of_many_classes(trial: Trial) -> None:
    data = open_data_set("folder:pets")
    assert data.class_names == ("_ood_", "ant", "bee", "cat")
    assert trained_classes(data, ["bee"]) == [1, 3]


def _planned(seed: int = 0) -> PlannedTrial:
    changes = {"mismatch_ratio": None, "id_classes": ["dog", "cat"], "ood_ratio": "all"}
    return make_planned(seed, num_records=3, **changes)


CONDITION = Condition("digits (cat, dog)", NAMED_CLASSES, ALL_OOD)


def test_everything_that_groups_trials_names_the_classes() -> None:
    planned = _planned()
    assert cell_of(planned) == CellKey(*CONDITION, "conf")
    assert condition_text(CONDITION) == "digits (cat, dog) named ID classes, OOD all"
    assert not has_no_ratios(CONDITION.dataset)
    assert has_no_ratios("domainnet-real (cat, dog)")
    assert trial_axes(planned)["mismatch_ratio"] == "cat, dog"
    assert trial_axes(planned)["ood_ratio"] == "all"
    assert summary_of(planned) == "conf · digits ID classes cat, dog ood all"
    params = trial_params(planned.trial)
    assert (params["id_classes"], params["ood_ratio"]) == ('["cat", "dog"]', "all")
    assert "mismatch_ratio" not in params
    usual = make_planned(num_records=3)
    assert row_names([planned, usual], {}) == ["conf", "conf"]


def test_tables_and_files_of_named_classes() -> None:
    planned = [_planned(0), _planned(1), make_planned(0, num_records=3)]
    trials, rounds = trials_frame(planned), rounds_frame(planned)
    texts = [render_text(table) for table in table4_tables(trials)]
    assert [text.splitlines()[0] for text in texts] == [
        "digits (cat, dog): AUBC",
        "digits (cat, dog): mean precision of the queries",
        "digits: AUBC",
        "digits: mean precision of the queries",
    ]
    assert "named / all" in texts[0]
    # Uniform draws have the pool's own share of ID images, which settings do not tell.
    assert texts[1].splitlines()[-1].split()[-1] == "?"
    assert texts[3].splitlines()[-1].split()[-1] == "40.00"
    lines = csv_text(trials).splitlines()
    assert [line.split(",conf,")[0] for line in lines[1:]] == ['"digits (cat, dog)",named,all'] * 2 + ["digits,0.2,0.6"]
    cells = _data(trials, rounds, {}, {CellKey(*CONDITION, "conf"): 0, cell_of(planned[2]): 1}, NO_SPRITES)["cells"]
    assert [cell["uniform"] for cell in cells] == [None, 0.4]
