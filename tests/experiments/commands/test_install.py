"""The installation behind `make setup`: what it prints, what it resumes, and that two at once do each other no harm.

Real pip and a real environment, with packages of a few bytes instead of the index.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.commands.install import AT_ONCE, Environment, Package, normal, read_constraints, reason
from experiments.commands.install import CPU_BUILD as CPU_LINE

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "experiments" / "commands" / "install.py"
NAMES = [f"Pack_age{number}" for number in range(AT_ONCE + 1)]
"""Packages for two calls of pip."""

# A build backend for an editable project of no files, so that no setuptools is needed.
BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "project-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("project-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: project\\nVersion: 1\\n")
        wheel.writestr("project-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("project-1.dist-info/RECORD", "")
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def make_wheel(folder: Path, name: str, content: bytes) -> str:
    """A package `name` 1.0 with one module; its requirement with its hash."""
    files = {
        f"{name}/__init__.py": content,
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{name}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }

    def row(path: str, data: bytes) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        return f"{path},sha256={digest},{len(data)}\n"

    record = "".join(row(path, data) for path, data in files.items()) + f"{name}-1.0.dist-info/RECORD,,\n"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for each, data in (files | {f"{name}-1.0.dist-info/RECORD": record.encode()}).items():
            wheel.writestr(each, data)
    return f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@dataclass(frozen=True, kw_only=True)
class Made:
    """A project, and how the command ended that made its environment."""

    folder: Path
    code: int
    lines: list[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A folder with a project whose environment is there and empty: to make one takes seconds."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "wheels").mkdir()
    for name, text in {"constraints.txt": "", "pyproject.toml": PROJECT, "backend.py": BACKEND}.items():
        (folder / name).write_text(text)
    code, lines = install(folder)
    forget(folder)
    return Made(folder=folder, code=code, lines=lines)


def forget(folder: Path) -> None:
    """Remove all packages, and what is known of them."""
    site = site_packages(folder)
    for path in [*site.glob("[Pp]ack*"), *site.glob("project*"), *site.glob("big*")]:
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    for path in [*(folder / ".venv").glob(".*.installed"), folder / ".venv" / "install.log", *folder.glob("wheels/*")]:
        path.unlink()


@pytest.fixture
def folder(made: Made) -> Iterator[Path]:
    """The same without packages: a constraints file and wheels for it."""
    blocks = [make_wheel(made.folder / "wheels", name, b"one = 1\n") for name in NAMES]
    elsewhere = 'nowhere==2.0 ; sys_platform == "nowhere" \\\n    --hash=sha256:00\n'
    (made.folder / "constraints.txt").write_text("".join([*blocks, elsewhere]))
    yield made.folder
    forget(made.folder)


def site_packages(folder: Path) -> Path:
    (site,) = (folder / ".venv" / "lib").glob("python*/site-packages")
    return site


def start(folder: Path) -> subprocess.Popen[str]:
    """The command, as make calls it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "wheels"), "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, str(SCRIPT), "--installer", "pip"]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def install(folder: Path) -> tuple[int, list[str]]:
    """Exit code and lines of the command."""
    process = start(folder)
    _, said = process.communicate(timeout=120)
    return process.returncode, said.splitlines()


def calls(folder: Path) -> list[int]:
    """Number of packages of each call of pip that installed some."""
    log = (folder / ".venv" / "install.log").read_text()
    lines = [line for line in log.splitlines() if line.startswith("Successfully installed ")]
    return [len(line.split()) - 2 for line in lines]


def test_one_line_nothing_the_second_time_and_half_a_package_again(folder: Path) -> None:
    """An installer that was killed leaves files without a RECORD; pip alone would take the package for installed."""
    code, lines = install(folder)
    assert (code, [line.rpartition(",")[0] for line in lines]) == (0, ["constraints.txt: 13 of 13 packages, 0 MB"])
    found = Environment(folder / ".venv").installed()
    assert {name: version for name, (version, _) in found.items() if name.startswith("pack")} == {
        normal(name): "1.0" for name in NAMES
    }
    assert calls(folder) == [12, 1, 1]  # the project is the last
    assert install(folder) == (0, [])
    assert calls(folder) == [12, 1, 1]

    site = site_packages(folder)
    (site / f"{NAMES[3]}-1.0.dist-info" / "RECORD").unlink()
    (site / NAMES[3] / "__init__.py").unlink()
    (folder / ".venv" / ".constraints.txt.installed").unlink()
    assert install(folder)[0] == 0
    assert (site / NAMES[3] / "__init__.py").read_bytes() == b"one = 1\n"
    assert calls(folder) == [12, 1, 1, 1]


def test_a_stopped_installation_goes_on(folder: Path) -> None:
    kept = (folder / "wheels" / f"{NAMES[-1]}-1.0-py3-none-any.whl").rename(folder / "kept")
    code, lines = install(folder)
    assert code == 1
    assert lines == [
        f"error: Could not find a version that satisfies the requirement {NAMES[-1]}==1.0 (from versions: none); "
        f"log: {folder / '.venv' / 'install.log'}; the same command goes on from here"
    ]
    kept.rename(folder / "wheels" / f"{NAMES[-1]}-1.0-py3-none-any.whl")
    assert install(folder)[0] == 0
    assert calls(folder) == [12, 1, 1]


def test_another_file_than_the_pinned_one_is_refused(folder: Path) -> None:
    make_wheel(folder / "wheels", NAMES[0], b"one = 2\n")
    code, lines = install(folder)
    assert code == 1
    (line,) = lines
    assert line.startswith("error: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.")
    assert not (folder / ".venv" / ".constraints.txt.installed").exists()


def test_a_package_without_a_hash_is_refused(folder: Path) -> None:
    (folder / "constraints.txt").write_text(f"{NAMES[0]}==1.0\n")
    code, (line,) = install(folder)
    assert (code, line.partition(",")[0]) == (1, "error: Hashes are required in --require-hashes mode")


def test_two_at_once(folder: Path) -> None:
    processes = [start(folder) for _ in range(2)]
    said = [process.communicate(timeout=120)[1].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert calls(folder) == [12, 1, 1]
    lines = [line.rpartition(",")[0] or line for lines in said for line in lines]
    waiting = "another installation into this folder is under way; waiting for it"
    assert sorted(lines) in (["constraints.txt: 13 of 13 packages, 0 MB"], [waiting, lines[-1]], [waiting, lines[0]])


def test_a_full_disk_is_one_true_line(folder: Path, small_disk: Path) -> None:
    block = make_wheel(folder / "wheels", "big", os.urandom(200_000))
    (folder / "constraints.txt").write_text(block)
    (site_packages(folder) / "big").symlink_to(small_disk)
    code, lines = install(folder)
    assert code == 1
    (line,) = lines
    assert line.startswith("error: no space left on a disk (3 GB to download, 7 GB on disk; free now: ")


def test_a_new_environment(made: Made) -> None:
    """Its size and its log are printed first, and on a machine without a GPU, how to do with less."""
    less = [] if sys.platform != "linux" or shutil.which("nvidia-smi") else [CPU_LINE]
    log = made.folder / ".venv" / "install.log"
    said = f"installing into .venv: 3 GB to download, 7 GB on disk; log: {log}"
    assert (made.code, made.lines) == (0, [said, *less])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Collecting a\nERROR: No match\nERROR: more\n", "No match"),
        ("error: Failed to fetch: `https`\n  cause: x\n", "Failed to fetch: `https`"),
        ("Killed\n", "Killed"),
        ("", "no reason given"),
    ],
)
def test_the_reason_of_a_failure(said: str, expected: str) -> None:
    assert reason(said) == expected


def test_constraints_are_read(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text(
        "a_B.c==1.0 ; python_version < '4' \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n"
        "d==2 \\\n    --hash=sha256:3\n"
    )
    assert read_constraints(file) == [
        Package(
            name="a-b-c",
            version="1.0",
            requirement="a_B.c==1.0 ; python_version < '4'",
            block="a_B.c==1.0 ; python_version < '4' \\\n    --hash=sha256:1 \\\n    --hash=sha256:2",
        ),
        Package(name="d", version="2", requirement="d==2", block="d==2 \\\n    --hash=sha256:3"),
    ]


def test_the_three_files_share_no_package() -> None:
    """They are installed one after the other, dependencies unseen: a package in two could have two versions."""
    files = [ROOT / f"constraints{extra}.txt" for extra in ("", "-dev", "-cluster")]
    names = [{package.name for package in read_constraints(file)} for file in files]
    assert [len(each) > 10 for each in names] == [True, True, True]
    assert names[0] & names[1] == names[0] & names[2] == names[1] & names[2] == set()
