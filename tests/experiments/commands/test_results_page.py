"""docs/results.md is what its script would write now of the CSV files beside it."""

from __future__ import annotations

import pandas as pd

from experiments.commands.results_page import DETECTION, DOCS, FEWER_SEEDS, OPENSET, PICTURE, TRIALS, page


def test_the_page_is_current() -> None:
    stages, trials, openset = (
        pd.read_csv(path).rename(columns={"strategy": "arm"}) for path in (DETECTION, TRIALS, OPENSET)
    )
    written = (DOCS / "results.md").read_text()
    current = page(stages, trials, openset)
    assert written == current, "docs/results.md is not current: run experiments/commands/results_page.py"
    assert PICTURE.is_file()
    assert "results/auroc.png" in written


def test_fewer_seeds_are_told_only_if_some_row_of_a_table_has_fewer_than_another() -> None:
    stages = pd.read_csv(DETECTION).rename(columns={"strategy": "arm"})
    stages = stages[(stages["mismatch_ratio"] == 0.2) & stages["arm"].isin(["vlpure-mcm", "vlpure-knn"])]
    assert FEWER_SEEDS not in page(stages[stages["seed"] < 2], None, None)
    one_fewer = stages[(stages["seed"] < 2) & ((stages["seed"] < 1) | (stages["arm"] == "vlpure-knn"))]
    assert FEWER_SEEDS in page(one_fewer, None, None)
