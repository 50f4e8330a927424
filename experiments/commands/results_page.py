"""Writes docs/results.md and its picture from the CSV files in docs/results.

python experiments/commands/results_page.py
python experiments/commands/results_page.py --from RUN_DIR...      (makes the CSV files anew, from ledgers, first)

The run folders are those of table9.py, and of table4.py for the strategies that stand on these detectors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.files import write_atomically, write_text_atomically

if TYPE_CHECKING:
    import pandas as pd

    from experiments.tables.table import Table
    from orchestrator.plan import PlannedTrial

DOCS = Path(__file__).resolve().parents[2] / "docs"
DETECTION, TRIALS, OPENSET = (DOCS / "results" / f"{name}.csv" for name in ("detection", "trials", "openset"))
PICTURE = DOCS / "results" / "auroc.png"
NAMES = {"cifar-pool": "CIFAR-10", "tiny-pool": "Tiny-ImageNet subset"}
"""Folder -> what it holds."""
DETECTION_KIND, OPENSET_KIND = "detection", "openset"
OPENSET_NETWORK = "convnet"
"""Network of the trials in which all strategies stand side by side."""
CLASSIFIERS = {"head": "", "network": ", trained network"}
"""Kind of classifier (a linear head on the CLIPN's image tower, a network) -> what it adds to the data set's name."""
REFERENCE = "vlpure"
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

From stored features 12 detectors at three mismatch ratios and five seeds took four minutes on two cores that others
used too (180 trials of up to 30,000 images with features of 64 dimensions).

What CIFAR-10 says: labels do not move the text side, and visual weights lower it; the probe, which reads no text, is
ahead of ATD from some 40 to 50 labels on, at both mismatch ratios, and by 4 to 8 points at 5,000. But with this CLIPN
the largest "yes" cosine (`maxlogit`), without any label, is ahead of ATD from the start, and the probe passes it only
near 1,500 labels: what loses to the probe here is ATD's use of the text, not the text. `fused` is within 0.01 points of
the better of ATD and the probe, or above it, at every stage, and above both by 0.7 to 4 points from 20 to 150 labels.

What the Tiny-ImageNet subset says (100 images of each of the 200 classes: 50 to train the CLIPN, 50 in the pool):
from so few images the text learns little. Without labels no detector is above 55.2 %, and ATD, CTW and MCM stay at 50
to 52 % with labels, too. `energy`, whose logit scale the labels choose, has the highest mean from 60 to 1,500 labels
(56 to 58 %; the five seeds tell it from the probe from 150 on); at 5,000 the probe is level with it.

NegLabel needs a text tower that has read English: here its words were never trained, and it is near chance (55 to
57 %). TANL starts from such words and adapts them to the pool and the labels. On CIFAR-10 with labels its mean is 5 to
12 points above NegLabel's, a difference that five seeds tell from 0 at a mismatch ratio of 40 % from 150 labels on, and
nowhere at 20 %; from 60 labels on every detector but NegLabel is above it. Without labels it has 66 ± 8 % at 40 %, and
41 ± 21 % at 20 %. On the Tiny-ImageNet subset it is 1 to 4 points below NegLabel.

![AUROC over labels bought](results/auroc.png)
"""


FINDINGS = "What CIFAR-10 says"
FEWER_SEEDS = """Cells with fewer seeds than others are of trials that were stopped for want of time.

"""


def main() -> int:
    """Write the page; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--from", dest="folders", nargs="+", type=Path, metavar="RUN_DIR", help="make the CSV files anew"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="count unfinished trials with N rounds, and cut those of a recipe alike"
    )
    args = parser.parse_args()
    if args.folders:
        _collect(args.folders, args.rounds)
    import pandas as pd

    from experiments.plots.canvas import file_bytes
    from experiments.plots.detection import draw_detection

    stages = pd.read_csv(DETECTION).rename(columns={"strategy": "arm"})
    picture = file_bytes(draw_detection(stages), "png", dpi=110)
    write_atomically(PICTURE, lambda file: _write(file, picture))
    trials, openset = (
        pd.read_csv(path).rename(columns={"strategy": "arm"}) if path.exists() else None for path in (TRIALS, OPENSET)
    )
    write_text_atomically(DOCS / "results.md", page(stages, trials, openset))
    print(f"written: {DOCS / 'results.md'}")
    return 0


def page(stages: pd.DataFrame, trials: pd.DataFrame | None, openset: pd.DataFrame | None) -> str:
    """The whole page, of the frame of stages (`detection_frame`) and of the two of trials (`trials_frame`)."""
    from experiments.tables.openset import openset_tables
    from experiments.tables.table import render_markdown
    from experiments.tables.table4 import table4_tables
    from experiments.tables.table9 import table9_tables

    head = HEAD.replace(FINDINGS, FEWER_SEEDS + FINDINGS, 1) if _some_have_fewer_seeds(stages) else HEAD
    parts = [head, *(render_markdown(table) for table in table9_tables(stages))]
    if trials is not None:
        tables = [*table4_tables(trials), paired_table(trials)]
        parts += [TRIALS_HEAD, *(render_markdown(table) for table in tables)]
    if openset is not None:
        parts += [OPENSET_HEAD, *(render_markdown(table) for table in openset_tables(openset)), TRIED]
    return "\n".join(parts)


def _some_have_fewer_seeds(stages: pd.DataFrame) -> bool:
    """Whether some row of a table of stages has fewer seeds than another row of it."""
    seeds = stages.groupby(["dataset", "mismatch_ratio", "ood_ratio", "arm"], dropna=False)["seed"].nunique()
    per_table = seeds.groupby(level=["dataset", "mismatch_ratio", "ood_ratio"], dropna=False).nunique()
    return bool((per_table > 1).any())


TRIALS_HEAD = """## VLPure on these detectors

The same images and CLIPN, `table4.py --preset cpu --set recipe.name=paper-clip-linear` (a linear head on the CLIPN's
image tower as the classifier, which a CPU trains in a second), 5 rounds of 500 labels, seeds 0 to 2. Below it, as
"trained network", `table4.py --preset cpu --strategies random,vlpure,vlpure-probe,vlpure-fused` as the preset is (a
small network, trained anew in each round for 300 steps), cut to its first 3 rounds for want of time (`--rounds 3`):
seeds 0 to 2.

Each of these detectors buys far more ID images than random draws do, and the network of 300 steps gains as much from
500 random images all the same. With three seeds the intervals of the differences from `vlpure` are wide: what they show
and do not show stands in the last table.
"""


OPENSET_HEAD = """## All open-set strategies on CIFAR-10

The same images and CLIPN, every open-set strategy and some that know no OOD images, in one condition. The classifier
is the `cpu` preset's with a smaller network (`recipe.network=convnet`, 300 steps from new weights in each round); 4
queries of 500 follow 500 initial labels, of which 300 are OOD and count as wasted. The strategies' own networks train
as shortly as the preset says.

```
python experiments/table4.py --preset cpu --datasets folder:POOL --set recipe.network=convnet --seeds 0-2 \\
    --strategies random,conf,vlpure,lfosa,eoal,mqnet,ccal,neat,neat-passive,poal,eaoa,bual,e2oal,e2oal-own,\\
vlpure-probe,vlpure-fused,vlpure-uherding,uherding,typiclust,coreset \\
    --clipn-checkpoint clipn.pt --clip-model clipn.json -o runs/openset
python experiments/commands/results_page.py --from runs/openset
```

Marks: bold the best, underlined the second; † not separable from the best, § separable from 0 (paired t-test over the
seeds, adjusted by Holm over the rows, p at most 0.05). Seconds: the wall time of a trial on one core of a machine that
others used too; the first seed of `ccal` and `mqnet` includes the training of their encoders (826 and 465 s in all).

What it says: with three seeds no AUBC is separable from that of `vlpure`, the highest, nor from that of `random`; the
seeds of `vlpure` differ by 15 points, so that only the paired columns say anything. The highest three means are those
of VLPure with a text in its detector, 1.6 to 1.9 points above `random` with half as many labels wasted. What is
separable are precisions: `neat`, `neat-passive`, `vlpure-fused` and `vlpure-probe` buy far more ID images than
`random`.

What looks odd: precision does not decide. `neat` and `neat-passive` have the highest by far and no more AUBC than
`random`, perhaps because they buy what is like the images that are labelled already; `poal` and `uherding` buy fewer
ID images than `random` and stand next to VLPure. The strategies that train a detector of their own in each round
(`lfosa`, `eoal`, `e2oal`, `bual`, `eaoa`) are below `random` on average, at precisions of 56 to 72 %. Their detectors
train for 20 epochs here, for 100 to 300 in the original studies, so that this is no judgement of the methods; and
`vlpure`'s CLIPN knows the OOD classes.
"""


TRIED = """### Tried and not kept: a candidate set that follows the precision (`vlpure-adaptive`)

A strategy of this project's own was to aim at a stated precision. Its detector is `fused`; candidates are the share of
the pool with the highest scores, at first as large a share as ID images have among the labelled, after each query
multiplied by exp(2 (precision - 0.9)), so that the width follows the last precision as in EAOA; of an equal number of
candidates in each predicted class the least certain are asked. It was to be kept if its AUBC were higher than that of
`vlpure`, or equal with fewer labels wasted. In the condition above, minus `vlpure`, paired over seeds 0 to 4: AUBC
-0.62 ± 0.86, last accuracy -0.47 ± 3.90, wasted labels -27 ± 94 (701 in place of 727, of 2,500 labels). Neither is
shown, and the strategy is not in the code.

As the idea was first stated, UHerding covered the candidates, weighted by the margin (aim 0.85, first share 30 %,
factor 3): AUBC -0.30 ± 1.37, wasted labels -92 ± 165, on seeds 0 to 3.

The rule was chosen on seeds 10 to 14 with a linear head (AUBC -0.05 ± 0.65, wasted labels -192 ± 157); the network did
not repeat that gain. With the head, a first share of 20 % met the aim from the first query on and wasted 324 ± 262
labels fewer than `vlpure` in 3 seeds, but its AUBC was 0.76 ± 1.89 lower: a purer query was no better one.
"""


def _collect(folders: Sequence[Path], rounds: int | None) -> None:
    """The CSV files, from ledgers, of finished trials and of those that have at least `rounds` rounds."""
    import pandas as pd

    from experiments.presets import ARMS
    from experiments.results.frames import detection_frame, trials_frame
    from experiments.results.from_ledgers import row_names, trials_of_ledgers

    planned = trials_of_ledgers(folders).planned
    found = [
        each
        for each in planned
        if each.is_finished or (rounds and each.trial.detection is None and len(each.records) >= rounds)
    ]
    groups: dict[str, list[PlannedTrial]] = {}
    for each in found:
        groups.setdefault(_kind(each), []).append(each)
    frames = []
    for kind, members in groups.items():
        # By kind: against those of another recipe every trial would differ in its settings.
        named = [replace(each, arm=row) for each, row in zip(members, row_names(members, ARMS), strict=True)]
        if kind == DETECTION_KIND:
            _keep(DETECTION, detection_frame(named))
            continue
        frame = trials_frame(_common_rounds(named))
        if kind == OPENSET_KIND:
            _keep(OPENSET, frame)
            continue
        frame["dataset"] = [NAMES.get(Path(name).name, name) + CLASSIFIERS[kind] for name in frame["dataset"]]
        frames.append(frame)
    if frames:
        _keep(TRIALS, pd.concat(frames))


def _kind(planned: PlannedTrial) -> str:
    """The part of the page that a trial belongs to."""
    if planned.trial.detection is not None:
        return DETECTION_KIND
    if planned.trial.recipe.network == OPENSET_NETWORK:
        return OPENSET_KIND
    return "head" if planned.trial.recipe.encoder else "network"


def _common_rounds(members: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """The trials cut to the rounds that all of them have, so that areas and precisions are of equal lengths."""
    rounds = min(len(each.records) for each in members)
    return [
        replace(each, records=each.records[:rounds], trial=each.trial.model_copy(update={"rounds": rounds}))
        for each in members
    ]


def _keep(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as CSV; data sets by their names, fingerprints left out."""
    from experiments.results.frames import csv_text

    frame["dataset"] = [NAMES.get(Path(name).name, name) for name in frame["dataset"]]
    write_text_atomically(path, csv_text(frame.drop(columns="fingerprint").round(DIGITS)))


def paired_table(trials: pd.DataFrame) -> Table:
    """AUBC and precision of each row minus those of vlpure, paired by seed."""
    from experiments.results.comparison import collect_scores
    from experiments.results.statistics import estimate
    from experiments.tables.table import Cell, Row, Table

    metrics = {"aubc": "AUBC", "mean_precision": "mean precision of the queries"}
    rows: dict[str, list[Cell]] = {}
    for metric in metrics:
        for condition, by_arm in collect_scores(trials, metric).items():
            for arm, scores in by_arm.items():
                if arm == REFERENCE:
                    continue
                pairs = [value - by_arm[REFERENCE][seed] for seed, value in scores.items() if seed in by_arm[REFERENCE]]
                value = estimate(pairs)
                text = f"{100 * value.mean:+.2f} ± {100 * value.half_width:.2f}"
                rows.setdefault(f"{condition.dataset}: {arm}", []).append(Cell(text=text))
    return Table(
        title=f"Differences from {REFERENCE}, paired by seed, percentage points",
        corner="data set: strategy",
        columns=tuple(metrics.values()),
        rows=tuple(Row(label=label, cells=tuple(cells)) for label, cells in rows.items()),
    )


def _write(file: object, content: bytes) -> None:
    file.write(content)  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
