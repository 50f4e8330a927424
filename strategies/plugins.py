"""Strategies from elsewhere: `my_module:MyStrategy`, or the entry points of installed packages.

A package offers strategies under names of their own in its pyproject.toml:

    [project.entry-points."vlpure.strategies"]
    my-strategy = "my_module:MyStrategy"
"""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib.metadata import entry_points
from pathlib import Path

from data.files import file_hash
from strategies.base import Strategy

GROUP = "vlpure.strategies"


def offered_strategies() -> dict[str, str]:
    """Names of the strategies that installed packages offer, with where each lies (`module:Class`).

    Raises ValueError where two packages offer different ones under one name.
    """
    offered: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        if offered.setdefault(point.name, point.value) != point.value:
            raise ValueError(
                f"strategy {point.name}: two installed packages offer it ({offered[point.name]} and {point.value}); "
                f"remove one, or name the class itself: --strategies {point.value}"
            )
    return offered


def load_strategy(where: str) -> type[Strategy]:
    """The class at `module:Class`; the module may lie in the current folder.

    Raises ValueError where there is none, its module cannot be imported, it is no Strategy, it is abstract, or it
    cannot be made without arguments.
    """
    module_name, _, class_name = where.partition(":")
    if not (class_name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise ValueError(f"strategy {where}: must be module:Class, such as my_module:MyStrategy")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"strategy {where}: cannot import {module_name} ({error}); run from its folder or install it"
        ) from error
    except Exception as error:  # whatever the module does when it is imported
        said = " ".join(str(error).split())
        raise ValueError(f"strategy {where}: {module_name} fails on import: {type(error).__name__}: {said}") from error
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, Strategy)):
        raise ValueError(
            f"strategy {where}: {module_name} has no class {class_name!r} that is a strategies.base.Strategy"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise ValueError(f"strategy {where}: {class_name} is abstract; write its {missing}")
    needed = [
        name
        for name, parameter in inspect.signature(found).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ValueError(f"strategy {where}: {class_name} must be made without arguments; give {needed[0]} a default")
    return found


def source_identity(strategy: type[Strategy]) -> str:
    """64 hex digits of the module that defines the class: records are not reused when it changes."""
    return file_hash(Path(inspect.getfile(strategy)))
