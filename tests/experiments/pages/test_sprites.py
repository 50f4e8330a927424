"""The images that trials queried: from the data set at hand, as pictures in the page or beside it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.pool import Pool
from data.registry import open_data_set
from data.splits.draw import draw_data_split
from experiments.pages import sprites
from experiments.pages.sprites import make_sprites, write_sprites
from experiments.results.queries import QueriedImages, Queries, queries_of
from orchestrator.plan import PlannedTrial
from orchestrator.problem import pose_problem
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig
from tests.factories import make_planned, make_record

DIGITS = {"dataset": "digits", "mismatch_ratio": 0.4, "ood_ratio": 0.6, "budget": 20}


def planned_digits(seed: int = 0, *, num_queries: int = 2, dataset: str = "digits") -> PlannedTrial:
    """A trial whose records ask for the first images of the pool, three per query, and judge the first query."""
    one = make_planned(seed, strategy="vlpure", **(DIGITS | {"dataset": dataset}))
    data = open_data_set("digits")
    pool = Pool.from_split(draw_data_split(data, one.trial.split))
    records = [make_record(0, pool_checksum=pool.checksum())]
    for number in range(1, num_queries + 1):
        queried = pool.unlabelled_idx[3 * number : 3 * number + 3].tolist()
        purity = [0.5, 0.25, -0.125] if number == 1 else []
        records.append(make_record(number, queried_idx=queried, purity=purity))
    return PlannedTrial(
        trial=one.trial, fingerprint=one.fingerprint, data_fingerprint="d", records=tuple(records), error=None
    )


def test_the_images_are_those_of_the_records_with_the_oracles_answers() -> None:
    planned = planned_digits()
    found = queries_of([planned])
    first, second = found.by_fingerprint[planned.fingerprint]
    data = open_data_set("digits")
    idx = np.array(planned.records[1].queried_idx)
    np.testing.assert_array_equal(first.pixels_QSS3, data.train.images.load(idx))
    problem = pose_problem(planned.trial, data)
    assert first.is_ood == tuple((problem.oracle().answer(idx) == problem.num_id_classes).tolist())
    assert set(first.is_ood + second.is_ood) == {True, False}
    assert (first.round, first.num_queried, first.purity) == (1, 3, (0.5, 0.25, -0.125))
    assert second.purity == ()
    assert found.reasons == {}


def test_a_large_grid_shows_fewer_images_of_the_first_seed_of_each_cell() -> None:
    trials = [planned_digits(seed) for seed in range(3)]
    found = queries_of(trials, most_images=29)
    assert list(found.by_fingerprint) == [trials[0].fingerprint]
    assert set(found.reasons) == {trials[1].fingerprint, trials[2].fingerprint}
    assert len(queries_of(trials, most_images=30).by_fingerprint) == 3
    (first, _) = queries_of(trials[:1], most_images=4).by_fingerprint[trials[0].fingerprint]
    assert (len(first.pixels_QSS3), len(first.is_ood), len(first.purity), first.num_queried) == (2, 2, 2, 3)


def test_records_of_other_data_show_no_image_of_this_one() -> None:
    planned = planned_digits()
    other = make_record(0, pool_checksum=64 * "0")
    strange = PlannedTrial(
        trial=planned.trial, fingerprint="f", data_fingerprint="d", records=(other, *planned.records[1:]), error=None
    )
    found = queries_of([strange])
    assert found.by_fingerprint == {}
    assert found.reasons == {"f": "the data set at hand when this page was written is not the one of the records"}


def test_no_data_set_is_decoded_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    for part in ("train", "test"):
        for name in "ab":
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (16, 16), (number, 9, 9)).save(folder / f"{number}.png")
    planned = planned_digits(dataset=f"folder:{tmp_path / 'images'}")
    (reason,) = queries_of([planned]).reasons.values()
    assert reason.startswith("the data set was not at hand when this page was written (folder:")
    assert reason.endswith(f"is not in the cache {tmp_path / 'cache'})")
    assert not list((tmp_path / "cache").rglob("*.npy"))


def picture_of(content: bytes) -> np.ndarray:
    """The pixels of a picture."""
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_picture_has_a_row_per_query_and_lies_beside_the_page_if_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
    both = (
        QueriedImages(round=1, num_queried=5, pixels_QSS3=tiles, is_ood=(False, True, False), purity=(0.5, 0.0, -1.0)),
        QueriedImages(round=2, num_queried=1, pixels_QSS3=tiles[:1], is_ood=(True,), purity=()),
    )
    queries = Queries(by_fingerprint={"f": both}, reasons={})
    inside = make_sprites(queries)
    assert inside.files == {}
    assert str(inside.by_fingerprint["f"]["src"]).startswith("data:image/webp;base64,")
    assert {name: value for name, value in inside.by_fingerprint["f"].items() if name != "src"} == {
        "size": 8, "width": 3, "rounds": [[1, 5, "010", [0.5, 0.0, -1.0]], [2, 1, "1", []]],
    }  # fmt: skip
    monkeypatch.setattr(sprites, "MOST_EMBEDDED", 10)
    beside = make_sprites(queries)
    assert beside.by_fingerprint["f"]["src"] == "queries/0.webp"
    expected = np.zeros((16, 24, 3), dtype=np.uint8)
    expected[:8] = np.concatenate(list(tiles), axis=1)
    expected[8:, :8] = tiles[0]
    np.testing.assert_array_equal(picture_of(beside.files["queries/0.webp"]), expected)
    write_sprites(tmp_path, beside)
    assert [path.name for path in tmp_path.rglob("*.webp")] == ["0.webp"]
    write_sprites(tmp_path, inside)  # those of an earlier report go
    assert list(tmp_path.rglob("*.webp")) == []


def test_trials_without_records_have_no_images() -> None:
    trial: TrialConfig = make_trial(**DIGITS, strategy="conf", rounds=2, recipe={"name": "demo"}, seed=0)
    missing = PlannedTrial(trial=trial, fingerprint="f", data_fingerprint="d")
    assert queries_of([missing]) == Queries(by_fingerprint={}, reasons={})
