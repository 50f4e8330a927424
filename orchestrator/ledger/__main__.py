"""List, check and repair the ledger of an output folder: `python -m orchestrator.ledger`."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # `python -m` puts the current folder first, which may be somebody else's run folder: import no file from there.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120

import argparse
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.cache_check import check_cache, check_weights, mend_cache
from data.console import DONE, SOME_FAILED, CommandParser, duration, run_command
from data.files import TEMPORARY, cache_root, leftovers, path_argument
from data.sealed import Damaged, Newer, read_sealed_json
from orchestrator.ledger.damaged import Examined, examine
from orchestrator.ledger.ledger import Ledger, TrajectoryState
from orchestrator.ledger.output import MARKER, OutputFolder, find_output, output_to_repair
from orchestrator.ledger.plausible import HASH
from orchestrator.ledger.repair import DAMAGED, set_aside
from orchestrator.ledger.words import clock, describe_trial

Repair = Literal["none", "remove", "set aside"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A fault of an output folder."""

    path: Path
    what: str
    repair: Repair
    """Its repair: remove the file, set it aside (keeping its whole rounds), or none."""
    examined: Examined | None = None
    """What was found in a file to set aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Result of checking an output folder."""

    states: tuple[TrajectoryState, ...]
    """States of all trials, as far as they can be trusted."""
    problems: tuple[Problem, ...]


def check_output(output: OutputFolder) -> Checked:
    """Read every file of the ledger and look for leftovers of killed runs; change nothing.

    While a run is writing, its unfinished files are no problem.
    """
    states, problems = [], []
    for path in sorted(output.ledger.folder.iterdir()) if output.ledger.folder.is_dir() else []:
        if path.name == DAMAGED or TEMPORARY.fullmatch(path.name):
            continue
        if path.suffix != ".json" or not HASH.fullmatch(path.stem):
            problems.append(Problem(path=path, what="not a file of the ledger", repair="none"))
            continue
        examined = examine(path)
        if examined.state is not None and (examined.state.records or examined.problem is None):
            states.append(examined.state)
        if examined.problem is not None:
            problems.append(_damage(path, examined))
    problems.extend(_damaged_launches(output))
    problems.extend(
        Problem(path=found.path, what=f"{found.what}; its classifier is trained again", repair="remove")
        for found in check_weights(output.classifiers)
    )
    if output.writer is None:
        problems.extend(_left_behind(output))
    return Checked(states=tuple(states), problems=tuple(problems))


def _damaged_launches(output: OutputFolder) -> Iterator[Problem]:
    """Launch files that can no longer be read."""
    for path in sorted(output.path.glob("launch-*.json")):
        try:
            read_sealed_json(path, path.name)
        except (Damaged, Newer) as error:
            yield Problem(path=path, what=f"{error}; the next run of its command writes it again", repair="remove")


def _damage(path: Path, examined: Examined) -> Problem:
    if not examined.is_ours:
        return Problem(path=path, what=f"{examined.problem}", repair="none")
    kept = examined.state if examined.state and examined.state.records else None
    rounds = f"rounds 0 to {len(kept.records) - 1} of it are whole" if kept else "no round of it is whole"
    return Problem(path=path, what=f"{examined.problem}; {rounds}", repair="set aside", examined=examined)


def _left_behind(output: OutputFolder) -> Iterator[Problem]:
    """Unfinished files of killed processes."""
    tune = output.path / "tune"
    for folder in (output.path, *sorted(path for path in output.path.rglob("*") if path.is_dir())):
        if tune not in (folder, *folder.parents):
            for path in leftovers(folder):
                yield Problem(path=path, what="left behind by a run that was killed", repair="remove")
    if tune.is_dir():
        yield Problem(path=tune, what="left behind by a run that was killed", repair="remove")


def repair_output(output: OutputFolder, problems: Sequence[Problem]) -> list[str]:
    """Repair what can be repaired in a locked output folder; return one line per repair."""
    return [_repair(output.ledger, problem) for problem in problems if problem.repair != "none"]


def _repair(ledger: Ledger, problem: Problem) -> str:
    path = problem.path
    if problem.repair == "remove":
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        return f"removed {path}"
    assert problem.examined is not None
    with ledger.locked():
        kept, aside = set_aside(ledger, path, problem.examined)
    if kept is None:
        return f"moved {path.name} to {aside}: its trial is run again"
    return f"kept {len(kept.records)} round(s) of {path.name}; the original is in {aside}"


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = CommandParser(
        prog="python -m orchestrator.ledger",
        description="List the trials in an output folder's ledger and check its files. Exit code 1: problems.",
    )
    parser.add_argument(
        "output_dir", type=path_argument, metavar="OUTPUT_DIR", nargs="?", help="a grid's or trial's output folder"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="also read every file of the cache and compare its checksum; without OUTPUT_DIR only the cache",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help=f"set damaged files aside (in ledger/{DAMAGED}), keeping their whole rounds, and remove what a killed run "
        "left behind; with --verify also remove what is damaged in the cache: it is computed again",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="list the finished trials too")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(make_parser(), _run, arguments)


def _run(options: argparse.Namespace) -> int:
    if options.output_dir is None and not options.verify:
        raise ValueError("give an OUTPUT_DIR, or --verify to check the cache only")
    code = DONE
    if options.output_dir is not None:
        code = _run_output(options)
    if options.verify:
        code = max(code, _run_cache(repair=options.repair))
    return code


def _run_cache(*, repair: bool) -> int:
    """Check the cache and print what is wrong; return the exit code."""
    problems = list(check_cache())
    if repair:
        for line in mend_cache(problems):
            print(line)
        problems = list(check_cache())
    for problem in problems:
        print(f"{problem.path}: {problem.what}", file=sys.stderr)
    if not problems:
        print(f"{cache_root()}: every file of the cache is sound")
        return DONE
    mendable = sum(bool(problem.remedy) for problem in problems)
    print(f"{len(problems)} problem(s) in the cache; --verify --repair mends {mendable} of them", file=sys.stderr)
    return SOME_FAILED


def _run_output(options: argparse.Namespace) -> int:
    if not options.repair:
        output = find_output(options.output_dir)
        checked = check_output(output)
        _print_trials(output, checked.states, every=options.verbose)
        return _print_problems(output, checked.problems)
    found = output_to_repair(options.output_dir)
    with found.locked() as output:
        done = [] if found.grid_id else [f"wrote a new {MARKER}, for a damaged or lost one"]
        # Under the lock nobody else is at work: what looks left behind is left behind.
        problems = [*check_output(output).problems, *_left_behind(output)]
        done += repair_output(output, problems)
    for line in done or ["nothing to mend"]:
        print(line)
    return _print_problems(output, check_output(output).problems)


def _print_trials(output: OutputFolder, states: Sequence[TrajectoryState], *, every: bool) -> None:
    """Print the trials by status, with their last record's time; finished ones as a count unless `every` is set."""
    finished = [state for state in states if state.is_finished]
    failed = [state for state in states if state.error is not None and not state.is_finished]
    unfinished = [state for state in states if state.error is None and not state.is_finished]
    records = [record for state in states for record in state.records]
    print(
        f"{output.path}: {len(states)} trial(s) in the ledger: {len(finished)} finished, {len(unfinished)} unfinished, "
        f"{len(failed)} failed; {len(records)} record(s)"
        + (f", the last {_ago(max(record.time_ms for record in records))}" if records else "")
    )
    for code in sorted({_code(record.environment) for record in records}):
        print(f"  made by {code}")
    if output.writer is not None:
        print(f"  a run is writing to it now (process {output.writer})")
    for word, group in (("finished", finished if every else []), ("unfinished", unfinished), ("failed", failed)):
        for state in sorted(group, key=lambda state: describe_trial(state.trial)):
            last = f", last {clock(state.records[-1].time_ms)}" if state.records else ""
            error = f": {' '.join(state.error.split())}" if word == "failed" and state.error else ""
            print(
                f"{word:10} {state.fingerprint[:12]}  {describe_trial(state.trial)}: {len(state.records)} of "
                f"{state.trial.get('rounds', '?')} rounds{last}{error}"
            )


def _print_problems(output: OutputFolder, problems: Sequence[Problem]) -> int:
    """Print what is wrong on standard error; return the exit code."""
    for problem in problems:
        print(f"{problem.path.relative_to(output.path)}: {problem.what}", file=sys.stderr)
    if not problems:
        print("every file is sound")
        return DONE
    mendable = sum(problem.repair != "none" for problem in problems)
    advice = "; mend with --repair" if mendable == len(problems) else f"; --repair mends {mendable} of them"
    print(f"{len(problems)} problem(s){advice if mendable else '; move those files away yourself'}", file=sys.stderr)
    return SOME_FAILED


def _code(environment: object) -> str:
    """Describe the code that made a record."""
    assert isinstance(environment, dict)
    if "version" not in environment:
        return "a version that did not say which"
    commit = f" commit {environment['commit']}" if "commit" in environment else ""
    return f"version {environment['version']}{commit} (source {environment.get('source', '?')})"


def _ago(time_ms: int) -> str:
    return f"{clock(time_ms)} ({duration(max(0.0, time.time() - time_ms / 1000))} ago)"


if __name__ == "__main__":
    sys.exit(main())
