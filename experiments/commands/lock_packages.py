"""Write constraints.txt, constraints-dev.txt and constraints-cluster.txt from pyproject.toml: `make constraints`.

python experiments/commands/lock_packages.py

All three come from one resolution, so that what is installed beside the packages of constraints.txt changes none of
them (boto3, installed by its name alone, once took python-dateutil two versions back). Needs uv. Versions stay as they
are unless pyproject.toml forbids them; to take a newer one, remove its block first.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from experiments.commands.install import EXTRAS, read_constraints

UV = ["uv", "pip", "compile", "-q", "--universal", "--generate-hashes", "--no-annotate", "--no-header"]


def resolve(project: Path, pins: Path, extras: tuple[str, ...]) -> dict[str, str]:
    """Block of each requirement of the project with these extras."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "constraints.txt"
        options = [option for extra in extras for option in ("--extra", extra)]
        subprocess.run(
            [*UV, str(project), *options, "-c", str(pins), "-o", str(output)], check=True, stdout=subprocess.DEVNULL
        )
        return {package.requirement: package.block for package in read_constraints(output)}


def main() -> int:
    """Run the command in the project's folder, and return its exit code."""
    files = {extra: Path(f"constraints-{extra}.txt") for extra in EXTRAS}
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        old = [file for file in (Path("constraints.txt"), *files.values()) if file.exists()]
        pins.write_text("".join(f"{package.requirement}\n" for file in old for package in read_constraints(file)))
        everything = resolve(Path("pyproject.toml"), pins, EXTRAS)
        pins.write_text("".join(f"{requirement}\n" for requirement in everything))
        core = resolve(Path("pyproject.toml"), pins, ())
        Path("constraints.txt").write_text("".join(f"{block}\n" for block in core.values()))
        for extra, file in files.items():
            with_extra = resolve(Path("pyproject.toml"), pins, (extra,))
            file.write_text("".join(f"{block}\n" for name, block in with_extra.items() if name not in core))
    return 0


if __name__ == "__main__":
    sys.exit(main())
