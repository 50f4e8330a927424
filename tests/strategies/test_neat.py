"""NEAT by hand: who votes, who is known, in what order, and what fills up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.classifier.outputs import ClassifierOutputs
from strategies.base import PoolView
from strategies.check import toy_view
from strategies.neat import Neat, Vote, disagreements, least_unknown_first, most_known_first, vote
from strategies.numeric.nearest import BLOCK
from strategies.options import NeatOptions


def on_circle(degrees: np.ndarray) -> np.ndarray:
    """Unit rows (n, 2) at these angles."""
    angles = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_nearest_labelled_images_vote() -> None:
    """Labelled: class 0 at 0 and 10 degrees, class 1 at 50, OOD at 60 and 90."""
    labelled, labels = on_circle(np.array([0, 50, 10, 90, 60])), np.array([0, 1, 0, 2, 2])
    votes = vote(on_circle(np.array([2, 40, 80])), labelled, labels, 2, 3)
    assert votes.counts_NK.tolist() == [[2, 1], [1, 1], [0, 1]]
    assert votes.num_ood_N.tolist() == [0, 1, 2]
    assert votes.is_known_N.tolist() == [True, True, False]
    wanted = np.cos(np.deg2rad([[2, 8, 48], [10, 20, 30], [10, 20, 30]])).sum(axis=1)
    np.testing.assert_allclose(votes.nearness_N, wanted, atol=3e-6)


def test_equally_near_images_vote_in_order_and_few_all_vote() -> None:
    same = on_circle(np.zeros(9))
    labels = np.array([1, 0, 0, 2, 2, 2, 2, 2, 2])
    assert vote(same[:2], same, labels, 2, 4).counts_NK.tolist() == [[2, 1], [2, 1]]
    assert vote(same[:2], same, labels, 2, 4).num_ood_N.tolist() == [1, 1]
    assert vote(same[:1], same, labels, 2, 50).num_ood_N.tolist() == [6]
    assert vote(same, same[:0], labels[:0], 2, 10).is_known_N.tolist() == [False] * 9


def test_blocks_do_not_show() -> None:
    rng = np.random.default_rng(0)
    points = on_circle(rng.uniform(0, 360, 2 * BLOCK + 7))
    labelled, labels = on_circle(rng.uniform(0, 360, 40)), rng.integers(3, size=40)
    votes = vote(points, labelled, labels, 2, 5)
    alone = [vote(row[None], labelled, labels, 2, 5) for row in points]
    np.testing.assert_array_equal(votes.counts_NK, [each.counts_NK[0] for each in alone])
    np.testing.assert_allclose(votes.nearness_N, [each.nearness_N[0] for each in alone], atol=1e-5)


def test_disagreement_takes_counts_as_logits() -> None:
    """p = (3/4, 1/4) against softmax(2, 1): 0.75 ln(1 + 1/e) + 0.25 ln(1 + e)."""
    scores = disagreements(np.log([[3.0, 1.0], [1.0, 3.0], [1.0, 1.0]]), np.array([[2, 1], [2, 1], [0, 0]]))
    less, more = np.log1p(np.exp(-1)), np.log1p(np.exp(1))
    np.testing.assert_allclose(scores, [0.75 * less + 0.25 * more, 0.25 * less + 0.75 * more, np.log(2)], rtol=1e-12)


def votes_of(num_id: list[int], num_ood: list[int], nearness: list[float] | None = None) -> Vote:
    near = np.arange(len(num_id), dtype=np.float64) if nearness is None else np.array(nearness)
    return Vote(counts_NK=np.array(num_id)[:, None], num_ood_N=np.array(num_ood), nearness_N=near)


def test_known_images_by_their_neighbours_and_equal_ones_in_a_drawn_order() -> None:
    votes = votes_of([6, 10, 5, 10, 9, 10, 3], [4, 0, 5, 0, 1, 0, 7])
    orders = [most_known_first(votes, np.random.default_rng(seed)).tolist() for seed in range(20)]
    assert {tuple(order[3:]) for order in orders} == {(4, 0)}
    assert {tuple(sorted(order[:3])) for order in orders} == {(1, 3, 5)}
    assert len({order[0] for order in orders}) == 3
    equal = votes_of([10, 10, 10], [0, 0, 0], [7.0, 7.0, 7.0])
    assert most_known_first(equal, np.random.default_rng(0)).tolist() == [0, 1, 2]


def test_the_rest_by_its_lead_then_by_score() -> None:
    votes = votes_of([6, 5, 2, 5, 5], [4, 5, 8, 5, 5])
    assert least_unknown_first(votes, np.array([9.0, 1.0, 8.0, 2.0, 1.0])).tolist() == [3, 1, 4, 2]


def view_of(known: list[int], logits: list[float], *, num_ood: int = 5) -> tuple[PoolView, Neat, Neat]:
    """A toy pool whose images at the positions `known` lie with the labelled ID images, the others with the OOD ones.

    The disagreement of image i grows with `logits[i]`: class a is the only one that votes.
    """
    view = toy_view(num_ood=num_ood, labels=(0, 0, 0, 0, 0, 0))
    degrees = np.full(60, 90.0)
    degrees[view.labelled_id_idx] = 0.0
    degrees[view.unlabelled_idx[known]] = np.arange(len(known)) / 100
    outputs = ClassifierOutputs(
        logits_NK=np.stack([-np.array(logits), np.zeros(len(logits)), np.zeros(len(logits))], axis=1).astype(
            np.float32
        ),
        features_ND=np.zeros((len(logits), 2), dtype=np.float32),
    )
    strategies = (
        Neat(lambda idx: on_circle(degrees[idx]), NeatOptions(neighbours=5), passive=passive)
        for passive in (False, True)
    )
    return replace(view, compute_outputs=lambda: outputs), *strategies


def test_the_query() -> None:
    """Of 49 images ten are known, all by five votes; among the 2 Q that are kept the largest disagreement counts."""
    known = [2, 5, 11, 17, 23, 29, 31, 37, 41, 47]
    logits = [float(position * 7 % 50) / 10 for position in range(49)]
    view, neat, passive = view_of(known, logits)
    by_logit = sorted(known, key=lambda position: -logits[position])
    selection = neat.select(view, 5, np.random.default_rng(0))  # 2 Q = 10: all are kept
    assert selection.idx.tolist() == view.unlabelled_idx[by_logit[:5]].tolist()
    np.testing.assert_array_equal(selection.judged_id_idx, view.unlabelled_idx[known])
    assert selection.diagnostics == {"num_judged_id": 10, "num_filled": 0}
    few = [neat.select(view, 2, np.random.default_rng(seed)).idx.tolist() for seed in range(10)]
    assert len({tuple(each) for each in few}) > 1  # 2 Q = 4 of ten are drawn
    rest = [position for position in range(49) if position not in known]
    filled = neat.select(view, 12, np.random.default_rng(0))
    due = by_logit + rest[:2]  # neighbours that are all OOD disagree with nobody: ln 3 for every image
    assert filled.idx.tolist() == view.unlabelled_idx[due].tolist()
    assert filled.scores[10:].tolist() == [-5.0, -5.0]
    assert (np.diff(filled.scores) <= 0).all()
    drawn = passive.select(view, 12, np.random.default_rng(0))
    assert set(drawn.idx[:10].tolist()) == set(view.unlabelled_idx[known].tolist())
    assert drawn.scores.tolist() == [5.0] * 10 + [-5.0] * 2
    assert drawn.idx[10:].tolist() == view.unlabelled_idx[rest[:2]].tolist()


@pytest.mark.parametrize("budget", [1, 3])
def test_without_labelled_ood_nothing_is_cut(budget: int) -> None:
    logits = [float(position * 7 % 50) / 10 for position in range(54)]
    view, neat, _ = view_of([2, 5], logits, num_ood=0)
    most = sorted(range(54), key=lambda position: -logits[position])[:budget]
    assert neat.select(view, budget, np.random.default_rng(0)).idx.tolist() == view.unlabelled_idx[most].tolist()
