"""The loop of one trial: train, measure, record, query; knows neither Ray nor MLflow.

A trajectory is resumed from its records only: the pool is rebuilt from the queried indices, and every random stream
from (seed, name, round).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from torch import nn

from data.imageset import Images
from data.pool import Pool
from models.classifier.fit import StepProgress, fit
from models.classifier.inputs import FeatureRows, Normalise, training_inputs
from models.classifier.outputs import ClassifierOutputs
from models.classifier.predict import predict
from models.classifier.target import Lesson, RoundLabels, Target
from models.classifier.workshop import Workshop
from models.device import Machine, peak_memory_mib
from models.mps import card_sharing
from orchestrator.ledger.classifiers import ClassifierStore, StateDict
from orchestrator.ledger.records import DATA_NOTES, RECALL, RoundRecord, query_precision
from orchestrator.problem import OpenSetProblem
from orchestrator.settings.trial import TrialConfig
from orchestrator.trial.classifier import ClassifierPlan, stream_generator, stream_seed
from orchestrator.trial.environment import describe_environment
from strategies.base import (
    Diagnostic,
    IndexArray,
    LearningStrategy,
    Memory,
    PoolView,
    Selection,
    Strategy,
    check_memory,
    check_selection,
)
from strategies.plugin import blamed_on
from strategies.purity.contract import PurityScorer
from strategies.registry import find_strategy

Report = Callable[[RoundRecord], None]
PURITY_DIGITS = 4
"""Decimals of the purity scores in a record."""
UNKNOWN = -1
"""Label of an image whose label has not been bought."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query with its answers, for the next record: how its training set came about."""

    selection: Selection
    num_id: int
    diagnostics: dict[str, Diagnostic]
    memory: Memory


class Trajectory:
    """One trial on one device."""

    def __init__(
        self,
        trial: TrialConfig,
        problem: OpenSetProblem,
        strategy: Strategy,
        *,
        machine: Machine,
        classifiers: ClassifierStore,
        features: tuple[FeatureRows, FeatureRows] | None = None,
        class_features_KD: NDArray[np.float32] | None = None,
        scorer: PurityScorer | None = None,
        target: Target | None = None,
        progress: StepProgress | None = None,
    ) -> None:
        """Take the parts to compute with.

        `features` of the training and test images are what the classifier reads instead of pixels (a linear head);
        `class_features_KD` what it compares them with if nothing is trained (zero-shot);
        `target` is what the strategy makes of the round's classifier, if anything;
        `scorer` is the one that the strategy asks, if it does, for what its requests took. `gpus` is the share of a GPU
        that it was given, for the records.
        """
        self._trial = trial
        self._problem = problem
        self._strategy = strategy
        self._machine = machine
        self._device = machine.device
        self._classifiers = classifiers
        self._scorer = scorer
        # Without its target a strategy would be given the common classifier, and share it, in silence.
        assert (target is None) == (find_strategy(trial.strategy).target is None), trial.strategy
        self._target = target
        self._progress = progress
        data = problem.data
        self._train_inputs: Images | FeatureRows = features[0] if features else data.train.images
        self._test_inputs: Images | FeatureRows = features[1] if features else data.test.images
        num_features = features[0].num_features if features else None
        self._plan = ClassifierPlan(
            trial, problem.num_id_classes, num_features=num_features, class_features_KD=class_features_KD
        )
        self._inputs_identity = features[0].identity if features else None
        self._normalise = Normalise(problem.data.mean, problem.data.std, machine.device)
        self._oracle = problem.oracle()
        self._labels = np.full(len(problem.data.train.labels), UNKNOWN, dtype=np.int64)
        self._pool = Pool.from_split(problem.split)
        for idx in (self._pool.labelled_id_idx, self._pool.labelled_ood_idx):
            self._labels[idx] = self._oracle.answer(idx)

    def run(self, history: Sequence[RoundRecord], report: Report) -> list[RoundRecord]:
        """Run the trial and return all its records: `history`, then the new ones, each passed to `report` at once.

        Raises ValueError if the history does not belong to the trial.
        """
        records = list(history[: self._trial.rounds])
        self._replay(records)
        network = self._last_network(records) if 0 < len(records) < self._trial.rounds else None
        while len(records) < self._trial.rounds:
            seconds: dict[str, float] = {"query": 0.0}
            query = None
            if network is not None:
                with _timed(seconds, "query"):
                    query = self._query(network, records[-1])
            with _timed(seconds, "train"):
                network = self._train(round_number=len(records))
            with _timed(seconds, "evaluate"):
                accuracy = self._accuracy(network)
            record = self._record(len(records), accuracy, query, seconds)
            if len(records) + 1 < self._trial.rounds:
                self._classifiers.save(record.round, network.state_dict())
            report(record)
            records.append(record)
        self._classifiers.clear()
        return records

    def initial_outputs(self, idx: IndexArray) -> ClassifierOutputs:
        """Outputs of the classifier of round 0 for training images `idx`; call it before `run`."""
        return self._predict(self._train(0), self._train_inputs, idx)

    def _replay(self, records: Sequence[RoundRecord]) -> None:
        """Buy again the images that the records name, and check that the pool is the same as then."""
        for record in records:
            if record.queried_idx:
                self._buy(np.array(record.queried_idx, dtype=np.int64))
            if record.pool_checksum != self._pool.checksum():
                raise ValueError(f"the record of round {record.round} does not belong to {self._trial.label}")

    def _last_network(self, records: Sequence[RoundRecord]) -> nn.Module:
        """Classifier of the last finished round: loaded, or trained again."""
        last = records[-1].round
        weights = self._classifiers.load(last)
        return self._train(last) if weights is None else self._with_weights(weights, self._lesson(last))

    def _buy(self, idx: IndexArray) -> int:
        """Ask the oracle about unlabelled images and move them; return the number of ID images among them."""
        answers = self._oracle.answer(idx)
        self._labels[idx] = answers
        is_id = answers < self._problem.num_id_classes
        self._pool = self._pool.move(idx, is_id)
        return int(is_id.sum())

    def _query(self, network: nn.Module, last: RoundRecord) -> Query:
        """Let the strategy pick, check and buy what it picked, and let it learn from the answers.

        Raises StrategyError, and buys nothing, if the strategy breaks its contract.
        """
        view = self._view(network, last)
        who = f"strategy {self._trial.strategy}, at the query after round {last.round}"
        with blamed_on(type(self._strategy), who):
            selection = check_selection(
                self._strategy.select(view, self._trial.budget, self._generator("query", last.round)),
                unlabelled_idx=view.unlabelled_idx,
                budget=self._trial.budget,
                who=who,
            )
        diagnostics = dict(selection.diagnostics)
        if selection.judged_id_idx is not None:
            quality = self._oracle.judge(
                judged_id_idx=selection.judged_id_idx, unlabelled_idx=self._pool.unlabelled_idx
            )
            diagnostics |= {"purity_precision": quality.precision, "purity_recall": quality.recall}
        # After the check: a plug-in that breaks its contract must not get a label.
        num_id = self._buy(selection.idx)
        memory: Memory = {}
        if isinstance(self._strategy, LearningStrategy):
            answers = self._labels[selection.idx]
            with blamed_on(type(self._strategy), who):
                learnt = self._strategy.learn(view, selection, answers, self._generator("learn", last.round))
                memory = check_memory(learnt, who=who)
        return Query(selection=selection, num_id=num_id, diagnostics=diagnostics, memory=memory)

    def _generator(self, stream: str, round_number: int) -> np.random.Generator:
        return stream_generator(self._trial.seed, stream, round_number)

    def _view(self, network: nn.Module, last: RoundRecord) -> PoolView:
        pool, data = self._pool, self._problem.data
        return PoolView(
            images=data.train.images,
            data_fingerprint=data.fingerprint,
            class_names=self._problem.class_names,
            domain=data.domain,
            labelled_id_idx=pool.labelled_id_idx,
            labelled_id_labels=self._labels[pool.labelled_id_idx],
            labelled_ood_idx=pool.labelled_ood_idx,
            unlabelled_idx=pool.unlabelled_idx,
            compute_outputs=self._outputs_of(network, pool.unlabelled_idx),
            compute_labelled_outputs=self._outputs_of(network, pool.labelled_id_idx),
            workshop=self._workshop(network, last.round),
            memory=last.memory,
        )

    def _outputs_of(self, network: nn.Module, idx: IndexArray) -> Callable[[], ClassifierOutputs]:
        """Function that computes the network's outputs for training images, once.

        It must not close over this trajectory: its oracle would be one attribute away from the strategy.
        """
        # A partial over plain values: a bound method would lead from the view to the oracle.
        look = partial(
            predict,
            network,
            self._train_inputs,
            idx,
            recipe=self._plan.recipe,
            normalise=self._normalise,
            device=self._device,
        )
        return cache(look)

    def _workshop(self, network: nn.Module, round_number: int) -> Workshop:
        seed = self._trial.seed
        return Workshop(
            images=self._train_inputs,
            classifier=network,
            recipe=self._plan.recipe,
            normalise=self._normalise,
            machine=self._machine,
            weights_seed=lambda name: stream_seed(seed, f"weights of {name}"),
            batches_seed=lambda name: stream_seed(seed, f"batches of {name}", round_number),
            progress=self._progress,
        )

    def _train(self, round_number: int) -> nn.Module:
        """Train the classifier from scratch on the labelled ID images; that of round 0 may be shared."""
        if not self._plan.is_trained:
            return self._plan.new_network(None).to(self._device).eval()
        lesson = self._lesson(round_number)
        if round_number:
            return self._fit(round_number, lesson)
        identity = self._plan.identity(
            lesson,
            data_fingerprint=self._problem.data.fingerprint,
            inputs=self._inputs_identity,
            device=self._device.type,
        )
        weights = self._classifiers.first(identity, lambda: self._fit(0, lesson).state_dict())
        return self._with_weights(weights, lesson)

    def _lesson(self, round_number: int) -> Lesson | None:
        """The strategy's own lesson for the labels bought so far; None: the common classifier."""
        if self._target is None:
            return None
        pool = self._pool
        return self._target.lesson(
            RoundLabels(
                id_idx=pool.labelled_id_idx,
                id_labels=self._labels[pool.labelled_id_idx],
                ood_idx=pool.labelled_ood_idx,
                num_known=self._problem.num_id_classes,
                seed=stream_seed(self._trial.seed, "lesson", round_number),
            )
        )

    def _with_weights(self, weights: StateDict, lesson: Lesson | None) -> nn.Module:
        """Classifier with weights that were trained before."""
        network = self._plan.new_network(lesson)
        network.load_state_dict(weights)
        return network.to(self._device).eval()

    def _fit(self, round_number: int, lesson: Lesson | None) -> nn.Module:
        idx = self._pool.labelled_id_idx if lesson is None else lesson.idx
        return fit(
            self._plan.new_network(lesson),
            training_inputs(self._train_inputs, idx),
            self._labels[idx] if lesson is None else lesson.labels_N,
            recipe=self._plan.recipe,
            objective=None if lesson is None else lesson.objective(self._plan.recipe, self._device),
            normalise=self._normalise,
            batches_seed=stream_seed(self._trial.seed, "batches", round_number),
            machine=self._machine,
            progress=self._progress,
        )

    def _accuracy(self, network: nn.Module) -> float:
        """Accuracy on the test images of the ID classes, in [0, 1]."""
        given = self._predict(network, self._test_inputs, self._problem.test_idx)
        return float((given.logits_NK.argmax(axis=1) == self._problem.test_labels).mean())

    def _predict(self, network: nn.Module, images: Images | FeatureRows, idx: IndexArray) -> ClassifierOutputs:
        return predict(network, images, idx, recipe=self._plan.recipe, normalise=self._normalise, device=self._device)

    def _record(
        self, round_number: int, accuracy: float, query: Query | None, seconds: dict[str, float]
    ) -> RoundRecord:
        return RoundRecord(
            round=round_number,
            accuracy=accuracy,
            precision=query_precision(query.num_id, len(query.selection.idx)) if query else None,
            num_id=len(self._pool.labelled_id_idx),
            num_ood=len(self._pool.labelled_ood_idx),
            queried_idx=query.selection.idx.tolist() if query else [],
            diagnostics=(query.diagnostics if query else {}) | self._recall(),
            pool_checksum=self._pool.checksum(),
            seconds=seconds,
            peak_memory_mib=peak_memory_mib(self._device),
            environment=self._environment() | self._data_notes(),
            time_ms=time.time_ns() // 1_000_000,
            memory={name: [float(value) for value in values] for name, values in query.memory.items()} if query else {},
            service=self._service() if query else {},
            purity=_rounded(query.selection.purity) if query else [],
        )

    def _recall(self) -> dict[str, Diagnostic]:
        """Share of all ID images that are labelled, which the open-set annotation line reports; else empty."""
        # Only under that line's initial set: a new figure for all would change the records of earlier versions.
        if self._trial.split_identity().get("initial_share") is None:
            return {}
        return {RECALL: self._oracle.recall(self._pool.labelled_id_idx)}

    def _environment(self) -> dict[str, str | int | float]:
        """Description of what computed the round: hardware, code, on a GPU how steps ran and the card was shared."""
        environment = describe_environment(self._device) | {"gpus": self._machine.gpus}
        if self._device.type == "cuda":
            environment |= {
                "steps": " and ".join(sorted(self._machine.ways)) or "none",
                "sharing": card_sharing(self._machine.gpus),
            }
            self._machine.ways.clear()
        return environment

    def _data_notes(self) -> dict[str, str]:
        """Notes on the images for a reader of the records; empty for most data sets."""
        notes = self._problem.data.notes
        return {DATA_NOTES: "; ".join(notes)} if notes else {}

    def _service(self) -> dict[str, float]:
        """Time and attempts of the last purity request; empty without one."""
        figures = self._scorer.last_request if self._scorer else None
        return asdict(figures) if figures else {}


def _rounded(purity: NDArray[np.floating] | None) -> list[float]:
    """The scores with so many digits as a reader can use: a ledger of 500 images per query would double otherwise."""
    return [] if purity is None else [round(float(score), PURITY_DIGITS) for score in purity]


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Store the wall seconds spent inside under `phase`; the phases themselves wait for the device."""
    start = time.perf_counter()
    yield
    seconds[phase] = round(time.perf_counter() - start, 4)
