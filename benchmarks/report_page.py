"""What the report of a whole Table 4 costs: CPU seconds and bytes of the page for 1,440 synthetic trials.

Three data sets, twelve conditions each, eight strategies, five seeds, ten rounds. The plan is made first; measured is
everything that a command does after it, from the frames to the last file. Exit code 1 if the page is over its limits.

python benchmarks/report_page.py [-o DIR]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.pages.files import write_report
from experiments.results.details import details_of
from experiments.results.frames import rounds_frame, trials_frame
from experiments.results.queries import MOST_IMAGES, QueriedImages, Queries
from experiments.table4 import TABLE4
from orchestrator.plan import PlannedTrial
from tests.experiments import synthetic

CONDITIONS = [
    (dataset, mismatch, ood)
    for dataset in ("cifar10", "cifar100", "tiny-imagenet")
    for mismatch in (0.2, 0.3, 0.4)
    for ood in (0.2, 0.4, 0.6, 0.8)
]
MOST_SECONDS = 10.0
"""CPU seconds of this process, measured parts only."""
MOST_BYTES = 3_000_000


def make_plan() -> list[PlannedTrial]:
    """1,440 finished trials, but for three that failed, stopped and never started."""
    trials = synthetic.grid(conditions=CONDITIONS)
    planned = [
        PlannedTrial(
            trial=trial,
            fingerprint=synthetic.fingerprint(trial),
            data_fingerprint="data",
            records=tuple(synthetic.records_of(trial)),
        )
        for trial in trials
    ]
    planned[-1] = replace(planned[-1], records=planned[-1].records[:4], error="out of memory")
    planned[-2] = replace(planned[-2], records=planned[-2].records[:4])
    planned[-3] = replace(planned[-3], records=())
    return planned


def make_queries(planned: Sequence[PlannedTrial]) -> Queries:
    """As many images as a report of this size shows, blurred noise of 32 x 32 pixels; no data set is opened."""
    shown = [each for each in planned if each.trial.seed == 0 and each.records]
    num_queries = sum(len(each.records) - 1 for each in shown)
    per_query = MOST_IMAGES // num_queries
    noise = np.random.default_rng(0).integers(0, 255, size=(per_query, 9, 9, 3)).astype(np.uint8)
    tiles = np.stack([np.asarray(Image.fromarray(each).resize((32, 32), Image.Resampling.BICUBIC)) for each in noise])
    images = {
        each.fingerprint: tuple(
            QueriedImages(
                round=record.round,
                num_queried=each.trial.budget,
                pixels_QSS3=tiles,
                is_ood=(False,) * per_query,
                purity=(0.1234,) * per_query if each.trial.uses_purity else (),
            )
            for record in each.records[1:]
        )
        for each in shown
    }
    rest = [each.fingerprint for each in planned if each.fingerprint not in images]
    return Queries(by_fingerprint=images, reasons=dict.fromkeys(rest, "only those of the first seed are kept"))


def main() -> int:
    """Write the report, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output-dir", type=Path, help="keep the report here")
    arguments = parser.parse_args()
    planned = make_plan()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.output_dir or Path(scratch)
        started = time.process_time()
        trials, rounds = trials_frame(planned), rounds_frame(planned)
        files = write_report(
            folder,
            name="table4",
            title=TABLE4.title,
            tables=TABLE4.tables(trials, rounds),
            trials=trials,
            rounds=rounds,
            notes=TABLE4.notes,
            details=details_of(planned),
            paper=TABLE4.paper(),
            queries=make_queries(planned),
        )
        seconds, size = time.process_time() - started, files.page.stat().st_size
    print(f"{len(planned)} trials: {seconds:.1f} CPU s (limit {MOST_SECONDS:g}), page {size:,} bytes ({MOST_BYTES:,})")
    return int(seconds > MOST_SECONDS or size > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
