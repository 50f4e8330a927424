"""A text score and a probe mixed, by weights learnt on the labels bought so far.

Shapes: L labelled images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PRIOR_LABELS = 20.0
"""Labelled images that the prior, which trusts the text alone, counts as much as."""
STEPS = 25
"""Newton steps; the problem has three unknowns."""


def learn_fusion(text_L: Tensor, probe_L: Tensor, is_id_L: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The log odds of ID as w_t text + w_p probe + bias, both scores divided by their spread on the labelled images.

    `text_L` does not learn from labels and `probe_L` are held-out scores, so the weights see no score of an image that
    the probe was fitted on. They maximise the class-balanced likelihood under a normal prior around (1, 0): with few
    labels it is the text score, with many it is what predicts best. Weights below 0 are set to 0: a score that has to
    be turned round is noise.
    """
    scores_L2 = torch.stack([text_L, probe_L], dim=1).double()
    centre_2, spread_2 = scores_L2.mean(dim=0), scores_L2.std(dim=0).clamp(min=1e-9)
    inputs_L3 = torch.cat([(scores_L2 - centre_2) / spread_2, torch.ones_like(scores_L2[:, :1])], dim=1)
    is_id = is_id_L.double()
    num, num_id = len(is_id), float(is_id.sum())
    weights_L = torch.where(is_id_L, num / (2 * num_id), num / (2 * (num - num_id)))
    prior_3 = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, device=inputs_L3.device)
    # A quarter: the curvature of the likelihood that one label adds at even odds.
    precision_3 = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64, device=inputs_L3.device) * PRIOR_LABELS / 4
    solution_3 = prior_3.clone()
    for _ in range(STEPS):
        probs_L = torch.sigmoid(inputs_L3 @ solution_3)
        gradient_3 = inputs_L3.T @ (weights_L * (probs_L - is_id)) + precision_3 * (solution_3 - prior_3)
        curvature_L = (weights_L * probs_L * (1 - probs_L)).clamp(min=1e-9)
        hessian_33 = (inputs_L3.T * curvature_L) @ inputs_L3 + precision_3.diag()
        solution_3 = solution_3 - torch.linalg.solve(hessian_33, gradient_3)
    weight_2 = solution_3[:2].clamp(min=0) / spread_2

    def fused(text_N: Tensor, probe_N: Tensor) -> Tensor:
        return (text_N * weight_2[0] + probe_N * weight_2[1]).float()

    return fused
