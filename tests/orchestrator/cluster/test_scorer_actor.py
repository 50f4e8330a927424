"""The actors as plain classes, and the client's choices against actors that only pretend: no Ray is started."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError

from orchestrator.cluster import scorer_client as scoring_client
from orchestrator.cluster.scorer_actor import Answer, Load, ScoringActor
from orchestrator.cluster.scorer_client import Patience, RemotePurityScorer, ScorerUnavailable
from orchestrator.cluster.writer import LedgerWriter
from orchestrator.ledger.records import RoundRecord
from strategies.purity.contract import PurityOptions, PurityRequest, PurityScores

HASTE = Patience(
    attempts=4,
    silent_attempts=2,
    first_pause=0.001,
    longest_pause=0.002,
    full_pause=0.001,
    pulse=0.001,
    load_timeout=0.001,
    silence=0.05,
)


def make_request(name: str = "cat") -> PurityRequest:
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


def make_scores(scale: float) -> PurityScores:
    """Scores that can be told apart by their scale."""
    ones = np.ones(1, dtype=np.float32)
    return PurityScores(
        id_scores=ones, ood_scores=ones, is_id=ones > 0, logit_scale=scale, is_tuned=False, labelled_accuracy=None
    )


# ---- the scoring actor


class GatedScorer:
    """Answers when the gate is open, with a scale that counts the requests; fails for the class "bad"."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.names: list[str] = []

    def score(self, request: PurityRequest) -> PurityScores:
        assert self.gate.wait(10)
        self.names.append(request.class_names[0])
        if request.class_names == ("bad",):
            raise ValueError("a bad request")
        return make_scores(float(len(self.names)))

    def features(self, data_fingerprint: str, idx: np.ndarray) -> np.ndarray:
        self.names.append(data_fingerprint)
        return np.stack([idx, idx], axis=1).astype(np.float32)


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> GatedScorer:
    """What any scoring actor of the test opens; `opened` counts how often."""
    scorer = GatedScorer()

    def open_scorer(
        trials: Any, *, cpus: int, gpus: float, progress: Callable[[str], None], deterministic: bool
    ) -> GatedScorer:
        progress("opening, deterministic" if deterministic else "opening")
        return scorer

    monkeypatch.setattr("orchestrator.trial.compute.local_scorer", open_scorer)
    return scorer


def test_an_actor_answers_in_order_and_turns_away_what_its_queue_does_not_hold(scorer: GatedScorer) -> None:
    async def ask() -> tuple[list[Answer], ScoringActor, Load]:
        actor = ScoringActor([], 1, 0.0, max_queue=3)
        pending = [asyncio.ensure_future(actor.score(make_request(name))) for name in "abcd"]
        await asyncio.sleep(0.05)
        load = await actor.load()
        scorer.gate.set()
        return [await answer for answer in pending], actor, load

    answers, actor, load = asyncio.run(ask())
    assert load.queue == 3
    assert [answer.queue for answer in answers] == [0, 1, 2, 3]
    assert [answer.scores and answer.scores.logit_scale for answer in answers] == [1.0, 2.0, 3.0, None]
    assert scorer.names == ["a", "b", "c"]
    metrics = asyncio.run(actor.metrics())
    assert (metrics.requests, metrics.queue, metrics.longest_queue, metrics.restarted) == (3, 0, 3, False)
    assert 0 < metrics.seconds < 10


def test_an_actor_gives_features_in_their_turn_too(scorer: GatedScorer) -> None:
    scorer.gate.set()
    answer = asyncio.run(ScoringActor([], 1, 0.0).features("data", np.array([3, 1])))
    assert answer.is_given
    assert answer.features_ND is not None
    assert answer.features_ND.tolist() == [[3, 3], [1, 1]]
    assert scorer.names == ["data"]


def test_an_error_of_the_scorer_passes_and_frees_its_place(scorer: GatedScorer) -> None:
    scorer.gate.set()

    async def ask() -> tuple[Answer, Load]:
        actor = ScoringActor([], 1, 0.0, max_queue=1)
        with pytest.raises(ValueError, match="a bad request"):
            await actor.score(make_request("bad"))
        return await actor.score(make_request()), await actor.load()

    answer, load = asyncio.run(ask())
    assert answer.scores is not None
    assert answer.queue == load.queue == 0


def test_load_tells_progress_and_what_is_done(scorer: GatedScorer) -> None:
    scorer.gate.set()

    async def follow() -> list[Load]:
        actor = ScoringActor([], 1, 0.0)
        loads = [await actor.load()]
        await actor.prepare()
        loads.append(await actor.load())
        await actor.score(make_request())
        return [*loads, await actor.load()]

    loads = asyncio.run(follow())
    assert [load.progress for load in loads] == [0, 1, 2]
    assert [load.doing for load in loads] == ["starting", "answering requests", "answering requests"]


def test_the_ledger_writer_keeps_records_and_failures(tmp_path: Path, make_record: Callable[..., RoundRecord]) -> None:
    writer = LedgerWriter(str(tmp_path / "ledger"))
    writer.append("f" * 64, {"seed": 0}, make_record(0))
    writer.append("f" * 64, {"seed": 0}, make_record(0))
    writer.fail("f" * 64, {"seed": 0}, "no memory")
    assert writer.history("f" * 64) == [make_record(0)]
    assert writer.history("0" * 64) == []


# ---- the client


class Never:
    """A reply that does not come."""


NEVER = Never()


class Reply:
    """What a remote call gives at once: a value, an exception or `NEVER`, looked at later."""

    def __init__(self, content: Any) -> None:
        self.content = content


class PretendRay:
    """`get` and `wait` over such replies."""

    def get(self, reply: Reply) -> Any:
        assert reply.content is not NEVER
        if isinstance(reply.content, Exception):
            raise reply.content
        return reply.content

    def wait(
        self, replies: Sequence[Reply], *, num_returns: int = 1, timeout: float
    ) -> tuple[list[Reply], list[Reply]]:
        done = [reply for reply in replies if reply.content is not NEVER]
        return done, [reply for reply in replies if reply.content is NEVER]


class Method:
    """An actor's method: replies with what the given function returns or raises."""

    def __init__(self, reply: Callable[..., Any]) -> None:
        self._reply = reply

    def remote(self, *args: Any) -> Reply:
        try:
            given = self._reply(*args)
        except Exception as error:
            return Reply(error)
        return given if isinstance(given, Reply) else Reply(given)


class PretendActor:
    """A scoring actor with a script: one entry a request, the last of them for ever."""

    def __init__(self, *script: Any, queue: Any = 0, progress: Callable[[], int] = lambda: 0) -> None:
        self._script = list(script)
        self.num_asked = 0
        self.queue = queue
        self.progress = progress
        self.score, self.load = Method(self._score), Method(self._load)
        self.features = Method(self._score)

    def _score(self, *request: Any) -> Any:
        self.num_asked += 1
        entry = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(entry, Exception):
            raise entry
        return entry

    def _load(self) -> Any:
        if isinstance(self.queue, Exception):
            raise self.queue
        return NEVER if self.queue is NEVER else Load(queue=self.queue, progress=self.progress(), doing="dreaming")


@pytest.fixture(autouse=True)
def pretend_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring_client, "ray", PretendRay())


def good(scale: float = 1.0, queue: int = 0) -> Answer:
    return Answer(scores=make_scores(scale), queue=queue)


FULL = Answer(scores=None, queue=8)


def ask(*pretend: PretendActor, first: int = 0) -> tuple[float, RemotePurityScorer]:
    """The scale of the answer, and the client."""
    client = RemotePurityScorer(pretend, first=first, patience=HASTE)
    return client.score(make_request()).logit_scale, client


@pytest.mark.parametrize(
    ("queues", "first", "chosen"),
    [
        ((2, 1, 3), 0, 1),
        ((1, 1, 1), 0, 0),
        ((1, 1, 1), 5, 2),  # equals are shared out by the trial's number
        ((0, 3, 0), 1, 2),
        ((ActorUnavailableError("restarting", b"\0" * 16), 9, 9), 0, 1),
        ((NEVER, 9, 8), 0, 2),  # it does not even say how busy it is
        ((NEVER, NEVER, NEVER), 1, 1),
    ],
)
def test_the_least_busy_actor_is_asked(queues: tuple[Any, ...], first: int, chosen: int) -> None:
    pretend = [PretendActor(good(float(number)), queue=queue) for number, queue in enumerate(queues)]
    assert ask(*pretend, first=first)[0] == chosen
    assert [actor.num_asked for actor in pretend] == [int(number == chosen) for number in range(3)]


def test_a_lost_request_goes_to_another_actor_even_if_that_is_busier() -> None:
    dead, busy = PretendActor(ActorDiedError()), PretendActor(good(7.0, queue=5), queue=5)
    scale, client = ask(dead, busy)
    assert (scale, dead.num_asked, busy.num_asked) == (7.0, 1, 1)
    assert client.last_request is not None
    assert (client.last_request.lost, client.last_request.queue) == (1, 5)
    client.score(make_request())
    assert dead.num_asked == 1, "a client remembers which actor lost its request"


def test_features_are_asked_for_as_scores_are() -> None:
    rows = np.ones((2, 3), np.float32)
    dead, alive = PretendActor(ActorDiedError()), PretendActor(FULL, Answer(scores=None, queue=1, features_ND=rows))
    client = RemotePurityScorer([dead, alive], first=0, patience=HASTE)
    np.testing.assert_array_equal(client.features("data", np.array([0, 1])), rows)
    assert (dead.num_asked, alive.num_asked) == (1, 2)


def test_one_actor_is_asked_again_after_it_restarted() -> None:
    actor = PretendActor(ActorUnavailableError("gone", b"\0" * 16), RayError("lost"), good(2.0))
    assert ask(actor)[0] == 2.0
    assert actor.num_asked == 3


def test_pauses_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    client = RemotePurityScorer([PretendActor(ActorDiedError())], first=0)
    with pytest.raises(ScorerUnavailable):
        client.score(make_request())
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_attempts_are_finite_and_the_error_says_what_to_do() -> None:
    actor = PretendActor(ActorDiedError())
    with pytest.raises(ScorerUnavailable, match=r"4 request\(s\) lost .* ActorDiedError.*--max-concurrent") as caught:
        ask(actor)
    assert actor.num_asked == 4
    assert "\n" not in str(caught.value)


def test_an_actor_that_never_answers_is_given_up() -> None:
    actors = [PretendActor(NEVER), PretendActor(NEVER)]
    with pytest.raises(ScorerUnavailable, match=r"2 request\(s\) lost .* no progress for .* while dreaming"):
        ask(*actors)
    assert [actor.num_asked for actor in actors] == [1, 1]


def test_a_frozen_actor_is_given_up_for_another() -> None:
    frozen = PretendActor(NEVER, queue=NEVER)
    assert ask(frozen, PretendActor(good(3.0)))[0] == 3.0
    assert frozen.num_asked == 0


def test_slow_work_that_makes_progress_is_waited_for() -> None:
    """Far longer than `silence`: each look sees progress, and the reply comes after the 200th."""
    reply = Reply(NEVER)
    steps = iter(range(10_000))

    def progress() -> int:
        step = next(steps)
        if step == 200:
            reply.content = good(4.0)
        return step

    assert ask(PretendActor(reply, progress=progress))[0] == 4.0


def test_a_full_queue_is_waited_for_and_costs_no_attempt() -> None:
    steps = iter(range(10_000))
    actor = PretendActor(*[FULL] * 20, good(6.0), queue=8, progress=lambda: next(steps))
    scale, client = ask(actor)
    assert (scale, actor.num_asked) == (6.0, 21)
    assert client.last_request is not None
    assert client.last_request.lost == 0


def test_a_full_queue_that_never_moves_is_given_up() -> None:
    with pytest.raises(ScorerUnavailable, match="no progress"):
        ask(PretendActor(FULL, queue=8))


def test_the_scorers_own_error_arrives_as_itself_and_is_not_repeated() -> None:
    wrapped = RayTaskError("score", "a trace", ValueError("holds no features of data set x"))  # type: ignore[no-untyped-call]
    actor = PretendActor(wrapped)
    with pytest.raises(ValueError, match=r"^holds no features of data set x$") as caught:
        ask(actor)
    assert type(caught.value) is ValueError
    assert actor.num_asked == 1
