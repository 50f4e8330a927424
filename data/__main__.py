"""`python -m data`: which data sets are present, where, how many images they have, and what to do if they are not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.image_files import DATA_VARIABLE
from data.registry import DATA_SETS, FOLDER_PREFIX, open_data_set
from data.storage import cache_root


def main(arguments: Sequence[str] | None = None) -> int:
    """List the data sets, or read the named ones and describe them. Returns the exit status: 2 if one is unreadable."""
    parser = argparse.ArgumentParser(
        prog="python -m data",
        description="List the data sets: present or not, where, how many images. With names: read each of them, check "
        "every image, and describe it; what is decoded is kept in the cache.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a data set, or {FOLDER_PREFIX}<path>")
    parser.add_argument("--data-root", type=Path, help=f"folder that holds the data sets (default: ${DATA_VARIABLE})")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    if not options.names:
        _list_all(options.data_root)
        return 0
    for name in options.names:
        try:
            _describe(name, options.data_root)
        except ValueError as error:
            if options.debug:
                raise
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 2
    return 0


def _list_all(root: Path | None) -> None:
    """Print a line for each known data set."""
    for name, source in DATA_SETS.items():
        try:
            survey = source.survey(root)
        except ValueError as error:
            print(f"{name:15} missing   {error}")
        else:
            print(
                f"{name:15} present   {survey.num_train:,} training and {survey.num_test:,} test images: {survey.where}"
            )
    print(f"{FOLDER_PREFIX + '<path>':15} any       an image folder: train/ and test/, in each a folder a class")
    print(f"decoded images are kept in {cache_root() / 'images'}")


def _describe(name: str, root: Path | None) -> None:
    """Read one data set and print what it holds."""
    data_set = open_data_set(name, root=None if name == "digits" else root)
    train_sizes = data_set.train.class_sizes(data_set.num_classes)
    print(f"{name}: {data_set.num_classes} classes, {data_set.image_size}x{data_set.image_size} pixels")
    print(f"  training images  {len(data_set.train):,} ({train_sizes.min():,} to {train_sizes.max():,} a class)")
    print(f"  test images      {len(data_set.test):,}")
    print(f"  classes          {', '.join(data_set.class_names[:8])}{', ...' if data_set.num_classes > 8 else ''}")
    print(f"  mean, deviation  {_rounded(data_set.mean)}, {_rounded(data_set.std)}")
    print(f"  fingerprint      {data_set.fingerprint}")


def _rounded(values: tuple[float, float, float]) -> str:
    """The three channels' values with four digits."""
    return " ".join(f"{value:.4f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
