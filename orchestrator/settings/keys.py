"""Checks of what a user wrote before its types are: unknown keys, texts that nothing can hold, names."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from data.console import unknown_name
from data.files import is_printable, is_unicode
from models.classifier.recipe import Recipe

BESIDE_FIELDS: dict[type[BaseModel], tuple[str, ...]] = {Recipe: ("name",)}
"""Keys that a model takes beside its fields: they stand for values of these."""
LONGEST_KEY = 80
"""Letters of an unknown key that are printed: the allowed ones stand behind it, and are what helps."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel, _short.maxlist, _short.maxtuple, _short.maxdict = 3, 10, 10, 10
"""How values that a user wrote are printed: whole if they are of usual length."""


def check_keys(
    model: type[BaseModel], settings: Mapping[Any, Any], origin: str = "", place: tuple[str, ...] = ()
) -> None:
    """Raises ValueError for the first key, at whatever depth, that the model has no field for.

    `origin` says where the settings are from (`preset demo`), `place` where in it they stand.
    """
    allowed = [*BESIDE_FIELDS.get(model, ()), *model.model_fields]
    for key, value in settings.items():
        if key not in allowed:
            found = unknown_name("key", str(key)[:LONGEST_KEY], allowed)
            raise ValueError(": ".join(part for part in (origin, ".".join(place), str(found)) if part))
        inner = _model_of(model, key)
        if inner is not None and isinstance(value, Mapping):
            check_keys(inner, value, origin, (*place, key))


def _model_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model of a field that has settings below it."""
    if key not in model.model_fields:
        return None
    annotation = model.model_fields[key].annotation
    candidates = (annotation, *get_args(annotation))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def check_texts(value: Any, origin: str = "", place: tuple[str, ...] = ()) -> None:
    """Raise ValueError for a text, at whatever depth, that no file or record can hold: with NUL, or not Unicode."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_texts(key, origin, (*place, "a key"))
            check_texts(inner, origin, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for inner in value:
            check_texts(inner, origin, place)
    # Past this point they fail anywhere: in open() as an embedded null byte, in a hash, in a record, in MLflow.
    elif isinstance(value, str | Path) and ("\0" in str(value) or not is_unicode(str(value))):
        where = ": ".join(part for part in (origin, ".".join(place)) if part)
        raise ValueError(f"{where} = {_short.repr(str(value))}: has a NUL, or half of a character; remove it")


def check_name(field: str, name: str) -> None:
    """Raise ValueError for a name that would break the lines of a table, or reach a terminal as a command."""
    if not name.strip():
        raise ValueError(f"{field}: {name!a} is no name; give it letters")
    for character in name:
        if not is_printable(character):
            raise ValueError(f"{field}: {name!a} has a character that cannot be printed ({character!a})")


def one_line(error: ValidationError) -> str:
    """A pydantic error as one line: field, value, what is wrong; for each field."""
    parts = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"]) or "settings"
        value = "" if problem["type"] == "missing" else f" = {_short.repr(problem['input'])}"
        message = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{field}{value}: {message[0].lower()}{message[1:]}")
    return "; ".join(parts)
