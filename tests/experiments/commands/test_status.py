"""`--status` reads what a run of any kind left, and changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data.sealed import read_sealed_json, seal
from experiments.commands.status import read_standing, show_status, status_lines
from orchestrator.launch import last_launch, launched_commands, note_launch
from orchestrator.ledger.output import OutputFolder, open_output
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial

ROOT = Path(__file__).parents[3]
Planned = Callable[..., PlannedTrial]
NOW = 1_700_000_000_000 + 60_000


@pytest.fixture
def output(tmp_path: Path, planned_trial: Planned, record: Callable[..., RoundRecord]) -> OutputFolder:
    """Five trials: seed 0 finished, seed 1 has a round, 2 failed in its second, 3 failed at once, 4 waits."""
    planned = [planned_trial(seed) for seed in range(5)]
    with open_output(tmp_path / "out").locked() as folder:
        note_launch(folder, "table4", planned)
        for seed, num_rounds in ((0, 3), (1, 1), (2, 1)):
            settings = planned[seed].trial.model_dump(mode="json")
            for number in range(num_rounds):
                folder.ledger.append(planned[seed].fingerprint, settings, record(number))
        for seed in (2, 3):
            settings = planned[seed].trial.model_dump(mode="json")
            folder.ledger.fail(planned[seed].fingerprint, settings, "ArithmeticError: loss\nis nan")
        return folder


def text(output: OutputFolder, command: str = "table4") -> str:
    standing, launch = read_standing(output, command)
    return "\n".join(status_lines(output, launch, standing, now_ms=NOW))


def test_every_trial_has_one_place(output: OutputFolder) -> None:
    status = text(output)
    assert "5 trial(s): 1 finished, 1 started, 1 waiting, 2 failed; 5 of 15 rounds" in status
    assert "table4, started 20" in status
    assert "no active run that this machine can see" in status
    assert "the same command continues from there" in status
    assert "started: digits mismatch 0.2 ood 0.6 conf seed 1: 1 of 3 rounds, the last 2023-11-1" in status


def test_a_failed_trial_comes_with_the_command_that_runs_it(output: OutputFolder) -> None:
    status = text(output).splitlines()
    number = status.index("  failed: digits mismatch 0.2 ood 0.6 conf seed 2: ArithmeticError: loss is nan")
    command = status[number + 1].strip()
    assert command.startswith("python experiments/trial.py --dataset digits --mismatch-ratio 0.2 --ood-ratio 0.6")
    assert "--strategy conf --seed 2" in command


def test_rate_and_time_left_while_a_run_is_at_work(output: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "; in the last hour 5 round(s), 5 per hour" in text(output)
    assert "about" not in text(output)
    monkeypatch.setattr(OutputFolder, "writer", property(lambda self: 77))
    launched = last_launch(output, "table4")
    assert launched is not None
    path = output.path / "launch-table4.json"
    content, _ = read_sealed_json(path, path.name)
    path.write_text(json.dumps(seal(content | {"time_ms": NOW - 600_000}, path.name)))
    # 5 rounds in 10 minutes; left: 2 rounds of the trial that has begun, 3 of the one that waits.
    assert "; in the last 10 min 0 s 5 round(s), 30 per hour; about 10 min 0 s left" in text(output)
    assert "a run is active (process 77)" in text(output)


def test_without_a_launch_the_ledger_is_all_there_is(output: OutputFolder) -> None:
    assert "all trials of the ledger: 4 trial(s): 1 finished, 1 started, 0 waiting, 2 failed" in text(output, "table5")


def test_trials_of_other_launches_are_only_counted(output: OutputFolder, planned_trial: Planned) -> None:
    note_launch(output, "table4", [planned_trial(0, rounds=2), planned_trial(7)])
    status = text(output)
    assert "2 trial(s): 1 finished, 0 started, 1 waiting, 0 failed; 2 of 5 rounds" in status
    assert "3 other trial(s) in the ledger, of other launches" in status


def test_a_damaged_file_is_named_and_the_rest_is_told(
    output: OutputFolder, planned_trial: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    (output.ledger.folder / f"{planned_trial(0).fingerprint}.json").write_text("{")
    assert show_status(output.path, "table4") == 1
    out = capsys.readouterr().out
    assert "5 trial(s): 0 finished, 1 started, 2 waiting, 2 failed" in out
    assert "cannot be read as a ledger file" in out


def test_it_is_quick_to_import_and_leaves_the_folder_alone(output: OutputFolder) -> None:
    code = (
        "import sys; sys.argv = ['table4.py', '--status', '-o', sys.argv[1]];"
        "from experiments.table4 import main; code = main();"
        "print(sorted({'ray', 'mlflow', 'torch', 'pandas'} & set(sys.modules))); sys.exit(code)"
    )
    before = {path: path.stat().st_mtime_ns for path in [output.path, *output.path.rglob("*")]}
    done = subprocess.run(
        [sys.executable, "-c", code, str(output.path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr  # two trials failed
    assert done.stdout.splitlines()[-1] == "[]"
    assert {path: path.stat().st_mtime_ns for path in [output.path, *output.path.rglob("*")]} == before


def test_a_launch_knows_the_rows_of_a_trial(output: OutputFolder, planned_trial: Planned) -> None:
    planned = [planned_trial(0), replace(planned_trial(0), arm="id-only"), planned_trial(1)]
    note_launch(output, "table6", planned)
    launched = last_launch(output, "table6")
    assert launched is not None
    assert [trial.rows for trial in launched.trials] == [("conf", "id-only"), ("conf",)]
    assert launched_commands(output) == ["table4", "table6"]


def test_a_launch_of_before_rows_were_kept_can_be_read(output: OutputFolder) -> None:
    path = output.path / "launch-table4.json"
    content, _ = read_sealed_json(path, path.name)
    for trial in content["trials"]:
        del trial["rows"]
    path.write_text(json.dumps(content))
    launched = last_launch(output, "table4")
    assert launched is not None
    assert [trial.rows for trial in launched.trials] == [()] * 5


def test_any_flipped_bit_of_a_launch_is_noticed(output: OutputFolder) -> None:
    path, launched = output.path / "launch-table4.json", last_launch(output, "table4")
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            assert last_launch(output, "table4") == launched  # a blank became another blank
        except ValueError as error:
            assert "launch-table4.json cannot be read" in str(error)  # noqa: PT017


@pytest.mark.parametrize("content", ["", "{}", '{"version": 9}', '{"version": 1, "trials": [{}]}'])
def test_a_damaged_launch_is_explained(content: str, output: OutputFolder) -> None:
    (output.path / "launch-table4.json").write_text(content)
    with pytest.raises(ValueError, match=r"launch-table4\.json cannot be read .*the next run of table4\.py writes it"):
        last_launch(output, "table4")
