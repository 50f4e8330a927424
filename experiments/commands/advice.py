"""What a user is told about settings that work and that he will hardly want."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.settings.trial import TrialConfig

CPU_FACTS = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""How Linux calls bfloat16 instructions: Intel's and AMD's, Intel's for matrices, ARM's."""


def slow_arithmetic(trials: Iterable[TrialConfig], *, gpus: float) -> list[str]:
    """A line where trials are to train in bfloat16 on a CPU, and this machine's has to imitate it step by step."""
    if gpus or has_bf16() or not any(trial.recipe.precision == "bf16" for trial in trials):
        return []
    return [
        "recipe.precision=bf16 on a CPU: this machine's has no bfloat16 instructions, and without them it is many "
        "times slower than fp32"
    ]


def has_bf16() -> bool:
    """Whether this machine's CPU has bfloat16 instructions; True where the system does not tell."""
    try:
        facts = CPU_FACTS.read_text()
    except OSError:
        return True
    flags = {
        word for line in facts.splitlines() if line.lower().startswith(("flags", "features")) for word in line.split()
    }
    return not flags or bool(flags & BF16_FLAGS)
