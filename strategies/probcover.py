"""ProbCover: balls of one radius that cover as much of the pool as possible (Yehuda et al., NeurIPS 2022).

Shapes: N points (labelled and unlabelled), D features, B a block, S newly covered points.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.base import IndexArray, PoolView, Selection, Strategy
from strategies.numeric.kcenter import first_maximum
from strategies.options import ProbCoverOptions

BLOCK = 1024
"""Points whose distances to all others are held at a time."""
RADII = tuple(np.round(np.arange(0.05, 1.5001, 0.05), 2).tolist())
SAMPLE = 1000
"""Number of balls sampled to estimate the purity of a radius."""
SAMPLE_BLOCK = 128
"""Number of sampled balls handled at a time."""

Features = Callable[[IndexArray], NDArray[np.float32]]
"""Features (n, D) of training images, in the order of their indices."""


def count_neighbours(points_ND: Tensor, of_SD: Tensor, radius: float) -> Tensor:
    """Number (N,) of the points `of_SD` within `radius` of each point; all are of unit length."""
    closest = 1.0 - radius**2 / 2  # |x - y|^2 = 2 - 2 x . y
    counts_N = torch.zeros(len(points_ND), dtype=torch.int64, device=points_ND.device)
    for block_BD in torch.split(of_SD, BLOCK):
        counts_N += (points_ND @ block_BD.T >= closest).sum(dim=1)
    return counts_N


def greedy_cover(points_ND: Tensor, is_labelled_N: Tensor, radius: float, count: int) -> tuple[Tensor, Tensor]:
    """Positions (Q,) of the picks in order, and the number of points that each newly covered (Q,).

    A pick is the unlabelled point whose ball holds most points that no ball of a labelled or picked point holds; ties
    go to the lowest position. Points are of unit length. No matrix of all distances is held: each point is taken off
    its neighbours' counts once, when it is covered.
    """
    closest = 1.0 - radius**2 / 2
    uncovered_N = count_neighbours(points_ND, points_ND[is_labelled_N], radius) == 0
    degree_N = count_neighbours(points_ND, points_ND[uncovered_N], radius)
    free_N = ~is_labelled_N
    picks, gains = [], []
    for _ in range(min(count, int(free_N.sum()))):
        pick = int(first_maximum(torch.where(free_N, degree_N, -1)))
        picks.append(pick)
        gains.append(int(degree_N[pick]))
        # Once everything is covered the original may pick an image again; a free mask rules that out.
        free_N[pick] = False
        covered_N = uncovered_N & (points_ND @ points_ND[pick] >= closest)
        if covered_N.any():
            degree_N -= count_neighbours(points_ND, points_ND[covered_N], radius)
            uncovered_N &= ~covered_N
    return torch.tensor(picks, dtype=torch.int64), torch.tensor(gains, dtype=torch.int64)


def radius_for_purity(points_ND: Tensor, num_clusters: int, purity: float, rng: np.random.Generator) -> float:
    """The largest of `RADII` of whose balls a share of at least `purity` holds points of one k-means cluster only.

    Estimated on a sample of the balls; the smallest radius if none reaches it.
    """
    from sklearn.cluster import MiniBatchKMeans

    num_clusters = min(num_clusters, len(points_ND))
    clustering = MiniBatchKMeans(n_clusters=num_clusters, n_init=1, random_state=int(rng.integers(2**31)))
    clusters_N = torch.from_numpy(clustering.fit_predict(points_ND.cpu().numpy())).to(points_ND.device)
    sample = np.sort(rng.choice(len(points_ND), size=min(SAMPLE, len(points_ND)), replace=False))
    nearest_other_S = torch.empty(len(sample), device=points_ND.device)
    for start in range(0, len(sample), SAMPLE_BLOCK):
        of_B = torch.from_numpy(sample[start : start + SAMPLE_BLOCK]).to(points_ND.device)
        same_BN = clusters_N[of_B][:, None] == clusters_N[None, :]
        # Only the nearest point of another cluster decides at which radii a ball is pure; no second pass per radius.
        products_BN = (points_ND[of_B] @ points_ND.T).masked_fill_(same_BN, -2.0)
        nearest_other_S[start : start + len(of_B)] = products_BN.amax(dim=1)
    best = RADII[0]
    for radius in RADII:
        if float((nearest_other_S < 1.0 - radius**2 / 2).double().mean()) >= purity:
            best = radius
    return float(best)


class ProbCover(Strategy):
    """Picks by greedy maximum coverage on frozen self-supervised features of unit length.

    Costs products of the pool's features with each other, twice at most, in blocks. The features are the projections (D
    = 128) of the SimCLR encoder (`models.contrastive.encoder`), in which its loss compares images; the classifier plays
    no part. Departures: the original takes that encoder's features before the projection (D = 512); here the radius is
    estimated on a sample of the balls, over a grid of radii, with a cluster for each ID class although the pool has OOD
    classes too; a ball holds its rim; nothing is picked twice once all is covered (there it can be); labelled OOD
    images cover nothing.
    """

    def __init__(self, features: Features, options: ProbCoverOptions) -> None:
        """Keep the features and the options; `features` is called once per round."""
        self._features = features
        self._options = options

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images in the order picked; the score is the number of newly covered images."""
        rows = np.concatenate([view.labelled_id_idx, view.unlabelled_idx])
        points_ND = torch.from_numpy(np.asarray(self._features(rows))).to(view.workshop.device)
        points_ND = torch.nn.functional.normalize(points_ND, dim=1)
        radius = self._options.radius
        if radius is None:
            radius = radius_for_purity(points_ND, len(view.class_names), self._options.purity, rng)
        is_labelled_N = torch.arange(len(rows), device=points_ND.device) < len(view.labelled_id_idx)
        picks, gains = greedy_cover(points_ND, is_labelled_N, radius, budget)
        return Selection(
            idx=rows[picks.numpy()].astype(np.int64),
            scores=gains.numpy().astype(np.float64),
            diagnostics={"radius": radius},
        )
