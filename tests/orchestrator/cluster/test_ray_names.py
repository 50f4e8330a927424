"""The private names of Ray that this project uses, as in the pinned version: a new Ray shows here what changed."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import OutOfMemoryError, RayActorError

from orchestrator.cluster.memory import let_tune_outlive_memory_kills
from orchestrator.cluster.session import PROBE

ROOT = Path(__file__).parents[3]
PINNED = {
    ("ray._raylet", "GcsClient"),
    ("ray.air.execution._internal.actor_manager", "RayActorManager"),
    ("ray.autoscaler._private.util", "prepare_config"),
    ("ray.autoscaler._private.util", "validate_config"),
}


def private_imports(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of what a source takes out of modules of Ray with an underscore in their path."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ray.") and "._" in (node.module or ""):
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_these_private_names_are_used_and_no_others() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "orchestrator").rglob("*.py")]
    assert {name for source in [*sources, PROBE] for name in private_imports(source)} == PINNED


@pytest.mark.parametrize(("module", "name"), sorted(PINNED))
def test_each_is_there(module: str, name: str) -> None:
    assert callable(getattr(import_module(module), name))


def test_the_parameters_that_are_given() -> None:
    assert "_temp_dir" in inspect.signature(ray.init).parameters or "_temp_dir" in inspect.getsource(ray.init)
    manager = import_module("ray.air.execution._internal.actor_manager").RayActorManager
    assert list(inspect.signature(manager._actor_task_failed).parameters) == ["self", "tracked_actor_task", "exception"]


def test_tune_takes_a_kill_by_the_memory_monitor_for_the_death_of_an_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = import_module("ray.air.execution._internal.actor_manager").RayActorManager
    seen: list[Any] = []
    monkeypatch.setattr(
        manager, "_actor_task_failed", lambda self, tracked_actor_task, exception: seen.append(exception)
    )
    let_tune_outlive_memory_kills()
    manager._actor_task_failed(None, None, OutOfMemoryError("12.00GB used / 16.00GB limit"))
    manager._actor_task_failed(None, None, other := ValueError("a user's"))
    assert (type(seen[0]), str(seen[0])) == (RayActorError, "12.00GB used / 16.00GB limit")
    assert seen[1] is other
