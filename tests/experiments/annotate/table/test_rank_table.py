"""Rounds over a table: features of one's own, or images by their addresses; what is refused, in one line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from experiments.annotate.answers.labels import NONE, UNSURE
from experiments.annotate.table.rounds import read_rounds
from experiments.commands import rank_table
from models.clipn.encode import ImageRows
from models.clipn.model import Clipn
from models.clipn.source import clip_config
from models.clipn.weights import save_clipn

CLASSES = ("cat", "dog")
NUM = 120


def kind(number: int) -> int:
    """0: a cat, 1: a dog, 2: neither."""
    return 2 if number % 3 else (number // 3) % 2


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files with 120 rows in four row groups; every third image is wanted, 119 is a near-copy of 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    rows = 0.3 * np.random.default_rng(0).normal(size=(NUM, 16))
    for number in range(NUM):
        rows[number, kind(number)] += 1
    rows[119] = rows[0] * 1.5
    folder = tmp_path / "table"
    folder.mkdir()
    for part in range(2):
        own = range(60 * part, 60 * part + 60)
        content = {"image": [f"{number:03d}.jpg" for number in own], "features": rows[list(own)].tolist()}
        pq.write_table(pa.table(content), folder / f"{part}.parquet", row_group_size=30)
    return folder


def run(*words: str) -> int:
    return rank_table.main(
        ["table", "--classes", ",".join(CLASSES), "-o", "out", "--features-column", "features", *words]
    )


def suggested(number: int) -> list[dict[str, str]]:
    with Path(f"out/round-{number}/suggestions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def answer(number: int, *, unsure: int | None = None) -> None:
    """Answer a round as an oracle."""
    rows = suggested(number)
    for row in rows:
        truth = (*CLASSES, NONE)[kind(int(row["image"][:3]))]
        row["answer"] = UNSURE if int(row["rank"]) == unsure else truth
    with Path(f"out/round-{number}/suggestions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_rounds_go_on_from_the_answers(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-n", "20") == 0
    assert "120 images with features in 4 shards" in capsys.readouterr().out
    one = suggested(1)
    assert len({row["image"] for row in one}) == 20
    assert {int(row["image"][:3]) // 30 for row in one} == {0, 1, 2, 3}  # nothing is known: not the first 20 of a file
    answer(1, unsure=2)
    assert run("-n", "20") == 0
    out = capsys.readouterr().out
    asked, following = read_rounds(Path("out"), CLASSES)
    assert (asked.facts["num_free"], following.facts["num_free"]) == (120, 100)
    assert len(asked.answers) == 20
    assert [pick.rank for pick in asked.picks if pick.drawn] == [10]
    assert "checked with 1 image drawn at random" in out
    two = suggested(2)
    assert not {row["image"] for row in one} & {row["image"] for row in two}
    wanted = [row for row in two if kind(int(row["image"][:3])) < 2]
    assert len(wanted) >= 14  # of 120 a third is wanted
    right = [row["predicted"] == CLASSES[kind(int(row["image"][:3]))] for row in wanted]
    assert sum(right) > 0.8 * len(right)
    assert not {"000.jpg", "119.jpg"} <= {row["image"] for row in (*one, *two)}


def test_a_round_without_answers_is_replaced_by_the_same_without_work(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("-n", "20")
    before = suggested(1)
    scores = sorted(Path("out/probabilities").rglob("*.parquet"))
    assert len(scores) == 4
    scores[2].unlink()  # as a kill leaves it
    kept = [path.stat().st_mtime_ns for path in scores if path.exists()]
    run("-n", "20")
    assert suggested(1) == before
    assert [path.stat().st_mtime_ns for path in scores if path != scores[2]] == kept
    assert not Path("out/round-2").exists()


def test_images_are_read_by_their_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    Path("small.json").write_text(
        '{"embed_dim": 16,'
        '"vision_cfg": {"image_size": 12, "patch_size": 6, "layers": 1, "width": 16, "head_width": 8},'
        '"text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}'
    )
    torch.manual_seed(0)
    save_clipn(Clipn(clip_config("small.json")), Path("clipn.pt"), epoch=1, name="")
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(f"{number:02d}.png")
    Path("05.png").write_bytes(Path("05.png").read_bytes()[:100])
    names = [f"{number:02d}.png" for number in range(11)]
    addresses = [f"file://{tmp_path}/11.png", "gone.png", *names]
    pq.write_table(pa.table({"address": addresses}), "images.parquet", row_group_size=7)
    words = ["images.parquet", "--classes", "cat,dog", "-o", "out", "--image-column", "address", "-n", "4",
             "--clipn-checkpoint", "clipn.pt", "--clip-model", "small.json"]  # fmt: skip
    assert rank_table.main(words) == 0
    out = capsys.readouterr().out
    assert "2 images cannot be read or decoded and are left out" in out
    assert "11 images with features in 2 shards" in out
    assert {row["image"] for row in suggested(1)} <= {*addresses} - {"gone.png", "05.png"}
    made = pa.concat_tables(
        pq.read_table(path, partitioning=None) for path in sorted(Path("out/features").glob("*.parquet"))
    )
    assert made["image"].to_pylist() == [address for address in addresses if address not in ("gone.png", "05.png")]
    assert made["row"].to_pylist() == [0, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5]
    assert {len(each) for each in made["features"].to_pylist()} == {16}

    def never(self: ImageRows, start: int, stop: int) -> None:
        raise AssertionError("features were computed again")

    monkeypatch.setattr(ImageRows, "compute", never)
    assert rank_table.main(words) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "none: there is no such table"),
        (["table", "--image-column", "path"], "has no column 'path'; it has 'image', 'features'"),
        (["text.parquet"], "text.parquet is not a Parquet file"),
        (["empty.parquet"], "this table has no rows"),
        (["nowhere://x"], "nowhere://x: this address cannot be opened"),
        (["table", "-n", "0"], "-n is 0; expected 1 or more"),
        (["table", "-n", "5", "--drawn", "5"], "--drawn is 5; expected 0 to 4"),
        (["table", "--features-column", "image"], "this column holds string; lists of numbers are needed"),
        (["table", "--features-column", "features", "--clip-model", "x"], "give one or the other"),
        (["table", "--purity", "prob"], "did you mean 'probe'"),
        (["ragged.parquet", "--features-column", "features"], "a list of the same number of numbers is needed"),
        (["zero.parquet", "--features-column", "features"], "row 1 is zero or not finite (1 such rows)"),
    ],
)
def test_impossible_calls_are_refused_in_one_line(
    table: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.parquet").write_text("x")
    pq.write_table(pa.table({"image": pa.array([], pa.string())}), "empty.parquet")
    for name, rows in (("ragged", [[1.0], [1.0, 2.0]]), ("zero", [[1.0], [0.0]])):
        pq.write_table(pa.table({"image": ["a", "b"], "features": rows}), f"{name}.parquet")
    assert rank_table.main([*words, "--classes", "cat,dog", "-o", "new"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_another_table_and_answers_that_are_none_are_refused(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("-n", "20")
    path = Path("out/round-1/suggestions.csv")
    path.write_text(path.read_text().replace(",,", ",cow,", 1))
    assert run("-n", "20") == 2
    assert "suggestions.csv, line 2: unknown answer 'cow'" in capsys.readouterr().err
    (table / "1.parquet").unlink()
    assert run("-n", "20") == 2
    assert "out is about another table: its rows changed; use another -o" in capsys.readouterr().err
