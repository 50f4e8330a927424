"""Detectors that use image features and bought labels only: logistic probe, neighbours, Mahalanobis distance.

Each gives a score of any real size, larger for ID. Scores that a threshold is learnt on are held out: a labelled image
is never scored by what was learnt from itself. Shapes: N images, L labelled images, K ID classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

NEAREST_ID = 5
"""Labelled ID images whose mean similarity counts while no OOD image is labelled."""
BLOCK = 4096
"""Images compared with all labelled ones at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Labelled images as these detectors see them."""

    features_LD: Tensor
    """Unit rows, float32."""
    classes_L: Tensor
    """0..K-1, and K for OOD; int64."""
    num_classes: int
    """Number of ID classes, K."""

    @property
    def is_id_L(self) -> Tensor:
        """Mask (L,) of the ID images."""
        return self.classes_L < self.num_classes

    def of(self, keep: Tensor) -> Labelled:
        """Subset of the images, by mask or index."""
        return Labelled(
            features_LD=self.features_LD[keep], classes_L=self.classes_L[keep], num_classes=self.num_classes
        )


Scorer = Callable[[Tensor], Tensor]
"""Scores (N,) of features (N, D)."""


def fold_of_each(labelled: Labelled, num_folds: int) -> Tensor | None:
    """The fold (L,) of each labelled image, every class spread evenly; None if there cannot be two folds.

    There are at most as many folds as the rarer of ID and OOD has images (the only one there is, if one is absent), so
    that the images outside a fold have both. The draw is fixed: it depends on the labels and their order only.
    """
    classes = labelled.classes_L.cpu().numpy()
    is_ood = classes == labelled.num_classes
    num_folds = min([num_folds, *(int(count) for count in (is_ood.sum(), (~is_ood).sum()) if count)])
    if len(classes) < 2 or num_folds < 2:
        return None
    folds = np.empty(len(classes), dtype=np.int64)
    # One count through all ID classes: if each class started at 0, classes of one image would all be in fold 0.
    for kind in (~is_ood, is_ood):
        places = np.random.default_rng(0).permutation(np.flatnonzero(kind))
        folds[places[np.argsort(classes[places], kind="stable")]] = np.arange(len(places)) % num_folds
    return torch.from_numpy(folds).to(labelled.classes_L.device)


def held_out(labelled: Labelled, folds_L: Tensor, fit: Callable[[Labelled], Scorer]) -> Tensor:
    """Scores (L,) of each labelled image by what `fit` learns from the other folds."""
    scores_L = torch.empty(len(folds_L), device=labelled.features_LD.device)
    for fold in range(int(folds_L.max()) + 1):
        inside = folds_L == fold
        scores_L[inside] = fit(labelled.of(~inside))(labelled.features_LD[inside]).float()
    return scores_L


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """A detector that has learnt from labelled images."""

    score: Scorer
    held_out_L: Tensor | None
    """Scores of the labelled images that were not learnt from; None if there are too few to hold any out."""


EXACT_UP_TO = 1000
"""Labelled images up to which the penalty is chosen on all of them, and logistic regressions are solved in float64.
Beyond, the penalty is chosen on so many drawn at random, and products are float32: with 5,000 images of 512 dimensions
and 41 classes one solution takes 0.5 CPU seconds in place of 1.6, and its scores agree to 1e-3."""


def learn_probe(labelled: Labelled, strengths: Sequence[float], *, folds: int, two_classes: bool) -> Learnt | None:
    """A logistic regression whose strength has the best held-out balanced accuracy (at log odds 0); the first of
    equally good ones. None if there are fewer than two ID or fewer than two OOD images."""
    is_id_L = labelled.is_id_L
    folds_L = fold_of_each(labelled, folds)
    if folds_L is None or bool(is_id_L.all()) or not bool(is_id_L.any()):
        return None

    # Once, for all folds and strengths: axes and turning cost as much as the solutions, and need not be exact.
    variances_D, axes_DD = _principal_axes(labelled.features_LD)
    dtype = torch.float64 if len(folds_L) <= EXACT_UP_TO else torch.float32
    labelled = replace(labelled, features_LD=labelled.features_LD.to(dtype) @ axes_DD.to(dtype))

    def fit_with(strength: float) -> Callable[[Labelled], Scorer]:
        return lambda part: _fit_aligned(part, strength, variances_D, two_classes=two_classes)

    tried, tried_folds = labelled, folds_L
    if len(folds_L) > EXACT_UP_TO:
        some = torch.from_numpy(np.random.default_rng(1).permutation(len(folds_L))[:EXACT_UP_TO])
        fewer = labelled.of(some.to(folds_L.device))
        fewer_folds = fold_of_each(fewer, folds)
        # Of 1,000 all may be of one kind, if that is all but a few of them.
        if fewer_folds is not None and fewer.is_id_L.any() and not fewer.is_id_L.all():
            tried, tried_folds = fewer, fewer_folds
    best, most = strengths[0], -1.0
    for strength in strengths if len(strengths) > 1 else ():
        right = (held_out(tried, tried_folds, fit_with(strength)) > 0) == tried.is_id_L
        accuracy = float(right[tried.is_id_L].double().mean() + right[~tried.is_id_L].double().mean())
        if accuracy > most:
            best, most = strength, accuracy
    fitted = fit_with(best)(labelled)
    axes_DD = axes_DD.float()
    return Learnt(
        score=lambda features_ND: fitted(features_ND @ axes_DD),
        held_out_L=held_out(labelled, folds_L, fit_with(best)),
    )


def fit_probe(labelled: Labelled, strength: float, *, two_classes: bool = False) -> Scorer:
    """The logistic regression that minimises |W|^2 / 2 + strength * weighted cross entropy, the bias free.

    ID and OOD images weigh the same in all (L / (2 L_id) and L / (2 L_ood) each): scikit-learn's LogisticRegression
    with these sample weights and C = strength. It is solved on features that are centred and scaled along their
    principal axes, which changes no solution: CLIP features share a large mean and a few large directions, and as
    they are the same solver took more than 200 evaluations in place of 15 to 45.
    """
    variances_D, axes_DD = _principal_axes(labelled.features_LD)
    aligned = replace(labelled, features_LD=labelled.features_LD.double() @ axes_DD)
    fitted = _fit_aligned(aligned, strength, variances_D, two_classes=two_classes)
    return lambda features_ND: fitted(features_ND @ axes_DD.float())


def _fit_aligned(labelled: Labelled, strength: float, variances_D: Tensor, *, two_classes: bool) -> Probe:
    """`fit_probe` of features along principal axes, whose variances are about `variances_D`."""
    is_id_L = labelled.is_id_L
    classes_L = (~is_id_L).long() if two_classes else labelled.classes_L
    num_outputs = 2 if two_classes else labelled.num_classes + 1
    num, num_id = len(classes_L), int(is_id_L.sum())
    dtype = torch.float64 if num <= EXACT_UP_TO else torch.float32
    features_LD = labelled.features_LD.to(dtype)
    weights_L = torch.where(is_id_L, num / (2 * num_id), num / (2 * (num - num_id))).to(dtype)
    mean_D = (weights_L @ features_LD) / num
    # The mean curvature of a softmax is far below its bound of 1/2: 0.02 and 0.1 took the same number of steps.
    curvature = 0.02 * strength * num
    scales_D = (1 + curvature * variances_D).rsqrt().to(dtype)
    solution_CE = _minimise(
        (features_LD - mean_D) * scales_D,
        functional.one_hot(classes_L, num_outputs).to(dtype) * weights_L[:, None],
        penalty_D=scales_D.square(),
        strength=strength,
        bias_scale=curvature**-0.5,
    )
    weight_CD = solution_CE[:, :-1] * scales_D
    bias_C = solution_CE[:, -1] * curvature**-0.5 - weight_CD @ mean_D
    return Probe(weight_CD=weight_CD.float(), bias_C=bias_C.float())


def _principal_axes(features_LD: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (D,) and axes (D, D), columns, of features; float64."""
    centred_LD = features_LD.double() - features_LD.double().mean(dim=0)
    values_D, axes_DD = torch.linalg.eigh(centred_LD.T @ centred_LD / len(centred_LD))
    return values_D.clamp(min=0), axes_DD


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A fitted logistic regression; its last output is OOD."""

    weight_CD: Tensor
    bias_C: Tensor

    def __call__(self, features_ND: Tensor) -> Tensor:
        """Log odds (N,) of ID against OOD: the order of 1 - p(OOD), without the ties where that rounds to 1."""
        logits_NC = features_ND.float() @ self.weight_CD.T + self.bias_C
        return logits_NC[:, :-1].logsumexp(dim=1) - logits_NC[:, -1]


def _minimise(
    inputs_LD: Tensor, targets_LC: Tensor, *, penalty_D: Tensor, strength: float, bias_scale: float
) -> Tensor:
    """Weights and scaled bias (C, D + 1) that minimise the objective of `fit_probe`, by L-BFGS.

    `targets_LC` are one-hot rows times the images' weights, `penalty_D` the penalty of each input's weight.
    """
    # Outside inference mode, in which the scorer answers: the solver may not change tensors that were made there.
    with torch.inference_mode(False), torch.no_grad():
        inputs_LD, targets_LC, penalty_D = inputs_LD.clone(), targets_LC.clone(), penalty_D.clone()
        weights_L1 = targets_LC.sum(dim=1, keepdim=True)
        solution_CE = inputs_LD.new_zeros(targets_LC.shape[1], inputs_LD.shape[1] + 1)
        solver = torch.optim.LBFGS(
            [solution_CE],
            max_iter=150,
            history_size=10,
            # Smaller ones are lost in float32's rounding, and the line search then runs in place.
            tolerance_grad=(5e-4 if inputs_LD.dtype == torch.float64 else 3e-3) * max(1.0, strength**0.5),
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            weight_CD, bias_C = solution_CE[:, :-1], solution_CE[:, -1]
            logits_LC = inputs_LD @ weight_CD.T + bias_C * bias_scale
            log_probs_LC = logits_LC.log_softmax(dim=1)
            error_LC = (log_probs_LC.exp() * weights_L1 - targets_LC) * strength
            solution_CE.grad = torch.cat(
                [error_LC.T @ inputs_LD + weight_CD * penalty_D, error_LC.sum(dim=0)[:, None] * bias_scale], dim=1
            )
            return 0.5 * (weight_CD.square() * penalty_D).sum() - strength * (targets_LC * log_probs_LC).sum()

        solver.step(objective)  # type: ignore[no-untyped-call]
        return solution_CE


def learn_neighbours(labelled: Labelled, neighbours: int) -> Learnt:
    """The vote of the nearest labelled images, by cosine.

    The score is (ID neighbours - OOD neighbours) / k, and between equal votes the mean cosine of the ID neighbours
    minus that of the OOD ones, scaled so that it never outweighs a vote: an image is voted ID if its score is above
    `vote_threshold`. While one kind is not labelled the score is the mean cosine of the nearest five of the other kind
    (minus it, if these are OOD), and without any label it is 0.
    """
    return Learnt(
        score=lambda features_ND: _votes(features_ND, labelled, neighbours),
        held_out_L=_votes(labelled.features_LD, labelled, neighbours, themselves=True)
        if len(labelled.classes_L) > 1
        else None,
    )


def vote_threshold(num_labelled: int, neighbours: int) -> float:
    """The score above which ID has more votes: between a tied vote and the smallest lead, 1 / k."""
    return 0.5 / max(1, min(neighbours, num_labelled))


def _votes(features_ND: Tensor, labelled: Labelled, neighbours: int, *, themselves: bool = False) -> Tensor:
    """Scores (N,) of `learn_neighbours`; `themselves`: the images are the labelled ones, and none is its own
    neighbour."""
    is_id_L = labelled.is_id_L
    both = bool(is_id_L.any() and not is_id_L.all())
    num_others = len(is_id_L) - themselves
    if not num_others:
        return features_ND.new_zeros(len(features_ND))
    k = min(neighbours if both else NEAREST_ID, num_others)
    parts = []
    for start in range(0, len(features_ND), BLOCK):
        cosines_BL = features_ND[start : start + BLOCK] @ labelled.features_LD.T
        if themselves:
            rows = torch.arange(len(cosines_BL), device=cosines_BL.device)
            cosines_BL[rows, start + rows] = -torch.inf
        nearest_BK, which_BK = cosines_BL.topk(k, dim=1)
        if not both:
            parts.append(nearest_BK.mean(dim=1) * (1.0 if is_id_L.all() else -1.0))
            continue
        id_BK = is_id_L[which_BK]
        num_id_B = id_BK.sum(dim=1)
        nearness_B = (nearest_BK * id_BK).sum(dim=1) / num_id_B.clamp(min=1)
        nearness_B -= (nearest_BK * ~id_BK).sum(dim=1) / (k - num_id_B).clamp(min=1)
        parts.append((2 * num_id_B - k) / k + nearness_B / (5 * k))
    return torch.cat(parts)


def learn_mahalanobis(labelled: Labelled, *, background_ND: Tensor | None = None, folds: int = 5) -> Learnt | None:
    """Minus the smallest squared Mahalanobis distance to a class mean; None without a labelled ID image.

    Means and one shared covariance are those of the labelled ID images, the covariance shrunk as Ledoit and Wolf do
    (with fewer than two images per class it is a multiple of the identity). With `background_ND` the squared distance
    to the mean and covariance of those images is taken off first (the relative form of Ren et al.).
    """
    if not labelled.is_id_L.any():
        return None
    background = None if background_ND is None else _gaussian(background_ND.double())

    def fit(part: Labelled) -> Scorer:
        features_LD = part.features_LD[part.is_id_L].double()
        classes_L = part.classes_L[part.is_id_L]
        present = torch.unique(classes_L)
        means_KD = torch.stack([features_LD[classes_L == c].mean(dim=0) for c in present])
        centred_LD = features_LD - means_KD[torch.searchsorted(present, classes_L)]
        spherical = len(classes_L) < 2 * len(present)
        gaussian = _Gaussian(means_KD=means_KD, whiten_DD=_whitening(centred_LD, spherical=spherical))

        def score(features_ND: Tensor) -> Tensor:
            distances_N = gaussian.distances(features_ND.double())
            if background is not None:
                distances_N = distances_N - background.distances(features_ND.double())
            return -distances_N.float()

        return score

    folds_L = fold_of_each(labelled, folds)
    return Learnt(score=fit(labelled), held_out_L=None if folds_L is None else held_out(labelled, folds_L, fit))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gaussian:
    """Means with one covariance C, whose inverse is W W^T."""

    means_KD: Tensor
    whiten_DD: Tensor

    def distances(self, features_ND: Tensor) -> Tensor:
        """Squared distances (N,) to the nearest mean."""
        white_ND, white_KD = features_ND @ self.whiten_DD, self.means_KD @ self.whiten_DD
        return torch.cdist(white_ND, white_KD).square().amin(dim=1)


def _gaussian(features_ND: Tensor) -> _Gaussian:
    mean_D = features_ND.mean(dim=0)
    return _Gaussian(means_KD=mean_D[None], whiten_DD=_whitening(features_ND - mean_D, spherical=False))


def _whitening(centred_LD: Tensor, *, spherical: bool) -> Tensor:
    """W (D, D) with W W^T the inverse of the shrunk covariance of centred features."""
    num, dims = centred_LD.shape
    covariance_DD = centred_LD.T @ centred_LD / num
    mean_variance = covariance_DD.diagonal().mean()
    if spherical or mean_variance <= 0:
        # One image per class has no spread at all: any multiple of the identity gives the same order.
        scale = mean_variance if mean_variance > 0 else torch.ones_like(mean_variance)
        return torch.eye(dims, dtype=centred_LD.dtype, device=centred_LD.device) * scale.rsqrt()
    shrinkage = _ledoit_wolf(centred_LD, covariance_DD)
    shrunk_DD = (1 - shrinkage) * covariance_DD
    shrunk_DD.diagonal().add_(shrinkage * mean_variance)
    values_D, axes_DD = torch.linalg.eigh(shrunk_DD)
    # A background of the whole pool is hardly shrunk: a direction without any variance would have an infinite weight.
    floor = 1e-9 * mean_variance
    whitening_DD: Tensor = axes_DD * values_D.clamp(min=floor).rsqrt()
    return whitening_DD


def _ledoit_wolf(centred_LD: Tensor, covariance_DD: Tensor) -> Tensor:
    """The shrinkage, in [0, 1], of Ledoit and Wolf (2004) towards a multiple of the identity."""
    num, dims = centred_LD.shape
    mean_variance = covariance_DD.diagonal().mean()
    spread = (covariance_DD.square().sum() - dims * mean_variance.square()) / dims
    noise = (centred_LD.square().sum(dim=1).square().sum() / num - covariance_DD.square().sum()) / (num * dims)
    return (noise / spread).clamp(0, 1) if spread > 0 else torch.ones_like(spread)
