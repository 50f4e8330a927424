"""The supervisor against processes that only pretend to be Ray's part: what begins anew, how often, what is said."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data.console import RunStopped
from orchestrator.cluster import run_grid as module
from orchestrator.cluster.leftovers import find_process, processes
from orchestrator.cluster.run_grid import RayGivenUp, run_grid
from orchestrator.ledger.ledger import LedgerUnwritable
from orchestrator.ledger.output import OutputFolder, open_output
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import RunSettings
from orchestrator.settings.reading import make_trial

PART = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from multiprocessing.connection import Connection
from pathlib import Path
from data.console import RunStopped
from orchestrator.cluster.channel import Alive, Channel, Ended, Job, Lost, Reporter
from orchestrator.ledger.ledger import LedgerUnwritable
connection = Connection(int(sys.argv[-1]))
job = connection.recv()
channel = Channel(connection)
listener = Reporter(channel, job.todo)
turns = Path({turns!r})
turn = len(turns.read_text()) if turns.exists() else 0
turns.write_text("x" * (turn + 1))
print("words of Ray", flush=True)
{source}
"""
"""Runs `source` in place of Ray's part; it knows its `turn`, from 0 on."""


class Notes:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tell(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(f"! {line}")

    def begin(self, todo: Sequence[PlannedTrial]) -> None:
        self.lines.append(f"begin {len(todo)}")

    def start(self, planned: PlannedTrial) -> None:
        self.lines.append(f"start {planned.trial.seed}")

    def advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        self.lines.append(f"advance {planned.trial.seed} {round_number} {accuracy}")

    def stumble(self, planned: PlannedTrial, reason: str) -> None:
        self.lines.append(f"stumble {planned.trial.seed} {reason}")

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        self.lines.append(f"end {planned.trial.seed} {error}")


Try = Callable[..., Notes]


@pytest.fixture
def todo() -> list[PlannedTrial]:
    """Two trials of two rounds."""
    return [
        PlannedTrial(
            trial=make_trial(
                dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy="random", seed=seed, rounds=2
            ),
            fingerprint=f"{seed}" * 64,
            data_fingerprint="d",
        )
        for seed in (0, 1)
    ]


@pytest.fixture
def attempt(tmp_path: Path, todo: list[PlannedTrial], monkeypatch: pytest.MonkeyPatch) -> Try:
    """Runs the two trials with a pretended part of Ray."""
    root = str(Path(__file__).parents[3])
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.0)

    def run(
        source: str, output: OutputFolder | None = None, notes: Notes | None = None, *, max_failures: int = 2
    ) -> Notes:
        script = tmp_path / "part.py"
        script.write_text(PART.format(root=root, turns=str(tmp_path / "turns"), source=source))
        monkeypatch.setattr(module, "PART", [str(script)])
        notes = notes or Notes()
        settings = RunSettings(max_failures=max_failures)
        run_grid(todo, output or open_output(tmp_path / "out"), settings, address="local", listener=notes)
        return notes

    return run


def ray_parts() -> list[int]:
    """Pretended parts that still run."""
    return [
        each.pid for each in processes() if each.parent == os.getpid() and not each.is_dead and "python" in each.name
    ]


def test_what_a_part_reports_arrives(attempt: Try) -> None:
    notes = attempt(
        "listener.tell('a line'); listener.warn('a warning'); listener.begin(job.todo); listener.start(job.todo[1])\n"
        "listener.advance(job.todo[1], 0, 0.5); listener.stumble(job.todo[1], 'bad luck')\n"
        "listener.end(job.todo[1], 'no')\n"
        "channel.send(Ended())"
    )
    assert notes.lines == [
        "a line", "! a warning", "begin 2", "start 1", "advance 1 0 0.5", "stumble 1 bad luck", "end 1 no",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process was ended by signal 9"),
        ("sys.exit(3)", "its process ended with exit code 3"),
        ("channel.send(Lost(reason='the raylet died'))", "the raylet died"),
    ],
)
def test_a_lost_part_begins_anew_and_is_given_up_after_a_few_times(
    attempt: Try, tmp_path: Path, source: str, reason: str
) -> None:
    notes = Notes()
    with pytest.raises(RayGivenUp) as caught:
        attempt(source, notes=notes, max_failures=1)
    assert notes.lines == [
        f"! Ray ended ({reason}); every finished round is saved, and it starts again from there "
        "(try 1 of 1 without a finished round in between)"
    ]
    log = tmp_path / "out" / "ray.log"
    assert str(caught.value) == (
        f"Ray ended 2 time(s) without a finished round in between; the last: {reason}. Every finished round is saved, "
        f"and the same command goes on from there; what Ray said is in {log}"
    )
    assert log.read_text().startswith("words of Ray\n")
    assert ray_parts() == []


def test_rounds_in_between_count_anew_and_are_told_from_the_ledger(
    attempt: Try, tmp_path: Path, todo: list[PlannedTrial], make_record: Callable[..., RoundRecord]
) -> None:
    """Each turn one record is kept and not reported, and the part dies: four deaths, none of them without a round."""
    with open_output(tmp_path / "out").locked() as output:
        order = [(0, 0), (0, 1), (1, 0), (1, 1)]

        class Keeping(Notes):
            def begin(self, todo: Sequence[PlannedTrial]) -> None:
                self.lines.append(f"begin {len(todo)}")

            def tell(self, line: str) -> None:
                seed, number = order[int(line)]
                output.ledger.append(f"{seed}" * 64, {"rounds": 2}, make_record(number))

        notes = Keeping()
        attempt(
            "listener.begin(job.todo); listener.tell(str(turn)); time.sleep(0.2); os._exit(1)",
            output, notes, max_failures=1,
        )  # fmt: skip
    told = [line for line in notes.lines if not line.startswith("!")]
    assert told == [
        "begin 2", "advance 0 0 0.5", "advance 0 1 0.6", "end 0 None", "advance 1 0 0.5", "advance 1 1 0.6",
        "end 1 None",
    ]  # fmt: skip
    assert [re.findall(r"try (\d) of 1", line) for line in notes.lines if line.startswith("!")] == [["1"]] * 3


def test_a_file_that_the_crash_damaged_is_set_aside_and_its_trial_computed_again(
    attempt: Try, tmp_path: Path, make_record: Callable[..., RoundRecord]
) -> None:
    with open_output(tmp_path / "out").locked() as output:
        path = output.ledger.folder / f"{'0' * 64}.json"

        class Keeping(Notes):
            def tell(self, line: str) -> None:
                for number in (0, 1):
                    output.ledger.append("0" * 64, {"rounds": 2}, make_record(number))
                path.write_bytes(path.read_bytes()[:-100])

        notes = Keeping()
        attempt(
            "turn or listener.tell(''); turn or os._exit(1); [listener.end(p, None) for p in job.todo]; ended()",
            output, notes,
        )  # fmt: skip
        assert len(output.ledger.history("0" * 64)) == 1
    aside = path.parent / "damaged" / path.name
    assert [line for line in notes.lines if "damaged" in line] == [
        f"! {path} was damaged (it is torn or damaged at character {len(aside.read_text())}): it is now {aside}; its 1 "
        "whole round(s) are kept, and the others are computed again"
    ]
    assert notes.lines[-2:] == ["end 0 None", "end 1 None"]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        ("ValueError('--address x: nobody')", ValueError),
        ("LedgerUnwritable('disk full')", LedgerUnwritable),
        ("RunStopped('enough')", RunStopped),
    ],
)
def test_what_would_only_come_again_is_raised_at_once(
    attempt: Try, tmp_path: Path, raised: str, kind: type[Exception]
) -> None:
    """Though trials may have begun: scoring actors read their weights beside them."""
    with pytest.raises(kind) as caught:
        attempt(f"listener.begin(job.todo); channel.send(Ended(error={raised}))")
    assert type(caught.value) is kind
    assert (tmp_path / "turns").read_text() == "x"


def test_a_cluster_that_goes_away_is_no_mistake_of_the_user(attempt: Try) -> None:
    source = (
        "if turn == 0: listener.begin(job.todo); sys.exit(1)\n"
        "channel.send(Ended(error=ValueError('no Ray cluster answers there')))"
    )
    with pytest.raises(RayGivenUp, match="the last: no Ray cluster answers there"):
        attempt(source, max_failures=1)


def test_silence_is_waited_for_and_then_ended_with_all_processes(
    attempt: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live node gives it the short patience; what it started is gone with it, though it heeds no wish to end."""
    monkeypatch.setattr(module, "SILENCE", 1.0)
    monkeypatch.setattr(module, "SECONDS_TO_STOP", 0.2)
    child = "import os, time; os.setpgrp(); time.sleep(99)"
    source = (
        "channel.send(Alive())\n"
        f"import subprocess; worker = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"Path({str(tmp_path / 'worker')!r}).write_text(str(worker.pid))\n"
        "time.sleep(99)"
    )
    notes = Notes()
    with pytest.raises(RayGivenUp, match=r"no live node and no progress for [12] s"):
        attempt(source, notes=notes, max_failures=0)
    assert notes.lines == []
    worker = find_process(int((tmp_path / "worker").read_text()))
    assert worker is None or worker.is_dead


def test_an_interrupt_ends_the_part_in_order(attempt: Try, tmp_path: Path) -> None:
    """The part hears of it as Ctrl-C and shuts down; KeyboardInterrupt passes."""

    class Impatient(Notes):
        def tell(self, line: str) -> None:
            raise KeyboardInterrupt

    source = (
        # As the real part does: a process that a shell started in the background ignores Ctrl-C, and so would this one.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "channel.stop_when_closed(lambda: None)\n"
        "try:\n    listener.tell('up')\n    time.sleep(60)\n"
        f"except KeyboardInterrupt:\n    Path({str(tmp_path / 'end')!r}).write_text('in order')\n"
    )
    with pytest.raises(KeyboardInterrupt):
        attempt(source, notes=Impatient())
    assert (tmp_path / "end").read_text() == "in order"
    assert ray_parts() == []
