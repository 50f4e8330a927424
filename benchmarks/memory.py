"""Resident memory of this process, from Linux, for benchmarks that measure one piece of work."""

from __future__ import annotations

from pathlib import Path


def restart_peak() -> float:
    """Resident memory now, in MiB; the peak is counted from here on, without that of making the inputs."""
    Path("/proc/self/clear_refs").write_text("5")
    return _mib("VmRSS")


def peak() -> float:
    """Largest resident memory since `restart_peak`, in MiB."""
    return _mib("VmHWM")


def _mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
