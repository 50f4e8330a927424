"""A linear classifier of the wanted classes on frozen features, which starts as what the class names say.

Shapes: N images, L labelled wanted images, K classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.classifier.outputs import ClassifierOutputs, LinearHead

STRENGTHS = (3.0, 30.0, 300.0)
"""Values of C, the weight of a label against the penalty, among which cross-validation chooses."""
FOLDS = 5
FEW = 3
"""Labels of the rarest class below which nothing is cross-validated: the middle strength is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Fitted classifier: logits = features @ weight_KD.T + bias_K."""

    weight_KD: NDArray[np.float32]
    bias_K: NDArray[np.float32]
    right_L: NDArray[np.bool_] | None
    """Whether each labelled image is classified rightly by a head that did not learn from it; None for too few."""

    def outputs(self, features_ND: NDArray[np.float32]) -> ClassifierOutputs:
        """Outputs for images, as strategies take them."""
        return ClassifierOutputs(
            logits_NK=features_ND @ self.weight_KD.T + self.bias_K,
            features_ND=np.array(features_ND),  # its flags are changed by who checks it
            head=LinearHead(weight_KD=self.weight_KD, bias_K=self.bias_K),
        )

    def probabilities(self, features_ND: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability (N, K) of each class, given that it is one of them."""
        logits_NK = (features_ND @ self.weight_KD.T + self.bias_K).astype(np.float64)
        exp_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
        shares_NK: NDArray[np.float64] = exp_NK / exp_NK.sum(axis=1, keepdims=True)
        return shares_NK


def fit_head(features_LD: NDArray[np.float32], classes_L: NDArray[np.int64], start_KD: NDArray[np.float32]) -> Head:
    """The head that minimises |W - start|^2 / 2 + C * (mean cross entropy of each class's images, averaged) * K.

    `start_KD` are the logits' weights without any label: the logit scale times the class texts, or zero without texts.
    So few labels correct the texts in place of replacing them, and a class without a label is still recognised by its
    name. C is chosen by cross-validated accuracy; ties go to the smaller one.
    """
    features, classes = torch.from_numpy(np.array(features_LD)).double(), torch.from_numpy(np.array(classes_L))
    start = torch.from_numpy(np.array(start_KD)).double()
    counts_K = torch.bincount(classes, minlength=len(start))
    present = counts_K[counts_K > 0]
    strength, right_L = STRENGTHS[1], None
    if len(present) > 1 and int(present.min()) >= FEW:
        folds_L = _folds(classes)
        tried = [_held_out(features, classes, start, folds_L, each) for each in STRENGTHS]
        best = int(np.argmax([int(right.sum()) for right in tried]))
        strength, right_L = STRENGTHS[best], tried[best].numpy()
    weight_KD, bias_K = _minimise(features, classes, start, strength)
    return Head(weight_KD=weight_KD.float().numpy(), bias_K=bias_K.float().numpy(), right_L=right_L)


def _folds(classes_L: Tensor) -> Tensor:
    """The fold (L,) of each image, every class spread evenly."""
    folds_L = torch.empty_like(classes_L)
    for label in torch.unique(classes_L):
        members = (classes_L == label).nonzero()[:, 0]
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(members)))
        folds_L[members[order]] = torch.arange(len(members)) % FOLDS
    return folds_L


def _held_out(features_LD: Tensor, classes_L: Tensor, start_KD: Tensor, folds_L: Tensor, strength: float) -> Tensor:
    """Whether each image is classified rightly (L,) by a head fitted on the other folds."""
    right_L = torch.zeros(len(classes_L), dtype=torch.bool)
    for fold in torch.unique(folds_L).tolist():
        inside = folds_L == fold
        weight_KD, bias_K = _minimise(features_LD[~inside], classes_L[~inside], start_KD, strength)
        right_L[inside] = (features_LD[inside] @ weight_KD.T + bias_K).argmax(dim=1) == classes_L[inside]
    return right_L


def _minimise(features_LD: Tensor, classes_L: Tensor, start_KD: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Weights (K, D) and biases (K,), float64."""
    mean_D = features_LD.mean(dim=0) if len(features_LD) else features_LD.new_zeros(features_LD.shape[1])
    if not len(features_LD):
        return start_KD, start_KD.new_zeros(len(start_KD))
    counts_K = torch.bincount(classes_L, minlength=len(start_KD))
    # A class with few images counts as much as one with many: a folder's shares say nothing about the next folder's.
    weights_L = (1.0 / counts_K.double())[classes_L] / int((counts_K > 0).sum())
    # Centred, so that the free biases absorb the mean that all CLIP features share.
    centred_LD = features_LD - mean_D
    base_LK = features_LD @ start_KD.T
    change_KD = torch.zeros_like(start_KD).requires_grad_()
    bias_K = torch.zeros(len(start_KD), dtype=start_KD.dtype).requires_grad_()
    solver = torch.optim.LBFGS(
        [change_KD, bias_K], max_iter=100, tolerance_grad=1e-5, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        solver.zero_grad()
        logits_LK = base_LK + centred_LD @ change_KD.T + bias_K
        errors_L = torch.nn.functional.cross_entropy(logits_LK, classes_L, reduction="none")
        # A tiny penalty on the biases too: that of a class without an image would go to minus infinity.
        value: Tensor = (
            0.5 * change_KD.square().sum() + 0.5 * bias_K.square().sum() + strength * (weights_L * errors_L).sum()
        )
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(objective)  # type: ignore[no-untyped-call]
    change_KD, bias_K = change_KD.detach(), bias_K.detach()
    return start_KD + change_KD, bias_K - change_KD @ mean_D


def class_counts(classes_L: NDArray[np.int64], names: Sequence[str]) -> dict[str, int]:
    """Number of labelled images of each class, by name."""
    return {name: int((classes_L == label).sum()) for label, name in enumerate(names)}
