"""make gpu-check without a GPU: its one line, its table, its deadline, and the hours it makes of rates."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check, gpu_parts
from benchmarks.gpu_hours import paper_hours
from experiments.commands.rates import GpuRates

ROOT = Path(__file__).resolve().parents[2]


def figures(ms: float = 1.0) -> dict[str, Any]:
    """As a check on a card writes them."""
    best = {"way": "compiled and recorded"}
    return {
        "device": "abacus",
        "peak_tflops": 800.0,
        "steps": [
            {"pixels": 32, "way": "recorded", "trials": 1, "sharing": "alone", "ms": 9.0},
            best | {"pixels": 32, "trials": 1, "sharing": "alone", "ms": 2 * ms},
            best | {"pixels": 64, "trials": 1, "sharing": "alone", "ms": 8 * ms},
            best | {"pixels": 32, "trials": 4, "sharing": "turns", "ms": 3 * ms},
            best | {"pixels": 32, "trials": 4, "sharing": "mps", "ms": ms},
            best | {"pixels": 64, "trials": 4, "sharing": "mps", "ms": 4 * ms},
        ],
        "lfosa_ms": {"32": 3.6, "64": 7.2},
        "eoal_ms": {"32": 3.6, "64": 7.2},
        "csi_ms": {"32": 3.6, "64": 14.4},
        "pool_images_a_second": {"32": 100_000.0, "64": 25_000.0},
        "head_ms": 0.1,
        "purity_seconds": 0.01,
        "failed": {},
        "seconds": {"steps": 30.0},
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_is_one_line_and_exit_code_2() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_check.py"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpu_check.py: error: torch sees no GPU on this machine\n"


def test_the_hours_of_table_4_are_its_steps_times_their_time() -> None:
    # 960 trials of CIFAR and 480 of Tiny-ImageNet, 10 rounds of 20,000 steps. Round 0 is trained once for the six
    # strategies of a seed and condition that start alike, and once for LL, whose classifier has a head of its own.
    hours = paper_hours(GpuRates.of_figures(figures()))["Table 4"]
    rounds = 120 * (8 * 9 + 2)
    assert hours["classifiers, 32 pixels"] == pytest.approx(rounds * 20_000 * 1e-3 / 3600)
    assert hours["classifiers, 64 pixels"] == pytest.approx(rounds / 2 * 20_000 * 4e-3 / 3600)
    # Rounds 1 to 9, 500 more labels each: 100 passes in batches of 128.
    steps = sum(round(number * 500 / 128) for number in range(1, 10)) * 100
    tiny = sum(round(number * 1000 / 128) for number in range(1, 10)) * 100
    assert hours["detectors of lfosa"] == pytest.approx((120 * steps * 3.6e-3 + 60 * tiny * 7.2e-3) / 3600)
    # 1,000 passes over 50,000 images, twice, and over 100,000 larger ones.
    assert hours["encoders"] == pytest.approx((2 * 1000 * 1562 * 3.6e-3 + 1000 * 3125 * 14.4e-3) / 3600)


def test_the_best_way_of_sharing_counts() -> None:
    rates = GpuRates.of_figures(figures())
    assert rates.step(32, 4) == (1.0, "mps")
    assert rates.step(32, 3) == (2.0, "alone")
    assert rates.step(64, 8) == (4.0, "mps")
    assert rates.step(16, 1)[0] == pytest.approx(0.5)
    assert rates.step(128, 1)[0] == pytest.approx(32.0)


@pytest.mark.parametrize("missing", ["steps", "csi_ms", "head_ms"])
def test_a_file_without_all_figures_is_refused(missing: str, tmp_path: Path) -> None:
    found = figures()
    del found[missing]
    path = tmp_path / "check.json"
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=rf"gpu-check figures are missing or invalid .*{missing}"):
        GpuRates.read(path)
    with pytest.raises(ValueError, match="no such file"):
        GpuRates.read(tmp_path / "other.json")


def test_the_table_names_shares_hours_and_failures() -> None:
    found = figures() | {"failed": {"grid": "no token"}, "hours": {"Table 4": {"classifiers": 100.0, "passes": 2.0}}}
    text = "\n".join(gpu_check.report_lines(found))
    assert "best bf16 matrix product: 800 TFLOP/s" in text
    assert "    32  compiled and recorded      4  mps         1.00    0.266          20 s" in text
    assert "Table 4: 102 card-hours: classifiers 100.0, passes 2.0" in text
    assert "FAILED grid: no token" in text


def test_each_part_is_measured_and_kept_and_a_late_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured: list[str] = []

    def measure(part: str, found: dict[str, Any], folder: Path, seconds_left: Any) -> None:
        measured.append(part)
        if part == "trainings":
            time.sleep(0.3)

    monkeypatch.setattr(gpu_check, "_measure", measure)
    monkeypatch.setattr(gpu_check, "WARM", ())
    found: dict[str, Any] = {"steps": [], "seconds": {}, "failed": {}}
    kept = tmp_path / "check.json"
    gpu_check._run_all(
        ("tests", "steps", "trainings", "memory"), found, tmp_path, deadline=time.monotonic() + 0.2, output=kept
    )
    assert measured == ["tests", "steps", "trainings"]
    assert list(found["seconds"]) == measured
    assert found["failed"]["memory"].startswith("not run: ")
    assert json.loads(kept.read_text()) == found


def test_a_part_that_fails_says_why_and_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: dict[str, Any] = {"steps": [], "seconds": {}, "failed": {}}
    # In place of the real parts, whose imports take seconds: what they do with an unknown name is asked for below.
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "gpu_parts.py").write_text("import sys\nraise KeyError(sys.argv[1])\n")
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    gpu_check._run_part("no such part", found, tmp_path, 60)
    assert found["failed"] == {"no such part": "KeyError: 'no such part'"}
    monkeypatch.setattr(sys, "argv", ["gpu_parts.py", "no such part", str(tmp_path / "figures.json")])
    with pytest.raises(KeyError, match="no such part"):
        gpu_parts.main()
    assert not (tmp_path / "figures.json").exists()


def test_a_part_without_an_end_is_ended_with_its_children(tmp_path: Path) -> None:
    marker = tmp_path / "late"
    script = f"import subprocess, time; subprocess.Popen(['sh', '-c', 'sleep 2; touch {marker}']); time.sleep(60)"
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        gpu_check._run([sys.executable, "-c", script], 1.0)
    assert time.monotonic() - started < 10
    time.sleep(2.5)
    assert not marker.exists()


def test_a_machine_without_mps_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with gpu_check._sharing("mps", tmp_path) as is_there:
        assert not is_there
    with gpu_check._sharing("turns", tmp_path) as is_there:
        assert is_there
