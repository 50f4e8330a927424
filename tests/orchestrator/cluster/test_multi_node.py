"""A cluster of several nodes on this machine: who runs where, and the loss of two nodes in the middle."""

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
from tests.orchestrator.cluster.held_trials import GATE, compute_held

PRESETS = Path(__file__).parents[3] / "experiments" / "presets"
SETTINGS = ["rounds=3", "recipe.steps=5", "recipe.width=2", "recipe.batch_size=8"]
AXES = {"mismatch_ratios": [0.2], "ood_ratios": [0.6], "strategies": ["random", "vlpure"], "seeds": [0, 1]}

pytestmark = pytest.mark.timeout(600)


@dataclass
class Nodes:
    """The cluster and its nodes by their tasks."""

    cluster: Cluster
    head: Any
    scorer: Any
    trainers: list[Any]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The file that lets trials go on after their round 1."""
    return tmp_path / "gate"


@pytest.fixture
def nodes(gate: Path) -> Iterator[Nodes]:
    """A head without CPUs, a scoring node, and three training nodes."""
    before = dict(os.environ)
    os.environ.update(QUIET | {GATE: str(gate)})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    add = partial(cluster.add_node, num_cpus=1)
    try:
        yield Nodes(
            cluster=cluster,
            head=cluster.head_node,
            scorer=add(resources={"clip_scorer": 1}, labels={"role": "scorer"}),
            trainers=[add(resources={"trainer": 1}, labels={"role": "trainer"}) for _ in range(3)],
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Saboteur:
    """A listener that takes two training nodes away, each once it has finished a round 1, and remembers what it saw.

    Ray on the second node gets SIGTERM first, as when EC2 takes a spot machine back; Ray on the third is killed.
    """

    nodes: Nodes
    ledger: Ledger
    gate: Path
    lost: list[str] = field(default_factory=list)
    """The nodes that were taken away."""
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
        """Take away the training node where this round was finished; its trial waits after round 1 to be lost."""
        for actor in ray._private.state.actors().values():
            if actor["State"] == "ALIVE":
                self.actors[actor["ActorClassName"]] = actor["Address"]["NodeID"]
        where = str(self.ledger.history(planned.fingerprint)[-1].environment["node"])
        _, announced, unannounced = self.nodes.trainers
        for victim in (announced, unannounced):
            if round_number == 1 and where == victim.node_id[:8] and where not in self.lost:
                self.lost.append(where)
                self.nodes.cluster.remove_node(victim, allow_graceful=victim is announced)
        if len(self.lost) == 2:
            self.gate.touch()

    def stumble(self, planned: PlannedTrial, reason: str) -> None:
        """A trial was lost."""
        self.reasons.append(reason)

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """A trial ended."""
        self.errors.append(error)


def test_placement_and_the_loss_of_nodes(
    nodes: Nodes, gate: Path, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(shared_cache))
    trials = load_preset(PRESETS, "demo", AXES, {}).trials(parse_overrides(SETTINGS))
    with open_output(tmp_path / "out").locked() as output:
        planned = plan_trials(trials, output.ledger)
        saboteur = Saboteur(nodes, output.ledger, gate)
        address = nodes.cluster.address
        ray.init(address=address, logging_level=logging.ERROR)  # to see where the actors are
        run_grid(planned, output, RunSettings(), address=address, listener=saboteur, compute=compute_held)

    assert saboteur.actors["LedgerWriter"] == nodes.head.node_id
    assert saboteur.actors["ScoringActor"] == nodes.scorer.node_id
    assert saboteur.errors == [None] * len(planned)
    assert sorted(saboteur.lost) == sorted(trainer.node_id[:8] for trainer in nodes.trainers[1:])
    assert saboteur.reasons == ["its worker process died (killed, out of memory, or its machine went away)"] * 2
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
