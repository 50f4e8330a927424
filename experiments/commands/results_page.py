"""Writes docs/results.md and its picture from the CSV files in docs/results.

python experiments/commands/results_page.py
python experiments/commands/results_page.py --from RUN_DIR...      (makes the CSV files anew, from ledgers, first)

The run folders are those of table9.py, and of table4.py for the strategies that stand on these detectors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.files import write_atomically, write_text_atomically

if TYPE_CHECKING:
    import pandas as pd

DOCS = Path(__file__).resolve().parents[2] / "docs"
DETECTION, TRIALS = DOCS / "results" / "detection.csv", DOCS / "results" / "trials.csv"
PICTURE = DOCS / "results" / "auroc.png"
NAMES = {"cifar-pool": "CIFAR-10", "tiny-pool": "Tiny-ImageNet subset"}
"""Folder -> what it holds."""
DIGITS = 5
HEAD = """# Results

Made by `python experiments/commands/results_page.py` from the CSV files in `docs/results`, which come from ledgers; not
written by hand.

## Purity detectors as labels are bought (Table 9)

Real images, small CLIPNs: each was trained by `train_clipn.py` on images of all classes that are not in the pool. The
text side therefore knows the OOD classes as well, and text and image features are of equal, modest quality: the figures
stand for how the detectors behave beside each other as labels are bought. They cannot stand for the published weights,
which have seen far more text and none of these labels, nor for how far these would move the text side up.

How they were made (PATH: CIFAR-10 as an image folder, of which images 3000 to 4999 of each class train the CLIPN and a
folder POOL holds the first 3000):

```
python experiments/train_clipn.py --dataset folder:PATH --subset-of-each-class 3000:5000 -o clipn.pt
python experiments/table9.py --preset cpu --datasets folder:POOL --mismatch-ratios 0.2,0.4 \\
    --clipn-checkpoint clipn.pt --clip-model clipn.json -o runs/detectors
python experiments/commands/results_page.py --from runs/detectors
```

Cells with fewer seeds than others are of trials that were stopped for want of time.

What CIFAR-10 says: labels do not move the text side, and visual weights lower it; the probe, which reads no text, is
ahead of ATD from some 40 to 50 labels on, at both mismatch ratios, and by 4 to 8 points at 5,000. But with this CLIPN
the largest "yes" cosine (`maxlogit`), without any label, is ahead of ATD from the start, and the probe passes it only
near 1,500 labels: what loses to the probe here is ATD's use of the text, not the text. `fused` is within 0.01 points of
the better of ATD and the probe, or above it, at every stage, and above both by 0.7 to 4 points from 20 to 150 labels.

What the Tiny-ImageNet subset says (100 images of each of the 200 classes: 50 to train the CLIPN, 50 in the pool):
from so few images the text learns next to nothing, every text score stays near chance, and only labels help.

NegLabel needs a text tower that has read English: here its words were never trained, and it is near chance.

![AUROC over labels bought](results/auroc.png)
"""


def main() -> int:
    """Write the page; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--from", dest="folders", nargs="+", type=Path, metavar="RUN_DIR", help="make the CSV files anew"
    )
    args = parser.parse_args()
    if args.folders:
        _collect(args.folders)
    import pandas as pd

    from experiments.plots.canvas import file_bytes
    from experiments.plots.detection import draw_detection

    stages = pd.read_csv(DETECTION).rename(columns={"strategy": "arm"})
    picture = file_bytes(draw_detection(stages), "png", dpi=110)
    write_atomically(PICTURE, lambda file: _write(file, picture))
    trials = pd.read_csv(TRIALS).rename(columns={"strategy": "arm"}) if TRIALS.exists() else None
    write_text_atomically(DOCS / "results.md", page(stages, trials))
    print(f"written: {DOCS / 'results.md'}")
    return 0


def page(stages: pd.DataFrame, trials: pd.DataFrame | None) -> str:
    """The whole page, of the frame of stages (`detection_frame`) and of trials (`trials_frame`)."""
    from experiments.tables.table import render_markdown
    from experiments.tables.table4 import table4_tables
    from experiments.tables.table9 import table9_tables

    parts = [HEAD, *(render_markdown(table) for table in table9_tables(stages))]
    if trials is not None:
        parts += [TRIALS_HEAD, *(render_markdown(table) for table in table4_tables(trials))]
    return "\n".join(parts)


TRIALS_HEAD = """## VLPure on these detectors

The same images and CLIPN, `table4.py --preset cpu --set recipe.name=paper-clip-linear` (a linear head on the CLIPN's
image tower as the classifier, which a CPU trains in a second), 5 rounds of 500 labels, seeds 0 to 2.
"""


def _collect(folders: Sequence[Path]) -> None:
    """The CSV files, from ledgers; data sets by their names, fingerprints left out."""
    from dataclasses import replace

    from experiments.presets import ARMS
    from experiments.results.frames import csv_text, detection_frame, trials_frame
    from experiments.results.from_ledgers import row_names, trials_of_ledgers

    found = [each for each in trials_of_ledgers(folders).planned if each.is_finished]
    kinds = [
        [each for each in found if (each.trial.detection is not None) == is_detection] for is_detection in (True, False)
    ]
    # By kind: against classifiers' trials every detection trial would differ in its settings.
    detection, others = (
        [replace(each, arm=row) for each, row in zip(kind, row_names(kind, ARMS), strict=True)] for kind in kinds
    )
    for path, frame in ((DETECTION, detection_frame(detection)), (TRIALS, trials_frame(others))):
        if not frame.empty:
            frame["dataset"] = [NAMES.get(Path(name).name, name) for name in frame["dataset"]]
            write_text_atomically(path, csv_text(frame.drop(columns="fingerprint").round(DIGITS)))


def _write(file: object, content: bytes) -> None:
    file.write(content)  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
