"""Draws figures from the records of a run's folder, and writes them with their captions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.console import StepReporter
from data.files import write_bytes_atomically, write_text_atomically
from experiments.plots.canvas import FILE_FORMATS, NothingToDraw, dataset_label, file_bytes
from experiments.plots.plan import PURITY_FIGURES, QUERY_MAP_FIGURE, FigurePlan
from orchestrator.plan import PlannedTrial
from orchestrator.settings.trial import TrialConfig

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from orchestrator.trial.purity_scorer import LocalPurityScorer

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A drawn figure with the name of its files and its caption."""

    name: str
    figure: Figure
    caption: str
    notes: tuple[str, ...] = ()
    """The missing parts, one sentence each, which are in the caption too."""


class FigureMaker:
    """Draws the figures of one run."""

    def __init__(self, planned: Sequence[PlannedTrial], *, run: str, tell: Tell, cpus: int = 1) -> None:
        """`planned` holds every trial of the figures; `run` names the run in captions; `tell` takes progress."""
        self._planned = {(p.row, p.trial): p for p in planned}
        self._run = run
        self._tell = tell
        self._cpus = cpus
        self._scorers: dict[tuple[TrialConfig, ...], LocalPurityScorer] = {}

    def pictures(self, plan: FigurePlan) -> Iterator[Drawing]:
        """The pictures of a figure. Raises NothingToDraw if nothing of it can be drawn yet."""
        if plan.number in PURITY_FIGURES:
            yield from self._purity(plan)
        elif plan.number == QUERY_MAP_FIGURE:
            yield from self._query_maps(plan)
        else:
            yield from self._curves(plan)

    def _curves(self, plan: FigurePlan) -> Iterator[Drawing]:
        from experiments.plots.figures7to11 import draw_page
        from experiments.plots.rounds import caption, round_pages
        from experiments.results.frames import rounds_frame, trials_frame

        planned = [self._planned[each.arm, each.trial] for each in plan.trials]
        for page in round_pages(plan.number, trials_frame(planned), rounds_frame(planned)):
            yield Drawing(name=page.name, figure=draw_page(page), caption=caption(page, self._run), notes=page.notes)

    def _purity(self, plan: FigurePlan) -> Iterator[Drawing]:
        from experiments.plots.figure5 import draw_examples, example_caption
        from experiments.plots.figure6 import draw_scales, scale_caption, untuned_notes
        from experiments.plots.purity_step import example_sheet, first_purity_step, scale_sweep

        scorer = self._scorer(plan)
        sweeps = []
        for each in plan.studied:
            self._tell(f"figure {plan.number}: the purity step of {each.trial.label}")
            step = first_purity_step(each.trial, scorer)
            if plan.number == 6:
                sweeps.append(scale_sweep(step))
                continue
            sheet = example_sheet(step)
            name = f"figure5-{_file_name(each.trial.dataset)}"
            yield Drawing(name=name, figure=draw_examples(sheet), caption=example_caption(sheet, self._run))
        if sweeps:
            caption, notes = scale_caption(sweeps, self._run), untuned_notes(sweeps)
            yield Drawing(name="figure6", figure=draw_scales(sweeps), caption=caption, notes=notes)

    def _query_maps(self, plan: FigurePlan) -> Iterator[Drawing]:
        from experiments.plots.figure12 import draw_map, map_caption, missing_notes, query_map

        found = False
        for dataset in dict.fromkeys(each.trial.dataset for each in plan.trials):
            planned = [self._planned[each.arm, each.trial] for each in plan.trials if each.trial.dataset == dataset]
            if not any(record.queried_idx for p in planned for record in p.records):
                continue
            found = True
            self._tell(f"figure 12: embedding the pool of {planned[0].trial.dataset} in the plane")
            if plan.studied:
                features = partial(self._scorer(plan).features, planned[0].data_fingerprint)
                drawn = query_map(planned, features, embedded="CLIPN's image features")
            else:
                drawn = query_map(
                    planned,
                    partial(self._classifier_features, planned[0]),
                    embedded="features of the classifier of round 0, which all strategies share,",
                )
            name = f"figure12-{_file_name(dataset)}"
            caption, notes = map_caption(drawn, self._run), missing_notes(drawn)
            yield Drawing(name=name, figure=draw_map(drawn), caption=caption, notes=notes)
        if not found:
            raise NothingToDraw("figure 12: there is no query to draw yet")

    def _classifier_features(self, planned: PlannedTrial, idx: NDArray[np.int64]) -> NDArray[np.float32]:
        """The features (N, D) of training images from the classifier of round 0."""
        from orchestrator.trial.compute import initial_features

        what = "figure 12: training the classifier of round 0 (--embedding clipn needs none)"
        reporter = cache(lambda total: StepReporter(what, total, self._tell))
        return initial_features(
            planned,
            idx,
            cpus=self._cpus,
            gpus=_num_gpus(),
            progress=lambda num_done, total: reporter(total).done(num_done),
        )

    def _scorer(self, plan: FigurePlan) -> LocalPurityScorer:
        """A scorer with CLIPN's features of the figure's data sets."""
        first: dict[str, TrialConfig] = {}
        for each in plan.studied:
            first.setdefault(each.trial.dataset, each.trial)
        trials = tuple(first.values())
        # Opened once, and only for figures that use it: Figures 5, 6 and 12 share the features of a data set.
        if trials not in self._scorers:
            from orchestrator.trial.compute import local_scorer

            scorer = local_scorer(trials, cpus=self._cpus, gpus=_num_gpus(), progress=self._tell)
            assert scorer is not None, "the purity arm uses purity"
            self._scorers[trials] = scorer
        return self._scorers[trials]


def write_pictures(folder: Path, number: int, pictures: Sequence[Drawing]) -> list[Path]:
    """Write each picture as PNG and PDF with its caption as text; older files of the same figure are removed.

    Raises OSError if the folder cannot be written.
    """
    written = []
    for picture in pictures:
        for suffix in FILE_FORMATS:
            path = folder / f"{picture.name}.{suffix}"
            write_bytes_atomically(path, file_bytes(picture.figure, suffix))
            written.append(path)
        path = folder / f"{picture.name}.txt"
        write_text_atomically(path, picture.caption)
        written.append(path)
    for path in folder.glob(f"figure{number}*"):
        if path not in written and re.fullmatch(rf"figure{number}(-.*)?\.(png|pdf|txt)", path.name):
            path.unlink()
    return written


def _file_name(dataset: str) -> str:
    """The data set's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", dataset_label(dataset)).strip("-").lower()


def _num_gpus() -> int:
    """Number of GPUs that figures use: 1 if there is one, else 0."""
    import torch  # only for figures that compute

    return 1 if torch.cuda.is_available() else 0
