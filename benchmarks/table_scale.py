"""What two rounds over a table cost: seconds, CPU seconds and memory of all processes, for made-up rows.

python benchmarks/table_scale.py --rows 100000,1000000 --address local -o runs/table_scale

A row is 512 half-precision numbers around one of 200 centres; 1 % are near-copies of other rows. Images of 80 centres
are wanted. An oracle answers the first round.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.console import DONE, CommandParser, run_command
from data.files import path_argument
from experiments.annotate.answers.labels import NONE

COMMAND = Path(__file__).resolve().parents[1] / "experiments" / "commands" / "rank_table.py"
GROUP, NUMBERS, CENTRES, WANTED = 50_000, 512, 200, 80
MARK = "VLPURE_BENCHMARK"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(prog="table_scale.py", description="What two rounds over a table cost.")
    parser.add_argument("--rows", default="100000", metavar="LIST", help="such as 100000,1000000")
    parser.add_argument("--address", metavar="RAY", help="as in rank_table.py (default: in one process)")
    parser.add_argument("-o", "--output-dir", type=path_argument, required=True, metavar="DIR")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def write_rows(path: Path, num: int) -> None:
    """Write a table of made-up rows."""
    rng = np.random.default_rng(0)
    centres_CD = rng.normal(size=(CENTRES, NUMBERS)).astype(np.float32)
    schema = pa.schema([("image", pa.string()), ("features", pa.list_(pa.float16(), NUMBERS))])
    copied_CD = None
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for start in range(0, num, GROUP):
            size = min(GROUP, num - start)
            centre_N = rng.integers(CENTRES, size=size)
            rows_ND = centres_CD[centre_N] + 1.2 * rng.normal(size=(size, NUMBERS)).astype(np.float32)
            names = [f"{centre:03d}/{start + row:09d}.jpg" for row, centre in enumerate(centre_N.tolist())]
            if copied_CD is not None:
                count = size // 100
                noise_ND = 0.05 * rng.normal(size=(count, NUMBERS)).astype(np.float32)
                rows_ND[:count] = copied_CD[0][:count] + noise_ND
                names[:count] = [f"{name[:3]}/{start + row:09d}.jpg" for row, name in enumerate(copied_CD[1][:count])]
            copied_CD = rows_ND[size // 2 :].copy(), names[size // 2 :]
            column = pa.FixedSizeListArray.from_arrays(pa.array(rows_ND.astype(np.float16).ravel()), NUMBERS)
            writer.write_table(pa.table({"image": names, "features": column}, schema=schema), row_group_size=GROUP)


def answer(path: Path) -> int:
    """Fill in a round as an oracle. Returns the number of wanted images."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    centres = [int(row["image"][:3]) for row in rows]
    for row, centre in zip(rows, centres, strict=True):
        row["answer"] = ("cat", "dog")[centre % 2] if centre < WANTED else NONE
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return sum(centre < WANTED for centre in centres)


def measure(words: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and the largest memory in GB of a command and all that it starts, shared pages once."""
    mark, cpu, peak = uuid.uuid4().hex, {}, 0.0
    started = time.monotonic()
    process = subprocess.Popen(words, env=os.environ | {MARK: mark}, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(0.5)
        memory = 0.0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                # Ray's processes are no children of the command: they are known by what they inherited.
                if mark.encode() not in (folder / "environ").read_bytes():
                    continue
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                cpu[folder.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                memory += int(re.search(r"^Pss:\s+(\d+)", (folder / "smaps_rollup").read_text(), re.MULTILINE)[1])  # type: ignore[index]
            except (OSError, TypeError):  # it ended meanwhile
                continue
        peak = max(peak, memory / 1e6)
    assert process.returncode == 0, process.returncode
    return time.monotonic() - started, sum(cpu.values()), peak


def _run(args: argparse.Namespace) -> int:
    for num in map(int, args.rows.split(",")):
        folder = args.output_dir / f"{num}"
        folder.mkdir(parents=True, exist_ok=True)
        table = folder / "rows.parquet"
        if not table.exists():
            write_rows(table, num)
        state = folder / f"state-{uuid.uuid4().hex[:8]}"
        words = [sys.executable, str(COMMAND), str(table), "--classes", "cat,dog", "-o", str(state)]
        words += ["--features-column", "features", *(["--address", args.address] if args.address else [])]
        for number in (1, 2):
            seconds, cpu, peak = measure(words)
            found = answer(state / f"round-{number}" / "suggestions.csv")
            line = (
                f"{num:,} rows, round {number}: {seconds:.0f} s, {cpu:.0f} CPU s, {peak:.2f} GB; {found} of 50 wanted"
            )
            print(line, flush=True)
    return DONE


if __name__ == "__main__":
    sys.exit(run_command(make_parser(), _run))
