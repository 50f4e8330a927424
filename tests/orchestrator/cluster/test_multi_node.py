"""A cluster of several nodes on this machine: who runs where, and the loss of a node in the middle."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator.cluster.ray_part import QUIET
from orchestrator.cluster.run_grid import run_grid
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.output import open_output
from orchestrator.plan import PlannedTrial, plan_trials
from orchestrator.settings.grid import RunSettings, load_preset, parse_overrides
from orchestrator.trial.compute import compute_trial, local_scorer

PRESETS = Path(__file__).parents[3] / "experiments" / "presets"
SETTINGS = ["rounds=4", "recipe.steps=5", "recipe.width=2", "recipe.batch_size=8"]
AXES = {"mismatch_ratios": [0.2], "ood_ratios": [0.6], "strategies": ["random", "vlpure"], "seeds": [0, 1, 2]}

pytestmark = pytest.mark.timeout(600)


@dataclass
class Nodes:
    """The cluster and its nodes by their tasks."""

    cluster: Cluster
    head: Any
    scorer: Any
    trainers: list[Any]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A head without CPUs, a scoring node, and two training nodes."""
    before = dict(os.environ)
    os.environ.update(QUIET)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    add = partial(cluster.add_node, num_cpus=1)
    try:
        yield Nodes(
            cluster=cluster,
            head=cluster.head_node,
            scorer=add(resources={"clip_scorer": 1}, labels={"role": "scorer"}),
            trainers=[add(resources={"trainer": 1}, labels={"role": "trainer"}) for _ in range(2)],
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Saboteur:
    """A listener that takes a training node away once it has finished a round, and remembers what it saw."""

    nodes: Nodes
    ledger: Ledger
    announced: bool
    """Whether Ray on the node gets SIGTERM first, as when EC2 takes a spot machine back; else it is killed."""
    lost_node: str = ""
    actors: dict[str, str] = field(default_factory=dict)
    """Class of each actor of the run, and the node it was on."""
    reasons: list[str] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)

    def tell(self, line: str) -> None:
        """A line for people."""

    def warn(self, line: str) -> None:
        """Nothing goes wrong that matters."""
        raise AssertionError(line)

    def begin(self, todo: Sequence[PlannedTrial]) -> None:
        """Nothing to see: the scoring actor is placed while the first trials run."""

    def start(self, planned: PlannedTrial) -> None:
        """A trial starts."""

    def advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        """Take away the second training node, if this round was finished there."""
        for actor in ray._private.state.actors().values():
            if actor["State"] == "ALIVE":
                self.actors[actor["ActorClassName"]] = actor["Address"]["NodeID"]
        victim = self.nodes.trainers[1]
        where = self.ledger.history(planned.fingerprint)[-1].environment["node"]
        if not self.lost_node and where == victim.node_id[:8] and round_number == 1:
            self.lost_node = str(where)
            self.nodes.cluster.remove_node(victim, allow_graceful=self.announced)

    def stumble(self, planned: PlannedTrial, reason: str) -> None:
        """A trial was lost."""
        self.reasons.append(reason)

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """A trial ended."""
        self.errors.append(error)


@pytest.mark.parametrize("announced", [True, False], ids=["SIGTERM", "SIGKILL"])
def test_placement_and_the_loss_of_a_node(
    nodes: Nodes, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(shared_cache))
    trials = load_preset(PRESETS, "demo", AXES, {}).trials(parse_overrides(SETTINGS))
    with open_output(tmp_path / "out").locked() as output:
        planned = plan_trials(trials, output.ledger)
        saboteur = Saboteur(nodes, output.ledger, announced)
        ray.init(address=nodes.cluster.address, logging_level=logging.ERROR)  # to see where the actors are
        run_grid(planned, output, RunSettings(), address=nodes.cluster.address, listener=saboteur)

    assert saboteur.actors["LedgerWriter"] == nodes.head.node_id
    assert saboteur.actors["ScoringActor"] == nodes.scorer.node_id
    assert saboteur.errors == [None] * len(planned)
    assert saboteur.lost_node, "the node was never taken away"
    assert saboteur.reasons == ["its worker process died (killed, out of memory, or its machine went away)"]
    scorer = local_scorer(trials, cpus=1, gpus=0)
    ran_on = set()
    for p in planned:
        calm = compute_trial(
            p, scorer=scorer, history=(), report=lambda record: None, classifiers=None, run=RunSettings()
        )
        records = output.ledger.history(p.fingerprint)
        assert [record.numbers() for record in records] == [record.numbers() for record in calm]
        ran_on |= {str(record.environment["node"]) for record in records}
    assert ran_on == {trainer.node_id[:8] for trainer in nodes.trainers}
