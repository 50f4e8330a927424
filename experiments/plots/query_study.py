"""The plane of Figure 12: a t-SNE embedding of the features of a pool, and where the queried images lie in it.

Shapes: P points of the plane, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.plots.figure12 import Queries, QueryMap
from experiments.results.statistics import Condition
from orchestrator.plan import PlannedTrial
from orchestrator.problem import pose_problem
from orchestrator.trial.compute import cached_data_set

IndexArray = NDArray[np.int64]

MOST_POOL = 1500
"""Unlabelled images drawn behind."""
MOST_QUERIED = 300
"""Queried images drawn a strategy."""
PERPLEXITY = 30.0


def query_map(
    planned: Sequence[PlannedTrial], features_of: Callable[[IndexArray], NDArray[np.float32]], *, embedded: str
) -> QueryMap:
    """The queries of trials of one condition and seed, strategy by strategy; one or more of them has a query.

    `features_of` gives a row a training image, and `embedded` says of what. The plane is the same for equal features
    and records, whatever the machine's number of cores.
    """
    first = planned[0].trial
    data = cached_data_set(first.dataset, first.data_root, first.on_bad_image == "skip")
    problem = pose_problem(first, data)
    is_id_A = problem.split.relabel(data.train.labels) < problem.num_id_classes
    queried = {p.row: _queried(p) for p in planned}
    asked = {strategy: idx for strategy, idx in queried.items() if len(idx)}
    assert asked, "there is no query to embed"
    unlabelled_idx = problem.split.unlabelled_idx
    pool_idx = unlabelled_idx
    if len(pool_idx) > MOST_POOL:
        pool_idx = np.random.default_rng(first.seed).choice(unlabelled_idx, MOST_POOL, replace=False)
    drawn = {strategy: evenly_spaced(idx, MOST_QUERIED) for strategy, idx in asked.items()}
    point_idx = np.unique(np.concatenate([pool_idx, *drawn.values()]))
    return QueryMap(
        condition=Condition(first.dataset, first.mismatch_ratio, first.ood_ratio),
        seed=first.seed,
        points_P2=plane(features_of(point_idx), seed=first.seed),
        is_id_P=is_id_A[point_idx],
        pool=np.searchsorted(point_idx, np.sort(pool_idx)),
        num_pool=len(unlabelled_idx),
        queries={
            strategy: Queries(
                shown=np.searchsorted(point_idx, drawn[strategy]),
                num_id=int(is_id_A[idx].sum()),
                num_queried=len(idx),
            )
            for strategy, idx in asked.items()
        },
        missing=tuple(strategy for strategy in queried if strategy not in asked),
        embedded=embedded,
    )


def evenly_spaced(idx: IndexArray, most: int) -> IndexArray:
    """All of `idx`, or `most` of them from first to last at equal distances (rounded), in their order."""
    if len(idx) <= most:
        return idx
    return idx[np.linspace(0, len(idx) - 1, most).round().astype(np.int64)]


def plane(features_PD: NDArray[np.float32], *, seed: int) -> NDArray[np.float64]:
    """(P, 2) t-SNE of features, started from their principal components; equal arguments give equal points."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(features_PD) - 1) / 3)
    with threadpool_limits(limits=1):  # sums over threads come in another order each time
        tsne = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed)
        return np.asarray(tsne.fit_transform(features_PD), dtype=np.float64)


def _queried(planned: PlannedTrial) -> IndexArray:
    """All images that a trial asked for so far, in the order asked."""
    return np.array([index for record in planned.records for index in record.queried_idx], dtype=np.int64)
