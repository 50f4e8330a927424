"""What a machine of a cluster lacks is fetched there, once, and kept where it belongs."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from data.console import Progress
from data.imageset import Survey
from data.registry import DATA_SETS
from orchestrator.cluster import node as node_data
from orchestrator.cluster import trial_worker as tune_trial
from orchestrator.cluster.node import enter_folder, fetch_missing
from orchestrator.cluster.trial_worker import TrialServices
from orchestrator.settings.grid import RunSettings
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig


def trial_of(dataset: str, root: Path) -> TrialConfig:
    return make_trial(dataset=dataset, mismatch_ratio=0.2, ood_ratio=0.2, strategy="random", seed=0, data_root=root)


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was fetched; fetching puts a file where the survey of CIFAR-10 then finds it."""
    names: list[str] = []

    def survey(root: Path | None) -> Survey:
        assert root is not None
        if not (root / "there").exists():
            raise ValueError("cifar10 is not there")
        return Survey(where=str(root), num_train=1, num_test=1)

    def fetch(name: str, *, root: Path | None, progress: Progress) -> Survey:
        names.append(name)
        assert root is not None
        (root / "there").touch()
        return survey(root)

    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    source = DATA_SETS["cifar10"]
    monkeypatch.setitem(DATA_SETS, "cifar10", type(source)(read=source.read, survey=survey, package=source.package))
    monkeypatch.setattr(node_data, "fetch_data_set", fetch)
    return names


def test_what_is_missing_is_fetched_once_however_many_ask(fetched: list[str], tmp_path: Path) -> None:
    trials = [trial_of("cifar10", tmp_path), trial_of("digits", tmp_path), trial_of("folder:mine", tmp_path)]
    asking = [threading.Thread(target=fetch_missing, args=(trials,), kwargs={"progress": print}) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert fetched == ["cifar10"]


def test_relative_paths_begin_where_the_command_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    enter_folder(str(tmp_path / "elsewhere"))
    assert Path.cwd() == tmp_path / "elsewhere"
    enter_folder(str(tmp_path / "not on this machine"))
    assert Path.cwd() == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ({"grid_id": "g"}, "out/classifiers"),
        ({"grid_id": "other"}, "cache/classifiers/g"),
        (None, "cache/classifiers/g"),
    ],
)
def test_classifiers_lie_in_the_output_folder_only_where_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: dict[str, str] | None, expected: str
) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    if marker is not None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "vlpure.json").write_text(json.dumps(marker))
    services = TrialServices(
        writer=None, scorers=(), run=RunSettings(), folder=str(tmp_path), output=str(tmp_path / "out"), grid_id="g"
    )
    assert tune_trial._classifiers_folder(services) == tmp_path / expected
