"""The page's server: what it tells, records and refuses."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from experiments.annotate import server
from experiments.annotate.answers.state import NONE, UNSURE, State
from experiments.annotate.session import Answer, Session
from tests.experiments.annotate.states import make_state, next_rounds, suggest_round

NAMES = ("a.jpg", "b <b>.jpg", "sub/c.png", "d.jpg", "e.jpg")
TOKEN = "secret"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A locked state whose first round suggests three of five images, the last image first."""
    made = make_state(tmp_path, NAMES)
    with made.locked():
        suggest_round(made, ("sub/c.png", "b <b>.jpg", "a.jpg"))
        yield made


@pytest.fixture
def session(state: State) -> Session:
    return Session(state, next_rounds(state, 2))


@pytest.fixture
def client(session: Session) -> TestClient:
    """A client that asks as the page does."""
    return TestClient(server.make_app(session, TOKEN), base_url="http://127.0.0.1:8765", raise_server_exceptions=False)


def post(client: TestClient, path: str, body: Any) -> Any:
    answer = client.post(f"/{TOKEN}/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_view_holds_what_the_page_shows(client: TestClient) -> None:
    view = client.get(f"/{TOKEN}/state").json()
    assert {name: view[name] for name in ("folder", "round", "expected", "random", "labelled", "images")} == {
        "folder": "photos", "round": 1, "expected": 4.2, "random": 2.0, "labelled": 0, "images": 5,
    }  # fmt: skip
    assert view["answers"] == [
        {"name": "cat", "key": "1"}, {"name": "dog", "key": "2"}, {"name": "horse", "key": "3"},
        {"name": NONE, "key": "0"}, {"name": UNSURE, "key": "u"},
    ]  # fmt: skip
    assert [item["name"] for item in view["items"]] == ["sub/c.png", "b <b>.jpg", "a.jpg"]
    assert view["items"][0] == {
        "image": 0, "name": "sub/c.png", "wanted": 0.99, "predicted": "dog", "probability": 0.501,
        "reason": "probably a dog, rank 1", "border": False, "copies": 0, "answer": None, "seconds": None,
        "nearest": None,
    }  # fmt: skip


def test_answers_are_on_disk_when_the_request_returns(client: TestClient, state: State) -> None:
    client.get(f"/{TOKEN}/state")
    post(client, "answers", [{"image": 0, "answer": "dog", "seconds": 1.2345}])
    (label,) = State.open(state.folder).labels().values()
    assert (label.image, label.answer, label.seconds) == ("sub/c.png", "dog", 1.23)
    assert label.source.startswith("page, ")
    post(
        client, "answers", [{"image": 0, "answer": NONE, "seconds": 1e9}, {"image": 2, "answer": "cat", "seconds": -1}]
    )
    found = State.open(state.folder).labels()
    assert {image: (each.answer, each.seconds) for image, each in found.items()} == {
        "sub/c.png": (NONE, 3600.0), "a.jpg": ("cat", 0.0),
    }  # fmt: skip
    post(client, "answers", [{"image": 0, "answer": None, "seconds": None}])
    assert list(State.open(state.folder).labels()) == ["a.jpg"]
    view = client.get(f"/{TOKEN}/state").json()
    assert [item["answer"] for item in view["items"]] == [None, None, "cat"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([{"image": 0, "answer": "cow", "seconds": 1}], 409),
        ([{"image": 0, "answer": "cat", "seconds": 1}, {"image": 3, "answer": "cat", "seconds": 1}], 409),
        ([{"image": -1, "answer": "cat", "seconds": 1}], 409),
        ([{"image": "a.jpg", "answer": "cat", "seconds": 1}], 422),
        ([{"answer": "cat"}], 422),
        ([{"image": 0, "answer": "cat", "seconds": 1}] * 1001, 422),
    ],
)
def test_impossible_answers_are_refused_whole(body: Any, status: int, client: TestClient, state: State) -> None:
    client.get(f"/{TOKEN}/state")
    assert client.post(f"/{TOKEN}/answers", json=body).status_code == status
    assert state.labels() == {}


def test_a_full_disk_is_reported(client: TestClient, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    client.get(f"/{TOKEN}/state")

    def full(_: Any) -> None:
        raise OSError(28, "No space left on device", "labels.jsonl")

    monkeypatch.setattr(state, "record", full)
    answer = client.post(f"/{TOKEN}/answers", json=[{"image": 0, "answer": "cat", "seconds": 1}])
    assert answer.status_code == 507
    assert answer.json()["detail"] == "nothing was saved: [Errno 28] No space left on device: 'labels.jsonl'"


def test_images_by_number_only_upright_and_no_larger_than_needed(client: TestClient, state: State) -> None:
    path = state.folder / "sub" / "c.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    Image.new("RGB", (2000, 1000), "red").save(path, "JPEG", exif=exif)
    client.get(f"/{TOKEN}/state")
    large, small = (client.get(f"/{TOKEN}/images/0?size={size}") for size in ("large", "small"))
    assert large.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(large.content)).size == (800, 1600)
    assert Image.open(io.BytesIO(small.content)).size == (180, 360)
    # Images that the page does not show have no number, and there are no paths.
    for number in ("3", "-1", "a.jpg", "..%2f..%2fphotos%2fa.jpg"):
        assert client.get(f"/{TOKEN}/images/{number}").status_code in (404, 422)
    path.write_bytes(b"damaged")
    assert client.get(f"/{TOKEN}/images/0").status_code == 404


def following(client: TestClient, after: int) -> Any:
    """The view once the round after `after` is ranked."""
    post(client, "next", {"after": after})
    while client.get(f"/{TOKEN}/progress").json()["ranking"]:
        time.sleep(0.01)
    return client.get(f"/{TOKEN}/state").json()


def test_the_next_round_is_suggested_once(client: TestClient, session: Session, state: State) -> None:
    client.get(f"/{TOKEN}/state")
    post(client, "answers", [{"image": number, "answer": "cat", "seconds": 1} for number in range(3)])
    view = following(client, 1)
    assert (view["round"], [item["name"] for item in view["items"]]) == (2, ["d.jpg", "e.jpg"])
    assert following(client, 1)["round"] == 2  # the same press of the button, from another tab
    # Numbers of the first round still mean its images.
    post(client, "answers", [{"image": 0, "answer": "dog", "seconds": 1}])
    assert state.labels()["sub/c.png"].answer == "dog"
    assert session.summary() == "round 2: 0 of 2 answered, 0 wanted"
    post(client, "answers", [{"image": 3, "answer": "dog", "seconds": 2}, {"image": 4, "answer": NONE, "seconds": 3}])
    assert session.summary() == "round 2: 2 of 2 answered, 1 wanted, 2.5 s per label"
    assert following(client, 2)["round"] == 2
    assert client.get(f"/{TOKEN}/progress").json() == {"ranking": False, "failure": "every image has an answer"}


def test_nothing_waits_for_a_ranking(state: State) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        assert go_on.wait(timeout=30)
        return next_rounds(state, 1)()

    session = Session(state, slow)
    before = session.view()
    session.advance(1)
    assert begun.wait(timeout=30)
    session.advance(1)
    assert session.progress() == {"ranking": True, "failure": None}
    assert session.view() == before | {"ranking": True}
    with pytest.raises(ValueError, match="nothing was saved: the next batch is being ranked; wait for it"):
        session.record([Answer(image=0, answer="cat", seconds=1)])
    go_on.set()
    while session.progress()["ranking"]:
        time.sleep(0.01)
    assert session.progress() == {"ranking": False, "failure": None}
    assert state.rounds() == [1, 2]
    assert session.view()["round"] == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_ranking_is_reported(state: State) -> None:
    def broken() -> int:
        raise KeyError("a bug")

    before = set(threading.enumerate())
    session = Session(state, broken)
    session.advance(1)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # its error is reported after the lock is released, and would count for the next test
    assert not session.progress()["ranking"]
    assert session.progress()["failure"] == "the ranking ended with an error, which is in the terminal"


def test_the_nearest_labelled_image_is_shown(state: State) -> None:
    session = Session(state, next_rounds(state, 1))
    session.view()
    session.record([Answer(image=0, answer="horse", seconds=1)])
    (suggestion, *_) = state.suggestions(1)
    from dataclasses import replace

    from tests.experiments.annotate.states import expected

    state.write_round(2, [replace(suggestion, image="d.jpg", nearest_labelled="sub/c.png")], expected(5))
    assert session.view()["items"][0]["nearest"] == {"image": 0, "answer": "horse"}


@pytest.mark.parametrize(
    ("host", "origin", "path", "expected"),
    [
        ("127.0.0.1:8765", None, "/secret/", None),
        ("localhost:9000", "http://localhost:9000", "/secret/state", None),
        ("localhost", None, "/secret", None),
        ("evil.example:8765", None, "/secret/", "this page answers only at 127.0.0.1 and localhost"),
        ("127.0.0.1.evil.example", None, "/secret/", "this page answers only at 127.0.0.1 and localhost"),
        ("", None, "/secret/", "this page answers only at 127.0.0.1 and localhost"),
        ("127.0.0.1:8765", "http://evil.example", "/secret/", "this page answers no other page"),
        ("127.0.0.1:8765", "http://127.0.0.1:3000", "/secret/", "this page answers no other page"),
        ("127.0.0.1:8765", "null", "/secret/", "this page answers no other page"),
        ("127.0.0.1:8765", None, "/secre/", "this address belongs to another start of the program; open the one that "
         "it printed last"),
        ("127.0.0.1:8765", None, "/ä/", "this address belongs to another start of the program; open the one that it "
         "printed last"),
        ("127.0.0.1:8765", None, "*", "this address belongs to another start of the program; open the one that it "
         "printed last"),
    ],
)  # fmt: skip
def test_who_is_refused(host: str, origin: str | None, path: str, expected: str | None) -> None:
    assert server.refusal(host, origin, path, TOKEN) == expected


def test_refusals_and_headers_hold_for_every_address(client: TestClient, state: State) -> None:
    client.get(f"/{TOKEN}/state")
    body = [{"image": 0, "answer": "cat", "seconds": 1}]
    assert client.post(f"/{TOKEN}/answers", json=body, headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/wrong/answers", json=body).status_code == 403
    assert state.labels() == {}
    for path in ("", "page.css", "page.js", "state", "images/0", "docs", "openapi.json"):
        assert client.get(f"/wrong/{path}").status_code == 403
        assert client.get(f"/{TOKEN}/{path}", headers={"Host": "evil.example"}).status_code == 403
        answer = client.get(f"/{TOKEN}/{path}")
        assert answer.status_code == (404 if path in ("docs", "openapi.json") else 200)
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == ("private, max-age=3600" if path == "images/0" else "no-store")


def test_the_page_needs_no_network() -> None:
    for name, _ in server.FILES.values():
        text = (Path(server.__file__).parent / name).read_text()
        assert "http:" not in text
        assert "https:" not in text
        assert "//" not in text.replace("// ", "").replace('"//"', "")


def test_ports() -> None:
    with server.listen(0) as taken:
        address, port = taken.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(ValueError, match=rf"^port {port} of this machine is taken, perhaps by another page; end"):
            server.listen(port)
    with pytest.raises(ValueError, match=r"^port 70000 of this machine cannot be used"):
        server.listen(70000)


SERVE = """
import sys, time
from pathlib import Path
from data.console import CommandParser, run_command
from experiments.annotate import server
from experiments.annotate.session import Session
from experiments.annotate.answers.state import State
from tests.experiments.annotate.states import next_rounds

def body(args):
    state = State.open(Path(args.folder))
    with state.locked():
        following = next_rounds(state, int(args.size))
        if not state.rounds():
            following()
        if args.slow:
            following = lambda: time.sleep(100)
        return server.serve(Session(state, following), server.listen(0))

parser = CommandParser(prog="page", description="page")
parser.add_argument("folder")
parser.add_argument("size")
parser.add_argument("--slow", action="store_true")
parser.add_argument("--debug", action="store_true")
sys.exit(run_command(parser, body))
"""


class Running:
    """The page's server in a process of its own."""

    def __init__(self, folder: Path, size: int, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(folder), str(size), *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().rpartition(" ")[2].strip()

    def post(self, path: str, body: bytes) -> None:
        """Send JSON, as the page does."""
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30):
            pass

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal. Returns the exit code and what was printed on the error stream."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_page_with_everything_saved(number: int, tmp_path: Path) -> None:
    state = make_state(tmp_path, NAMES)
    running = Running(state.folder, 2)
    with urllib.request.urlopen(f"{running.url}state", timeout=30) as answer:
        assert b'"round":1' in answer.read()
    running.post("answers", b'[{"image": 0, "answer": "cat", "seconds": 1.5}]')
    code, errors = running.end(number)
    assert code == 130
    assert errors.splitlines()[-1] == (
        "round 1: 1 of 2 answered, 1 wanted, 1.5 s per label; the same command goes on from here"
    )
    assert [each.answer for each in state.labels().values()] == ["cat"]


def test_a_signal_does_not_wait_for_the_next_batch(tmp_path: Path) -> None:
    running = Running(make_state(tmp_path, NAMES).folder, 2, "--slow")
    running.post("next", b'{"after": 1}')
    code, errors = running.end(signal.SIGINT)  # within 30 s: the ranking takes 100
    assert code == 130
    assert errors.splitlines()[1:] == ["", "every answer is saved; the next batch was being ranked, and will be again"]
