"""The check of a selection, and `python -m strategies.check`: what breaks the contract is named with what was due."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.base import PoolView, Selection, Strategy, StrategyError, check_memory, check_selection
from strategies.check import check_contract, main, toy_view
from strategies.uncertainty import LeastConfidence

POOL = np.array([3, 5, 8, 9], dtype=np.int64)
GOOD: dict[str, Any] = {"idx": np.array([8, 3], dtype=np.int64), "scores": np.array([0.5, 0.25])}


def checked(selection: object, *, budget: int = 2) -> Selection:
    return check_selection(selection, unlabelled_idx=POOL, budget=budget, who="strategy a:B after round 4")


def test_what_keeps_the_contract_is_given_back() -> None:
    selection = Selection(
        **GOOD, judged_id_idx=np.array([9], dtype=np.int64), diagnostics={"a": 1, "b": None, "c": True, "d": 0.5}
    )
    assert checked(selection) is selection
    everything = Selection(idx=POOL[::-1], scores=np.zeros(4))
    assert checked(everything, budget=9) is everything


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"idx": np.array([8])}, r"returned 1 images to label; exactly 2 were due \(the budget is 2, and 4 images are"),
        ({"idx": np.array([8, 3, 5]), "scores": np.zeros(3)}, "returned 3 images to label; exactly 2 were due"),
        ({"idx": np.empty(0, dtype=np.int64), "scores": np.empty(0)}, "returned 0 images to label; exactly 2"),
        ({"idx": np.array([])}, r"idx is an array of float64 with shape \(0,\); a vector of int64 was due"),
        ({"idx": [8, 3]}, r"idx is list \[8, 3\]; a vector of int64 was due"),
        ({"idx": np.array([8, 3], dtype=np.int32)}, "idx is an array of int32"),
        ({"idx": np.array([[8, 3]])}, r"idx is an array of int64 with shape \(1, 2\)"),
        ({"idx": np.array([True, False])}, "idx is an array of bool"),
        ({"idx": np.array([0, 3])}, r"idx holds 1 images that are not unlabelled \(the first is 0\).*view\.pick"),
        ({"idx": np.array([-1, 3])}, r"idx holds 1 images that are not unlabelled \(the first is -1\)"),
        ({"idx": np.array([8, 8])}, "idx holds image 8 more than once; distinct images were due"),
        ({"scores": np.zeros(3)}, r"scores is an array of float64 with shape \(3,\); an array of 2 numbers"),
        ({"scores": [0.5, 0.25]}, r"scores is list \[0.5, 0.25\]"),
        ({"scores": np.array([1j, 2])}, "scores is an array of complex128"),
        ({"scores": np.array([0.5, np.nan])}, r"1 of 2 scores are not finite \(the first is nan, of image 3\)"),
        ({"scores": np.array([np.inf, 0.5])}, r"the first is inf, of image 8"),
        ({"judged_id_idx": np.array([4])}, r"judged_id_idx holds 1 images that are not unlabelled \(the first is 4\)"),
        ({"judged_id_idx": np.array([9, 9])}, "judged_id_idx holds image 9 more than once"),
        ({"judged_id_idx": np.array([True] * 4)}, "judged_id_idx is an array of bool"),
        ({"diagnostics": {"a": np.float32(0.5)}}, r"diagnostics\['a'\] is float32 .*; a finite Python number"),
        ({"diagnostics": {"a": float("nan")}}, r"diagnostics\['a'\] is float nan"),
        ({"diagnostics": {3: 1}}, r"diagnostics\[3\]"),
        ({"diagnostics": [1]}, r"diagnostics is list \[1\]"),
    ],
)
def test_what_breaks_it_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(StrategyError, match=f"^strategy a:B after round 4.*{told}") as caught:
        checked(Selection(**{**GOOD, **changes}))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("returned", [None, [8, 3], np.array([8, 3])])
def test_what_is_no_selection_at_all(returned: object) -> None:
    with pytest.raises(StrategyError, match=r"select\(\) returned .*; a strategies\.base\.Selection was due"):
        checked(returned)


@pytest.mark.parametrize(
    "memory", [None, [1.0], {"a": 1.0}, {"a": [float("inf")]}, {"a": ["x"]}, {1: [1.0]}, {"a": [10**400]}]
)
def test_what_no_record_can_remember(memory: object) -> None:
    with pytest.raises(StrategyError, match=r"^a:B: learn\(\) returned .* due$"):
        check_memory(memory, who="a:B")
    assert check_memory({"a": [1, 2.5]}, who="a:B") == {"a": [1, 2.5]}


def test_pick_turns_positions_into_indices() -> None:
    view = toy_view()
    scores = np.arange(len(view.unlabelled_idx), dtype=np.float32)
    selection = view.pick(np.array([4, 0]), scores)
    assert selection.idx.tolist() == [view.unlabelled_idx[4], view.unlabelled_idx[0]]
    assert selection.scores.tolist() == [4.0, 0.0]
    with pytest.raises(ValueError, match="a score for each of the 49 unlabelled images, not 2 scores"):
        view.pick(np.array([4, 0]), scores[:2])


def test_a_strategy_of_the_project_passes() -> None:
    passed: list[str] = []
    check_contract(LeastConfidence, "conf", passed.append)
    assert len(passed) == 8


class Restless(Strategy):
    """Another answer each time."""

    calls = 0

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        Restless.calls += 1
        positions = (np.arange(min(budget, len(view.unlabelled_idx))) + Restless.calls) % len(view.unlabelled_idx)
        return view.pick(positions, np.zeros(len(view.unlabelled_idx)))


class Backwards(Strategy):
    """The last of equals first."""

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        num = len(view.unlabelled_idx)
        return view.pick(np.arange(num)[::-1][: min(budget, num)], np.zeros(num))


def test_answers_that_differ_and_ties_that_go_elsewhere_are_found() -> None:
    with pytest.raises(StrategyError, match="a budget of 1: equal arguments gave different answers"):
        check_contract(Restless, "a:Restless", lambda line: None)
    with pytest.raises(StrategyError, match=r"equal images: picked \[59, .*ties go to the lowest index, so \["):
        check_contract(Backwards, "a:Backwards", lambda line: None)


PLUGINS = """
import sys
import numpy as np
from strategies.base import LearningStrategy, Selection, Strategy, highest_first
class Good(Strategy):
    def select(self, view, budget, rng):
        scores = view.outputs().logits_NK.max(axis=1)
        return view.pick(highest_first(scores, budget), scores)
class Few(Good):
    def select(self, view, budget, rng):
        return super().select(view, budget - 1, rng)
class Raises(Good):
    def select(self, view, budget, rng):
        return 1 / 0
class Leaves(Good):
    def select(self, view, budget, rng):
        sys.exit(0)
class Writes(Good):
    def select(self, view, budget, rng):
        view.unlabelled_idx[0] = 1
class Made(Good):
    def __init__(self):
        raise KeyError("gone")
class Learns(Good, LearningStrategy):
    def learn(self, view, selection, answers_Q, rng):
        return {"a": [None]}
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of plug-ins in the current folder, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "toys.py"
    file.write_text(PLUGINS)
    yield file
    sys.modules.pop("toys", None)
    importlib.invalidate_caches()


def test_the_command_passes_a_good_one(plugins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["toys:Good"]) == 0
    assert capsys.readouterr().out.startswith("toys:Good keeps the contract: a budget of 1, a budget of 7, ")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("toys:Few", "strategy toys:Few, a budget of 1: returned 0 images to label; exactly 1 were due"),
        ("toys:Raises", "toys:Raises, a budget of 1 failed: ZeroDivisionError: division by zero ({}, line 14)"),
        ("toys:Leaves", "strategy toys:Leaves, a budget of 1 failed: SystemExit: 0 ({}, line 17)"),
        ("toys:Writes", "failed: ValueError: assignment destination is read-only ({}, line 20)"),
        ("toys:Made", "strategy toys:Made failed: KeyError: 'gone' ({}, line 23)"),
        ("toys:Learns", "learning from answers: learn() returned list [None] as 'a'; a list of finite numbers was due"),
        ("conf", "conf is a strategy of this project"),
        ("nowhere:Good", "cannot import nowhere"),
    ],
)  # fmt: skip
def test_the_command_names_file_and_line(
    plugins: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    assert main([name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert told.format(plugins) in err


def test_a_module_that_leaves_while_it_is_imported(plugins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugins.write_text("import sys\n\nsys.exit(3)\n")
    assert main(["toys:Good"]) == 2
    assert f"toys fails on import: SystemExit: 3 ({plugins}, line 3)" in capsys.readouterr().err
