"""Table 9's numbers: where one detector crosses another, and means over seeds."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from experiments.plots.detection import draw_detection
from experiments.results.detection import crossing_place, crossings, stage_estimates
from experiments.results.statistics import CellKey
from experiments.tables.table9 import PROBE_ROW, ROWS, TEXT_ROW, row_label, table9_tables

PLACES = [0.0, 1.0, 3.0]


def stages(aurocs: dict[tuple[str, int], list[float]]) -> pd.DataFrame:
    """(arm, seed) -> AUROC at 0, 20 and 60 labels."""
    return pd.DataFrame(
        [
            {
                "dataset": "ten", "mismatch_ratio": 0.4, "ood_ratio": 0.6, "arm": arm, "seed": seed,
                "labels": labels, "auroc": auroc, "balanced_accuracy": auroc / 2,
            }
            for (arm, seed), values in aurocs.items()
            for labels, auroc in zip((0, 20, 60), values, strict=False)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lead", "place"),
    [
        ([-0.2, 0.2, 0.3], 0.5),
        ([-0.2, -0.1, 0.3], 1.5),
        ([-0.2, 0.1, 0.0], None),  # not ahead at the end
        ([0.1, -0.1, 0.1], 2.0),  # for good
        ([0.1, 0.1, 0.1], None),  # always
        ([0.0, 0.1, 0.1], 0.0),
    ],
)
def test_where_a_lead_begins_for_good(lead: list[float], place: float | None) -> None:
    assert crossing_place(PLACES, lead) == (None if place is None else pytest.approx(place))


def test_the_crossing_is_paired_by_seed() -> None:
    frame = stages(
        {
            (TEXT_ROW, 0): [0.8, 0.8, 0.8], (PROBE_ROW, 0): [0.5, 0.7, 0.9],
            (TEXT_ROW, 1): [0.7, 0.7, 0.7], (PROBE_ROW, 1): [0.5, 0.6, 0.8],
            (TEXT_ROW, 2): [0.7, 0.7, 0.7], (PROBE_ROW, 2): [0.5, 0.6, 0.7],
            (TEXT_ROW, 3): [0.3, 0.3, 0.3], (PROBE_ROW, 3): [0.5, 0.6, 0.7],
        }
    )  # fmt: skip
    (found,) = crossings(frame, ahead=PROBE_ROW, of=TEXT_ROW)
    halfway = (math.log(21) + math.log(61)) / 2  # in seeds 0 and 1
    assert (found.labels.num_seeds, found.labels.num_planned) == (2, 4)
    assert found.labels.mean == pytest.approx(halfway)
    assert found.labels.half_width == pytest.approx(0, abs=1e-9)
    assert (found.num_always, found.num_never) == (1, 1)
    value = f"{math.exp(halfway) - 1:.3g}"
    text = f"{value} ({value} to {value}), ahead from the start in 1, never ahead for good in 1 of 4 seeds"
    assert found.text() == text


def test_the_tables_have_a_column_per_stage_and_a_row_per_detector() -> None:
    frame = stages({(TEXT_ROW, 0): [0.8, 0.8, 0.8], (TEXT_ROW, 1): [0.6, 0.8], (PROBE_ROW, 0): [0.5, 0.7, 0.9]})
    tables = table9_tables(frame)
    assert [table.title for table in tables] == [
        "ten 40 % / 60 %: AUROC",
        "ten 40 % / 60 %: balanced accuracy of the decision",
        "AUROC minus that of atd, paired by seed, percentage points",
        "Labels from which on probe has the higher AUROC than atd",
    ]
    assert tables[0].columns == ("0 labels", "20 labels", "60 labels")
    assert [row.label for row in tables[0].rows] == ["atd", "probe"]
    assert tables[0].rows[0].cells[0].text.startswith("70.00 ± ")
    assert tables[0].rows[0].cells[2].text == "80.00 ± ? (1 of 2 seeds)"
    assert tables[2].rows[0].cells[2].text == "+10.00 ± ?"
    estimates = stage_estimates(frame, "auroc")
    assert estimates[CellKey("ten", 0.4, 0.6, TEXT_ROW), 60].num_planned == 2
    assert table9_tables(frame.iloc[:0]) == []


def test_the_picture_has_a_panel_a_condition_and_a_line_a_detector() -> None:
    frame = stages({(TEXT_ROW, 0): [0.8, 0.8, 0.8], (PROBE_ROW, 0): [0.5, 0.7, 0.9]})
    figure = draw_detection(pd.concat([frame, frame.assign(mismatch_ratio=0.2)]))
    assert len(figure.axes) == 2
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines[:2]] == [[0.8, 0.8, 0.8], [0.5, 0.7, 0.9]]
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 21, 61]
    with pytest.raises(ValueError, match="no stage"):
        draw_detection(frame.iloc[:0])


def test_every_row_is_an_arm() -> None:
    from experiments.presets import ARMS

    assert set(ROWS) - {"vlpure"} <= set(ARMS)
    assert row_label("vlpure-probe") == "probe"
    assert row_label("mine") == "mine"


def test_each_arm_is_told_from_the_others_by_its_settings() -> None:
    from experiments.presets import ARMS
    from experiments.results.from_ledgers import row_names
    from orchestrator.plan import PlannedTrial
    from orchestrator.settings.reading import make_trial

    clipn = {"captioner": "a-tag"}  # of zoc; the others read none
    axes = {"dataset": "digits", "mismatch_ratio": 0.4, "ood_ratio": 0.6, "seed": 0, "clipn": clipn}
    arms = [arm for arm in ROWS if arm != "vlpure"]
    planned = [
        PlannedTrial(trial=make_trial(**axes, **ARMS[arm]), fingerprint=arm, data_fingerprint="") for arm in arms
    ]
    assert row_names(planned, ARMS) == arms
