"""Draws docs/annotate.png, a picture of the annotation page over drawn images: `python FILE`. Needs Chromium."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
from PIL import Image

from data.console import CommandParser, run_command
from data.drawings import MANNERS, SHAPES
from data.files import write_bytes_atomically
from experiments.annotate import server
from experiments.annotate.answers.state import NONE, Expected, Label, Listing, State, Suggestion, now
from experiments.annotate.session import Session

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "annotate.png"
CLASSES = ("circle", "house", "moon", "star")
WINDOW = 1080, 720
NUM_IMAGES, NUM_ANSWERED = 50, 17
COLOURS = 96
"""Size of the picture's palette, which makes it about 60 kB."""


def draw_photos(folder: Path) -> list[str]:
    """Draw images. Returns their names, in the order of a round."""
    generator, names = np.random.default_rng(4), []
    (folder / "2026").mkdir(parents=True)
    for number in range(NUM_IMAGES):
        names.append(f"2026/IMG_{number:04}.png")
        MANNERS[("sketch", "clipart", "real")[number % 3]](SHAPES[_shape(number)], generator).save(folder / names[-1])
    return names


def _shape(number: int) -> str:
    """What an image shows."""
    return "ladder" if number % 8 == 6 else CLASSES[number % len(CLASSES)]


def _answer(number: int) -> str:
    return _shape(number) if _shape(number) in CLASSES else NONE


def _suggested(rank: int, name: str, nearest: str) -> Suggestion:
    shape = _shape(rank - 1)
    wanted = shape in CLASSES
    guess = shape if wanted else CLASSES[0]
    return Suggestion(
        rank=rank, image=name, wanted=0.94 if wanted else 0.31, predicted=guess, predicted_probability=0.86,
        informativeness=0.4, nearest_labelled=nearest, copies=(),
        reason=f"probably a {guess} (86 %), drawn unlike those labelled so far", border=rank % 5 == 0,
    )  # fmt: skip


@contextmanager
def running_page(root: Path) -> Iterator[str]:
    """The address of a page in whose round some images are answered."""
    names = draw_photos(root / "photos")
    state = State.open(root / "photos", CLASSES)
    with state.locked():
        state.write_listing(Listing(images=tuple(sorted(names)), damaged={}, copy_of={}))
        answered = names[:NUM_ANSWERED]
        state.record(
            Label(image=name, answer=_answer(number), source="page", time=now(), seconds=1.4)
            for number, name in enumerate(answered)
        )
        suggestions = [
            _suggested(rank, name, answered[(rank - 1) % len(CLASSES)]) for rank, name in enumerate(names, start=1)
        ]
        expected = Expected(wanted=44, at_random=20, folder=790, low=700, high=880, num_images=2000)
        state.write_round(1, suggestions, expected)
        served, listener = server.make_server(Session(state, lambda: 1), "demo"), server.listen(0)
        thread = threading.Thread(target=served.run, args=([listener],))
        thread.start()
        try:
            while not served.started:
                time.sleep(0.05)
            yield f"http://{server.HOST}:{listener.getsockname()[1]}/demo/"
        finally:
            served.should_exit = True
            thread.join()


def take_picture(address: str, root: Path) -> bytes:
    """A PNG of the page in a small palette. Raises ValueError without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise ValueError("the picture needs Chromium, which is not installed")
    words = [
        "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={root / 'profile'}",
        "--window-size={},{}".format(*WINDOW), "--virtual-time-budget=4000", f"--screenshot={root / 'page.png'}",
    ]  # fmt: skip
    subprocess.run([chromium, *words, address], check=True, capture_output=True, timeout=120)
    content = io.BytesIO()
    with Image.open(root / "page.png") as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return content.getvalue()


def main() -> int:
    """Draw the picture into docs/, and return the exit code."""
    parser = CommandParser(prog="annotate_picture.py", description="Draw docs/annotate.png.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def body(_: object) -> int:
        with tempfile.TemporaryDirectory() as name, running_page(Path(name)) as address:
            content = take_picture(address, Path(name))
        write_bytes_atomically(PICTURE, content)
        print(f"{PICTURE} ({len(content) // 1000} kB)")
        return 0

    return run_command(parser, body)


if __name__ == "__main__":
    sys.exit(main())
