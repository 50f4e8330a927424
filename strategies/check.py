"""Check that a strategy keeps its contract, on a toy pool, in seconds: `python -m strategies.check module:Class`.

The cases are those that every strategy of this project passes (`tests/strategies/test_contract.py`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from data.imageset import ArrayImages
from models.classifier.inputs import Normalise
from models.classifier.networks import build_classifier
from models.classifier.outputs import ClassifierOutputs, LinearHead
from models.classifier.recipe import Recipe
from models.classifier.workshop import Workshop
from models.device import Machine
from strategies.base import (
    LearningStrategy,
    PoolView,
    Selection,
    Strategy,
    StrategyError,
    check_memory,
    check_selection,
)
from strategies.plugin import blamed_on, load_strategy, make_plugin
from strategies.registry import STRATEGIES, offered_strategies

NUM_IMAGES, NUM_CLASSES, DIM = 60, 3, 8
RECIPE = Recipe(width=1, steps=2, batch_size=4, crop_padding=1, learning_rate=0.01)
Case = tuple[str, PoolView, int]
"""Name, view and budget of one case."""


def toy_workshop(images: ArrayImages, *, num_classes: int = NUM_CLASSES) -> Workshop:
    """A workshop around an untrained classifier."""
    device = torch.device("cpu")
    return Workshop(
        images=images,
        classifier=build_classifier(RECIPE, num_classes, weights_seed=5).eval(),
        recipe=RECIPE,
        normalise=Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), device),
        machine=Machine(device=device),
        weights_seed=lambda name: len(name),
        batches_seed=lambda name: 100 + len(name),
    )


def toy_view(
    *,
    num_ood: int = 5,
    labels: tuple[int, ...] = (0, 1, 2, 0, 1, 2),
    constant: bool = False,
    num_left: int | None = None,
) -> PoolView:
    """A view of 60 random images, its labelled ID images with the given labels; every call gives an equal one.

    `constant`: all images and outputs are equal. `num_left`: the number of unlabelled images left.
    """
    rng = np.random.default_rng(3)
    order = rng.permutation(NUM_IMAGES)
    parts = np.split(order, [len(labels), len(labels) + num_ood])
    labelled_id, labelled_ood, unlabelled = (np.sort(part).astype(np.int64) for part in parts)
    pixels = rng.integers(0, 256, size=(NUM_IMAGES, 8, 8, 3), dtype=np.uint8)
    if constant:
        pixels[:] = pixels[0]
    images = ArrayImages(pixels)
    outputs, labelled_outputs = (_random_outputs(rng, len(idx), constant) for idx in (unlabelled, labelled_id))
    view = PoolView(
        images=images,
        data_fingerprint="0" * 64,
        class_names=("a", "b", "c"),
        domain="sketch",
        labelled_id_idx=labelled_id,
        labelled_id_labels=np.array(labels, dtype=np.int64),
        labelled_ood_idx=labelled_ood,
        unlabelled_idx=unlabelled,
        compute_outputs=lambda: outputs,
        compute_labelled_outputs=lambda: labelled_outputs,
        workshop=toy_workshop(images),
    )
    return view if num_left is None else view.restricted_to(np.arange(len(unlabelled)) < num_left)


def _random_outputs(rng: np.random.Generator, num: int, constant: bool) -> ClassifierOutputs:
    features, losses = (rng.normal(size=shape).astype(np.float32) for shape in ((num, DIM), (num,)))
    if constant:
        features[:], losses[:] = 0.0, 0.0
    head = LinearHead(
        weight_KD=np.random.default_rng(8).normal(size=(NUM_CLASSES, DIM)).astype(np.float32),
        bias_K=np.zeros(NUM_CLASSES, dtype=np.float32),
    )
    return ClassifierOutputs(
        logits_NK=features @ head.weight_KD.T, features_ND=features, predicted_losses_N=losses, head=head
    )


def contract_cases() -> Iterator[Case]:
    """Pools and budgets that every strategy has to handle."""
    for budget in (1, 7, 49, 1000):
        yield f"a budget of {budget}", toy_view(), budget
    yield "a class without a label", toy_view(labels=(0, 0, 1)), 9
    yield "no labelled OOD image", toy_view(num_ood=0), 9
    yield "a pool of one image", toy_view(num_left=1), 9


def check_contract(make: Callable[[], Strategy], name: str, tell: Callable[[str], None]) -> None:
    """Try a strategy on every case and call `tell` with each one passed. Raises StrategyError at the first failure."""
    for case, view, budget in contract_cases():
        selection = _select(make(), view, budget, f"strategy {name}, {case}")
        again = _select(make(), view, budget, f"strategy {name}, {case}, asked again")
        if not np.array_equal(selection.idx, again.idx) or not np.array_equal(selection.scores, again.scores):
            raise StrategyError(
                f"strategy {name}, {case}: equal arguments gave different answers; draw from the given rng alone"
            )
        tell(case)
    _check_ties(make(), name, tell)
    strategy = make()
    if isinstance(strategy, LearningStrategy):
        _check_learning(strategy, name, tell)


def _check_ties(strategy: Strategy, name: str, tell: Callable[[str], None]) -> None:
    """Check that ties go to the lowest indices; a strategy that draws at random is exempt."""
    view, who = toy_view(constant=True), f"strategy {name}, equal images"
    first, other = (_select(strategy, view, 9, who, seed=seed).idx for seed in (0, 1))
    # Two seeds that pick differently mark a strategy that draws: it owes nothing to the lowest index.
    if np.array_equal(first, other) and not np.array_equal(first, view.unlabelled_idx[:9]):
        raise StrategyError(
            f"{who}: picked {first.tolist()} although all images are equal; ties go to the lowest index, so "
            f"{view.unlabelled_idx[:9].tolist()} was due (strategies.base.highest_first does that)"
        )
    tell("equal images")


def _check_learning(strategy: LearningStrategy, name: str, tell: Callable[[str], None]) -> None:
    """Check that what it learns fits into a record, and that the next query can be made with it."""
    view, who = toy_view(), f"strategy {name}, learning from answers"
    selection = _select(strategy, view, 9, who)
    with blamed_on(type(strategy), who):
        learnt = strategy.learn(view, selection, np.arange(9) % (NUM_CLASSES + 1), np.random.default_rng(1))
    memory = {key: [float(value) for value in values] for key, values in check_memory(learnt, who=who).items()}
    _select(strategy, replace(view, memory=memory), 9, f"{who}, next query")
    tell("learning from answers")


def _select(strategy: Strategy, view: PoolView, budget: int, who: str, *, seed: int = 0) -> Selection:
    """Checked selection of the strategy."""
    with blamed_on(type(strategy), who):
        selection = strategy.select(view, budget, np.random.default_rng(seed))
    return check_selection(selection, unlabelled_idx=view.unlabelled_idx, budget=budget, who=who)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 2 for a strategy that cannot be loaded or breaks its contract."""
    parser = argparse.ArgumentParser(
        prog="python -m strategies.check",
        description="Try a strategy of your own on a toy pool: the right number of images, each once and out of the "
        "pool, equal answers to equal questions, ties to the lowest index.",
    )
    parser.add_argument("strategy", metavar="MODULE:CLASS", help="as for --strategy; or a name that a package offers")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    started, passed = time.perf_counter(), list[str]()
    try:
        if options.strategy in STRATEGIES:
            raise ValueError(f"{options.strategy} is a strategy of this project; its contract is tested by make test")
        where = offered_strategies().get(options.strategy, options.strategy)
        found = load_strategy(where)
        check_contract(lambda: make_plugin(found, where), options.strategy, passed.append)
    except ValueError as error:
        if options.debug:
            raise
        told = f" (passed before: {', '.join(passed)})" if passed else ""
        print(f"{parser.prog}: {error}{told}", file=sys.stderr)
        return 2
    print(f"{options.strategy} keeps the contract: {', '.join(passed)} ({time.perf_counter() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
