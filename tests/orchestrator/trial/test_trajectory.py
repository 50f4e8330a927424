"""Whole tiny trials: the counts, continuing from any round, and nothing left to chance."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.registry import open_data_set
from models.classifier.inputs import FeatureRows
from models.classifier.loss_prediction import LossPredictionTarget
from models.device import Machine, use_threads
from orchestrator.ledger.classifiers import ClassifierStore, forget_first
from orchestrator.ledger.records import RoundRecord
from orchestrator.problem import pose_problem
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig
from orchestrator.trial.trajectory import Trajectory
from strategies.base import IndexArray, LearningStrategy, Memory, PoolView, Selection, Strategy
from strategies.purity.contract import RequestFigures
from strategies.random import Random
from strategies.uncertainty import LeastConfidence
from tests.strategies.views import ArrayScorer

TINY = {"width": 2, "steps": 8, "batch_size": 8, "flip": False, "crop_padding": 1}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    use_threads(1)


def tiny_trial(**changes: Any) -> TrialConfig:
    settings: dict[str, Any] = {
        "dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": "conf", "seed": 0,
        "rounds": 4, "budget": 20, "recipe": TINY,
    }  # fmt: skip
    return make_trial(**(settings | changes))


def trajectory(trial: TrialConfig, strategy: Strategy | None = None, *, folder: Path | None = None) -> Trajectory:
    return Trajectory(
        trial,
        pose_problem(trial, open_data_set("digits")),
        strategy or LeastConfidence(),
        target=LL if trial.strategy == "ll" else None,
        machine=Machine(device=torch.device("cpu")),
        classifiers=ClassifierStore(folder, "f" * 64),
    )


LL = LossPredictionTarget(hidden=4, weight=1.0, margin=1.0, detach_after=0.6, identity={"hidden": 4})


def numbers(records: list[RoundRecord]) -> list[dict[str, Any]]:
    return [record.numbers() for record in records]


@pytest.fixture(scope="module")
def complete() -> list[RoundRecord]:
    use_threads(1)
    return trajectory(tiny_trial()).run([], lambda record: None)


class Stopped(Exception):
    """Stands for a kill."""


def run_until(trial: TrialConfig, last: int, folder: Path | None) -> list[RoundRecord]:
    """The records that were reported before the trial was stopped, right after round `last`."""
    kept: list[RoundRecord] = []

    def report(record: RoundRecord) -> None:
        kept.append(record)
        if record.round == last:
            raise Stopped

    with pytest.raises(Stopped):
        trajectory(trial, folder=folder).run([], report)
    return kept


def test_the_counts_add_up(complete: list[RoundRecord]) -> None:
    assert [record.round for record in complete] == [0, 1, 2, 3]
    assert (complete[0].num_id, complete[0].num_ood) == (8, 12)
    for before, record in pairwise(complete):
        assert len(set(record.queried_idx)) == 20
        gained = record.num_id - before.num_id
        assert record.precision == gained / 20
        assert record.num_id + record.num_ood == before.num_id + before.num_ood + 20
    assert complete[0].precision is None
    assert complete[0].queried_idx == []


def test_precision_is_that_of_the_true_labels(complete: list[RoundRecord]) -> None:
    trial = tiny_trial()
    data = open_data_set("digits")
    id_classes = pose_problem(trial, data).split.id_classes
    for record in complete[1:]:
        is_id = np.isin(data.train.labels[record.queried_idx], id_classes)
        assert record.precision == is_id.mean()


def test_the_same_trial_twice_gives_equal_records(complete: list[RoundRecord]) -> None:
    again = trajectory(tiny_trial()).run([], lambda record: None)
    assert numbers(again) == numbers(complete)


def test_another_trial_in_between_changes_nothing(complete: list[RoundRecord]) -> None:
    trajectory(tiny_trial(seed=5, rounds=2), Random()).run([], lambda record: None)
    torch.manual_seed(99)
    again = trajectory(tiny_trial()).run([], lambda record: None)
    assert numbers(again) == numbers(complete)


@pytest.mark.parametrize("last", [0, 1, 2])
@pytest.mark.parametrize("keeps_classifier", [True, False])
def test_a_stopped_trial_goes_on_to_equal_records(
    complete: list[RoundRecord], tmp_path: Path, last: int, keeps_classifier: bool
) -> None:
    folder = tmp_path if keeps_classifier else None
    history = run_until(tiny_trial(), last, folder)
    assert len(list(tmp_path.glob("*.pt"))) == keeps_classifier
    reported: list[RoundRecord] = []
    records = trajectory(tiny_trial(), folder=folder).run(history, reported.append)
    assert numbers(records) == numbers(complete)
    assert [record.round for record in reported] == list(range(last + 1, 4))
    assert list(tmp_path.glob("*.pt")) == []


def rounds_given_to(monkeypatch: pytest.MonkeyPatch, method: str) -> list[int]:
    """The rounds that this method of Trajectory is called with from now on."""
    rounds: list[int] = []
    original = getattr(Trajectory, method)

    def call(self: Trajectory, round_number: int, *others: Any) -> torch.nn.Module:
        rounds.append(round_number)
        network: torch.nn.Module = original(self, round_number, *others)
        return network

    monkeypatch.setattr(Trajectory, method, call)
    return rounds


def test_a_kept_classifier_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = rounds_given_to(monkeypatch, "_train")
    history = run_until(tiny_trial(), 1, tmp_path)
    trajectory(tiny_trial(), folder=tmp_path).run(history, lambda record: None)
    assert trained == [0, 1, 2, 3]


def test_the_classifier_of_round_0_is_trained_once_for_all_strategies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = rounds_given_to(monkeypatch, "_fit")
    alone = trajectory(tiny_trial(rounds=2), Random()).run([], lambda record: None)
    assert trained == [0, 1]
    for changes, expected in (
        ({}, [0, 1]),
        ({"strategy": "random"}, [1]),
        ({"seed": 1}, [0, 1]),
        ({"recipe": TINY | {"steps": 9}}, [0, 1]),
        ({"strategy": "ll"}, [0, 1]),
    ):
        trained.clear()
        records = trajectory(tiny_trial(rounds=2, **changes), Random(), folder=tmp_path).run([], lambda record: None)
        assert trained == expected, changes
        if changes in ({}, {"strategy": "random"}):
            assert numbers(records) == numbers(alone)
    forget_first(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_linear_heads_on_other_weights_of_one_name_share_nothing(tmp_path: Path) -> None:
    data = open_data_set("digits")
    linear = {"network": "linear", "encoder": "timm:vit@weights.pt", "flip": False, "crop_padding": 0, "steps": 8}
    trial = tiny_trial(rounds=1, strategy="random", recipe=linear)

    def accuracy(weights: str) -> float:
        rng = np.random.default_rng(len(weights))
        train, test = (
            FeatureRows(rng.normal(size=(len(part), 3)).astype(np.float32), identity=f"{weights} {len(part)}")
            for part in (data.train.labels, data.test.labels)
        )
        device, store = torch.device("cpu"), ClassifierStore(tmp_path, "f" * 64)
        one = Trajectory(
            trial,
            pose_problem(trial, data),
            Random(),
            machine=Machine(device=device),
            classifiers=store,
            features=(train, test),
        )
        (record,) = one.run([], lambda record: None)
        return record.accuracy

    first, second = accuracy("old"), accuracy("newer")
    assert len(list(tmp_path.rglob("*.pt"))) == 2
    assert (accuracy("old"), accuracy("newer")) == (first, second)


def test_more_rounds_go_on_from_fewer(complete: list[RoundRecord]) -> None:
    fewer = trajectory(tiny_trial(rounds=2)).run([], lambda record: None)
    more = trajectory(tiny_trial()).run(fewer, lambda record: None)
    assert numbers(more) == numbers(complete)


def test_records_survive_json(complete: list[RoundRecord]) -> None:
    for record in complete:
        assert RoundRecord(**json.loads(json.dumps({f: getattr(record, f) for f in record.__slots__}))) == record


def test_records_of_another_trial_are_refused(complete: list[RoundRecord]) -> None:
    with pytest.raises(ValueError, match=r"does not belong to digits mismatch 0\.2 ood 0\.6 conf seed 1"):
        trajectory(tiny_trial(seed=1)).run(complete[:1], lambda record: None)


def test_a_tampered_query_is_noticed(complete: list[RoundRecord]) -> None:
    swapped = replace(complete[1], queried_idx=complete[2].queried_idx)
    with pytest.raises(ValueError, match="round 1 does not belong"):
        trajectory(tiny_trial()).run([complete[0], swapped], lambda record: None)


def test_strategies_of_a_seed_start_equal(complete: list[RoundRecord]) -> None:
    first = trajectory(tiny_trial(rounds=1, strategy="random"), Random()).run([], lambda record: None)
    assert first[0].numbers() == complete[0].numbers()


def test_a_strategy_sees_no_hidden_label() -> None:
    class Spy(Strategy):
        """Keeps what it was shown."""

        def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
            seen.append(view)
            return Random().select(view, budget, rng)

    seen: list[PoolView] = []
    trial = tiny_trial(rounds=2)
    trajectory(trial, Spy()).run([], lambda record: None)
    (view,) = seen
    assert set(view.labelled_id_labels.tolist()) <= {0, 1}
    assert len(view.labelled_id_labels) == len(view.labelled_id_idx) == 8
    assert len(view.unlabelled_idx) == 450 - 20
    shown = {name for name in dir(view.images) if not name.startswith("_")}
    assert shown <= {"fingerprint", "image_size", "load", "pixels_NHWC"}


def test_purity_is_judged_by_the_oracles_side() -> None:
    class AllId(Strategy):
        """Judges every image ID."""

        def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
            return replace(Random().select(view, budget, rng), judged_id_idx=view.unlabelled_idx)

    records = trajectory(tiny_trial(rounds=2), AllId()).run([], lambda record: None)
    # 180 ID images, 8 of them labelled; 450 images, 20 of them labelled.
    assert records[1].diagnostics == {"purity_precision": (180 - 8) / 430, "purity_recall": 1.0}


class Accumulating(LearningStrategy):
    """Picks by what it remembers, and remembers what it was told."""

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        start = int(sum(view.memory.get("answers", ())))
        idx = view.unlabelled_idx[start : start + budget]
        return Selection(idx=idx, scores=np.zeros(len(idx)))

    def learn(self, view: PoolView, selection: Selection, answers_Q: IndexArray, rng: np.random.Generator) -> Memory:
        assert set(selection.idx.tolist()) <= set(view.unlabelled_idx.tolist())  # the view from before the query
        return {"answers": [*view.memory.get("answers", ()), *answers_Q], "noise": [rng.random()]}


def test_what_a_strategy_learns_survives_a_stop() -> None:
    complete = trajectory(tiny_trial(), Accumulating()).run([], lambda record: None)
    assert [len(record.memory.get("answers", ())) for record in complete] == [0, 20, 40, 60]
    as_read = [RoundRecord(**json.loads(json.dumps(asdict(record)))) for record in complete[:2]]
    continued = trajectory(tiny_trial(), Accumulating()).run(as_read, lambda record: None)
    assert numbers(continued) == numbers(complete)
    assert continued[3].queried_idx != complete[2].queried_idx


def test_what_a_purity_request_took_is_in_the_record_and_changes_no_number() -> None:
    scorer = ArrayScorer()
    scorer.last_request = RequestFigures(seconds=0.25, queue=3, lost=1, tied_scales=2)
    trial = tiny_trial(rounds=2)
    problem = pose_problem(trial, open_data_set("digits"))
    store = ClassifierStore(None, "f" * 64)
    with_figures = Trajectory(
        trial, problem, LeastConfidence(), machine=Machine(device=torch.device("cpu")), classifiers=store, scorer=scorer
    ).run([], lambda record: None)
    without = trajectory(trial).run([], lambda record: None)
    assert [record.service for record in with_figures] == [
        {},
        {"seconds": 0.25, "queue": 3, "lost": 1, "tied_scales": 2},
    ]
    assert numbers(with_figures) == numbers(without)


def test_a_training_that_diverges_says_so() -> None:
    trial = tiny_trial(recipe=TINY | {"learning_rate": 1e12, "steps": 30})
    with pytest.raises(ArithmeticError, match=r"training diverged.*lower recipe\.learning_rate"):
        trajectory(trial).run([], lambda record: None)


def test_full_data_is_one_training_on_every_id_image() -> None:
    trial = tiny_trial(rounds=1, full_data=True, strategy="random")
    (record,) = trajectory(trial, Random()).run([], lambda record: None)
    labels = open_data_set("digits").train.labels
    id_classes = pose_problem(trial, open_data_set("digits")).split.id_classes
    assert (record.num_id, record.num_ood) == (int(np.isin(labels, id_classes).sum()), 0)
    assert (record.queried_idx, record.precision) == ([], None)
    started = trajectory(tiny_trial(rounds=1), Random()).run([], lambda record: None)
    assert record.accuracy != started[0].accuracy


def test_a_pool_without_ood_images_sells_none() -> None:
    records = trajectory(tiny_trial(ood_ratio=0.0, rounds=3)).run([], lambda record: None)
    assert [(record.num_id, record.num_ood, record.precision) for record in records] == [
        (20, 0, None), (40, 0, 1.0), (60, 0, 1.0),
    ]  # fmt: skip


def test_zero_shot_takes_the_nearest_class_and_no_label(tmp_path: Path) -> None:
    """Features of two numbers: the first tells the classes apart, the second is the same for all."""
    trial = tiny_trial(rounds=1, strategy="random", recipe={"name": "zero-shot"})
    data = open_data_set("digits")
    problem = pose_problem(trial, data)
    is_first_ND = [
        np.where(problem.split.relabel(images.labels) == 0, 3.0, -2.0)[:, None] * [[1.0, 0.0]] + [[0.0, 5.0]]
        for images in (data.train, data.test)
    ]
    rows = tuple(FeatureRows(each.astype(np.float32), identity="toy") for each in is_first_ND)
    accuracies = []
    for towards_first in (1.0, -1.0):
        run = Trajectory(
            trial,
            problem,
            Random(),
            machine=Machine(device=torch.device("cpu")),
            classifiers=ClassifierStore(tmp_path, "f" * 64),
            features=(rows[0], rows[1]),
            class_features_KD=np.array([[towards_first, 0.0], [-towards_first, 0.0]], dtype=np.float32),
        )
        (record,) = run.run([], lambda record: None)
        assert (record.num_id, record.num_ood) == (0, 0)
        accuracies.append(record.accuracy)
    assert accuracies == [1.0, 0.0]  # the second is not the first's kept classifier
