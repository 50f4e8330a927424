"""Recorded steps: the same numbers as plain ones, to the bit, recorded once a phase and batch size.

On a CPU a recorder stands in that notes a function and calls it again: what is checked here is everything around the
CUDA graph, which test_gpu.py checks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from models.classifier.evidential import EvidentialObjective, add_evidence
from models.classifier.fit import CrossEntropy, fit
from models.classifier.inputs import Normalise
from models.classifier.loss_prediction import LossPrediction, add_loss_prediction
from models.classifier.networks import build_classifier
from models.classifier.recipe import Recipe
from models.classifier.steps import Objective
from models.device import Machine, use_threads
from models.graphs import WARM_UP, NotRecordable

CPU = torch.device("cpu")
PLAIN = Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), CPU)
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(10, dtype=np.int64) % 3


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    use_threads(1)


class Recorder:
    """Counts what is recorded and how often each recording is replayed."""

    def __init__(self) -> None:
        self.replays: list[int] = []

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        number = len(self.replays)
        self.replays.append(0)

        def replay() -> None:
            self.replays[number] += 1
            work()

        return replay

    @contextmanager
    def __call__(self, device: torch.device, generator: torch.Generator, *, wanted: bool) -> Iterator[object]:
        yield self.record if wanted else None


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorded = Recorder()
    monkeypatch.setattr("models.classifier.fit.recorder", recorded)
    return recorded


def trained(
    recipe: Recipe, objective: Objective | None, *, plain_steps: bool, ways: set[str] | None = None
) -> dict[str, torch.Tensor]:
    network: nn.Module = build_classifier(recipe, 3, weights_seed=0)
    if isinstance(objective, EvidentialObjective):
        network = add_evidence(build_classifier(recipe, 2, weights_seed=0), num_known=2, num_hidden=1, weights_seed=0)
    if isinstance(objective, LossPrediction):
        network = add_loss_prediction(network, hidden=4, weights_seed=0)  # type: ignore[arg-type]
    fit(
        network, PIXELS, LABELS, recipe=recipe, normalise=PLAIN, batches_seed=1,
        machine=Machine(device=CPU, plain_steps=plain_steps, ways=set() if ways is None else ways), objective=objective,
    )  # fmt: skip
    return network.state_dict()


@pytest.mark.parametrize(
    ("settings", "objective", "replays"),
    [
        # Steps before and after both milestones.
        ({"steps": 16}, None, [16 - WARM_UP]),
        # Two batches of 4 and one of 2 in each of 6 passes.
        ({"epochs": 6}, None, [12 - WARM_UP, 6 - WARM_UP]),
        ({"steps": 12, "head_dropout": 0.5, "rotation": 20.0}, None, [12 - WARM_UP]),
        # The weight of the divergence grows from pass to pass: a recorded step must read it.
        ({"epochs": 6}, EvidentialObjective(passes=6, temperature=1.0, device=CPU), [12 - WARM_UP, 6 - WARM_UP]),
        # The head is detached after step 10 of 20: another phase.
        ({"steps": 20}, LossPrediction(weight=1.0, margin=1.0, detach_after=0.5), [11 - WARM_UP, 9 - WARM_UP]),
    ],
)
def test_recorded_steps_give_the_same_weights(
    settings: dict[str, object], objective: Objective | None, replays: list[int], recordings: Recorder
) -> None:
    recipe = Recipe(width=2, batch_size=4, **settings)  # type: ignore[arg-type]
    plain = trained(recipe, objective, plain_steps=True)
    assert recordings.replays == []
    replayed = trained(recipe, objective, plain_steps=False)
    assert recordings.replays == replays
    assert all(torch.equal(plain[name], replayed[name]) for name in plain)


def test_a_training_shorter_than_the_warm_up_records_nothing(recordings: Recorder) -> None:
    trained(Recipe(width=2, batch_size=4, steps=WARM_UP), None, plain_steps=False)
    assert recordings.replays == []


def test_an_objective_without_a_phase_is_never_recorded(recordings: Recorder) -> None:
    class Changing(CrossEntropy):
        def phase(self) -> Hashable | None:
            return None

    recipe = Recipe(width=2, batch_size=4, steps=8)
    plain = trained(recipe, None, plain_steps=True)
    changing = trained(recipe, Changing(), plain_steps=False)
    assert recordings.replays == []
    assert all(torch.equal(plain[name], changing[name]) for name in plain)


def test_the_way_of_a_training_is_reported(recordings: Recorder) -> None:
    recipe = Recipe(width=2, batch_size=4, steps=8)
    for plain_steps, way in ((True, "plain"), (False, "recorded")):
        ways: set[str] = set()
        trained(recipe, None, plain_steps=plain_steps, ways=ways)
        assert ways == {way}


def test_steps_that_cannot_be_recorded_are_taken_plainly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        raise NotRecordable("operation not permitted when stream is capturing")

    @contextmanager
    def refusing(device: torch.device, generator: torch.Generator, *, wanted: bool) -> Iterator[object]:
        yield refuse if wanted else None

    monkeypatch.setattr("models.classifier.fit.recorder", refusing)
    recipe, ways = Recipe(width=2, batch_size=4, steps=8), set[str]()
    plain = trained(recipe, None, plain_steps=True)
    fallen_back = trained(recipe, None, plain_steps=False, ways=ways)
    assert ways == {"plain"}
    assert all(torch.equal(plain[name], fallen_back[name]) for name in plain)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "steps are launched kernel by kernel: they cannot be recorded (operation not permitted when stream is "
        "capturing)"
    ]


def test_no_gradient_is_left_behind() -> None:
    network = build_classifier(Recipe(width=2), 3, weights_seed=0)
    recipe = Recipe(width=2, batch_size=4, steps=2)
    fit(network, PIXELS, LABELS, recipe=recipe, normalise=PLAIN, batches_seed=0, machine=Machine(device=CPU))
    assert all(parameter.grad is None for parameter in network.parameters())
