"""Description of what made a result: hardware, library versions, and code (version, git commit, hash of sources)."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROJECT = "vlpure"
PACKAGES = ("data", "models", "strategies", "orchestrator", "experiments")
GIT_TIMEOUT = 10.0
"""Seconds git has to answer; on a slower disk the commit is omitted."""


@cache
def code_version() -> dict[str, str]:
    """Identity of this process's code, read once: `version`, `source`, and in a checkout `commit`.

    `source` is 12 hex digits of the packages' Python files, equal for equal code, with git or without.
    `commit` is 12 hex digits, followed by `-dirty` if the packages differ from it; it needs git, and is omitted
    otherwise.
    """
    return describe_code(Path(__file__).resolve().parents[2])


def describe_code(root: Path) -> dict[str, str]:
    """Result of `code_version` for the project whose packages lie in the folder `root`."""
    described = {"version": _project_version(root), "source": _source_hash(root)}
    commit = _commit(root)
    return described | ({"commit": commit} if commit else {})


def _project_version(root: Path) -> str:
    """Version of the checkout, which may be newer than what was installed; else of the installed package."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if project["name"] == PROJECT:
            return str(project["version"])
    except (OSError, ValueError, KeyError):
        pass  # no checkout of this project
    try:
        return version(PROJECT)
    except PackageNotFoundError:
        return "unknown"


def _source_hash(root: Path) -> str:
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\n{len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:12]


def _commit(root: Path) -> str | None:
    """Commit checked out in `root`; None if that is not a checkout, or git does not answer."""
    if not (root / ".git").exists():  # inside another project's checkout, git would name that one's commit
        return None
    there = [package for package in PACKAGES if (root / package).exists()]
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", *there]
    try:
        answer = subprocess.run(
            command,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # reading must not write the index
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    head, is_dirty = "", False
    for line in answer.splitlines():
        if line.startswith("# branch.oid "):
            head = line.removeprefix("# branch.oid ")
        elif not line.startswith("#"):
            is_dirty = True
    if not head or head == "(initial)":
        return None
    return head[:12] + ("-dirty" if is_dirty else "")


def describe_environment(device: torch.device) -> dict[str, str | int]:
    """Hardware, code (`code_version`) and versions behind a record, for the record."""
    import torch  # the driver of a grid reads code_version without torch

    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else _processor_name(),
        "threads": torch.get_num_threads(),
        # It is a TorchVersion, not a str: pickled as it is, it brought torch into the ledger writer (613 MB for 125).
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        **code_version(),
        **({"deterministic": int(torch.are_deterministic_algorithms_enabled())} if on_gpu else {}),
    }


def _processor_name() -> str:
    """Name of the CPU; platform.processor() does not find it on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
