"""suggest.py with files of other tools, the page and the finished set, over features of one's own."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from experiments.annotate.answers.state import State
from experiments.suggest import main
from tests.experiments.annotate.photos import write_photos

ROOT = Path(__file__).resolve().parents[3]
NAMES = tuple(f"{number:02}.png" for number in range(24))
"""Even numbers show a cat, those that 4 leaves with a rest of 1 a dog, the others none of the classes."""


def truth(name: str) -> str:
    number = int(name.removesuffix(".png"))
    return "cat" if number % 2 == 0 else "dog" if number % 4 == 1 else "_none_"


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line of a first call."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    write_photos(tmp_path / "photos", NAMES)
    directions = {"cat": 0, "dog": 1, "_none_": 2}
    features = np.random.default_rng(0).normal(0, 0.2, (len(NAMES), 8))
    features[np.arange(len(NAMES)), [directions[truth(name)] for name in NAMES]] += 1
    np.save(tmp_path / "features.npy", features.astype(np.float32))
    return [str(tmp_path / "photos"), "--classes", "cat,dog", "-n", "6", "--features", str(tmp_path / "features.npy")]


def fill_in(path: Path) -> list[str]:
    """Answer the suggestions in a CSV file as they are. Returns the images."""
    header, *rows = (line.split(",") for line in path.read_text().splitlines())
    image, answer = header.index("image"), header.index("answer")
    for row in rows:
        row[answer] = truth(row[image])
    path.write_text("\n".join(",".join(row) for row in (header, *rows)) + "\n")
    return [row[image] for row in rows]


def test_from_csv_to_the_finished_set(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, asked = words[0], []
    assert main([*words, "--export", "csv"]) == 0
    for number in (1, 2, 3):
        path = tmp_path / "photos.suggest" / f"round-{number}" / "csv" / "suggestions.csv"
        assert (path.parents[1] / "index.html").is_file()
        asked += fill_in(path)
        capsys.readouterr()
        assert main([folder, "--labels", str(path), "--export", "csv"]) == 0
        assert f"{path}: 6 labels, " in capsys.readouterr().out
    assert len(set(asked)) == 18
    assert {name: label.answer for name, label in State.open(Path(folder)).labels().items()} == {
        name: truth(name).replace("_none_", "none of my classes") for name in asked
    }
    assert main([folder, "--finish", str(tmp_path / "set")]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'set'}: 18 images, " in out
    card = json.loads((tmp_path / "set" / "card.json").read_text())
    assert sum(sum(each.values()) for each in card["counts"].values()) == 18
    assert [each["round"] for each in card["rounds"]] == [1, 2, 3, 4]
    assert main([folder, "--finish", str(tmp_path / "set")]) == 2
    assert "is not empty; name a new folder for the finished set" in capsys.readouterr().err


def test_the_set_cannot_be_finished_before_anything(words: list[str], tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert main([*words, "--finish", str(tmp_path / "set")]) == 2
    assert "photos.suggest holds no answers yet; run this command without --finish first" in capsys.readouterr().err
    assert not (tmp_path / "photos.suggest").exists()


def test_a_bad_label_file_leaves_everything_as_it_was(words: list[str], tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    (tmp_path / "bad.csv").write_text("image,label\n00.png,cow\n")
    assert main([*words, "--labels", str(tmp_path / "bad.csv")]) == 2
    assert "bad.csv: line 2: unknown class 'cow'" in capsys.readouterr().err
    assert State.open(Path(words[0])).labels() == {}


def test_a_taken_port_is_reported_at_once(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main([*words, "--annotate", "--port", str(port)]) == 2
    assert f"port {port} of this machine is taken, perhaps by another page; end that" in capsys.readouterr().err
    assert not (tmp_path / "photos.suggest").exists()


def test_the_page_goes_on_with_a_round_that_is_begun(words: list[str], tmp_path: Path) -> None:
    def start() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "experiments/suggest.py", *words, "--annotate"], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("label in a browser: "))
        return process, line.rpartition(" ")[2].strip()

    images = []
    for answered in (0, 1):
        process, url = start()
        with urllib.request.urlopen(f"{url}state", timeout=30) as answer:
            view = json.load(answer)
        assert (view["round"], sum(item["answer"] is not None for item in view["items"])) == (1, answered)
        images.append([item["name"] for item in view["items"]])
        request = urllib.request.Request(
            f"{url}answers", data=b'[{"image": 2, "answer": "cat", "seconds": 1}]',
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=30):
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "round 1: 1 of 6 answered, 1 wanted, 1.0 s per label; the same command goes on from here" in errors
    assert images[0] == images[1]
    shutil.rmtree(tmp_path / "photos.suggest")
