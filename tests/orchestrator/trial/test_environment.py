"""Which code made a result, with git and without."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.trial.environment import code_version, describe_code


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one file, in no checkout."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.py").write_text("x = 1\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "vlpure"\nversion = "7.8.9"\n')
    return tmp_path


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(project: Path) -> Path:
    """The same, committed."""
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "first")
    return project


def test_without_a_checkout_there_is_no_commit(project: Path) -> None:
    described = describe_code(project)
    assert described.keys() == {"version", "source"}
    assert described["version"] == "7.8.9"


def test_a_checkout_around_the_project_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "other.txt").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "other")
    (tmp_path / "installed" / "data").mkdir(parents=True)
    assert "commit" not in describe_code(tmp_path / "installed")


def test_the_commit_and_whether_the_packages_differ_from_it(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")[:12]
    (checkout / "notes.txt").touch()  # no code
    assert describe_code(checkout)["commit"] == head
    (checkout / "data" / "new.py").touch()
    assert describe_code(checkout)["commit"] == f"{head}-dirty"
    (checkout / "data" / "new.py").unlink()
    (checkout / "data" / "a.py").write_text("x = 2\n")
    assert describe_code(checkout)["commit"] == f"{head}-dirty"
    git(checkout, "add", "-A")
    assert describe_code(checkout)["commit"] == f"{head}-dirty"


def test_the_source_hash_follows_content_and_names(project: Path) -> None:
    before = describe_code(project)["source"]
    (project / "data" / "notes.txt").touch()
    assert describe_code(project)["source"] == before
    (project / "data" / "a.py").rename(project / "data" / "b.py")
    renamed = describe_code(project)["source"]
    (project / "data" / "b.py").write_text("x = 2\n")
    assert len({before, renamed, describe_code(project)["source"]}) == 3


def test_without_git_all_but_the_commit_is_the_same(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = describe_code(checkout)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert describe_code(checkout) == {name: full[name] for name in ("version", "source")}


def test_looking_leaves_the_checkout_alone(checkout: Path) -> None:
    os.utime(checkout / "data" / "a.py", (1, 1))  # git would refresh its index for that
    before = (checkout / ".git" / "index").read_bytes()
    describe_code(checkout)
    assert (checkout / ".git" / "index").read_bytes() == before


def test_this_project_has_a_version() -> None:
    described = code_version()
    assert described["version"].count(".") == 2
    assert len(described["source"]) == 12
