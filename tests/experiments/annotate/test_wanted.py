"""Probabilities of being wanted, and the estimate of how many are."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.annotate.photos import Photos
from experiments.annotate.wanted import (
    Answers,
    Curve,
    Judge,
    Prior,
    Scores,
    estimate_wanted,
    fit_curve,
    pick_detector,
)

TEXT, CLIPN = frozenset({"text"}), frozenset({"text", "no text"})
WIDE = Prior(offset=0.0, slope=1.0, offset_sd=10.0, slope_sd=10.0)


def photos(num: int = 60) -> Photos:
    """Photos in two groups by their first feature: the first half positive."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(num, 4))
    rows[:, 0] = np.where(np.arange(num) < num // 2, 3.0, -3.0)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    names = tuple(f"{number}.jpg" for number in range(num))
    return Photos(names=names, damaged={}, num_other=0, features_ND=rows, towers=None, identity="x")


def answers(*pairs: tuple[int, int]) -> Answers:
    return Answers(
        idx=np.array([place for place, _ in pairs], dtype=np.int64),
        classes=np.array([label for _, label in pairs], dtype=np.int64),
        num_classes=2,
    )


@pytest.mark.parametrize(
    ("asked", "texts", "has_both", "picked"),
    [
        (None, CLIPN, False, "atd"),
        (None, TEXT, False, "neglabel"),
        (None, frozenset(), False, "probe"),
        (None, CLIPN, True, "fused"),
        (None, TEXT, True, "fused"),
        (None, frozenset(), True, "probe"),
        ("mcm", TEXT, True, "mcm"),
        ("fused", TEXT, True, "fused"),
    ],
)
def test_the_detector_is_what_weights_and_answers_allow(
    asked: str | None, texts: frozenset[str], has_both: bool, picked: str
) -> None:
    assert pick_detector(asked, texts=texts, has_both=has_both) == picked  # type: ignore[arg-type]


def test_a_detector_that_the_weights_do_not_allow_is_refused() -> None:
    with pytest.raises(ValueError, match=r'--purity atd needs "no" texts.*use neglabel'):
        pick_detector("atd", texts=TEXT, has_both=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="--purity mcm needs texts; use probe"):
        pick_detector("mcm", texts=frozenset(), has_both=False)
    with pytest.raises(ValueError, match="--purity zoc reads captions, which only trials have; use neglabel"):
        pick_detector("zoc", texts=TEXT, has_both=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="did you mean 'probe'"):
        pick_detector("prob", texts=TEXT, has_both=False)  # type: ignore[arg-type]


def test_the_curve_is_the_prior_without_answers_and_follows_the_answers_with_them() -> None:
    nothing = Scores(all_N=np.zeros(1), answered_L=np.empty(0), prior=WIDE, detector="x")
    assert fit_curve(nothing, np.empty(0, dtype=bool)).mean_2.tolist() == [0.0, 1.0]
    rng = np.random.default_rng(0)
    scores = rng.normal(size=20_000) * 2
    wanted = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * scores - 1.0)))
    curve = fit_curve(Scores(all_N=scores, answered_L=scores, prior=WIDE, detector="x"), wanted)
    assert np.allclose(curve.mean_2, [-1.0, 0.5], atol=0.05)
    assert curve.probabilities(np.array([2.0]))[0] == pytest.approx(0.5, abs=0.02)


def test_answers_that_separate_all_scores_do_not_make_the_curve_diverge() -> None:
    scores = np.array([-3000.0, -1.0, 1.0, 3000.0])
    curve = fit_curve(Scores(all_N=scores, answered_L=scores, prior=WIDE, detector="x"), scores > 0)
    assert np.isfinite(curve.mean_2).all()
    assert (np.diff(curve.probabilities(scores)) > 0).all()


def test_the_interval_of_the_estimate_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=500) * 2
        wanted = rng.random(500) < 1 / (1 + np.exp(-(scores - 0.5)))
        asked = np.argsort(-scores)[::3][:60]  # chosen by the score, which the curve allows
        left = np.setdiff1d(np.arange(500), asked)
        prior = Prior(offset=0.0, slope=1.0, offset_sd=1.0, slope_sd=0.5)
        curve = fit_curve(Scores(all_N=scores, answered_L=scores[asked], prior=prior, detector="x"), wanted[asked])
        estimate = estimate_wanted(curve, scores[left], int(wanted[asked].sum()))
        covered += estimate.low <= wanted.sum() <= estimate.high
    assert 90 <= covered <= 100


def test_what_is_known_is_counted_and_nothing_beyond_the_folder() -> None:
    certain = Curve(mean_2=np.array([100.0, 0.0]), covariance_22=np.zeros((2, 2)))
    estimate = estimate_wanted(certain, np.zeros(7), 3)
    assert (estimate.mean, estimate.low, estimate.high) == (10.0, 10.0, 10.0)


def test_without_texts_and_answers_nothing_is_known_and_a_few_answers_rank_the_rest() -> None:
    judge = Judge(photos(), ("a", "b"), frozenset())
    nothing = judge.scores(None, answers())
    assert nothing.detector == "probe"
    assert np.ptp(nothing.all_N) == 0
    some = judge.scores(None, answers((0, 0), (1, 1), (2, 0), (40, 2), (41, 2), (42, 2)))
    assert some.all_N[:30].min() > some.all_N[30:].max()
    assert len(some.answered_L) == 6
    assert some.answered_L[:3].min() > some.answered_L[3:].max()


def test_a_score_of_an_answered_image_does_not_rest_on_its_own_answer() -> None:
    # 30 images in no group at all: what is learnt by heart separates their answers, what is held out cannot.
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(60, 40))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    plain = photos()
    noise = Photos(names=plain.names, damaged={}, num_other=0, features_ND=rows, towers=None, identity="y")
    asked = answers(*((place, 2 * (place % 2)) for place in range(30)))
    scores = Judge(noise, ("a", "b"), frozenset()).scores("probe", asked)
    ordered = asked.ordered()
    by_heart = scores.all_N[ordered.idx]
    assert by_heart[ordered.is_wanted].min() > by_heart[~ordered.is_wanted].max()
    assert scores.answered_L[ordered.is_wanted].min() < scores.answered_L[~ordered.is_wanted].max()
