"""EAOA: its energies against the original's values, reverse neighbours and candidates by hand, and its width."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.classifier.energy import EnergyObjective, energy_penalty
from strategies.base import Selection
from strategies.check import toy_view
from strategies.eaoa import (
    Eaoa,
    aleatoric,
    class_candidates,
    detector_energies,
    neighbour_energies,
    posteriors,
    reverse_counts,
)
from strategies.options import EaoaOptions
from tests.strategies.views import QUICK, select

GOLDEN = Path(__file__).parents[1] / "golden" / "strategies_next" / "check_values.json"


def test_energies_are_the_originals() -> None:
    golden = json.loads(GOLDEN.read_text())["eaoa"]
    logits = np.array(golden["logits K=3 + OOD"])
    np.testing.assert_allclose(detector_energies(logits), golden["e1"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(aleatoric(logits[:, :3]), golden["au (= log(1-max p))"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(aleatoric(logits[:, :3]), golden["log1m"], rtol=0, atol=1e-9)
    # In float32 the original's third energy is infinite.
    np.testing.assert_allclose(detector_energies(logits.astype(np.float32)), golden["e1"], rtol=1e-6)


def test_doubt_of_one_class_or_of_a_sure_image() -> None:
    assert aleatoric(np.array([[3.0], [5.0]])).tolist() == [0.0, 0.0]
    np.testing.assert_allclose(aleatoric(np.array([[800.0, 0.0], [0.0, 0.0]])), [-800.0, np.log(0.5)])


def test_the_penalty_by_hand() -> None:
    """K = 1, so the energy is minus the first logit: ID at -24 and -30 (known: -25), OOD at -9 (unknown: -7)."""
    logits, labels = torch.tensor([[24.0, 0.0], [30.0, 1.0], [9.0, 2.0]]), torch.tensor([0, 0, 1])
    limits = {"known": -25.0, "unknown": -7.0}
    assert energy_penalty(logits, labels, **limits).item() == pytest.approx((1 + 0) / 2 + 4)
    assert energy_penalty(logits[:2], labels[:2], **limits).item() == pytest.approx(0.5)
    assert energy_penalty(logits[2:], labels[2:], **limits).item() == pytest.approx(4.0)

    class Answers(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return logits, logits

    losses = [
        EnergyObjective(weight=weight, **limits).loss(Answers(), logits, labels, labels).item() for weight in (0, 0.01)
    ]
    plain = torch.nn.functional.cross_entropy(logits, labels).item()
    np.testing.assert_allclose(losses, [plain, plain + 0.045], rtol=1e-5)


def test_reverse_neighbours_by_hand() -> None:
    """Pool at 0, 10, 20 and 90 degrees, in rows of any length; labelled at 1 (class 0), 21 (1) and 80 (OOD)."""
    angles = np.deg2rad([0, 10, 20, 90, 1, 21, 80])
    pool, labelled = np.split(np.stack([np.cos(angles), np.sin(angles)], axis=1), [4])
    # Of unequal lengths, the longest far from the labelled: one factor for all rows would leave the order as it is.
    lengths = np.array([[1.0], [2.0], [3.0], [60.0]])
    counts = reverse_counts(lengths * pool, 3 * labelled, np.array([0, 1, 2]), 3, 2)
    assert counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]
    everyone = reverse_counts(pool, labelled, np.array([0, 1, 2]), 3, 250)
    assert everyone.tolist() == [[1, 1, 1]] * 4


def test_neighbour_energies_weigh_classes_by_size() -> None:
    """Sizes 1, 3 and 2 OOD, of mean 2: relative counts (2, 2 / 1.5) and OOD 3 / 1."""
    counts = np.array([[1, 2, 3], [0, 0, 0]])
    wanted = [np.logaddexp(0, 3) - np.logaddexp(2, 2 / 1.5), np.log(2) - np.log(2)]
    np.testing.assert_allclose(neighbour_energies(counts, np.array([1, 3, 2])), wanted, atol=1e-12)
    np.testing.assert_allclose(
        neighbour_energies(np.array([[1, 2, 0]]), np.array([1, 3, 0])), [-np.logaddexp(2, 2 / 1.5)]
    )
    # A class without a label: size (0 + 3) / 2, and its count is 0.
    np.testing.assert_allclose(neighbour_energies(np.array([[0, 3, 0]]), np.array([0, 3, 0])), [-np.logaddexp(0, 1.5)])
    assert np.isfinite(neighbour_energies(np.zeros((2, 3), dtype=np.int64), np.zeros(3, dtype=np.int64))).all()


def test_posteriors_of_two_heaps() -> None:
    values = np.array([-5.0, -5.1, -4.9, 3.0, 3.1, 3.2])
    np.testing.assert_allclose(posteriors(values, of_larger=True), [0, 0, 0, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(posteriors(values, of_larger=False), [1, 1, 1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(posteriors(1000 * values, of_larger=True), posteriors(values, of_larger=True))
    assert posteriors(np.array([7.0, 7.0]), of_larger=True).tolist() == [0.5, 0.5]
    assert posteriors(np.array([7.0]), of_larger=False).tolist() == [0.5]
    assert posteriors(np.array([0.0, 1e300]), of_larger=True).tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


def test_candidates_are_the_surest_and_the_most_doubtful_of_them_taken() -> None:
    predicted = np.array([0, 0, 0, 0, 2, 2])
    known = np.array([0.9, 0.8, 0.7, 0.1, 0.5, 0.5])
    doubt = np.array([0.1, 1.0, 1.0, 1.0, 0.3, 0.3])
    tie = np.array([0.0, -2.0, -1.0, 0.0, -1.0, -1.0])
    assert class_candidates(predicted, known, doubt, tie, share=1, width=3).tolist() == [2, 4]
    assert class_candidates(predicted, known, doubt, tie, share=1, width=2).tolist() == [1, 4]
    assert class_candidates(predicted, known, doubt, tie, share=1, width=1).tolist() == [0, 4]
    assert class_candidates(predicted, known, doubt, tie, share=2, width=2).tolist() == [3, 2, 4, 5]


@pytest.mark.parametrize(
    ("num_id", "num", "width", "wanted"),
    [(11, 20, 5, 5), (13, 20, 5, 5), (14, 20, 5, 6), (10, 20, 5, 4), (0, 20, 1, 1), (20, 20, 9, 10)],
)
def test_the_width_follows_the_precision(num_id: int, num: int, width: int, wanted: int) -> None:
    """Precisions of exactly 0.55 and 0.65 change nothing."""
    view = replace(toy_view(), memory={"kt": [float(width)]})
    picked = Selection(idx=view.unlabelled_idx[:num], scores=np.zeros(num))
    answers = np.where(np.arange(num) < num_id, 1, 3)
    strategy = Eaoa(EaoaOptions())
    assert strategy.learn(view, picked, answers, np.random.default_rng(0)) == {"kt": [float(wanted)]}
    first = strategy.learn(replace(view, memory={}), picked, answers, np.random.default_rng(0))
    assert first == {"kt": [{11: 5.0, 13: 5.0, 14: 6.0, 10: 4.0, 0: 4.0, 20: 6.0}[num_id]]}


@pytest.mark.parametrize(("num_ood", "labels"), [(1, (0, 1, 2)), (0, (0,)), (12, (1, 2)), (30, (0, 1, 2))])
def test_few_labels_of_a_kind(num_ood: int, labels: tuple[int, ...]) -> None:
    view = toy_view(num_ood=num_ood, labels=labels)
    selection = select("eaoa", view, 9)
    assert len(set(selection.idx.tolist())) == 9
    assert np.isfinite(selection.scores).all()


def test_the_width_of_the_memory_is_used_and_the_rest_filled_up() -> None:
    view = toy_view()
    strategy = Eaoa(QUICK.eaoa)
    few = strategy.select(view, 6, np.random.default_rng(0))
    assert few.diagnostics["width"] == 5
    wide = strategy.select(replace(view, memory={"kt": [1.0]}), 6, np.random.default_rng(0))
    assert wide.diagnostics["width"] == 1
    assert set(few.idx.tolist()) != set(wide.idx.tolist())
    everything = strategy.select(view, 49, np.random.default_rng(0))
    assert everything.diagnostics["num_filled"] > 0
    assert (np.diff(few.scores) <= 0).all()
