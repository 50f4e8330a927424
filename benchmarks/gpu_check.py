"""What this code does on this machine's GPU, in one command: its tests, its speed in all parts, and the paper's bill.

python benchmarks/gpu_check.py                 (or: make gpu-check; under five minutes)
python benchmarks/gpu_check.py -o check.json   (also as JSON, which --dry-run --rates check.json reads)
python benchmarks/gpu_check.py --parts steps sharing

Each part runs in a process of its own, so that one that fails leaves the others alone, and what is measured is written
after each part. Needs torch, torchvision, numpy, scikit-learn, open_clip and pydantic; Ray for the part `grid`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.gpu_hours import paper_hours
from experiments.commands.rates import GpuRates

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("tests", "grid", "steps", "sharing", "trainings", "passes", "memory")
UNTIMED = ("tests", "grid")
"""Run at the same time as each other and as what compiles ahead; all others have the card to themselves."""
SHARED = ("mps", "turns")
"""Ways of sharing a card."""
MOST_SECONDS = 290
"""Of the whole check; a part that would begin later is reported as not run."""
PART_SECONDS = 120
WARM = ("step:32", "step:64", "csi:32", "csi:64", "lfosa:32", "lfosa:64", "eoal:32", "eoal:64", "tower:224")
"""What is compiled while the tests run."""
Figures = dict[str, Any]


def main() -> int:
    """Measure, print the table, and write the JSON; exit code 1 if a part failed, 2 without a GPU."""
    args = _parser().parse_args()
    if not _has_gpu():
        print("gpu_check.py: error: torch sees no GPU on this machine", file=sys.stderr)
        return 2
    found: Figures = {"steps": [], "seconds": {}, "failed": {}}
    with tempfile.TemporaryDirectory() as folder, _compiler_cache(Path(folder)):
        _run_all(args.parts, found, Path(folder), deadline=time.monotonic() + args.seconds, output=args.output)
    if {"steps", "trainings", "passes"} <= set(args.parts) - set(found["failed"]):
        found["hours"] = paper_hours(GpuRates.of_figures(found))
        if args.output is not None:
            args.output.write_text(json.dumps(found, indent=2) + "\n")
    print("\n".join(report_lines(found)))
    return 1 if found["failed"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu_check.py", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    parser.add_argument(
        "--seconds", type=float, default=MOST_SECONDS, metavar="S", help=f"end after so many ({MOST_SECONDS})"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these (default: all)")
    return parser


def _has_gpu() -> bool:
    """Asked in a process of its own: this one is not to hold a part of the card that others measure."""
    asked = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 3)"
    return subprocess.run([sys.executable, "-c", asked], capture_output=True, check=False).returncode == 0


@contextmanager
def _compiler_cache(folder: Path) -> Iterator[None]:
    """A fresh cache, so that nothing is measured that another run has left; compiled once for all parts."""
    before = os.environ.get("VLPURE_CACHE")
    os.environ["VLPURE_CACHE"] = str(folder / "cache")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "cache" / "compiled"))
    try:
        yield
    finally:
        os.environ.pop("VLPURE_CACHE")
        if before is not None:
            os.environ["VLPURE_CACHE"] = before


def _run_all(parts: Sequence[str], found: Figures, folder: Path, *, deadline: float, output: Path | None) -> None:
    """Put the figures of all parts into `found`, and after each into the file `output`."""

    def seconds_left() -> float:
        return max(1.0, min(PART_SECONDS, deadline - time.monotonic()))

    def measure(part: str) -> None:
        started = time.monotonic()
        if started >= deadline:
            found["failed"][part] = f"not run: {deadline - started:.0f} s were left; give more --seconds, or it alone"
            return
        print(f"{part} ...", file=sys.stderr, flush=True)
        _measure(part, found, folder, seconds_left)
        found["seconds"][part] = round(time.monotonic() - started, 1)

    untimed = [part for part in UNTIMED if part in parts]
    if untimed:
        with _compiling(folder, seconds_left), ThreadPoolExecutor(len(untimed)) as pool:
            list(pool.map(measure, untimed))
    for part in parts:
        if part not in UNTIMED:
            measure(part)
        if output is not None:
            output.write_text(json.dumps(found, indent=2) + "\n")


def _measure(part: str, found: Figures, folder: Path, seconds_left: Callable[[], float]) -> None:
    """Put a part's figures into `found`, or why it failed."""
    if part == "tests":
        found["tests"] = _run_tests(found, seconds_left())
    elif part == "grid":
        found["grid"] = _run_grid(found, folder, seconds_left())
    elif part == "sharing":
        for sharing in SHARED:
            with _sharing(sharing, folder) as is_there:
                if is_there:
                    _run_part(f"sharing:{sharing}", found, folder, seconds_left())
                else:
                    found["mps"] = "not on this machine"
    else:
        _run_part(part, found, folder, seconds_left())


@contextmanager
def _compiling(folder: Path, seconds_left: Callable[[], float]) -> Iterator[None]:
    """Steps that later parts time are compiled meanwhile; what fails here, fails there and is reported there."""
    warmers = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "gpu_parts.py"), f"warm:{what}", str(folder / "unused")],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        for what in WARM
    ]  # fmt: skip
    try:
        yield
        for warmer in warmers:
            warmer.wait(timeout=seconds_left())
    except subprocess.TimeoutExpired as error:
        print(f"compiling ahead took too long: {_reason(error)}", file=sys.stderr)
    finally:
        for warmer in warmers:
            if warmer.poll() is None:
                os.killpg(warmer.pid, signal.SIGKILL)


def _run_part(name: str, found: Figures, folder: Path, seconds: float) -> None:
    path = folder / "figures.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_parts.py"), name, str(path)]
    try:
        _run(command, seconds)
        figures = json.loads(path.read_text())
    except (subprocess.SubprocessError, OSError) as error:
        found["failed"][name] = _reason(error)
        return
    found["steps"] += figures.pop("steps", [])
    found |= figures


def _run(command: list[str], seconds: float) -> str:
    """The standard output of a command. It gets a session of its own, so that a timeout ends its children, too."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return output


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in (error.stderr or error.stdout or "").splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit code {error.returncode}"
    return " ".join(str(error).split())


def _run_tests(found: Figures, seconds: float) -> str:
    """The last line of the tests marked gpu."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/models", "-q", "-p", "no:cacheprovider"]
    try:
        output = _run(command, seconds)
    except subprocess.CalledProcessError as error:
        output = error.stdout
        failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        found["failed"]["tests"] = "; ".join(failed) or _reason(error)
    except subprocess.SubprocessError as error:
        found["failed"]["tests"] = output = _reason(error)
    return output.strip().splitlines()[-1] if output.strip() else "no output"


@contextmanager
def _sharing(sharing: str, folder: Path) -> Iterator[bool]:
    """Inside, processes share the card in that way; False: this machine has no MPS."""
    if sharing != "mps":
        yield True
        return
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        yield False
        return
    pipes = folder / "mps"
    pipes.mkdir(exist_ok=True)
    places = {"CUDA_MPS_PIPE_DIRECTORY": str(pipes), "CUDA_MPS_LOG_DIRECTORY": str(pipes)}
    os.environ.update(places)
    try:
        subprocess.run([control, "-d"], check=True, capture_output=True)
        yield True
    finally:
        subprocess.run([control], input="quit\n", text=True, capture_output=True, check=False, timeout=30)
        for name in places:
            os.environ.pop(name)


def _run_grid(found: Figures, folder: Path, seconds: float) -> str:
    """Three trials of the digits through Ray, a third of the card each."""
    try:
        import ray  # noqa: F401
    except ImportError:
        return "not run: Ray is not installed"
    command = [
        sys.executable, "experiments/table4.py", "--preset", "demo", "--mismatch-ratios", "0.4", "--ood-ratios", "0.6",
        "--seeds", "0", "--strategies", "random,conf,vlpure", "--rounds", "3", "--gpus-per-trial", "0.3",
        "--no-tracking", "-o", str(folder / "grid"), "-q",
    ]  # fmt: skip
    started = time.monotonic()
    try:
        _run(command, seconds)
    except (subprocess.SubprocessError, OSError) as error:
        found["failed"]["grid"] = _reason(error)
        return "failed"
    return f"3 trials through Ray in {time.monotonic() - started:.0f} s"


def report_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The figures as text."""
    peak = found.get("peak_tflops")
    yield f"device: {found.get('device', 'unknown')}"
    if peak:
        yield f"best bf16 matrix product: {peak:,.0f} TFLOP/s"
    yield "ResNet-18, width 64, batch 64, bf16: ms per step and training"
    yield f"{'pixels':>6}  {'way':22}{'trials':>6}  {'sharing':8}{'ms':>8}{'of peak':>9}{'20,000 steps':>14}"
    for row in found["steps"]:
        share = f"{row['share_of_peak']:9.3f}" if "share_of_peak" in row else f"{_share(row, peak)}"
        yield (
            f"{row['pixels']:6d}  {row['way']:22}{row['trials']:6d}  {row['sharing']:8}{row['ms']:8.2f}{share}"
            f"{row['ms'] * 20:12.0f} s"
        )
    for name, value in found.items():
        if name not in ("steps", "seconds", "failed", "hours", "device", "peak_tflops"):
            yield f"{name.replace('_', ' ')}: {_words(value)}"
    for table, parts in found.get("hours", {}).items():
        yield f"{table}: {sum(parts.values()):,.0f} card-hours: " + ", ".join(
            f"{part} {hours:,.1f}" for part, hours in parts.items()
        )
    for part, reason in found["failed"].items():
        yield f"FAILED {part}: {reason}"
    yield "seconds: " + ", ".join(f"{part} {seconds:.0f}" for part, seconds in found["seconds"].items())


FLOPS_A_STEP = {32: 213e9, 64: 852e9}
"""As `benchmarks.gpu_steps`, which needs torch."""


def _share(row: Mapping[str, Any], peak: float | None) -> str:
    """Share of the peak, if that was measured."""
    return f"{FLOPS_A_STEP[row['pixels']] / (row['ms'] / 1e3) / (peak * 1e12):9.3f}" if peak else f"{'-':>9}"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} px {_words(each)}" for name, each in value.items())
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and value < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


if __name__ == "__main__":
    sys.exit(main())
