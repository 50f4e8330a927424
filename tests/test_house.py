"""Rules that keep the map readable: no circle, no folders that need each other, one owner of Ray and of MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import ROOT, arrows, circles, external_users, module_files, report, two_way_folders

FRONT_DOOR = "data"
"""The one folder whose own modules (registry, pool) open its subfolders and are used by them."""


def make_tree(root: Path, **modules: str) -> Path:
    """A project with a source for each module: `data__a` is data/a.py."""
    for name, source in modules.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


def test_no_modules_import_each_other() -> None:
    assert circles(arrows(ROOT)) == []


def test_no_folders_import_each_other() -> None:
    pairs = two_way_folders(arrows(ROOT), module_files(ROOT), ROOT)
    assert [pair for pair in pairs if FRONT_DOOR not in pair] == []


@pytest.mark.parametrize(
    ("package", "owner"),
    [
        ("ray", ("orchestrator.cluster.",)),
        ("mlflow", ("orchestrator.tracking.", "experiments.results.from_mlflow")),
    ],
)
def test_a_package_has_one_owner(package: str, owner: tuple[str, ...]) -> None:
    users = external_users(package, module_files(ROOT))
    assert users
    assert [name for name in users if not name.startswith(owner)] == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path,
        data__a="from data import b\n",
        data__b="def f():\n    import data.c\n",
        data__c="from data.a import x\n",
        data__d="import data.a\n",
    )
    assert circles(arrows(root)) == [["data.a", "data.b", "data.c"]]


def test_folders_with_arrows_both_ways_are_found(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path, models__a__x="import models.b.y\n", models__b__y="", models__b__z="from models.a.x import f\n"
    )
    assert two_way_folders(arrows(root), module_files(root), root) == [("models/a", "models/b")]


def test_the_report_gives_figures(tmp_path: Path) -> None:
    root = make_tree(tmp_path, data__a="import ray\n", data__b="import data.a\n")
    (root / "data" / "__init__.py").touch()
    lines = list(report(root))
    assert lines[0] == "modules: 2 (and 1 __init__), lines: 2, median: 1"
    assert "modules with a single caller: 1" in lines
    assert "ray is imported in: data" in lines
