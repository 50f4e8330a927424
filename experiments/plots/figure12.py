"""Figure 12: the images that each strategy queried, in one plane for all of them; values and picture.

The plane is a t-SNE embedding of the features of a pool. Shapes: P points of the plane, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.plots.canvas import (
    ID_COLOUR,
    ID_MARKER,
    OOD_COLOUR,
    OOD_MARKER,
    PAGE_WIDTH,
    PRINT_FONT,
    condition_text,
    new_figure,
)
from experiments.results.statistics import Condition, condition_of
from orchestrator.plan import PlannedTrial
from orchestrator.problem import pose_problem
from orchestrator.trial.compute import cached_data_set

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_COLUMNS = 4
POOL_ID_COLOUR, POOL_OOD_COLOUR = "0.72", "0.88"
"""Colours of the pool in the background: its ID images a little darker, so that a reader sees where they lie."""
POOL_SIZE, QUERY_SIZE = 3.0, 9.0
"""Sizes of markers, square points."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Queries:
    """The images that one strategy queried."""

    shown: NDArray[np.int64]
    """Positions, among the points, of the drawn images: all queried ones, or some, evenly spaced in query order."""
    num_id: int
    num_queried: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QueryMap:
    """One condition and seed: the pool in the plane, and the queries of each strategy."""

    condition: Condition
    seed: int
    points_P2: NDArray[np.float64]
    is_id_P: NDArray[np.bool_]
    """Truth of each point, from the oracle's side."""
    pool: NDArray[np.int64]
    """Positions, among the points, of the unlabelled images in the background: all of the start, or a sample."""
    num_pool: int
    """Number of unlabelled images at the start."""
    queries: Mapping[str, Queries]
    """Strategy -> its queries; one or more."""
    missing: tuple[str, ...]
    """Strategies without a query so far."""
    embedded: str
    """Name of the features that the plane embeds."""


def map_caption(query_map: QueryMap, run: str) -> str:
    """The caption of the picture, in one paragraph."""
    sampled = any(len(each.shown) < each.num_queried for each in query_map.queries.values())
    most = max(len(each.shown) for each in query_map.queries.values())
    sample = f" (at most {most} a strategy are drawn, evenly spaced in the order asked)" if sampled else ""
    drawn = len(query_map.pool)
    pool = "all" if drawn == query_map.num_pool else f"{drawn:,} drawn at random of"
    return (
        f"Figure 12. The images that each strategy asked for in all its queries{sample}, "
        f"{condition_text(query_map.condition)}, seed {query_map.seed}. One t-SNE embedding of {query_map.embedded} "
        "for all panels; the truth comes from the oracle's side. Grey: the unlabelled pool at the start "
        f"({pool} {query_map.num_pool:,} images), ID images darker than OOD images. In the titles: ID images among all "
        "that were asked for." + "".join(f" {note}." for note in missing_notes(query_map)) + f" Run: {run}.\n"
    )


def missing_notes(query_map: QueryMap) -> tuple[str, ...]:
    """A sentence that names the strategies that are not in the picture, if any."""
    return (f"Missing (no query yet): {', '.join(query_map.missing)}",) if query_map.missing else ()


def draw_map(query_map: QueryMap) -> Figure:
    """Draw one panel per strategy, all with the same points in the background."""
    num_panels = len(query_map.queries)
    num_rows = math.ceil(num_panels / MOST_COLUMNS)
    num_columns = math.ceil(num_panels / num_rows)
    side = PAGE_WIDTH / max(num_columns, 2)
    figure = new_figure(side * num_columns, (side + 0.25) * num_rows + (0.35 if num_columns > 1 else 0.5))
    panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes in panels[num_panels:]:
        axes.set_visible(False)
    for axes, (strategy, queries) in zip(panels, query_map.queries.items(), strict=False):
        _draw_panel(axes, query_map, queries)
        axes.set_title(f"{strategy}: {queries.num_id} of {queries.num_queried} ID", fontsize=PRINT_FONT)
    _add_legend(figure, num_entries_a_row=4 if num_columns > 1 else 2)
    return figure


def _draw_panel(axes: Axes, query_map: QueryMap, queries: Queries) -> None:
    """Draw the pool in grey and the queried images over it, ID as circles and OOD as crosses."""
    points_P2, is_id_P = query_map.points_P2, query_map.is_id_P

    def scatter(
        places: NDArray[np.int64], colour: str, marker: str, size: float, line_width: float, order: int
    ) -> None:
        x, y = points_P2[places].T
        axes.scatter(x, y, s=size, color=colour, marker=marker, linewidths=line_width, zorder=order)

    pool, shown = query_map.pool, queries.shown
    scatter(pool[~is_id_P[pool]], POOL_OOD_COLOUR, "o", POOL_SIZE, 0.0, 1)
    scatter(pool[is_id_P[pool]], POOL_ID_COLOUR, "o", POOL_SIZE, 0.0, 1)
    scatter(shown[is_id_P[shown]], ID_COLOUR, ID_MARKER, QUERY_SIZE, 0.0, 2)
    scatter(shown[~is_id_P[shown]], OOD_COLOUR, OOD_MARKER, QUERY_SIZE, 0.9, 3)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_box_aspect(1)
    axes.spines[:].set_color("0.7")


def _add_legend(figure: Figure, num_entries_a_row: int) -> None:
    from matplotlib.lines import Line2D

    def dots(label: str, colour: str, marker: str, size: float) -> Line2D:
        return Line2D([], [], linestyle="none", color=colour, marker=marker, markersize=size, label=label)

    figure.legend(
        handles=[
            dots("queried, ID", ID_COLOUR, ID_MARKER, 4),
            dots("queried, OOD", OOD_COLOUR, OOD_MARKER, 4),
            dots("pool, ID", POOL_ID_COLOUR, "o", 3),
            dots("pool, OOD", POOL_OOD_COLOUR, "o", 3),
        ],
        loc="outside lower center",
        ncols=num_entries_a_row,
        frameon=False,
        fontsize=PRINT_FONT,
        handletextpad=0.1,
    )


IndexArray = NDArray[np.int64]

MOST_POOL = 1500
"""Most unlabelled images drawn in the background."""
MOST_QUERIED = 300
"""Most queried images drawn per strategy."""
PERPLEXITY = 30.0


def query_map(
    planned: Sequence[PlannedTrial], features_of: Callable[[IndexArray], NDArray[np.float32]], *, embedded: str
) -> QueryMap:
    """The queries of trials of one condition and seed, strategy by strategy; at least one trial has a query.

    `features_of` gives a row per training image, and `embedded` names these features. The plane is the same for equal
    features and records on any number of cores.
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
        condition=condition_of(first),
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
    """The t-SNE embedding (P, 2) of features, started from their principal components; it is deterministic."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(features_PD) - 1) / 3)
    with threadpool_limits(limits=1):  # threads add in another order each time: other points
        tsne = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed)
        return np.asarray(tsne.fit_transform(features_PD), dtype=np.float64)


def _queried(planned: PlannedTrial) -> IndexArray:
    """All images that a trial has queried so far, in query order."""
    return np.array([index for record in planned.records for index in record.queried_idx], dtype=np.int64)
