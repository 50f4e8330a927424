"""Small files in the layouts in which data sets are published, for whoever tests with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
CLASSES = ("airplane", "ant", "t-shirt", "The_Eiffel_Tower")


def write_domainnet(
    root: Path,
    *,
    classes: tuple[str, ...] = CLASSES,
    num_train: int = 3,
    num_test: int = 2,
    size: tuple[int, int] = (12, 10),
) -> Path:
    """A DomainNet below `root` with that many images of each class in each domain; returns its folder.

    Images are noise around a grey level of the class. Every domain's list has its classes in another order than the
    labels, and images mixed: whoever reads them must not rely on order.
    """
    source = root / "domainnet"
    generator = np.random.default_rng(0)
    for domain in DOMAINS:
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for label, name in enumerate(classes):
            folder = source / domain / name
            folder.mkdir(parents=True)
            for number in range(num_train + num_test):
                file = f"{domain}_{label + 1:03}_{number + 1:06}.jpg"
                noise = generator.integers(0, 20, (size[1], size[0], 3)) + 40 * label
                Image.fromarray(noise.astype(np.uint8)).save(folder / file)
                lines["train" if number < num_train else "test"].append(f"{domain}/{name}/{file} {label}")
        for part, of_part in lines.items():
            mixed = [of_part[position] for position in generator.permutation(len(of_part))]
            (source / f"{domain}_{part}.txt").write_text("\n".join(mixed) + "\n")
    return source


def cifar_rows(num_images: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image a row: 1,024 red values, then green, then blue, each row by row."""
    return np.random.default_rng(seed).integers(0, 256, (num_images, 3072), dtype=np.uint8)


def write_cifar10(root: Path, python2_pickle: Callable[[Any], bytes]) -> Path:
    """A CIFAR-10 below `root` of 4 images a batch, written by the fixture `python2_pickle`; returns its folder."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{batch}" for batch in range(1, 6)), "test_batch"]):
        labels = [number, 9, 0, number]
        batch = {"batch_label": name, "labels": labels, "data": cifar_rows(4, number), "filenames": ["a.png"] * 4}
        (folder / name).write_bytes(python2_pickle(batch))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta = {"num_cases_per_batch": 10000, "label_names": names, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2_pickle(meta))
    return folder


WNIDS = ("n01443537", "n01629819", "n01774384")


def write_tiny_imagenet(root: Path) -> Path:
    """A Tiny-ImageNet below `root`: 3 classes with 2 training and 1 validation images each, all of one grey level.

    One of the images has a single channel, as some of the published ones do. Returns the data set's folder.
    """
    source = root / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        for number in range(2):
            save_grey(source / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", 100 + 10 * label + number)
        (source / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    # The order of the published wnids.txt is not the sorted one.
    (source / "wnids.txt").write_text("\n".join(reversed(WNIDS)))
    (source / "words.txt").write_text(
        "n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\nn01629819\tEuropean fire salamander, Salamandra\n"
        "n01774384\tblack widow, Latrodectus mactans\n"
    )
    lines = []
    for name, label, mode in (("val_0.JPEG", 2, "RGB"), ("val_1.JPEG", 0, "L"), ("val_10.JPEG", 1, "RGB")):
        save_grey(source / "val" / "images" / name, 200 + label, mode)
        lines.append(f"{name}\t{WNIDS[label]}\t0\t32\t44\t62\n")
    (source / "val" / "val_annotations.txt").write_text("".join(lines))
    (source / "test" / "images").mkdir(parents=True)
    return source


def save_grey(path: Path, level: int, mode: str = "RGB") -> None:
    """A JPEG of 64x64 pixels of one grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (64, 64), level if mode == "L" else (level, level, level)).save(path, format="JPEG")
