"""The page: well-formed, by itself, safe against what users write; and in a real browser, it works."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.pages.files import write_report, write_running_page
from experiments.pages.html import empty_line, is_empty
from experiments.results.details import details_of
from experiments.results.frames import rounds_frame, trials_frame
from experiments.results.paper import paper_table4
from experiments.results.queries import QueriedImages, Queries
from experiments.tables.table import Cell, Row, Table
from experiments.tables.table4 import table4_tables
from tests.experiments import browser, synthetic
from tests.experiments.synthetic import read_frame

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)> & \"q\" |"
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Outline(HTMLParser):
    """Checks that every element is closed in order; keeps tags with their attributes, and texts by element."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


STRATEGIES = ("random", "ll", "eoal", "vlpure")


def write_page(folder: Path) -> Path:
    """The page of a grid with a failed, a missing and an unfinished trial, and with names that are code."""
    trials = synthetic.grid(
        seeds=range(3), conditions=synthetic.CONDITIONS[:2], strategies=STRATEGIES, recipe={"name": "cpu"}, rounds=4
    )
    failed, missing, unfinished = trials[-1], trials[-2], trials[-3]
    done = [trial for trial in trials if trial not in (failed, missing, unfinished)]
    ledger = synthetic.write_ledger(folder / "ledger", done)
    ledger.fail(synthetic.fingerprint(failed), failed.model_dump(mode="json"), EVIL)
    for record in synthetic.records_of(unfinished)[:2]:
        ledger.append(synthetic.fingerprint(unfinished), unfinished.model_dump(mode="json"), record)
    planned = synthetic.plan(trials, ledger)
    frames = trials_frame(planned), rounds_frame(planned)
    details = details_of(planned)
    for frame in frames:
        frame["arm"] = frame["arm"].replace("ll", EVIL)
    broken = details[synthetic.fingerprint(trials[0])]
    details[synthetic.fingerprint(trials[0])] = replace(broken, command=f"python {EVIL}")
    files = write_report(
        folder / "report",
        name="table4",
        title=EVIL,
        tables=table4_tables(frames[0]),
        trials=frames[0],
        rounds=frames[1],
        notes=(EVIL,),
        details=details,
        paper={"aubc_paper": paper_table4()},
        queries=queries_of_first(synthetic.fingerprint(trials[3]), synthetic.fingerprint(trials[0])),
    )
    return files.page


def queries_of_first(shown: str, other: str) -> Queries:
    """Three images of one query of a trial, the second OOD; and a reason why another has none."""
    pixels = np.full((3, 8, 8, 3), 200, dtype=np.uint8)
    query = QueriedImages(
        round=1, num_queried=500, pixels_QSS3=pixels, is_ood=(False, True, False), purity=(0.5, -0.25, 0.0)
    )
    return Queries(by_fingerprint={shown: (query,)}, reasons={other: "it was not at hand"})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page."""
    return write_page(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def outline(page: Path) -> Outline:
    """The page's elements."""
    parsed = Outline()
    parsed.feed(page.read_text())
    parsed.close()
    assert parsed.open == []
    return parsed


def test_the_page_needs_nothing_else(outline: Outline, page: Path) -> None:
    addresses = [
        value
        for _, attributes in outline.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data") and value is not None
    ]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    text = page.read_text()
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    outside = re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]{2,}[^\s\"']*", text)
    assert set(outside) <= {"http://www.w3.org/2000/svg"}  # the name of SVG's elements, which nobody loads


def test_what_users_write_is_only_text(outline: Outline) -> None:
    scripts = [attributes for tag, attributes in outline.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert not [attributes for _, attributes in outline.elements if any(name.startswith("on") for name in attributes)]
    assert outline.texts["h1"] == [EVIL]
    assert EVIL in "".join(outline.texts["th"])
    assert [attributes for tag, attributes in outline.elements if tag == "img" and attributes["src"] == "x"] == []


def test_the_policy_lets_the_pages_own_style_and_script_run_and_nothing_else(outline: Outline) -> None:
    policy = next(
        attributes["content"]
        for tag, attributes in outline.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    hashes = {
        element: base64.b64encode(hashlib.sha256(outline.texts[element][-1].encode()).digest()).decode()
        for element in ("style", "script")
    }
    assert policy == (
        f"default-src 'none'; img-src data: 'self'; style-src 'sha256-{hashes['style']}'; "
        f"script-src 'sha256-{hashes['script']}'; base-uri 'none'; form-action 'none'"
    )


def data_of(outline: Outline) -> list[dict[str, Any]]:
    """What the page's script reads."""
    cells: list[dict[str, Any]] = json.loads(outline.texts["script"][0])["cells"]
    return cells


def test_a_cells_trials_are_all_there(outline: Outline) -> None:
    cells = data_of(outline)
    assert len(cells) == 2 * len(STRATEGIES)
    assert cells[0]["title"] == "cifar10, mismatch 20 %, OOD 20 %: RANDOM"
    first = cells[0]["trials"][0]
    assert first["command"] == f"python {EVIL}"
    assert (first["seed"], first["status"], first["rounds"], first["precision"][0]) == (
        0,
        "finished",
        [0, 1, 2, 3],
        None,
    )
    records = synthetic.records_of(synthetic.grid(recipe={"name": "cpu"}, rounds=4)[0])
    assert first["accuracy"] == [round(record.accuracy, 6) for record in records]
    assert cells[0]["trials"][1]["command"] == (
        "python experiments/trial.py --dataset cifar10 --mismatch-ratio 0.2 --ood-ratio 0.2 --strategy random --seed 1 "
        "--preset cpu --rounds 4"
    )
    statuses = [trial["status"] for cell in cells[-3:] for trial in cell["trials"]]
    assert statuses == [*["finished"] * 2, "unfinished", *["finished"] * 2, "missing", *["finished"] * 2, "failed"]
    assert cells[-1]["trials"][-1]["error"] == EVIL


def test_every_value_of_the_grid_opens_its_cell(outline: Outline) -> None:
    buttons = [int(attributes["data-cell"] or "") for _, attributes in outline.elements if "data-cell" in attributes]
    assert set(buttons) == set(range(2 * len(STRATEGIES)))


def test_it_begins_with_what_came_out_and_what_the_words_mean(outline: Outline, page: Path) -> None:
    text = page.read_text()
    first = text[text.index('<section class="findings"') : text.index("<nav")]
    assert "cifar10</b>: so far, with 21 of 24 trials finished: over 1 finished condition, VLPure-AL" in first
    assert "<summary>cifar10, each of 2 conditions</summary>" in first
    assert first.count("<li>") == 2 + 2
    assert "AUBC is the area under test accuracy" in first


def test_statistics_are_folded_and_results_are_not(page: Path) -> None:
    text = page.read_text()
    folded = re.findall(r"<details><summary><h2>([^<]*)</h2>", text)
    assert folded == [
        "Differences paired by seed", "All conditions together", "What it costs", "What these numbers are",
    ]  # fmt: skip
    assert "<h2>Results</h2>" in text


def test_an_empty_cell_is_a_dot_explained_in_one_line_below() -> None:
    cells = tuple(Cell(text=text) for text in ("12.30 ± 0.10", "missing (0 of 3 seeds)", "not planned", "not planned"))
    table = Table(title="t", corner="c", columns=tuple("abcd"), rows=(Row(label="r", cells=cells),))
    assert [is_empty(cell.text) for cell in cells] == [False, True, True, True]
    assert empty_line(table) == "missing, no seed is finished (1), not planned (2)"
    assert empty_line(replace(table, rows=(Row(label="r", cells=(cells[0],) * 4),))) == ""
    assert not is_empty("71.00 ± 12.71 (2 of 3 seeds)")
    assert is_empty("-")
    assert not is_empty("-3.00 ± 0.10")


def test_curves_are_drawn_in_the_page_with_the_papers_names(outline: Outline) -> None:
    lines = [attributes for tag, attributes in outline.elements if tag == "polyline"]
    assert len(lines) == len(STRATEGIES) * (1 + 2 * 2)  # a sample in the legend, and two quantities of two conditions
    legend = [text for text in outline.texts["li"] if text in ("RANDOM", "EOAL", "VLPure-AL")]
    assert legend[:3] == ["RANDOM", "EOAL", "VLPure-AL"]


def test_tables_and_pictures_can_be_read_aloud(outline: Outline) -> None:
    tables = sum(tag == "table" for tag, _ in outline.elements)
    assert tables == sum(tag == "caption" for tag, _ in outline.elements) > 5
    assert all(attributes.get("alt") for tag, attributes in outline.elements if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in outline.elements if tag == "th")
    assert ("html", {"lang": "en"}) in outline.elements


def test_an_empty_grid_has_a_page(tmp_path: Path) -> None:
    trials = read_frame(Path(__file__).parents[2] / "golden" / "reporting" / "trials.csv").iloc[:0]
    rounds = read_frame(Path(__file__).parents[2] / "golden" / "reporting" / "rounds.csv").iloc[:0]
    files = write_report(tmp_path, name="t", title="T", tables=[], trials=trials, rounds=rounds)
    parsed = Outline()
    parsed.feed(files.page.read_text())
    assert "0 of 0 trials finished" in parsed.texts["p"][0]


@pytest.fixture(scope="module")
def opened(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """A browser that shows the page."""
    with browser.browser(tmp_path_factory.mktemp("profile")) as started:
        started.open(page)
        yield started


needs_browser = pytest.mark.skipif(not browser.is_there(), reason="chromium and chromedriver are not installed")


@needs_browser
class TestInABrowser:
    """One browser for all, in the order of a reader."""

    def test_it_loads_without_a_complaint(self, opened: browser.Browser) -> None:
        assert opened.console() == []
        widths = opened.run("return [...document.images].map((image) => image.complete ? image.naturalWidth : 0)")
        assert len(widths) >= 1
        assert min(widths) > 100
        wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert opened.run(wider) == 0  # wide tables scroll by themselves

    def test_a_click_on_a_cell_shows_its_trials_and_a_command(self, opened: browser.Browser) -> None:
        opened.click("button[data-cell='3']")
        assert opened.run("return document.querySelector('dialog').open")
        assert opened.run("return document.querySelector('#trials-title').textContent") == (
            "cifar10, mismatch 20 %, OOD 20 %: VLPure-AL"
        )
        rows = opened.run(
            "return [...document.querySelectorAll('dialog tbody tr')].map((row) => row.cells[0].textContent)"
        )
        assert rows == ["0", "1", "2"]
        assert opened.run("return document.querySelectorAll('dialog svg path.seed').length") == 6
        opened.click("dialog tbody tr:nth-child(3) .pick")
        command = opened.run("return document.querySelector('dialog code').textContent")
        assert command.endswith("--ood-ratio 0.2 --strategy vlpure --seed 2 --preset cpu --rounds 4")
        assert opened.run("return document.activeElement.textContent") == "2"  # the keyboard stays where it was
        opened.press("dialog .close", browser.ESCAPE)
        assert not opened.run("return document.querySelector('dialog').open")

    def test_a_trial_shows_what_it_asked_for_with_ood_images_framed(self, opened: browser.Browser) -> None:
        opened.click("button[data-cell='3']")
        tiles = (
            "return [...document.querySelectorAll('dialog .query')].map((each) => [each.className, each.textContent])"
        )
        assert opened.run(tiles) == [["query", "0.50"], ["query ood", "-0.25"], ["query", "0.00"]]
        assert opened.run("return document.querySelector('dialog .queries p').textContent").endswith(", first 3")
        frame = "return getComputedStyle(document.querySelector('dialog .query.ood')).borderTopColor"
        assert opened.run(frame) == "rgb(154, 52, 18)"
        opened.click("dialog .close")
        opened.click("button[data-cell='0']")
        shown = "return [...document.querySelectorAll('dialog p')].map((each) => each.textContent)"
        assert "The queried images are not shown: it was not at hand." in opened.run(shown)
        opened.click("dialog .close")

    def test_on_a_phone_nothing_but_tables_is_wider_than_the_page(self, opened: browser.Browser) -> None:
        opened.resize(360, 800)
        assert opened.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        opened.click("button[data-cell='3']")
        assert opened.run("const d = document.querySelector('dialog'); return d.scrollWidth - d.clientWidth") == 0
        opened.click("dialog .close")
        opened.resize(None)

    def test_a_link_opens_what_is_folded(self, opened: browser.Browser) -> None:
        assert not opened.run("return document.querySelector('#facts > details').open")
        opened.click("nav a[href='#facts']")
        assert opened.run("return document.querySelector('#facts > details').open")

    def test_the_keyboard_opens_a_failed_trial_with_its_error(self, opened: browser.Browser) -> None:
        opened.press("button[data-cell='7']", browser.ENTER)
        opened.click("dialog tbody tr:nth-child(3) .pick")
        assert opened.run("return document.querySelector('dialog .error').textContent") == EVIL
        opened.click("dialog .close")
        assert not opened.run("return document.querySelector('dialog').open")

    def test_a_head_sorts_down_up_and_back(self, opened: browser.Browser) -> None:
        column = "return [...document.querySelector('table').tBodies[0].rows].map((row) => row.cells[2].textContent)"
        number = re.compile(r"\d+\.\d+")
        before = opened.run(column)
        head = "main table thead th:nth-child(3) button"
        orders = []
        for _ in range(3):
            opened.click(head)
            orders.append(opened.run(column))
        values = [float(number.search(text)[0]) for text in orders[0]]  # type: ignore[index]
        assert values == sorted(values, reverse=True)
        assert orders[1] == orders[0][::-1]
        assert orders[2] == before
        assert opened.run("return document.querySelector('main th:nth-child(3)').getAttribute('aria-sort')") == "none"

    def test_dark_and_print_are_readable(self, opened: browser.Browser) -> None:
        colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        opened.emulate(dark=True)
        assert opened.run(colours) == ["rgb(230, 233, 238)", "rgb(20, 23, 27)"]
        opened.emulate(print_=True)
        assert opened.run(colours) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
        assert opened.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
        opened.emulate()

    def test_nothing_was_complained_about_in_the_end(self, opened: browser.Browser) -> None:
        assert opened.console() == []

    def test_a_script_that_is_not_the_pages_does_not_run(self, opened: browser.Browser) -> None:
        added = (
            "const s = document.createElement('script'); s.textContent = 'window.evil = 1'; document.body.append(s);"
        )
        assert opened.run(f"{added} return window.evil === undefined")
        assert "Content Security Policy" in opened.console()[0]


def test_the_page_of_a_running_grid_loads_itself_again(tmp_path: Path) -> None:
    trials = synthetic.grid(seeds=range(1), conditions=synthetic.CONDITIONS[:1], strategies=("random", "vlpure"))
    planned = synthetic.plan(trials, synthetic.write_ledger(tmp_path / "ledger", trials[:1]))
    frames = {"trials": trials_frame(planned), "rounds": rounds_frame(planned)}
    parts: dict[str, Any] = {"title": "t", "tables": table4_tables(frames["trials"]), **frames}
    path = tmp_path / "page" / "index.html"
    write_running_page(path, **parts, notes=(), details=details_of(planned), paper={})
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
    page = path.read_text()
    Outline().feed(page)
    assert '<body data-reload="15">' in page
    assert "1 of 2 trials finished" in page
    write_report(path.parent, name="t", **parts)
    assert "data-reload" not in path.read_text()
    assert "The grid is running" not in path.read_text()
