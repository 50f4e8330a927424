"""Strategies from elsewhere, `module:Class`: loading them, making them, and errors that name their file and line."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from data.console import RunStopped
from data.files import file_hash
from strategies.base import OutputsNotFinite, Strategy, StrategyError

LONGEST_MESSAGE = 300
"""Longest part of a plug-in's message that is repeated, in characters."""


def load_strategy(where: str) -> type[Strategy]:
    """The class at `module:Class`; the module may lie in the current folder.

    Raises ValueError if there is no such class, its module cannot be imported, it is not a Strategy, it is abstract,
    or it cannot be made without arguments.
    """
    module_name, _, class_name = where.partition(":")
    if not (class_name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise ValueError(f"strategy {where}: must be module:Class, such as my_module:MyStrategy")
    here = str(Path.cwd())
    if here not in sys.path:
        # Appended, not inserted in front: a file in the current folder must not replace an installed module.
        sys.path.append(here)
    found = getattr(_imported(module_name, where), class_name, None)
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
    """Hash (64 hex digits) of the module that defines the class; records are not reused when it changes."""
    return file_hash(Path(inspect.getfile(strategy)))


def make_plugin(found: type[Strategy], where: str) -> Strategy:
    """Make an instance of a plug-in's class. Raises StrategyError for any error of its constructor."""
    with blamed_on(found, f"strategy {where}"):
        return found()


@contextmanager
def blamed_on(strategy: type[Strategy], who: str) -> Iterator[None]:
    """Turn an error that a strategy raises into a StrategyError that begins with `who` and names its file and line.

    SystemExit is included. Errors that are not the strategy's fault pass unchanged: Ctrl-C, a contract already found
    broken, outputs that are not finite, a run that has to stop, and the models' advice on too little memory. Of this
    project's own strategies only mistakes in the code are turned (`_is_mistake`).
    """
    try:
        yield
    except (KeyboardInterrupt, StrategyError, OutputsNotFinite, RunStopped):
        raise
    # Not Exception alone: a plug-in's sys.exit() would end the worker, and the run would blame a lost machine.
    except BaseException as error:
        is_advice = isinstance(error, MemoryError) and _raised_in(error).startswith("models.")
        if is_advice or (is_ours(strategy) and not _is_mistake(error)):
            raise
        raise StrategyError(f"{who} failed: {_described(error)} ({_place(error, strategy)})") from error


def is_ours(strategy: type[Strategy]) -> bool:
    """Whether a strategy belongs to this project."""
    return strategy.__module__.partition(".")[0] == "strategies"


MISTAKES = (TypeError, LookupError, AttributeError, NameError, AssertionError, NotImplementedError, ValueError)
"""Errors of code that is wrong; it would fail again."""
PASSING = re.compile(r"cuda|cudnn|cublas|\bhip\b|\bmps\b|alloc|out of memory", re.IGNORECASE)
"""Words of errors of torch that need not come again: of a device, or of too little memory."""


def _is_mistake(error: BaseException) -> bool:
    """Whether an error inside this project's own strategies is a mistake in the code, which a retry would repeat.

    Not a scorer that does not answer, a disk, a device, or too little memory; nor a ValueError that was raised on
    purpose, whose words are for the user already.
    """
    if type(error) is RuntimeError:  # torch's: of shapes, dtypes and devices, and of some others that may pass
        return PASSING.search(str(error)) is None
    return isinstance(error, MISTAKES) and not (isinstance(error, ValueError) and _is_on_purpose(error))


def _is_on_purpose(error: BaseException) -> bool:
    """Whether a `raise` of this project made the error."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _in_project(frames[-1]) and (frames[-1].line or "").startswith("raise ")


def _in_project(frame: traceback.FrameSummary) -> bool:
    return Path(__file__).parents[1] in Path(frame.filename).parents


def _imported(module_name: str, where: str) -> object:
    """Import the module. Raises a ValueError that gives the reason if the import fails in any way."""
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"strategy {where}: cannot import {module_name} ({error}); run from its folder or install it"
        ) from error
    except KeyboardInterrupt:
        raise
    except SyntaxError as error:
        raise ValueError(
            f"strategy {where}: {module_name} fails on import: {_described(error)} ({error.filename}, line "
            f"{error.lineno})"
        ) from error
    except BaseException as error:  # any failure of the import, sys.exit() included
        raise ValueError(
            f"strategy {where}: {module_name} fails on import: {_described(error)} ({_frame(error.__traceback__)})"
        ) from error


def _described(error: BaseException) -> str:
    """Describe an error in one line of limited length."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said if len(said) <= LONGEST_MESSAGE else said[:LONGEST_MESSAGE] + '...'}"


def _raised_in(error: BaseException) -> str:
    """Name of the module that raised an error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    name: str = frames[-1].f_globals.get("__name__", "") if frames else ""
    return name


def _place(error: BaseException, strategy: type[Strategy]) -> str:
    """File and line of an error: the innermost in the file of the class (of ours: in the project), else of all."""
    file = inspect.getfile(strategy)
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename == file or (is_ours(strategy) and _in_project(frame))]
    frame = (inside or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}"


def _frame(raised: TracebackType | None) -> str:
    """File and line of the innermost frame outside the import system."""
    frames = [frame for frame in traceback.extract_tb(raised) if not frame.filename.startswith("<frozen")]
    return f"{frames[-1].filename}, line {frames[-1].lineno}"
