"""Where scoring actors and trials go, and what is refused because no node has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.cluster import placement
from orchestrator.cluster.placement import Node, Place, Placement, check_resources, choose_placement, nodes_to_come
from orchestrator.settings.grid import RunSettings

HEAD = Node(resources={"memory": 8e9, "node:__internal_head__": 1.0})
SCORER = Node(resources={"CPU": 4, "GPU": 1, "clip_scorer": 1}, labels={"role": "scorer", "ray.io/node-id": "1"})
TRAINER = Node(resources={"CPU": 8, "GPU": 2, "trainer": 1}, labels={"role": "trainer"})
CLUSTER = [HEAD, SCORER, TRAINER]


def test_the_resources_of_cluster_yaml_are_used_where_they_are() -> None:
    assert choose_placement(RunSettings(), CLUSTER) == Placement(
        scorers=Place(resources={"clip_scorer": 1}), trials=Place(resources={"trainer": 0.001})
    )
    assert choose_placement(RunSettings(), [Node(resources={"CPU": 2})]) == Placement()


def test_a_wish_is_a_label_or_a_resource() -> None:
    chosen = choose_placement(RunSettings(scorers_on="role=scorer", trials_on="trainer"), [TRAINER])
    assert chosen == Placement(scorers=Place(labels={"role": "scorer"}), trials=Place(resources={"trainer": 0.001}))
    assert chosen.scorers.admits(SCORER)
    assert not chosen.scorers.admits(TRAINER)


@pytest.mark.parametrize("wish", ["", "role=", "=x", "two words", "a=b=c"])
def test_a_wish_that_is_neither_is_refused(wish: str) -> None:
    with pytest.raises(ValueError, match=r"^--scorers-on is '.*'; expected a node label such as role=scorer"):
        choose_placement(RunSettings(scorers_on=wish), CLUSTER)


TWO_GPUS = [HEAD, SCORER, Node(resources={"CPU": 1, "GPU": 1, "trainer": 1})]


@pytest.mark.parametrize(
    ("settings", "nodes", "error"),
    [
        ({"cpus_per_trial": 9}, CLUSTER, "--cpus-per-trial is 9, but no node of the cluster has more than 8 CPUs (of"),
        ({"gpus_per_scorer": 2}, CLUSTER, "--gpus-per-scorer is 2, but no node of the cluster has more than 1 GPUs"),
        ({"scorers_on": "role=judge"}, CLUSTER, "--scorers-on: no node of the cluster has role=judge, where scoring"),
        ({"trials_on": "gpu_box"}, CLUSTER, "no node of the cluster has gpu_box, where trials are to run; there is"),
        ({"scorers": 3, "gpus_per_scorer": 1}, TWO_GPUS, "3 scorer(s) with 1 GPU and a trial with 0 GPU need 3 GPUs"),
    ],
)
def test_what_no_node_has_is_refused(settings: dict[str, object], nodes: list[Node], error: str) -> None:
    run = RunSettings.model_validate(settings)
    with pytest.raises(ValueError, match=re.escape(error)):
        check_resources(run, choose_placement(run, nodes), nodes, scorers=run.scorers)


def test_what_fits_is_not_refused() -> None:
    run = RunSettings(cpus_per_trial=8, gpus_per_trial=2, gpus_per_scorer=1)
    check_resources(run, choose_placement(run, CLUSTER), CLUSTER, scorers=1)


def test_without_purity_nobody_looks_for_a_scoring_node() -> None:
    run = RunSettings(scorers_on="role=judge")
    check_resources(run, choose_placement(run, CLUSTER), CLUSTER, scorers=0)


def test_an_autoscaler_is_asked_what_it_may_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "bootstrap.yaml"
    monkeypatch.setattr(placement, "AUTOSCALER_CONFIG", config)
    monkeypatch.delenv("RAY_AUTOSCALER_CONFIG", raising=False)
    assert nodes_to_come() is None
    monkeypatch.setenv("RAY_AUTOSCALER_CONFIG", "elsewhere")
    assert nodes_to_come() == []
    config.write_text(
        "available_node_types:\n"
        "  none: {resources: {CPU: 64}, max_workers: 0}\n"
        "  scorer: {resources: {clip_scorer: 1, GPU: 1}, max_workers: 1, labels: {role: scorer}}\n"
    )
    unlimited = float("inf")
    assert nodes_to_come() == [
        Node(resources={"CPU": unlimited, "GPU": 1, "clip_scorer": 1}, labels={"role": "scorer"})
    ]
