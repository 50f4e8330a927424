"""Scoring actors in real Ray processes: errors, deaths in the middle of a request, the account at the end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import ray

from orchestrator.cluster.ray_part import QUIET
from orchestrator.cluster.scorer_actor import ScoringActor
from orchestrator.cluster.scorer_client import Patience, RemotePurityScorer
from orchestrator.cluster.scorers import HEAD_START, ScoringService, patient_first, service_line
from strategies.purity.contract import PurityOptions, PurityRequest, PurityScores
from tests.factories import make_planned

pytestmark = pytest.mark.timeout(300)


class EchoScorer:
    """Answers with the process id as its scale; fails for the class "bad", takes for ever for "slow"."""

    def __init__(self, is_slow: bool) -> None:
        self._is_slow = is_slow

    def score(self, request: PurityRequest) -> PurityScores:
        if request.class_names == ("bad",):
            raise ValueError("class bad: not known")
        if request.class_names == ("slow",) and self._is_slow:
            time.sleep(100)
        ones = np.ones(1, dtype=np.float32)
        return PurityScores(
            id_scores=ones,
            ood_scores=ones,
            is_id=ones > 0,
            logit_scale=float(os.getpid()),
            is_tuned=False,
            labelled_accuracy=None,
        )


class EchoActor(ScoringActor):
    """A scoring actor that needs no features."""

    def __init__(self, is_slow: bool) -> None:
        super().__init__([], 1, 0.0)
        self._scorer = EchoScorer(is_slow)  # type: ignore[assignment]


@pytest.fixture(scope="module")
def started_ray() -> Iterator[None]:
    """A local Ray."""
    before = dict(os.environ)
    os.environ.update(QUIET)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def actors(started_ray: None) -> Iterator[list[Any]]:
    """Two actors as the runner starts them; "slow" requests are slow at the first."""
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 0}
    actors: list[Any] = [ray.remote(EchoActor).options(**options).remote(is_slow) for is_slow in (True, False)]
    ray.get([actor.load.remote() for actor in actors])
    yield actors
    for actor in actors:
        ray.kill(actor)


def make_request(name: str) -> PurityRequest:
    empty = np.empty(0, dtype=np.int64)
    return PurityRequest(
        data_fingerprint="data",
        class_names=(name,),
        labelled_id_idx=empty,
        labelled_id_labels=empty,
        labelled_ood_idx=empty,
        unlabelled_idx=np.array([5]),
        options=PurityOptions(),
    )


def test_errors_deaths_and_the_account(actors: list[Any]) -> None:
    client = RemotePurityScorer(actors, first=0, patience=Patience(pulse=1.0))
    with pytest.raises(ValueError, match=r"^class bad: not known$") as caught:
        client.score(make_request("bad"))
    assert type(caught.value) is ValueError
    first = int(client.score(make_request("quick")).logit_scale)
    assert ray.get(actors[0].metrics.remote()).requests == 2, "an error of the scorer is not repeated"
    assert service_line(actors).startswith("scoring service: 2 request(s), ")

    answers: list[PurityScores] = []
    waiting = threading.Thread(target=lambda: answers.append(client.score(make_request("slow"))))
    waiting.start()
    while ray.get(actors[0].load.remote()).queue == 0:
        time.sleep(0.02)
    # Others see that the first actor is busy, and go to the second.
    second = int(RemotePurityScorer(actors, first=0).score(make_request("quick")).logit_scale)
    assert second != first
    os.kill(first, signal.SIGKILL)
    waiting.join(60)
    assert [int(scores.logit_scale) for scores in answers] == [second]
    assert client.last_request is not None
    assert (client.last_request.lost, client.last_request.queue) == (1, 0)

    # The one that died comes back by itself, and says that its numbers are lost.
    reborn = RemotePurityScorer(actors[:1], first=0).score(make_request("quick"))
    assert int(reborn.logit_scale) not in (first, second)
    line = service_line(actors)
    assert line.startswith("scoring service: 3 request(s), ")
    assert line.endswith("longest queue 1 (not counted: what 1 actor(s) did before their processes died)")


class BadWeights(ScoringActor):
    """A scoring actor whose weights cannot be read."""

    def __init__(self) -> None:
        super().__init__([], 1, 0.0)

    def _ready_scorer(self) -> Any:
        raise ValueError("clip.pt holds no tensors")


def test_actors_get_ready_in_the_background_and_their_own_error_is_kept(actors: list[Any]) -> None:
    said: list[str] = []
    service = ScoringService(actors, timeout=30.0, tell=said.append)
    wait_until(lambda: bool(said))
    assert said[-1].startswith("scoring service: 2 actor(s) ready (")
    assert service.error is None
    bad = ray.remote(BadWeights).options(num_cpus=0).remote()
    service = ScoringService([bad], timeout=30.0, tell=said.append)
    wait_until(lambda: service.error is not None)
    assert type(service.error) is ValueError
    assert str(service.error) == "clip.pt holds no tensors"
    ray.kill(bad)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_trials_that_need_no_scorer_go_first_but_not_those_of_a_long_grid() -> None:
    kinds = ["vlpure", "random", "vlpure-ll", "conf"]
    todo = [make_planned(seed=number // 4, strategy=kinds[number % 4]) for number in range(HEAD_START + 4)]
    ordered = patient_first(todo)
    uses_purity = [p.trial.uses_purity for p in ordered]
    half = HEAD_START // 2
    assert uses_purity == [False] * half + [True] * half + [True, False, True, False]
    assert [p.label for p in ordered[:3]] == [todo[1].label, todo[3].label, todo[5].label]
    assert ordered[HEAD_START:] == todo[HEAD_START:]
