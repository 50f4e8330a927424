"""Patch that lets Tune restart a trial that Ray's memory monitor killed, instead of ending itself."""

from __future__ import annotations

from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError


def let_tune_outlive_memory_kills() -> None:
    """Let Tune treat the monitor's error as the death of the trial's actor, which it is; for this process.

    Tune 2.60 knows two classes of errors and ends, with all its trials, at any other: this one is neither. The method
    is private; a test pins it, and without it the supervisor starts all trials again.
    """
    as_it_was = RayActorManager._actor_task_failed

    def actor_task_failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        as_it_was(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = actor_task_failed  # type: ignore[method-assign]
