"""Strategies from elsewhere are found, checked, and run; the example of docs/own_strategy.md is one."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from data.console import RunStopped
from orchestrator.cluster.scorer_client import ScorerUnavailable
from orchestrator.settings.reading import make_trial
from strategies import registry as plugins
from strategies.base import StrategyError
from strategies.check import toy_view
from strategies.plugin import blamed_on, load_strategy
from strategies.registry import find_strategy
from strategies.uncertainty import LeastConfidence
from tests.strategies.views import select

PAGE = Path(__file__).parents[2] / "docs" / "own_strategy.md"
TRIAL = {"dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "seed": 0}


def example() -> str:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with modules that are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_the_commands_of_the_guide_run_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "my_strategy.py").write_text(example())
    project = PAGE.parents[1]
    text = PAGE.read_text().split("VLPURE=~/vlpure\n")[1].split("```")[0]
    text = text.replace("$VLPURE/.venv/bin/python", sys.executable).replace("$VLPURE", str(project))
    check, trial, table = text.splitlines()
    # As `make setup` leaves it: the project is installed, so that its modules are found from everywhere.
    environment = os.environ | {"PYTHONPATH": str(project)}
    for command, last in (
        (check, "my_strategy:SureAndSpread keeps the contract"),
        (f"{trial} --rounds 1", "aubc "),
        (f"{table} --dry-run", "With 2 rivals, Holm asks"),
    ):
        words = shlex.split(command)
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1].startswith(last)


def test_the_example_of_the_guide(folder: Path) -> None:
    assert example().count("\n") < 40
    (folder / "my_strategy.py").write_text(example())
    view = toy_view()
    name = "my_strategy:SureAndSpread"
    for budget in (1, 9, 1000):
        selection = select(name, view, budget)
        assert len(set(selection.idx.tolist())) == min(budget, len(view.unlabelled_idx))
        assert set(selection.idx.tolist()) <= set(view.unlabelled_idx.tolist())
    np.testing.assert_array_equal(select(name, toy_view(constant=True), 5).idx, view.unlabelled_idx[:5])
    assert find_strategy(name).paper_name == "SureAndSpread"


def test_its_records_belong_to_its_source(folder: Path) -> None:
    (folder / "my_strategy.py").write_text(example())
    trial = make_trial(**TRIAL, strategy="my_strategy:SureAndSpread")
    first = trial.fingerprint(data_fingerprint="d", clipn_identity=None)
    assert first == trial.fingerprint(data_fingerprint="d", clipn_identity=None)
    (folder / "my_strategy.py").write_text(example() + "# changed\n")
    assert trial.fingerprint(data_fingerprint="d", clipn_identity=None) != first


def test_an_installed_package_offers_one_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "my_strategy.py").write_text(example())
    point = importlib.metadata.EntryPoint("my-strategy", "my_strategy:SureAndSpread", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == plugins.GROUP else [])
    assert len(select("my-strategy", toy_view(), 3).idx) == 3


def test_a_name_offered_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [importlib.metadata.EntryPoint("mine", where, plugins.GROUP) for where in ("a:A", "a:A", "b:B")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    with pytest.raises(ValueError, match=r"strategy mine: two installed packages offer it \(a:A and b:B\)"):
        find_strategy("mine")
    monkeypatch.setattr(plugins, "entry_points", lambda group: points[:2])
    assert plugins.offered_strategies() == {"mine": "a:A"}


BAD = """
from strategies.base import Strategy
class Half(Strategy): pass
class Needy(Strategy):
    def __init__(self, radius): pass
    def select(self, view, budget, rng): pass
class Other: pass
"""


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("bad:Half", "Half is abstract; write its select"),
        ("bad:Needy", "must be made without arguments; give radius a default"),
        ("bad:Other", "no class 'Other' that is a strategies.base.Strategy"),
        ("bad:Missing", "no class 'Missing'"),
        ("nowhere:Strategy", "cannot import nowhere"),
        ("broken:Strategy", "cannot import broken"),
        ("torn:Strategy", "torn fails on import: SyntaxError"),
        ("failing:Strategy", "failing fails on import: ZeroDivisionError: division by zero"),
        ("bad:", "must be module:Class"),
        (":Half", "must be module:Class"),
        (".bad:Half", "must be module:Class"),
        ("bad/half:Half", "must be module:Class"),
    ],
)
def test_what_is_no_strategy_is_refused_in_one_line(folder: Path, where: str, message: str) -> None:
    (folder / "bad.py").write_text(BAD)
    (folder / "broken.py").write_text("import no_such_module\n")
    (folder / "torn.py").write_text("class Strategy(\n")
    (folder / "failing.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=message) as caught:
        load_strategy(where)
    assert "\n" not in str(caught.value)


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        (lambda: LeastConfidence().select(None, 1, None), "AttributeError: .*uncertainty.py, line"),  # type: ignore[arg-type]
        (lambda: np.zeros(3) + np.zeros(4), "ValueError: operands could not be broadcast"),
        (lambda: torch.zeros(3) @ torch.zeros(4), "RuntimeError: .*test_plugins.py, line"),
        (lambda: {}["memory"], "KeyError: 'memory'"),
    ],
    ids=["attribute", "shape", "torch", "key"],
)
def test_a_mistake_in_a_strategy_of_ours_names_its_line(fails: Callable[[], object], told: str) -> None:
    with (
        pytest.raises(StrategyError, match=f"^strategy conf, at the query failed: {told}"),
        blamed_on(LeastConfidence, "strategy conf, at the query"),
    ):
        fails()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("raise the budget"), MemoryError("lower eval_batch_size"), ZeroDivisionError("diverged"),
        OSError(5, "Input/output error"), torch.OutOfMemoryError("CUDA out of memory"), ScorerUnavailable("none"),
        RuntimeError("CUDA error: an illegal memory access was encountered"), RunStopped("the disk is full"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=str,
)  # fmt: skip
def test_what_may_pass_or_is_said_already_reaches_the_trial_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, blamed_on(LeastConfidence, "strategy conf"):
        fail(error)
    assert caught.value is error
