"""The ledger command: lists, finds every kind of damage, and mends without losing a whole round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.files import file_lock
from data.sealed import seal
from models.feature_store import FeatureKey, open_features
from orchestrator.launch import note_launch
from orchestrator.ledger.__main__ import main
from orchestrator.ledger.classifiers import ClassifierStore
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.output import OutputFolder, open_output
from orchestrator.ledger.records import RoundRecord

ROOT = Path(__file__).parents[3]
FINGERPRINT = "a" * 64
OTHER = "b" * 64
TRIAL = {
    "dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": "conf", "seed": 0, "rounds": 3,
}  # fmt: skip
MakeRecord = Callable[..., RoundRecord]
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def output(tmp_path: Path, make_record: MakeRecord) -> OutputFolder:
    """An output folder with one finished trial."""
    with open_output(tmp_path / "out").locked() as folder:
        for number in range(3):
            folder.ledger.append(FINGERPRINT, TRIAL, make_record(number))
        return folder


def file_of(output: OutputFolder, fingerprint: str = FINGERPRINT) -> Path:
    return output.ledger.folder / f"{fingerprint}.json"


def check(output: OutputFolder, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code and what was printed."""
    code = main([str(output.path), *words])
    out, err = capsys.readouterr()
    return code, out, err


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_sound_ledger_is_listed(
    output: OutputFolder, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    output.ledger.append(OTHER, TRIAL | {"seed": 1}, make_record(0))
    output.ledger.fail("c" * 64, TRIAL | {"seed": 2}, "ArithmeticError: diverged")
    before = files(output.path)
    code, out, err = check(output, capsys)
    assert (code, err) == (0, "")
    assert "3 trial(s) in the ledger: 1 finished, 1 unfinished, 1 failed; 4 record(s), the last 2023-11-1" in out
    assert "unfinished bbbbbbbbbbbb  digits mismatch 0.2 ood 0.6 conf seed 1: 1 of 3 rounds, last 2023-11-1" in out
    assert "failed     cccccccccccc  digits mismatch 0.2 ood 0.6 conf seed 2: 0 of 3 rounds: ArithmeticError" in out
    assert "finished   aaaaaaaaaaaa" not in out
    assert out.endswith("every file is sound\n")
    assert "finished   aaaaaaaaaaaa" in check(output, capsys, "-v")[1]
    assert files(output.path) == before


def test_the_code_that_made_the_records_is_said(
    output: OutputFolder, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"device": "cpu", "version": "1.2.3", "commit": "0123456789ab-dirty", "source": "ba9876543210"}
    output.ledger.append(OTHER, TRIAL | {"seed": 1}, make_record(0, environment=environment))
    out = check(output, capsys)[1]
    assert "made by version 1.2.3 commit 0123456789ab-dirty (source ba9876543210)" in out


def set_record(number: int, **values: Any) -> Change:
    """A change of one record."""

    def change(content: dict[str, Any]) -> None:
        content["records"][number].update(values)

    return change


def renumber(content: dict[str, Any]) -> None:
    del content["records"][1]


def forget_accuracy(content: dict[str, Any]) -> None:
    del content["records"][2]["accuracy"]


ALTERED: dict[str, tuple[Change, str, int]] = {
    "a gap in the rounds": (renumber, "record 1 does not fit: it is of round 2; rounds 0 to 0", 1),
    "a missing field": (forget_accuracy, "record 2 is damaged", 2),
    "an unknown field": (set_record(2, colour="red"), "record 2 is damaged", 2),
    "a word for a number": (set_record(1, accuracy="high"), "record 1 is damaged", 1),
    "accuracy above 1": (set_record(1, accuracy=1.5), "accuracy 1.5 is not between 0 and 1", 1),
    "precision below 0": (set_record(1, precision=-0.5), "precision -0.5 is not between 0 and 1", 1),
    "another precision": (set_record(2, precision=0.5), "precision 0.5 is not that of its 20 queried images", 2),
    "a query cut short": (set_record(2, queried_idx=[40, 41]), "20 labels came with 2 queried images", 2),
    "an image queried again": (set_record(2, queried_idx=list(range(39, 59))), "an image is queried twice", 2),
    "an image twice in a query": (set_record(2, queried_idx=[40] * 20), "an image is queried twice", 2),
    "labels given back": (set_record(2, num_id=20, num_ood=40), "does not fit", 2),
    "a pool that did not change": (
        set_record(2, pool_checksum=f"{1:064d}"),
        "its pool checksum contradicts its query",
        2,
    ),
    "a pool checksum that is none": (set_record(2, pool_checksum="x"), "its pool checksum is not a SHA-256", 2),
    "a query in round 0": (set_record(0, queried_idx=[1]), "the first round has a query; no round", 0),
    "no records": (lambda content: content.update(records=3), "it holds no trial with records", 0),
    "a field of its own": (lambda content: content.update(note="mine"), "other fields than a ledger entry", 0),
    "another trial's content": (lambda content: content.update(fingerprint=OTHER), "it belongs to the trial bbbb", 0),
}


@pytest.mark.parametrize("case", ALTERED)
def test_an_altered_file_is_found_and_set_aside(
    case: str, output: OutputFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message, num_kept = ALTERED[case]
    content = json.loads(file_of(output).read_text())
    change(content)
    altered = json.dumps(content)
    file_of(output).write_text(altered)
    code, _, err = check(output, capsys)
    assert code == 1
    assert message in err
    assert file_of(output).read_text() == altered
    _check_repair(output, capsys, altered.encode(), num_kept)


def _check_repair(output: OutputFolder, capsys: pytest.CaptureFixture[str], damaged: bytes, num_kept: int) -> None:
    """The repair keeps that many rounds, and the damaged file as it was; afterwards all is sound."""
    code, out, err = check(output, capsys, "--repair")
    assert (code, err) == (0, "")
    assert ("kept" if num_kept else "its trial is run again") in out
    assert (output.ledger.folder / "damaged" / file_of(output).name).read_bytes() == damaged
    assert [record.round for record in output.ledger.history(FINGERPRINT)] == list(range(num_kept))
    assert file_of(output).exists() == (num_kept > 0)
    assert check(output, capsys)[0] == 0


def test_a_file_torn_anywhere_keeps_its_whole_rounds(output: OutputFolder, capsys: pytest.CaptureFixture[str]) -> None:
    whole = file_of(output).read_bytes()
    records = list(output.ledger.history(FINGERPRINT))
    ends = [whole.index(f', {{"round": {number}, '.encode()) for number in (1, 2)] + [len(whole) - 3]
    for cut in range(0, len(whole) - 2, 37):
        file_of(output).write_bytes(whole[:cut])
        assert check(output, capsys)[0] == 1, cut
        check(output, capsys, "--repair")
        kept = sum(cut >= end for end in ends)
        assert output.ledger.history(FINGERPRINT) == records[:kept], cut


@pytest.mark.parametrize(
    ("damage", "message", "num_kept"),
    [
        (lambda raw: b"", "it is empty", 0),
        (lambda raw: b"\0" * len(raw), "it is empty", 0),
        (lambda raw: raw[: len(raw) // 2] + b"\0" * (len(raw) - len(raw) // 2), "torn or damaged at character", 1),
        (lambda raw: raw[:-40] + b"\xff" + raw[-39:], "it is damaged at byte", 2),
        (lambda raw: b"[]", "it holds no ledger entry", 0),
        (lambda raw: raw.replace(b"0.5,", b"NaN,", 1), "it holds NaN", 0),
        (lambda raw: b"hello " + raw, "torn or damaged at character 0", 0),
    ],
    ids=["empty", "zeros", "half zeros", "no UTF-8", "a list", "NaN", "rubbish before"],
)
def test_a_damaged_file_is_found_and_set_aside(
    damage: Callable[[bytes], bytes], message: str, num_kept: int,
    output: OutputFolder, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    damaged = damage(file_of(output).read_bytes())
    file_of(output).write_bytes(damaged)
    code, _, err = check(output, capsys)
    assert code == 1
    assert message in err
    _check_repair(output, capsys, damaged, num_kept)


def test_damage_beside_the_ledger_is_found_and_removed(
    output: OutputFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    ClassifierStore(output.classifiers, FINGERPRINT).save(0, {"weight": torch.zeros(3)})
    note_launch(output, "table4", [])
    before = files(output.path)
    assert check(output, capsys)[0] == 0
    for path in (output.path / "launch-table4.json", output.classifiers / f"{FINGERPRINT}.pt"):
        path.write_bytes(path.read_bytes()[:-9])
    code, _, err = check(output, capsys)
    assert code == 1
    assert "launch-table4.json: it is torn or damaged; the next run of its command writes it again" in err
    assert f"classifiers/{FINGERPRINT}.pt: it is torn or damaged; its classifier is trained again" in err
    assert check(output, capsys, "--repair")[0] == 0
    assert files(output.path) == {
        name: content for name, content in before.items() if not name.startswith(("launch", "classifiers"))
    }


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An entry of features in a cache of its own."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    key = FeatureKey(kind="rows", content="c", weights="w", preprocessing="p", precision="float32")

    class Rows:
        facts: Mapping[str, float] = {}

        def compute(self, start: int, stop: int) -> NDArray[np.float32]:
            return np.ones((stop - start, 2), dtype=np.float32)

    open_features(key, 3, Rows, progress=lambda line: None)
    return key.folder


def test_verify_reads_the_cache_too(output: OutputFolder, entry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = f"{entry.parents[1]}: every file of the cache is sound\n"
    assert check(output, capsys, "--verify")[1].endswith(f"every file is sound\n{sound}")
    assert main(["--verify"]) == 0
    assert capsys.readouterr().out == sound
    content = bytearray((entry / "features.npy").read_bytes())
    content[-1] ^= 1
    (entry / "features.npy").write_bytes(content)
    assert check(output, capsys)[0] == 0
    code, _, err = check(output, capsys, "--verify")
    assert code == 1
    assert f"{entry}: the stored file {entry / 'features.npy'} is damaged\n" in err
    assert "1 problem(s) in the cache; --verify --repair mends 1 of them\n" in err
    code, out, err = check(output, capsys, "--verify", "--repair")
    assert (code, err) == (0, "")
    assert f"removed {entry / 'features.npy'}\n" in out
    assert [path.name for path in entry.iterdir()] == ["lock"]


def test_what_killed_processes_left_in_the_cache_is_swept_under_its_lock(
    entry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = entry / ".meta.json.0123abcd"
    left.touch()
    with file_lock(entry / "lock"):
        assert main(["--verify"]) == 0
    assert main(["--verify"]) == 1
    assert f"{left}: left behind by a process that was killed\n" in capsys.readouterr().err
    assert main(["--verify", "--repair"]) == 0
    assert capsys.readouterr().out.startswith(f"removed {left}\n")
    assert sorted(path.name for path in entry.iterdir()) == ["features.npy", "lock", "meta.json"]


def test_a_folder_or_the_cache_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "give an OUTPUT_DIR, or --verify to check the cache only" in capsys.readouterr().err


def test_what_was_set_aside_before_stays(output: OutputFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("first", "second"):
        file_of(output).write_text(content)
        check(output, capsys, "--repair")
    aside = output.ledger.folder / "damaged"
    assert [path.read_text() for path in sorted(aside.iterdir())] == ["first", "second"]


def test_a_file_of_another_version_is_left_to_it(output: OutputFolder, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(file_of(output).read_text())
    records, _ = content.pop("records"), content.pop("seal")
    content = seal(content | {"format": 2}, FINGERPRINT) | {"records": records}
    file_of(output).write_text(json.dumps(content))
    code, out, err = check(output, capsys, "--repair")
    assert (code, out) == (1, "nothing to mend\n")
    assert "it was written by another version of this software (format 2, ours is 1)" in err
    assert json.loads(file_of(output).read_text()) == content


def test_unknown_files_are_named_and_left(output: OutputFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (output.ledger.folder / "notes.txt").write_text("mine")
    (output.ledger.folder / f"{FINGERPRINT} copy.json").write_bytes(file_of(output).read_bytes())
    before = files(output.path)
    code, _, err = check(output, capsys, "--repair")
    assert code == 1
    assert "ledger/notes.txt: not a file of the ledger" in err
    assert f"ledger/{FINGERPRINT} copy.json: not a file of the ledger" in err
    assert files(output.path) == before


def test_what_a_kill_left_behind_is_removed(output: OutputFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(output.path)
    left = [
        output.path / ".vlpure.json.k3j_0a9z",
        output.ledger.folder / f".{FINGERPRINT}.json.abcdefgh",
        output.classifiers / f".{OTHER}.pt.12345678",
        output.classifiers / "round0" / f".{OTHER}.pt.12345678",
        output.path / "tune" / "20260101-000000" / "state.json",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    code, _, err = check(output, capsys)
    assert code == 1
    assert err.count("left behind by a run that was killed") == 5
    assert check(output, capsys, "--repair")[0] == 0
    assert files(output.path) == before
    assert not (output.path / "tune").exists()


def test_while_a_run_writes_its_files_are_no_problem_and_nothing_is_repaired(
    output: OutputFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import sys, time; from pathlib import Path; from data.files import file_lock\n"
    code += "with file_lock(Path(sys.argv[1]), wait=False):\n    print('locked', flush=True); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(output.path / ".lock")], stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        try:
            (output.ledger.folder / f".{FINGERPRINT}.json.abcdefgh").touch()
            file_of(output).write_text("torn")
            before = files(output.path)
            code_now, out, err = check(output, capsys)
            assert f"a run is writing to it now (process {holder.pid})" in out
            assert "left behind" not in err
            assert code_now == 1
            code_now, _, err = check(output, capsys, "--repair")
            assert code_now == 2
            assert "another run is writing to" in err
            assert files(output.path) == before
        finally:
            holder.kill()


def test_a_damaged_marker_is_replaced(output: OutputFolder, capsys: pytest.CaptureFixture[str]) -> None:
    marker = output.path / "vlpure.json"
    marker.write_text("{")
    code, _, err = check(output, capsys)
    assert code == 2
    assert f"{marker} is damaged; mend it with python -m orchestrator.ledger" in err
    assert check(output, capsys, "--repair")[0] == 0
    assert open_output(output.path).grid_id not in (None, output.grid_id)
    marker.unlink()
    assert check(output, capsys, "--repair")[0] == 0
    assert len(Ledger(output.ledger.folder).history(FINGERPRINT)) == 3


@pytest.mark.parametrize("make", ["nothing", "file", "folder"])
def test_what_is_no_output_folder_is_refused(make: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    if make == "file":
        path.touch()
    elif make == "folder":
        path.mkdir()
    before = sorted(tmp_path.rglob("*"))
    for words in ([], ["--repair"]):
        assert main([str(path), *words]) == 2
        err = capsys.readouterr().err
        assert err.startswith("python -m orchestrator.ledger: error: ")
        assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_it_is_a_command(output: OutputFolder, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.ledger", str(output.path)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("every file is sound\n")
