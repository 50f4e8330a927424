"""Answers to unknown names."""

from __future__ import annotations

from data.console import unknown_name


def test_nearest_name_is_suggested_whatever_the_case() -> None:
    error = unknown_name("strategy", "vlpur", ["random", "VLPure"])
    assert str(error) == "unknown strategy 'vlpur' (did you mean 'VLPure'?); known: random, VLPure"


def test_nothing_near_is_not_guessed() -> None:
    assert str(unknown_name("preset", "xyz", iter(["demo", "cpu"]))) == "unknown preset 'xyz'; known: demo, cpu"
