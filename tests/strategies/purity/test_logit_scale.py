"""Eq. 8: the first best scale, by hand, and against a plain loop."""

from __future__ import annotations

import pytest
import torch

from strategies.purity import logit_scale
from strategies.purity.logit_scale import SCALES, PairScores, choose_logit_scale
from strategies.purity.scores import ctw_scores, id_and_ood_scores, judged_id


def random_case(seed: int, num: int = 30, num_classes: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.rand(3, num, num_classes, generator=generator) * 0.4
    is_id = torch.rand(num, generator=generator) < 0.6
    cosines[0, is_id] += 0.1
    return {"yes_LK": cosines[0], "no_LK": cosines[1], "is_id_L": is_id, "similarity_LK": cosines[2]}


def test_the_scales_are_the_official_ones() -> None:
    assert len(SCALES) == 1000
    assert SCALES[0] == 0.1
    assert SCALES[36] == 3.7
    assert SCALES[-1] == 100.0


@pytest.mark.parametrize("missing", ["id", "ood"])
def test_nothing_is_tuned_without_both_kinds(missing: str) -> None:
    is_id = torch.full((4,), missing == "ood")
    assert choose_logit_scale(torch.rand(4, 2), torch.rand(4, 2), is_id) is None


def test_first_best_scale_by_hand() -> None:
    # One class: p = 1, so an image is ID where sigmoid(s (yes - no)) > 1/2: yes above no, at any scale.
    choice = choose_logit_scale(torch.tensor([[0.3], [0.1]]), torch.tensor([[0.2], [0.2]]), torch.tensor([True, False]))
    assert choice is not None
    assert (choice.scale, choice.accuracy) == (0.1, 1.0)


def test_scale_where_the_decision_turns() -> None:
    # ID image: two classes, yes 0.1 and 0, no far below, so 1 - q -> 1 slowly and p_1 grows with the scale.
    yes, no = torch.tensor([[0.1, 0.0], [0.0, 0.0]]), torch.tensor([[-0.1, -0.1], [0.2, 0.2]])
    is_id = torch.tensor([True, False])
    choice = choose_logit_scale(yes, no, is_id)
    assert choice is not None
    assert choice.accuracy == 1.0
    before = id_and_ood_scores(yes, no, choice.scale - 0.1)
    at = id_and_ood_scores(yes, no, choice.scale)
    assert judged_id(*before).tolist() != [True, False]
    assert judged_id(*at).tolist() == [True, False]


@pytest.mark.parametrize("criterion", ["balanced", "plain"])
@pytest.mark.parametrize("with_similarity", [False, True])
@pytest.mark.parametrize("scores", [id_and_ood_scores, ctw_scores])
@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop_over_scales(
    seed: int, scores: PairScores, with_similarity: bool, criterion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logit_scale, "MAX_CELLS", 7 * 90)  # several blocks, the last one shorter
    case = random_case(seed)
    if not with_similarity:
        case["similarity_LK"] = None
    best, best_scale = -1.0, 0.0
    scales = SCALES[::20]
    for scale in scales:
        says_id = judged_id(*scores(case["yes_LK"], case["no_LK"], scale, similarity_NK=case["similarity_LK"]))
        right = says_id == case["is_id_L"]
        if criterion == "balanced":
            accuracy = (right[case["is_id_L"]].double().mean() + right[~case["is_id_L"]].double().mean()).item() / 2
        else:
            accuracy = right.double().mean().item()
        if accuracy > best + 1e-12:
            best, best_scale = accuracy, scale
    choice = choose_logit_scale(**case, criterion=criterion, scales=scales, scores=scores)
    assert choice is not None
    assert choice.accuracy == pytest.approx(best, abs=1e-12)
    assert choice.scale == best_scale


def test_the_criteria_choose_differently() -> None:
    case = random_case(8)
    balanced, plain = (choose_logit_scale(**case, criterion=criterion) for criterion in ("balanced", "plain"))
    assert balanced is not None
    assert plain is not None
    assert balanced.scale != plain.scale
