"""The contact sheet: one file, in order, with reasons, and safe against what file names may hold."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path

from PIL import Image

from experiments.annotate.answers.state import Listing
from experiments.annotate.contact_sheet import write_contact_sheet
from tests.experiments.annotate.photos import suggestion
from tests.experiments.annotate.states import expected, make_state

EVIL = "<img src=x onerror=alert(1)>.jpg"
NAMES = ("a.jpg", EVIL, "c.png", "twin.jpg", "d.jpg")


def quiet(line: str) -> None:
    """No progress is reported for a few images."""
    raise AssertionError(line)


def test_the_sheet_of_a_round(tmp_path: Path) -> None:
    state = make_state(tmp_path, NAMES)
    damaged = {f"{number:03}<b>.jpg": "cut short" for number in range(60)}
    with state.locked():
        state.write_listing(Listing(images=tuple(sorted(NAMES)), damaged=damaged, copy_of={"twin.jpg": "a.jpg"}))
        picked = [suggestion(1, "c.png", copies=("twin.jpg",)), suggestion(2, EVIL)]
        state.write_round(1, picked, expected(5), unwanted=[suggestion(5, "d.jpg")], settings={"detector": "<mcm>"})
    (state.folder / "d.jpg").unlink()
    path = write_contact_sheet(state, 1, progress=quiet)
    assert path == state.round_folder(1) / "index.html"
    text = path.read_text()
    names = re.findall(r'class="name" title="([^"]*)"', text)
    assert names == ["c.png", "&lt;img src=x onerror=alert(1)&gt;.jpg", "d.jpg", "twin.jpg"]
    assert text.count("<img ") == 3
    assert text.count("cannot be read</div>") == 1
    pictures = [Image.open(io.BytesIO(base64.b64decode(each))) for each in re.findall(r"base64,([^\"]+)\"", text)]
    assert [picture.size for picture in pictures] == [(18, 12), (16, 12), (20, 12)]
    assert text.count('class="border"') == 1
    assert "<b>border case</b> probably a cat, rank 5</p>" in text
    assert "wanted 99%, cat 50%, near-copies: 1</p>" in text
    assert "looks like a.jpg" in text
    assert "60 files cannot be read; the first 50." in text
    assert "<td>&lt;mcm&gt;</td>" in text
    assert "(8 to 12) of the 5 images" in text
    # One file without a network: nothing is loaded, and the style alone is allowed, by its hash.
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src &#39;none&#39;; img-src data:; style-src &#39;sha256-{digest}&#39;" in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
