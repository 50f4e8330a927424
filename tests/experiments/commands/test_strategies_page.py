"""The page of strategies is what `make docs` would write now, and leaves none out."""

from __future__ import annotations

import re

from experiments.commands.strategies_page import PAGE, page
from strategies.registry import STRATEGIES


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "docs/strategies.md is not current: run `make docs`"


def test_every_strategy_is_on_it_with_its_departures() -> None:
    text = page()
    for name in STRATEGIES:
        assert f"`{name}`" in text
    sections = [each for each in re.split(r"^## ", text, flags=re.MULTILINE) if each.startswith("`")]
    departures = {section.split("`")[1]: section.split("| departures | ")[1].split(" |")[0] for section in sections}
    assert "none" not in departures.values()
    assert "near random" in departures["coreset"]
