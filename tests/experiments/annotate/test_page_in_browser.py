"""The annotation page in a real browser: keys, going back, a closed browser, a killed server; no answer is lost."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.annotate.answers.state import NONE, UNSURE, State
from tests.experiments import browser
from tests.experiments.annotate.states import CLASSES, make_state
from tests.experiments.annotate.test_server import Running
from tests.experiments.browser import ENTER, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser.is_there(), reason="Chromium and its driver are not installed"),
]

BACKSPACE, RIGHT = "\ue003", "\ue014"
KEYS = {"1": "cat", "2": "dog", "3": "horse", "0": NONE, "u": UNSURE}
NAMES = tuple(f"IMG <{number:03}>.jpg" for number in range(60))
FOLDED = "const item = items()[view.at]; return [view.mode, item && item.name, view.busy, $('photo').className === '']"


def until(condition: Callable[[], Any], what: str) -> Any:
    """The condition's value once it is true."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


class Page:
    """The annotation page, operated as a person does it."""

    def __init__(self, page: Browser, url: str) -> None:
        self._page = page
        page._send("POST", "/url", {"url": url})
        until(lambda: self.script("return view.data !== null"), "the first view")

    def script(self, text: str) -> Any:
        return self._page.run(text)

    def ready(self) -> list[Any]:
        """Mode and image, once the image is on the screen and nothing is being saved."""
        return until(self._ready, "the image")

    def _ready(self) -> list[Any] | None:
        mode, name, busy, shown = self.script(FOLDED)
        return [mode, name] if not busy and (shown or mode != "single") else None

    def press(self, key: str) -> list[Any]:
        """Press a key, and wait until the page is ready again. Returns mode and image."""
        self._page.press("body", key)
        return self.ready()

    def text(self, name: str) -> str:
        return str(self.script(f"return document.getElementById('{name}').textContent"))

    def console(self) -> list[str]:
        return self._page.console()


@pytest.fixture
def state(tmp_path: Path) -> State:
    return make_state(tmp_path, NAMES)


@pytest.fixture
def running(state: State) -> Iterator[Running]:
    server = Running(state.folder, 50)
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGINT)


def answers(state: State) -> dict[str, str]:
    """What is on disk, read anew."""
    return {image: each.answer for image, each in State.open(state.folder).labels().items()}


def test_fifty_images_by_keyboard_and_the_next_round(state: State, running: Running, tmp_path: Path) -> None:
    given: dict[str, str] = {}
    with browser.browser(tmp_path) as opened:
        page = Page(opened, running.url)
        for number in range(50):
            mode, name = page.ready()
            assert (mode, name) == ("single", NAMES[number])
            # On disk before the next image shows.
            assert answers(state) == given
            key = "123012u"[number % 7]
            page.press(key)
            given[name] = KEYS[key]
            if number == 20:  # back twice, another answer, and on from where it was
                assert page.press(BACKSPACE) == ["single", NAMES[20]]
                assert page.press(BACKSPACE) == ["single", NAMES[19]]
                assert answers(state) == given
                assert page.press("2") == ["single", NAMES[21]]
                given[NAMES[19]] = "dog"
        assert answers(state) == given
        assert page.script("return view.mode") == "done"
        wanted = sum(answer in CLASSES for answer in given.values())
        assert page.text("done-found") == (
            f"{wanted} of 50 show one of your classes. 4 were expected; of as many drawn at random, about 2 would."
        )
        # A key held down, or pressed on this screen, answers nothing.
        page.press("1")
        assert answers(state) == given
        assert page.press(ENTER) == ["single", NAMES[50]]
        assert page.text("count") == "0 of 10"
        assert page.console() == []
    seconds = [each.seconds for each in state.labels().values()]
    assert all(each is not None and 0 <= each < 60 for each in seconds)


def test_the_browser_is_closed_and_the_server_killed_in_the_middle(
    state: State, running: Running, tmp_path: Path
) -> None:
    given = {}
    with browser.browser(tmp_path / "first") as opened:
        page = Page(opened, running.url)
        for key in "12301":
            given[page.ready()[1]] = KEYS[key]
            page.press(key)
    with browser.browser(tmp_path / "second") as opened:  # another browser goes on where the first one was
        page = Page(opened, running.url)
        assert page.ready() == ["single", NAMES[5]]
        given[NAMES[5]] = UNSURE
        page.press("u")
        running.end(signal.SIGKILL)
        assert answers(state) == given
        opened.press("body", "1")
        until(lambda: not page.script("return view.busy || $('trouble').hidden"), "the complaint")
        assert page.text("trouble") == (
            "Not saved: the program that keeps the answers has ended. Start it again and open the address that it "
            "prints."
        )
        assert page.ready() == ["single", NAMES[6]]  # the image that has no answer is still there
    again = Running(state.folder, 50)
    with browser.browser(tmp_path / "third") as opened:
        page = Page(opened, again.url)
        assert page.ready() == ["single", NAMES[6]]
        assert page.text("count") == "6 of 50"
    again.end(signal.SIGINT)
    assert answers(state) == given


def test_many_alike_at_once(state: State, running: Running, tmp_path: Path) -> None:
    with browser.browser(tmp_path) as opened:
        page = Page(opened, running.url)
        page.ready()
        page.press("g")
        groups = page.script("return [...document.querySelectorAll('#groups button')].map((each) => each.textContent)")
        assert groups == ["cat 16", "dog 17", "horse 17"]
        opened.click(".tile:nth-child(2)")
        page.press(ENTER)
        cats = [name for number, name in enumerate(NAMES[:50], start=1) if number % 3 == 0]
        kept = {name: "cat" for name in cats if name != cats[1]}
        assert answers(state) == kept
        assert page.text("groups") == "cat 1dog 17horse 17"
        page.press(BACKSPACE)
        assert answers(state) == {}
        page.press("]")
        page.press("0")
        dogs = [name for number, name in enumerate(NAMES[:50], start=1) if number % 3 == 1]
        assert answers(state) == dict.fromkeys(dogs, NONE)
        page.press("g")
        assert page.ready() == ["single", NAMES[1]]
        assert page.press(RIGHT) == ["single", NAMES[2]]
        assert page.console() == []
    assert json.dumps(sorted(answers(state))) == json.dumps(sorted(dogs))
