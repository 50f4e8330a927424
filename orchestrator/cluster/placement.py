"""Where scoring actors and trials may run on a cluster, and whether they can. Importing this needs no Ray.

A place is written NAME, a custom resource of the nodes (as `cluster.yaml` gives its scoring nodes), or KEY=VALUE, a
node label. Without a wish, the resources of this project's own `cluster.yaml` are used if a cluster has them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.files import user_path
from orchestrator.settings.grid import RunSettings, read_yaml

SCORER_RESOURCE = "clip_scorer"
"""Resource of nodes kept for scoring actors; an actor takes one."""
TRIAL_RESOURCE = "trainer"
"""Resource of nodes kept for trials; a trial takes next to nothing of it."""
TRIAL_SHARE = 0.001

AUTOSCALER_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Path of the cluster's description on the head node, written by `ray up`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the cluster, or one that the cluster may start."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Requirements that a node must meet to be chosen."""

    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def admits(self, node: Node) -> bool:
        """Whether a node meets the requirements."""
        return all(node.resources.get(name, 0) >= amount for name, amount in self.resources.items()) and all(
            node.labels.get(key) == value for key, value in self.labels.items()
        )

    def __str__(self) -> str:
        """Text of the place as a user writes it."""
        return ", ".join([*self.resources, *(f"{key}={value}" for key, value in self.labels.items())]) or "any node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Places of scoring actors and trials."""

    scorers: Place = Place()
    trials: Place = Place()


def parse_place(text: str, *, option: str, share: float) -> Place:
    """Parse the place that a user wrote. Raises ValueError for what is neither a resource nor a label."""
    name, equals, value = text.strip().partition("=")
    if not re.fullmatch(r"[A-Za-z][\w./-]*", name) or (equals and not re.fullmatch(r"[\w.-]+", value)):
        raise ValueError(f"{option} is '{text}'; expected a node label such as role=scorer, or a resource's name")
    return Place(labels={name: value}) if equals else Place(resources={name: share})


def choose_placement(run: RunSettings, nodes: Sequence[Node]) -> Placement:
    """Choose the user's wishes, else the resources of `cluster.yaml` if some node has them, else anywhere.

    Raises ValueError for a wish that cannot be read.
    """

    def place(wish: str | None, option: str, resource: str, share: float) -> Place:
        if wish is not None:
            return parse_place(wish, option=option, share=share)
        offered = any(node.resources.get(resource, 0) > 0 for node in nodes)
        return Place(resources={resource: share}) if offered else Place()

    return Placement(
        scorers=place(run.scorers_on, "--scorers-on", SCORER_RESOURCE, 1),
        trials=place(run.trials_on, "--trials-on", TRIAL_RESOURCE, TRIAL_SHARE),
    )


def nodes_to_come() -> list[Node] | None:
    """Nodes that an autoscaler of this machine's cluster may start; None if there is no autoscaler.

    An empty list means that an autoscaler runs and does not report what it starts.
    """
    try:
        path = user_path(AUTOSCALER_CONFIG)
    except ValueError:  # a user without a home folder, who may well have a cluster
        path = None
    if path is None or not path.exists():
        return [] if os.environ.get("RAY_AUTOSCALER_CONFIG") else None
    types = read_yaml(path.read_text(encoding="utf-8"), origin=str(path)).get("available_node_types", {})
    return [_node_of_type(kind) for kind in types.values() if kind.get("max_workers", 1) > 0]


def _node_of_type(kind: Mapping[str, Any]) -> Node:
    """A node of a type of `cluster.yaml`; CPUs and GPUs that are not written there count as plenty."""
    unknown = {"CPU": float("inf"), "GPU": float("inf")}
    return Node(resources=unknown | dict(kind.get("resources") or {}), labels=dict(kind.get("labels") or {}))


def check_resources(run: RunSettings, placement: Placement, nodes: Sequence[Node], *, scorers: int) -> None:
    """Raise ValueError if the scorers or a single trial could never be placed on any of the nodes."""
    wishes = [
        ("trials", "--trials-on", placement.trials, {"--cpus-per-trial": ("CPU", run.cpus_per_trial),
                                                     "--gpus-per-trial": ("GPU", run.gpus_per_trial)}),
    ]  # fmt: skip
    if scorers:
        wishes.append(
            ("scoring actors", "--scorers-on", placement.scorers, {"--gpus-per-scorer": ("GPU", run.gpus_per_scorer)})
        )
    for what, where, place, amounts in wishes:
        there = [node for node in nodes if place.admits(node)]
        if not there:
            raise ValueError(f"{where}: no node of the cluster has {place}, where {what} are to run{_offers(nodes)}")
        for option, (resource, amount) in amounts.items():
            most = max(node.resources.get(resource, 0) for node in there)
            if amount > most:
                raise ValueError(
                    f"{option} is {amount:g}, but no node of the cluster has more than {most:g} {resource}s"
                    + ("" if place == Place() else f" (of those with {place})")
                )
    wanted = scorers * run.gpus_per_scorer + run.gpus_per_trial
    total = sum(node.resources.get("GPU", 0) for node in nodes)
    if wanted > total:
        raise ValueError(
            f"{scorers} scorer(s) with {run.gpus_per_scorer:g} GPU and a trial with {run.gpus_per_trial:g} GPU need "
            f"{wanted:g} GPUs together, but the cluster has {total:g}; lower --gpus-per-scorer or --gpus-per-trial"
        )


def _offers(nodes: Iterable[Node]) -> str:
    """Labels and resources of the nodes, for the end of a sentence."""
    labels = {f"{key}={value}" for node in nodes for key, value in node.labels.items() if not key.startswith("ray.io/")}
    standard = ("CPU", "GPU", "memory", "object_store_memory")
    resources = {name for node in nodes for name in node.resources if name not in standard and ":" not in name}
    known = sorted(labels | resources)
    return f"; there is {', '.join(known)}" if known else ""
