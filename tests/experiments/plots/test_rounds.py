"""What Figures 7 to 11 show of hand-made rounds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pytest

from experiments.plots.canvas import NothingToDraw
from experiments.plots.rounds import caption, round_pages
from experiments.results.statistics import Condition

Frames = tuple[pd.DataFrame, pd.DataFrame]
CELL = ("dataset", "mismatch_ratio", "ood_ratio", "arm")


def frames(*cells: tuple[str, float, float, str, Sequence[Sequence[float]]], rounds: int = 3) -> Frames:
    """Frames `trials` and `rounds` of cells: data set, ratios, arm and the accuracies of each seed.

    The precision of a seed is 0.1 above the accuracy of the same round; a seed without accuracies was planned only.
    """
    trials, rows = [], []
    for dataset, mismatch, ood, arm, seeds in cells:
        for seed, accuracies in enumerate(seeds):
            cell = dict(zip(CELL, (dataset, mismatch, ood, arm), strict=True)) | {"seed": seed}
            trials.append(cell | {"status": "finished" if len(accuracies) == rounds else "unfinished"})
            rows += [
                cell | {"round": number, "accuracy": value, "precision": value + 0.1 if number else None}
                for number, value in enumerate(accuracies)
            ]
    columns = [*CELL, "seed", "round", "accuracy", "precision"]
    return pd.DataFrame(trials), pd.DataFrame(rows, columns=columns).astype({"precision": float})


GRID = (
    ("digits", 0.2, 0.2, "random", [[0.4, 0.5, 0.6], [0.5, 0.6, 0.7]]),
    ("digits", 0.2, 0.6, "random", [[0.3, 0.4, 0.5], [0.3, 0.4, 0.7]]),
    ("digits", 0.2, 0.6, "vlpure", [[0.3, 0.6, 0.8], []]),
    ("digits", 0.4, 0.6, "random", [[0.2, 0.3, 0.4], [0.4, 0.5, 0.6]]),
    ("digits", 0.2, 0.0, "full-data", [[0.9], [0.95]]),
    ("digits", 0.2, 0.0, "id-only", [[0.4, 0.7, 0.9], [0.4, 0.7, 0.7]]),
)


def test_a_page_a_mismatch_ratio_and_a_column_an_ood_ratio() -> None:
    pages = round_pages(8, *frames(*GRID))
    assert [page.name for page in pages] == ["figure8-mismatch-20", "figure8-mismatch-40"]
    first, second = pages
    assert first.column_titles == ("OOD 20 %", "OOD 60 %")
    assert second.column_titles == ("OOD 60 %",)
    assert [panel.condition for panel in first.panels] == [Condition("digits", 0.2, 0.2), Condition("digits", 0.2, 0.6)]
    curve = first.panels[1].curves["random"]
    assert curve.rounds == (0, 1, 2)
    assert [value.mean for value in curve.estimates] == pytest.approx([0.3, 0.4, 0.6])
    # sd 0.1 sqrt(2): 12.706205 * 0.1 sqrt(2) / sqrt(2)
    assert curve.estimates[2].half_width == pytest.approx(1.2706205, abs=1e-6)


def test_figure_9_turns_the_ratios_round() -> None:
    pages = round_pages(9, *frames(*GRID))
    assert [page.name for page in pages] == ["figure9-ood-20", "figure9-ood-60"]
    assert pages[1].column_titles == ("mismatch 20 %", "mismatch 40 %")
    assert [value.mean for value in pages[1].panels[1].curves["random"].estimates] == pytest.approx([0.3, 0.4, 0.5])
    assert [panel.dashed for panel in pages[1].panels] == [pytest.approx(0.925), None]


def test_the_dashed_line_of_accuracy_is_the_mean_of_full_data_and_of_precision_one_minus_the_ood_ratio() -> None:
    assert [panel.dashed for panel in round_pages(8, *frames(*GRID))[0].panels] == pytest.approx([0.925, 0.925])
    longer = round_pages(8, *frames(*GRID[:3], ("digits", 0.2, 0.0, "full-data", [[0.5, 0.7, 0.9]])))[0]
    assert [panel.dashed for panel in longer.panels] == pytest.approx([0.9, 0.9])  # its last round
    precision = round_pages(7, *frames(*GRID))[0]
    assert [panel.dashed for panel in precision.panels] == pytest.approx([0.8, 0.4])
    curve = precision.panels[1].curves["vlpure"]
    assert curve.rounds == (1, 2)
    assert [value.mean for value in curve.estimates] == pytest.approx([0.7, 0.9])


def test_only_figure_10_has_the_id_only_curve_and_it_stands_in_every_panel() -> None:
    figure8, figure10 = (round_pages(number, *frames(*GRID)) for number in (8, 10))
    assert figure8[0].arms == ["random", "vlpure"]
    assert figure10[0].arms == ["random", "vlpure", "id-only"]
    for panel in figure10[0].panels:
        assert [value.mean for value in panel.curves["id-only"].estimates] == pytest.approx([0.4, 0.7, 0.8])
    assert "id-only" not in figure10[1].arms


def test_figure_11_has_precision_above_accuracy() -> None:
    (page,) = round_pages(
        11, *frames(*GRID[2:3], ("digits", 0.2, 0.6, "vlpure-no-visual", [[0.3, 0.5, 0.6], [0.3, 0.5, 0.8]]))
    )
    assert [panel.quantity for panel in page.panels] == ["precision", "accuracy"]
    assert [panel.dashed for panel in page.panels] == [pytest.approx(0.4), None]
    assert [value.mean for value in page.panels[1].curves["vlpure-no-visual"].estimates] == pytest.approx(
        [0.3, 0.5, 0.7]
    )


def test_what_is_missing_is_named_and_not_drawn() -> None:
    trials, rounds = frames(*GRID, ("digits", 0.2, 0.2, "vlpure", [[], []]))
    first, second = round_pages(10, trials, rounds)
    assert first.notes == (
        "Incomplete: digits mismatch 20 %, OOD 60 %, vlpure (1 of 2 seeds)",
        "Missing: digits mismatch 20 %, OOD 20 %, vlpure (0 of 2 seeds)",
    )
    assert "vlpure" not in first.panels[0].curves
    assert second.notes == (
        "Missing: full-data, so no dashed line for digits mismatch 40 %",
        "Missing: id-only, so no such curve for digits mismatch 40 %",
    )
    assert all(note in caption(second, "runs/demo") for note in second.notes)


def test_a_reference_that_lacks_seeds_is_named_where_it_is_shown() -> None:
    cells = frames(*GRID[:2], *GRID[3:4], ("digits", 0.2, 0.0, "id-only", [[0.4, 0.7, 0.9], []]), GRID[4])
    first, second = round_pages(10, *cells)
    assert first.notes == ("Incomplete: digits mismatch 20 %, OOD 0 %, id-only (1 of 2 seeds)",)
    assert not any("Incomplete" in note for note in second.notes)
    assert round_pages(8, *cells)[0].notes == ()


def test_a_condition_that_a_data_set_lacks_is_a_hole() -> None:
    (page,) = round_pages(
        7,
        *frames(GRID[0], GRID[1], ("cifar10", 0.2, 0.6, "random", [[0.1, 0.2, 0.3]])),
    )
    assert [[panel is not None for panel in row] for row in page.rows] == [[True, True], [False, True]]


def test_a_data_set_without_ratios_has_a_page_without_them() -> None:
    (page,) = round_pages(7, *frames(("domainnet-real", 0.5, 0.5, "random", [[0.1, 0.2, 0.3]])))
    assert page.name == "figure7-domains"
    assert page.column_titles == ("",)
    assert page.panels[0].dashed is None
    assert page.title == "Figure 7. Precision of the queries over the rounds, one domain against all others"


def test_the_caption_says_what_is_shown_of_how_many_seeds_and_of_which_run() -> None:
    page = round_pages(10, *frames(*GRID))[0]
    assert caption(page, "demo, grid 12") == (
        "Figure 10. Test accuracy beside that of a pool without OOD images over the rounds, mismatch ratio 20 %. "
        "Lines: mean over 1 to 2 seeds; no bands: drawn from 3 seeds up. Dashed, accuracy: the classifier trained on "
        "all ID images (full-data). id-only: the pool without OOD images, queried by conf. Incomplete: digits mismatch "
        "20 %, OOD 60 %, vlpure (1 of 2 seeds). Run: demo, grid 12.\n"
    )


@pytest.mark.parametrize("number", [7, 8, 9, 10, 11])
def test_without_a_round_there_is_nothing_to_draw(number: int) -> None:
    trials, rounds = frames(("digits", 0.2, 0.2, "random", [[], []]), ("digits", 0.2, 0.0, "full-data", [[0.9], [0.9]]))
    with pytest.raises(NothingToDraw, match=f"figure {number}: there is no finished round"):
        round_pages(number, trials, rounds)
