"""`--dry-run`: the cost of a grid before it is run: trials, rounds, time, disk, features, and what its seeds can show.

Times are measured: from the rounds in the output folder's ledger, else (`--rates`) from the rates that a gpu-check has
measured. Without either, no time is printed.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data.console import duration
from data.registry import open_data_set
from experiments.commands.rates import GpuRates
from models.classifier.recipe import PIXEL_NETWORKS
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial, distinct, feature_lines
from orchestrator.settings.grid import RunSettings

RESNET18_BYTES = 44_700_000
"""Bytes of a ResNet-18 of width 64 in 32-bit floats; they grow with the square of the width."""
CONVNET_BYTES = 110_000
"""Bytes of a ConvNet of width 16."""
LINEAR_HEAD_BYTES = 1_000_000
"""Upper bound for the bytes of any linear head here."""
RECORD_BYTES, QUERY_BYTES = 1_200, 7
"""Bytes of a record without its query, and of each queried image in it: about those of the demo's records."""
LOCAL_ADDRESSES = ("auto", "local")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The CPUs and GPUs that trials share."""

    cpus: int
    gpus: int


def this_machine() -> Capacity:
    """The CPUs that this process may use, and the GPUs that the driver or the environment shows; needs no torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    else:
        gpus = len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    return Capacity(cpus=len(os.sched_getaffinity(0)), gpus=gpus)


def bill_lines(
    planned: Sequence[PlannedTrial],
    run: RunSettings,
    ledger: Ledger,
    *,
    address: str,
    machine: Capacity,
    rates: GpuRates | None = None,
) -> Iterator[str]:
    """The lines of the estimate: the grid in detail, and its remaining trials, steps, hours and bytes.

    Raises ValueError for `rates` of a GPU if trials have none.
    """
    costs = measured_costs(planned, ledger)
    if rates is not None:
        costs.rated = RatedRounds(rates, run)
    todo = [p for p in distinct(planned) if not p.is_finished]
    yield from _cell_lines(planned, costs)
    lengths = " or ".join(sorted({_length(p) for p in planned}))
    rounds = " or ".join(str(number) for number in sorted({p.trial.rounds for p in planned}))
    yield (
        f"each trial: {rounds} rounds of {lengths}, {run.cpus_per_trial} CPU(s), "
        f"{run.gpus_per_trial:g} GPU; {run.scorers} scoring actor(s) with {run.gpus_per_scorer:g} GPU"
    )
    if todo:
        yield from _work_lines(todo, run, costs, address=address, machine=machine)
        if costs.rated is not None:
            yield from costs.rated.lines(todo)
        yield from _disk_lines(planned, todo, ledger, concurrency=concurrency(todo, run, machine) or 1)
    yield from feature_lines(planned)
    yield from _seed_lines(planned)


def measured_costs(planned: Sequence[PlannedTrial], ledger: Ledger) -> RoundCosts:
    """The measured times of the rounds in a ledger, of the planned trials and of all others."""
    costs = RoundCosts()
    for p in planned:
        costs.add(p.trial.model_dump(mode="json"), p.records)
    known = {p.fingerprint for p in planned}
    for path in ledger.folder.glob("*.json"):
        if path.stem in known:
            continue
        try:
            state = ledger.state(path.stem)
        except ValueError:
            continue  # a damaged file of another trial, which a run of this grid does not read either
        if state is not None:
            costs.add(state.trial, state.records)
    return costs


def _cell_lines(planned: Sequence[PlannedTrial], costs: RoundCosts) -> Iterator[str]:
    """The lines of a table: each condition and strategy with its seeds and its seconds per round."""
    cells: dict[tuple[str, ...], list[PlannedTrial]] = {}
    for p in planned:
        key = (p.trial.dataset, p.trial.classes_text, p.trial.ood_text, p.row)
        cells.setdefault(key, []).append(p)
    rows: list[tuple[str, ...]] = [
        ("dataset", "mismatch", "ood", "strategy", "seeds done", "seeds left", "s per round")
    ]
    for point, cell in cells.items():
        cost = costs.of_planned(cell[0], 1)
        rows.append((*point, _seeds(cell, done=True), _seeds(cell, done=False), _cost_words(cost)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if any("~" in row[-1] for row in rows):
        yield "~: measured with other strategies or data sets, at the same recipe"
    if any("*" in row[-1] for row in rows):
        yield "*: by the rates below"


def _seeds(cell: Sequence[PlannedTrial], *, done: bool) -> str:
    seeds = [str(p.trial.seed) for p in cell if p.is_finished == done]
    return ",".join(seeds) or "-"


def _cost_words(cost: Cost | None) -> str:
    if cost is None:
        return "not known yet"
    return f"{MARKS[cost.basis]}{cost.seconds:.3g}"


def _work_lines(
    todo: Sequence[PlannedTrial], run: RunSettings, costs: RoundCosts, *, address: str, machine: Capacity
) -> Iterator[str]:
    """The lines with the remaining work, and its time as far as that is known."""
    left = [cost for p in todo for cost in costs.left(p)]
    trained = [p for p in todo if p.trial.detection is None]
    steps = [p.trial.recipe.steps * (p.trial.rounds - len(p.records)) for p in trained if p.trial.recipe.epochs is None]
    passes = sum(
        p.trial.recipe.epochs * (p.trial.rounds - len(p.records)) for p in trained if p.trial.recipe.epochs is not None
    )
    lengths = [f"{sum(steps):,} training steps"] * bool(steps) + [f"{passes:,} training passes"] * bool(passes)
    amount = " and ".join(lengths) or "no training"
    yield f"left: {len(todo):,} trials, {len(left):,} rounds, {amount}"
    known = [cost for cost in left if cost is not None]
    if not known:
        yield "time: not known yet; after the first trial, --dry-run and --status show it"
        return
    seconds = sum(cost.seconds for cost in known)
    unknown = f" (without {len(left) - len(known):,} rounds that nothing is known about yet)" * (len(known) < len(left))
    yield (
        f"time: {duration(seconds)} of trials{unknown}: {_hours(seconds * run.cpus_per_trial)} CPU-hours, "
        f"{_hours(seconds * run.gpus_per_trial)} GPU-hours, as measured on {' and '.join(sorted(costs.devices))}"
    )
    yield _wall_line(todo, run, seconds, address=address, machine=machine)


def _length(planned: PlannedTrial) -> str:
    """The length of a round of a trial, as text."""
    return planned.trial.recipe.length if planned.trial.detection is None else "a judgement, no training"


def _wall_line(
    todo: Sequence[PlannedTrial], run: RunSettings, seconds: float, *, address: str, machine: Capacity
) -> str:
    """The line with the wall time."""
    if address not in LOCAL_ADDRESSES:
        return (
            f"on the clock: not known for the cluster at {address}: {duration(seconds)} divided by its trials at a time"
        )
    at_once = concurrency(todo, run, machine)
    if at_once is None:
        return (
            f"on the clock: this machine ({machine.cpus} CPU(s), {machine.gpus} GPU(s)) cannot hold a trial and the "
            f"scoring actors; {duration(seconds)} divided by the trials at a time elsewhere"
        )
    line = f"on the clock: about {duration(seconds / at_once)}, {at_once} trial(s) at a time on this machine"
    if run.gpus_per_scorer and _num_scorers(todo, run):
        hours = _hours(seconds / at_once * run.gpus_per_scorer * _num_scorers(todo, run))
        line += f"; the scoring actors hold their GPUs for {hours} GPU-hours"
    return line


def concurrency(todo: Sequence[PlannedTrial], run: RunSettings, machine: Capacity) -> int | None:
    """Number of trials that a machine runs at a time in addition to the scoring actors; None if not even one fits."""
    scorers = _num_scorers(todo, run)
    fits = (machine.cpus - (scorers if run.gpus_per_scorer else 0)) / run.cpus_per_trial
    if run.gpus_per_trial:
        fits = min(fits, (machine.gpus - scorers * run.gpus_per_scorer) / run.gpus_per_trial)
    elif scorers * run.gpus_per_scorer > machine.gpus:
        return None
    # 1e-9: a third of a card must fit three times, in spite of rounding
    at_once = min(math.floor(fits + 1e-9), run.max_concurrent or len(todo), len(todo))
    return at_once if at_once >= 1 else None


def _num_scorers(todo: Sequence[PlannedTrial], run: RunSettings) -> int:
    return run.scorers if any(p.trial.uses_scorer for p in todo) else 0


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2g}" if seconds < 36_000 else f"{seconds / 3600:,.0f}"


def _disk_lines(
    planned: Sequence[PlannedTrial], todo: Sequence[PlannedTrial], ledger: Ledger, *, concurrency: int
) -> Iterator[str]:
    """The line with the bytes that the run adds to the output folder, and the free bytes there."""
    records = sum((p.trial.rounds - len(p.records)) * (RECORD_BYTES + QUERY_BYTES * p.trial.budget) for p in todo)
    # The classifier of round 0 of each condition and seed is kept until the run ends, any other until its trial ends.
    firsts = {(p.data_fingerprint, str(p.trial.split_identity()), p.trial.budget, p.trial.seed): p for p in todo}
    sizes = [classifier_bytes(p) for p in firsts.values()]
    classifiers = sum(sizes) + concurrency * max(sizes)
    line = (
        f"disk: about {_bytes(records)} of records, and for the time of the run {_bytes(classifiers)} of classifiers "
        f"({len(firsts):,} shared ones and {concurrency} of trials)"
    )
    existing = next(folder for folder in (ledger.folder, *ledger.folder.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    yield f"{line}; {_bytes(free)} free" + (": NOT ENOUGH" if records + classifiers > free else "")


def classifier_bytes(planned: PlannedTrial) -> int:
    """Approximate bytes of a trial's classifier on disk."""
    if planned.trial.detection is not None:
        return 0
    recipe = planned.trial.recipe
    if recipe.network not in PIXEL_NETWORKS:
        return LINEAR_HEAD_BYTES
    whole, width = (RESNET18_BYTES, 64) if recipe.network == "resnet18" else (CONVNET_BYTES, 16)
    return whole * recipe.width**2 // width**2


def _bytes(number: float) -> str:
    """A number of bytes as text: 3.5 kB, 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _seed_lines(planned: Sequence[PlannedTrial]) -> Iterator[str]:
    """The lines with what the number of seeds can show."""
    from experiments.results.comparison import what_seeds_can_show

    num_strategies = len({p.trial.strategy for p in planned})
    num_seeds = len({p.trial.seed for p in planned})
    yield from what_seeds_can_show(num_seeds, num_rivals=max(1, num_strategies - 1))


Basis = Literal["measured", "other trials", "rates"]
"""Source of a time: rounds of the same data set, strategy and recipe; rounds of the same recipe with another strategy
or data set; or a gpu-check's rates."""
MARKS: Mapping[Basis, str] = {"measured": "", "other trials": "~", "rates": "*"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds per round, of one trial after another."""

    seconds: float
    basis: Basis


class RoundCosts:
    """Mean times of the rounds that were added; round 0 is kept apart from the others."""

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.devices: set[str] = set()
        """The devices on which the rounds were measured."""
        self.rated: RatedRounds | None = None
        """Times of trials without any measured round."""

    def add(self, settings: Mapping[str, Any], records: Iterable[RoundRecord]) -> None:
        """Add some rounds of a trial, whose settings are as the ledger keeps them."""
        keys = _keys(settings)
        for record in records:
            seconds = sum(record.seconds.values())
            if seconds <= 0:
                continue  # a round that cost nothing was not computed
            self.devices.add(_device(record.environment))
            for key in keys:
                count = self._sums[(*key, _kind(record.round))]
                count[0] += seconds
                count[1] += 1

    def of_round(self, settings: Mapping[str, Any], round_number: int) -> Cost | None:
        """The expected time of a round of a trial; None if nothing like it was measured."""
        for key, basis in zip(_keys(settings), ("measured", "other trials", "other trials"), strict=True):
            total, number = self._sums.get((*key, _kind(round_number)), (0.0, 0.0))
            if number:
                return Cost(seconds=total / number, basis=basis)  # type: ignore[arg-type]
        return None

    def left(self, planned: PlannedTrial) -> list[Cost | None]:
        """The expected time of each round that a trial has not finished."""
        return [self.of_planned(planned, number) for number in range(len(planned.records), planned.trial.rounds)]

    def of_planned(self, planned: PlannedTrial, round_number: int) -> Cost | None:
        """The expected time of a round, from `of_round` or from a gpu-check's rates."""
        cost = self.of_round(planned.trial.model_dump(mode="json"), round_number)
        if self.rated is None or (cost is not None and cost.basis == "measured"):
            return cost
        # A gpu-check's rates are closer to the truth than the rounds of another strategy or data set.
        self.devices.add(self.rated.device)
        return Cost(seconds=self.rated.seconds(planned, round_number), basis="rates")


class RatedRounds:
    """Seconds of rounds by a gpu-check's rates, for trials that share cards as in a run."""

    def __init__(self, rates: GpuRates, run: RunSettings) -> None:
        """Raises ValueError if trials have no GPU."""
        if not run.gpus_per_trial:
            raise ValueError("--rates are of a GPU, but trials use none; set --gpus-per-trial above 0")
        self._rates = rates
        self._at_once = max(1, round(1 / run.gpus_per_trial))
        self._sizes: dict[str, tuple[int, int]] = {}
        self.device = f"{rates.device} by {rates.source}"

    def seconds(self, planned: PlannedTrial, round_number: int) -> float:
        """Wall seconds of a round: its card time times the number of trials on a card."""
        pixels, num_images = self._size(planned)
        parts = self._rates.round_seconds(
            planned.trial, round_number, pixels=pixels, num_images=num_images, at_once=self._at_once
        )
        return sum(parts.values()) * self._at_once

    def lines(self, todo: Sequence[PlannedTrial]) -> Iterator[str]:
        """The lines with the rates, and with the encoders, which are trained once in addition to the rounds."""
        yield self._rates.words(self._at_once)
        encoders: dict[str, float] = {}
        for p in todo:
            pixels, num_images = self._size(p)
            encoders[p.data_fingerprint] = max(
                encoders.get(p.data_fingerprint, 0.0),
                self._rates.encoder_seconds(p.trial, pixels=pixels, num_images=num_images),
            )
        total = sum(encoders.values())
        if total:
            count = sum(seconds > 0 for seconds in encoders.values())
            yield f"contrastive encoders, once for each of {count} data set(s): {_hours(total)} GPU-hours more"

    def _size(self, planned: PlannedTrial) -> tuple[int, int]:
        """Pixels per side, and number of training images, of a trial's data set."""
        trial = planned.trial
        if trial.dataset not in self._sizes:
            data = open_data_set(trial.dataset, root=trial.data_root, skip_bad_images=trial.on_bad_image == "skip")
            self._sizes[trial.dataset] = (data.image_size, len(data.train))
        return self._sizes[trial.dataset]


def _kind(round_number: int) -> str:
    # Round 0 queries nothing and its classifier is shared between trials: its time says nothing about the others.
    return "later" if round_number else "first"


def _keys(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Keys of groups of trials, from those most like this one to those that share only its recipe."""
    recipe = json.dumps(settings.get("recipe"), sort_keys=True)
    dataset, strategy = str(settings.get("dataset")), str(settings.get("strategy"))
    if settings.get("detection"):  # no classifier: what it costs is the detector's
        recipe = "detection"
        strategy = str(settings.get("purity", {}).get("detector"))
    return (dataset, strategy, recipe), (dataset, recipe), (recipe,)


def _device(environment: Mapping[str, str | int | float]) -> str:
    return f"{environment.get('device', 'an unknown device')}, {environment.get('threads', '?')} thread(s)"
