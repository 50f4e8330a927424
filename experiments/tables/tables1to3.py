"""Tables 1 to 3: the data sets and their open-set problems, from the data code, next to the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.registry import DATA_SETS
from data.sources.domainnet import find_domainnet
from data.sources.domainnet_lists import DOMAINS, FOLDER, read_list
from data.sources.published_counts import PUBLISHED
from data.splits.domain import NUM_ID_CLASSES, count_domain_split
from data.splits.ratios import SplitCounts, count_split
from experiments.results.paper import paper_rows
from experiments.tables.table import Table, format_ratio, text_table

BUDGETS = {"cifar10": 500, "cifar100": 500, "tiny-imagenet": 1000}
"""Labels of the initial set."""


def data_tables(root: Path | None, *, seeds: Sequence[int] = range(5)) -> list[Table]:
    """The three tables. `root` is the folder with the data sets' files; None: their default place.

    The counts of the files, if there are any, are shown next to the published ones. Raises ValueError for lists of
    DomainNet that cannot be read.
    """
    return [table1(root), table2(), table3(root, seeds=seeds)]


def table1(root: Path | None) -> Table:
    """Table 1, the data sets: published counts, those of the files on this machine, and the paper's."""
    rows = []
    for paper in paper_rows("table1.csv"):
        name = paper["dataset"]
        ours = PUBLISHED[name]
        published = (ours.image_size, ours.num_classes, ours.num_train, ours.num_test)
        printed = tuple(int(paper[column]) for column in ("image_size", "num_classes", "num_train", "num_test"))
        texts = [
            *(f"{value:,}" for value in published),
            _files_here(name, root),
            _verdict(published == printed, ", ".join(f"{value:,}" for value in printed)),
        ]
        rows.append((name, texts))
    return text_table(
        "Table 1: data sets",
        corner="data set",
        columns=("pixels", "classes", "training images", "test images", "files here", "the paper"),
        rows=rows,
    )


def table2() -> Table:
    """Table 2, the open-set problems with both ratios, counted by the code that draws them; equal for every seed."""
    rows = []
    for paper in paper_rows("table2.csv"):
        name, mismatch, ood = paper["dataset"], float(paper["mismatch_ratio"]), float(paper["ood_ratio"])
        sizes = PUBLISHED[name].class_sizes()
        ours = count_split(sizes, mismatch_ratio=mismatch, ood_ratio=ood, budget=BUDGETS[name], seed=0)
        columns = ("initial_id", "initial_ood", "unlabelled_id", "unlabelled_ood")
        printed = tuple(int(paper[column]) for column in columns)
        counted = tuple(getattr(ours, column) for column in columns)
        texts = [*(f"{value:,}" for value in counted), _verdict(counted == printed, _counts(printed))]
        rows.append((f"{name} {format_ratio(mismatch)} / {format_ratio(ood)}", texts))
    return text_table(
        "Table 2: open-set data by mismatch ratio and OOD ratio",
        corner="mismatch / OOD",
        columns=("first ID labels", "first OOD labels", "ID in the pool", "OOD in the pool", "the paper"),
        rows=rows,
    )


def table3(root: Path | None, *, seeds: Sequence[int]) -> Table:
    """Table 3, DomainNet: the OOD images that the paper's own rows leave, and the seeds' draws if the lists are here.

    All training images are either ID or OOD, so that the paper's ID images fix its OOD images.
    """
    total = sum(PUBLISHED[f"{FOLDER}-{domain}"].num_train for domain in DOMAINS)
    drawn = _drawn(root, seeds)
    rows = []
    for paper in paper_rows("table3.csv"):
        initial, pool_id, printed = int(paper["initial_id"]), int(paper["unlabelled_id"]), int(paper["unlabelled_ood"])
        left = total - initial - int(paper["initial_ood"]) - pool_id
        verdict = _verdict(left == printed, f"{printed:,}, which does not add up to {total:,} images")
        texts = [f"{initial:,}", f"{pool_id:,}", f"{left:,}", verdict, _describe(drawn.get(paper["domain"], []))]
        rows.append((paper["domain"], texts))
    return text_table(
        f"Table 3: DomainNet, one domain with {NUM_ID_CLASSES} ID classes, {total:,} training images in all",
        corner="domain",
        columns=(
            "first ID labels", "ID in the pool (the paper's classes)", "OOD in the pool", "the paper",
            f"ours, ID + OOD in the pool, seeds {min(seeds)} to {max(seeds)}",
        ),
        rows=rows,
    )  # fmt: skip


def _drawn(root: Path | None, seeds: Sequence[int]) -> dict[str, list[SplitCounts]]:
    """Domain -> counts of each seed's split, from the lists alone; empty if the lists are missing."""
    try:
        source = find_domainnet(DOMAINS[0], root)
    except ValueError:
        return {}
    labels = {domain: read_list(source, domain, "train").labels for domain in DOMAINS}
    num_images = sum(map(len, labels.values()))
    num_classes = max(int(each.max()) for each in labels.values()) + 1
    counts = {}
    for domain, of_domain in labels.items():
        sizes = np.bincount(of_domain, minlength=num_classes).tolist()
        num_other = num_images - len(of_domain)
        counts[domain] = [
            count_domain_split(sizes, num_other=num_other, num_id_classes=min(NUM_ID_CLASSES, num_classes), seed=seed)
            for seed in seeds
        ]
    return counts


def _describe(drawn: Sequence[SplitCounts]) -> str:
    if not drawn:
        return "the lists are not here"
    return "; ".join(f"{each.unlabelled_id:,} + {each.unlabelled_ood:,}" for each in drawn)


def _files_here(name: str, root: Path | None) -> str:
    """The counts of the files as text, or `none`."""
    try:
        survey = DATA_SETS[name].survey(root)
    except ValueError:
        return "none"
    return f"{survey.num_train:,} and {survey.num_test:,}" + (f" ({survey.note})" if survey.note else "")


def _verdict(agrees: bool, printed: str) -> str:
    return "the same" if agrees else f"differs: {printed}"


def _counts(values: Sequence[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)
