"""docs/results.md is what its script would write now of the CSV files beside it."""

from __future__ import annotations

import pandas as pd

from experiments.commands.results_page import DETECTION, DOCS, OPENSET, PICTURE, TRIALS, page


def test_the_page_is_current() -> None:
    stages, trials, openset = (
        pd.read_csv(path).rename(columns={"strategy": "arm"}) for path in (DETECTION, TRIALS, OPENSET)
    )
    written = (DOCS / "results.md").read_text()
    current = page(stages, trials, openset)
    assert written == current, "docs/results.md is not current: run experiments/commands/results_page.py"
    assert PICTURE.is_file()
    assert "results/auroc.png" in written
