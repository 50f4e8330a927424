"""report.py --publish: every file again to the byte in a fresh clone, versions beside each other, and wrong input."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.commands.publication import Card, Summary, facts
from experiments.commands.publish import publish
from experiments.report import main
from tests.experiments import synthetic
from tests.experiments.in_process import run_here

ROOT = Path(__file__).parents[3]
SMALL: dict[str, Any] = {
    "conditions": synthetic.CONDITIONS[:1],
    "strategies": ("random", "vlpure"),
    "recipe": {"name": "cpu"},
    "rounds": 3,
}
CLONED = ("data", "experiments", "models", "orchestrator", "strategies", "pyproject.toml", "constraints.txt", "LICENSE")


def report_of(clone: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command of a clone, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(clone / "experiments" / "report.py"), *words],
        cwd=clone,
        env=os.environ | {"PYTHONPATH": ""} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_folder(folder: Path, seeds: range) -> Path:
    synthetic.write_ledger(folder / "ledger", synthetic.grid(seeds=seeds, **SMALL))
    return folder


def test_a_fresh_clone_makes_every_file_again(tmp_path: Path) -> None:
    first, second = run_folder(tmp_path / "first", range(2)), run_folder(tmp_path / "second", range(2, 3))
    (first / "emissions.csv").write_text("run_id,energy_consumed\na,0.25\nb,1.5\n")
    (first / "ray.log").write_text("not published")
    done = run_here(
        "report",
        str(first),
        str(second),
        "--publish",
        str(tmp_path / "site"),
        "--title",
        "A: title",
        "--author",
        "Doe, Jo",
    )
    assert (done.returncode, done.stderr) == (0, "")
    (version,) = (path.name for path in (tmp_path / "site").iterdir() if path.is_dir())
    assert done.stdout.splitlines()[-1] == f"published: {tmp_path / 'site' / version / 'index.html'}"

    # Another folder, a time zone in which the records are of the day before, other packages to install, and a licence
    # that has changed since.
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in CLONED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, clone / name)
    (clone / "LICENSE").write_text("another")
    (clone / "constraints.txt").write_text("another")
    records = tmp_path / "site" / version / "records"
    again = report_of(clone, str(records), "--publish", "again", TZ="Etc/GMT+12", LANG="C", PYTHONHASHSEED="7")
    assert (again.returncode, again.stderr) == (0, "")
    made = contents(tmp_path / "site")
    assert contents(clone / "again") == made

    inside = {name.removeprefix(f"{version}/"): text for name, text in made.items() if name.startswith(version)}
    assert {"index.html", "report.csv", "constraints.txt", "LICENSE", "hardware.csv"} < set(inside)
    assert [name for name in inside if "ray.log" in name] == []
    lines = dict(reversed(line.split("  ")) for line in inside.pop("SHA256SUMS").decode().splitlines())
    assert lines == {name: hashlib.sha256(text).hexdigest() for name, text in inside.items()}
    rows = list(csv.DictReader(inside["cells/cifar10-0.2-0.2-vlpure.csv"].decode().splitlines()))
    assert [(row["seed"], row["round"]) for row in rows] == [(f"{s}", f"{r}") for s in range(3) for r in range(3)]
    citation = yaml.safe_load(inside["CITATION.cff"])
    assert citation["title"] == "A: title"
    assert citation["version"] == version
    assert citation["authors"] == [{"name": "Doe, Jo"}]
    deposit = json.loads(inside[".zenodo.json"])
    assert deposit["creators"] == [{"name": "Doe, Jo"}]
    assert deposit["publication_date"] == str(citation["date-released"])
    assert "Energy: 1.750 kWh" in inside["README.md"].decode()
    assert f"<h1>A: title ({version})</h1>" in inside["index.html"].decode()


def test_no_image_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever publishes has the queried images; a fresh clone does not."""

    def at_hand(planned: object) -> None:
        raise AssertionError("images were looked for")

    run = run_folder(tmp_path / "run", range(1))
    monkeypatch.setattr("experiments.results.queries.queries_of", at_hand)
    monkeypatch.setattr(sys, "argv", ["report.py", str(run), "--publish", str(tmp_path / "site")])
    assert main() == 0
    monkeypatch.setattr(sys, "argv", ["report.py", str(run)])
    with pytest.raises(AssertionError, match="images were looked for"):
        main()


def write_nothing(found: object, folder: Path, title: str) -> None:
    """A report without files."""


def test_versions_lie_beside_each_other(tmp_path: Path) -> None:
    site = tmp_path / "site"
    first = publish([run_folder(tmp_path / "one", range(1))], site, Card(title="One <1>"), write_nothing)
    before = contents(first)
    second = publish([run_folder(tmp_path / "two", range(2))], site, Card(title="Two"), write_nothing)
    assert contents(first) == before
    assert sorted(path.name for path in site.iterdir()) == sorted([first.name, second.name, "index.html"])
    page = (site / "index.html").read_text()
    assert f'<a href="{first.name}/index.html">{first.name}</a> One &lt;1&gt;' in page
    # The same records and card are the same version, made again.
    assert publish([tmp_path / "one"], site, Card(title="One <1>"), write_nothing) == first
    assert contents(first) == before


def test_the_order_of_a_disk_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_folder(tmp_path / "run", range(2))
    first = publish([run], tmp_path / "site", Card(), write_nothing)
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: sorted(rglob(self, pattern), reverse=True))
    assert contents(publish([run], tmp_path / "again", Card(), write_nothing)) == contents(first)


def test_what_cannot_be_published(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", range(1))
    other = tmp_path / "other"
    (other / "ledger").mkdir(parents=True)
    with pytest.raises(ValueError, match="other has no ledger; name the output folder of a grid"):
        publish([other], tmp_path / "site", Card(), write_nothing)
    (run / "emissions.csv").write_text("energy\n1\n")
    with pytest.raises(ValueError, match=r"emissions\.csv has no column energy_consumed"):
        publish([run], tmp_path / "site", Card(), write_nothing)
    assert list((tmp_path / "site").iterdir()) == []
    with pytest.raises(ValueError, match=r"holds emissions\.csv, which is no publication; name a folder of its own"):
        publish([run], run, Card(), write_nothing)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x", "--author", "A"), "--author is read only with --publish; omit it"),
        (("x", "--publish", "d", "-o", "e"), "--publish DIR names the folder itself; omit --output-dir"),
        (
            ("--from-mlflow", "sqlite:///x", "--experiment", "e", "--publish", "d"),
            "--publish keeps the records with the report, and MLflow has none: give RUN_DIRs",
        ),
    ],
)
def test_flags_that_do_not_go_together(words: tuple[str, ...], said: str) -> None:
    done = run_here("report", *words)
    assert (done.returncode, done.stderr) == (2, f"report.py: error: {said}\n")


def test_the_facts() -> None:
    summary = Summary(
        version="2026.11.27-abc", date="2026-11-27", num_trials=1, hours=1234.5, hardware={"A": 1234.5},
        kilowatt_hours=None,
    )  # fmt: skip
    assert list(facts(summary)) == [
        "Published as version 2026.11.27-abc: 1 trial, 1,234.50 hours of rounds.",
        "Hardware: A, 1,234.50 hours.",
    ]
