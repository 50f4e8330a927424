"""What a dry run says of what is left, from hand-made records with known seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.commands.bill import Capacity, RoundCosts, bill_lines, classifier_bytes, concurrency, this_machine
from experiments.commands.rates import GpuRates
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import RunSettings
from orchestrator.settings.reading import make_trial

Planned = Callable[..., PlannedTrial]
TWO = Capacity(cpus=2, gpus=0)


def lines(
    planned: list[PlannedTrial], folder: Path, machine: Capacity = TWO, address: str = "auto", **run: object
) -> str:
    """The bill."""
    ledger = Ledger(folder / "ledger")
    return "\n".join(bill_lines(planned, RunSettings(**run), ledger, address=address, machine=machine))


def test_nothing_is_known_before_the_first_round(planned_trial: Planned, tmp_path: Path) -> None:
    bill = lines([planned_trial(seed) for seed in range(2)], tmp_path)
    assert "digits   0.2       0.6  conf      -           0,1         not known yet" in bill
    assert "left: 2 trials, 6 rounds, 600 training steps" in bill
    assert "time: not known yet" in bill
    assert "on the clock" not in bill
    assert list(tmp_path.iterdir()) == []


def test_measured_rounds_are_multiplied(planned_trial: Planned, tmp_path: Path) -> None:
    planned = [planned_trial(0, num_records=3), planned_trial(1, num_records=1), planned_trial(2)]
    bill = lines(planned, tmp_path, cpus_per_trial=2)
    assert "digits   0.2       0.6  conf      0           1,2         1.5" in bill
    # Rounds 1 and 2 of seed 1, all three of seed 2: 4 x 1.5 s + 1 s.
    assert "left: 2 trials, 5 rounds, 500 training steps" in bill
    assert "time: 7 s of trials: 0.0039 CPU-hours, 0 GPU-hours, as measured on abacus, 1 thread(s)" in bill
    assert "on the clock: about 7 s, 1 trial(s) at a time on this machine" in bill
    assert "about 4 s, 2 trial(s) at a time" in lines(planned, tmp_path)
    assert "about 7 s, 1 trial(s) at a time" in lines(planned, tmp_path, max_concurrent=1)


def test_other_strategies_stand_in_and_are_marked(planned_trial: Planned, tmp_path: Path) -> None:
    bill = lines([planned_trial(0, num_records=3), planned_trial(0, strategy="random")], tmp_path)
    assert "digits   0.2       0.6  random    -           0           ~1.5" in bill
    assert "~: measured with other strategies or data sets, at the same recipe" in bill
    other_recipe = planned_trial(0, strategy="random", recipe={"name": "demo", "steps": 7})
    bill = lines([planned_trial(0, num_records=3), other_recipe], tmp_path)
    assert "digits   0.2       0.6  random    -           0           not known yet" in bill


def test_what_is_known_only_in_part_is_said(planned_trial: Planned, tmp_path: Path) -> None:
    bill = lines([planned_trial(0, num_records=1), planned_trial(1)], tmp_path)  # no query was measured
    assert "time: 1 s of trials (without 4 rounds that nothing is known about yet)" in bill


def test_other_trials_of_the_ledger_count(
    planned_trial: Planned, record: Callable[..., RoundRecord], tmp_path: Path
) -> None:
    ledger, other = Ledger(tmp_path / "ledger"), planned_trial(9)
    for number in range(3):
        ledger.append(other.fingerprint, other.trial.model_dump(mode="json"), record(number))
    (tmp_path / "ledger" / "torn.json").write_text("{")
    assert "time: 4 s of trials: " in lines([planned_trial(0)], tmp_path)


def test_rounds_that_were_not_computed_do_not_count(planned_trial: Planned, record: Callable[..., RoundRecord]) -> None:
    costs, planned = RoundCosts(), planned_trial()
    settings = planned.trial.model_dump(mode="json")
    costs.add(settings, [record(1), record(2, seconds={"train": 0.0})])
    cost = costs.of_round(settings, 2)
    assert cost is not None
    assert (cost.seconds, cost.basis) == (1.5, "measured")
    assert costs.of_round(settings, 0) is None


def test_a_cluster_elsewhere_is_not_guessed(planned_trial: Planned, tmp_path: Path) -> None:
    planned = [planned_trial(0, num_records=3), planned_trial(1)]
    assert "not known for the cluster at 10.0.0.1:6379: 4 s divided" in lines(
        planned, tmp_path, address="10.0.0.1:6379"
    )
    assert "this machine (2 CPU(s), 0 GPU(s)) cannot hold a trial" in lines(planned, tmp_path, gpus_per_trial=0.25)


@pytest.mark.parametrize(
    ("strategy", "run", "machine", "expected"),
    [
        ("conf", {}, Capacity(cpus=4, gpus=0), 4),
        ("conf", {"cpus_per_trial": 3}, Capacity(cpus=8, gpus=0), 2),
        ("conf", {"cpus_per_trial": 3}, Capacity(cpus=2, gpus=0), None),
        ("conf", {"gpus_per_trial": 0.25}, Capacity(cpus=64, gpus=1), 4),
        ("conf", {"gpus_per_trial": 1 / 3}, Capacity(cpus=64, gpus=1), 3),
        ("conf", {"gpus_per_trial": 0.25}, Capacity(cpus=3, gpus=1), 3),
        ("vlpure", {"gpus_per_trial": 0.25, "gpus_per_scorer": 1.0}, Capacity(cpus=64, gpus=2), 4),
        ("vlpure", {"gpus_per_trial": 0.25, "gpus_per_scorer": 1.0}, Capacity(cpus=64, gpus=1), None),
        ("vlpure", {"gpus_per_scorer": 1.0}, Capacity(cpus=4, gpus=0), None),
        ("vlpure", {"gpus_per_scorer": 1.0}, Capacity(cpus=4, gpus=1), 3),
        ("conf", {"max_concurrent": 2}, Capacity(cpus=64, gpus=0), 2),
        ("conf", {}, Capacity(cpus=64, gpus=0), 9),
    ],
)
def test_trials_at_a_time(
    strategy: str, run: dict[str, float], machine: Capacity, expected: int | None, planned_trial: Planned
) -> None:
    todo = [planned_trial(seed, strategy=strategy) for seed in range(9)]
    assert concurrency(todo, RunSettings(**run), machine) == expected


def test_bytes_of_a_classifier_follow_its_width(planned_trial: Planned) -> None:
    from models.classifier.networks import build_classifier

    for width in (8, 64):
        planned = planned_trial(recipe={"width": width})
        network = build_classifier(planned.trial.recipe, 10, weights_seed=0)
        exact = sum(value.nbytes for value in network.state_dict().values())
        assert classifier_bytes(planned) == pytest.approx(exact, rel=0.06)


def test_a_full_disk_is_foreseen(planned_trial: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "NOT ENOUGH" not in lines([planned_trial()], tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    assert "1 kB free: NOT ENOUGH" in lines([planned_trial()], tmp_path)


def test_what_the_seeds_can_show_comes_last(planned_trial: Planned, tmp_path: Path) -> None:
    assert "2 seeds per cell" in lines([planned_trial(0), planned_trial(1)], tmp_path)
    assert lines([planned_trial(0)], tmp_path).splitlines()[-1].startswith("1 seed per cell: no interval")


def test_gpus_left_by_the_environment_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for visible, number in (("", 0), ("-1", 0), ("0", 1), ("0,3", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert this_machine().gpus == number
    assert this_machine().cpus >= 1


RATES = GpuRates(
    source="check.json",
    device="abacus",
    step_ms={(32, 1): (4.0, "alone"), (64, 1): (16.0, "alone"), (32, 4): (2.0, "mps"), (64, 4): (8.0, "mps")},
    detector_ms={"lfosa": {32: 1.0}, "eoal": {32: 1.0}},
    contrastive_ms={32: 1.0},
    pool_images={32: 1e9},
    head_ms=0.1,
    purity_seconds=0.0,
)


def rated(planned: list[PlannedTrial], folder: Path, **run: object) -> str:
    """The bill by rates."""
    ledger = Ledger(folder / "ledger")
    return "\n".join(
        bill_lines(planned, RunSettings(**run), ledger, address="auto", machine=Capacity(cpus=8, gpus=1), rates=RATES)
    )


def test_rates_stand_in_where_nothing_was_measured_and_are_explained(planned_trial: Planned, tmp_path: Path) -> None:
    planned = [planned_trial(0), planned_trial(1)]
    bill = rated(planned, tmp_path, gpus_per_trial=0.25)
    recipe, size = planned[0].trial.recipe, 8
    a_round = recipe.steps * 2.0 * (size / 32) ** 2 * recipe.batch_size / 64 * (recipe.width / 64) ** 2 / 1e3
    assert f"*{4 * a_round:.3g}" in bill  # each of four trials at a time takes four times its card time
    assert "*: by the rates below" in bill
    assert "as measured on abacus by check.json" in bill
    assert (
        "rates of check.json: abacus, 4 trial(s) on a card (mps): 2.00 ms per step and training at 32 pixels, "
        "8.00 at 64" in bill
    )
    alone = rated(planned, tmp_path, gpus_per_trial=1)
    assert f"*{2 * a_round:.3g}" in alone
    assert "1 trial(s) on a card (alone): 4.00 ms" in alone


@pytest.mark.parametrize(
    ("strategy", "like", "trainings"),
    [("lfosa", 2.0, 1), ("eoal", 5.0, 1), ("eaoa", 2.0, 1), ("e2oal", 2.0, 1), ("bual", 2.0, 3), ("conf", 0.0, 0)],
)
def test_every_detector_that_is_trained_is_in_the_bill(strategy: str, like: float, trainings: int) -> None:
    rates = replace(RATES, detector_ms={"lfosa": {32: 2.0}, "eoal": {32: 5.0}})
    options = {strategy: {"epochs": 10, "batch_size": 64}} if trainings else {}
    trial = make_trial(
        dataset="cifar10", mismatch_ratio=0.2, ood_ratio=0.2, strategy=strategy, seed=0, budget=640, options=options
    )
    parts = rates.round_seconds(trial, 2, pixels=32, num_images=50_000, at_once=1)
    # In the query of round 2 there are 1,280 labels, 20 batches of 64, each half of a measured batch.
    expected = trainings * 10 * 20 * like * 0.5 / 1e3
    assert parts.get(f"detectors of {strategy}", 0.0) == pytest.approx(expected)


def test_measured_rounds_go_before_rates(planned_trial: Planned, tmp_path: Path) -> None:
    bill = rated([planned_trial(0, num_records=3), planned_trial(1)], tmp_path, gpus_per_trial=0.25)
    assert "1.5\n" in bill
    assert "*" not in bill.partition("\n")[2].partition("left:")[0]


def test_rates_of_a_gpu_are_refused_for_trials_without_one(planned_trial: Planned, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set --gpus-per-trial above 0"):
        rated([planned_trial(0)], tmp_path)
