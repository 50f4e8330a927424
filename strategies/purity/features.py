"""Detectors that use image features and bought labels only: neighbours and Mahalanobis distance; `probe` is beside.

Each gives a score of any real size, larger for ID. Scores that a threshold is learnt on are held out: a labelled image
is never scored by what was learnt from itself. Shapes: N images, L labelled images, K ID classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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
