"""No path from what a strategy is given leads to a label that was not bought: attributes, containers and closures."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.imageset import DataSet, ImageSet, PathImages
from data.pool import Oracle
from data.registry import open_data_set
from models.device import Machine
from orchestrator.ledger.classifiers import ClassifierStore
from orchestrator.problem import OpenSetProblem, pose_problem
from orchestrator.settings.reading import make_trial
from orchestrator.trial.trajectory import Trajectory
from strategies.base import PoolView, Selection, Strategy

HOLDERS = (Oracle, OpenSetProblem, DataSet, ImageSet, Trajectory)
"""Whoever holds one of these holds hidden labels."""


def reachable(start: object) -> Iterator[object]:
    """Everything that attributes, items and closures lead to; not the globals of modules, which lead to everything."""
    waiting, seen = [start], set[int]()
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, type | ModuleType | FrameType | BuiltinFunctionType):
            continue
        seen.add(id(found))
        yield found
        if isinstance(found, FunctionType):
            cells = [cell.cell_contents for cell in found.__closure__ or ()]
            waiting += [*cells, found.__defaults__, found.__kwdefaults__, found.__dict__]
        else:
            waiting += [each for each in gc.get_referents(found) if not is_module_globals(each)]


def is_module_globals(found: object) -> bool:
    return isinstance(found, dict) and "__builtins__" in found


def leaks(view: PoolView, labels: np.ndarray) -> list[str]:
    """What in reach of the view tells the labels (N,) of all images: a holder, or an array of them."""
    given = []
    for found in reachable(view):
        if isinstance(found, HOLDERS):
            given.append(type(found).__name__)
        values = found.numpy() if isinstance(found, torch.Tensor) and not found.requires_grad else found
        is_array = isinstance(values, np.ndarray) and np.array_equal(values, labels)
        if is_array or (isinstance(values, list | tuple) and list(values) == labels.tolist()):
            given.append("labels")
    return given


class Spy(Strategy):
    """Keeps the view it was given."""

    def __init__(self) -> None:
        self.view: PoolView | None = None

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        view.outputs()
        view.labelled_outputs()
        self.view = view
        return view.pick(np.arange(budget), np.zeros(len(view.unlabelled_idx)))


@pytest.fixture(scope="module")
def problem() -> OpenSetProblem:
    return pose_problem(TRIAL, open_data_set("digits"))


TRIAL = make_trial(
    dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy="conf", seed=0, rounds=3, budget=20,
    recipe={"width": 1, "steps": 1, "batch_size": 4, "flip": False, "crop_padding": 1},
)  # fmt: skip


@pytest.fixture(scope="module")
def view(problem: OpenSetProblem) -> PoolView:
    """What a strategy is given for the second query."""
    spy = Spy()
    classifiers = ClassifierStore(None, "f" * 64)
    Trajectory(TRIAL, problem, spy, machine=Machine(device=torch.device("cpu")), classifiers=classifiers).run(
        [], lambda record: None
    )
    assert spy.view is not None
    return spy.view


def labels_of(problem: OpenSetProblem) -> list[np.ndarray]:
    """As the data set numbers them, and as the oracle does."""
    labels = problem.data.train.labels
    return [labels, problem.split.relabel(labels)]


def test_nothing_in_reach_of_a_view_tells_a_hidden_label(view: PoolView, problem: OpenSetProblem) -> None:
    assert sum(1 for _ in reachable(view)) > 300
    for labels in labels_of(problem):
        assert leaks(view, labels) == []
        assert leaks(view.restricted_to(np.arange(len(view.unlabelled_idx)) < 9), labels) == []


LEAKS: dict[str, tuple[Callable[[OpenSetProblem], Callable[[], Any]], str]] = {
    "closure": (lambda problem: lambda: problem.data.fingerprint and None, "OpenSetProblem"),
    "default": (lambda problem: lambda labels=problem.data.train.labels: labels, "labels"),
    "bound method": (lambda problem: problem.oracle().answer, "Oracle"),
    "list in a closure": (lambda problem: (lambda told: lambda: told)(problem.data.train.labels.tolist()), "labels"),
}


@pytest.mark.parametrize("kind", LEAKS)
def test_a_view_that_leaks_is_found_out(view: PoolView, problem: OpenSetProblem, kind: str) -> None:
    make, expected = LEAKS[kind]
    leaking = replace(view, compute_outputs=make(problem))
    assert expected in leaks(leaking, problem.data.train.labels)


def test_the_arrays_of_a_view_are_read_only(view: PoolView) -> None:
    outputs = view.outputs()
    arrays = [view.labelled_id_idx, view.labelled_id_labels, view.labelled_ood_idx, view.unlabelled_idx]
    arrays += [outputs.logits_NK, outputs.features_ND, view.images.pixels_NHWC]  # type: ignore[attr-defined]
    arrays += [view.restricted_to(np.arange(len(view.unlabelled_idx)) < 9).outputs().logits_NK]
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 0


def test_images_do_not_tell_the_folders_that_they_lie_in(tmp_path: Path) -> None:
    names = [f"train/{name}/{number}.png" for name in ("cat", "dog") for number in range(2)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 80), (len(name), 0, 0)).save(tmp_path / name)
    images = PathImages(tmp_path, names, image_size=72, fingerprint="f" * 64)
    told = [found for found in reachable(images) if isinstance(found, str | Path)]
    assert told == ["f" * 64]
    assert len(images) == 4
    assert images.load(np.array([3])).shape == (1, 72, 72, 3)
