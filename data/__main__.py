"""`python -m data`: list the data sets (present or missing, folder, number of images), read them or fetch them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.console import DONE, CommandParser, StepReporter, run_command, to_stderr
from data.download import fetch_data_set
from data.files import cache_root, path_argument
from data.image_files import DATA_VARIABLE, configured_folder
from data.imageset import DataSet, Images, PathImages, Survey
from data.published import size_in_words
from data.registry import DATA_SETS, FOLDER_PREFIX, open_data_set

_FETCH = "fetch"
_BLOCK = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """List the data sets, read and describe the named ones, or fetch them.

    Returns the exit status: 0, 2 if one is unreadable or cannot be had, 130 if interrupted.
    """
    parser = CommandParser(
        prog="python -m data",
        usage="%(prog)s [-h] [--data-root DIR] [--check-images] [--debug] [[fetch] NAME ...]",
        description="List the data sets: present or not, where, how many images. With names: read each of them and "
        "describe it; what is decoded is kept in the cache. With fetch and names: download, check and unpack them; "
        "interrupted downloads are continued, and archives that are already in the folder are used.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a data set, or {FOLDER_PREFIX}<path>")
    parser.add_argument(
        "--data-root", type=path_argument, help=f"folder that holds the data sets (default: ${DATA_VARIABLE})"
    )
    parser.add_argument(
        "--check-images",
        action="store_true",
        help="decode every image of the named data sets; only DomainNet's are not decoded anyway",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> int:
    """Do what the parsed command line asks for. Returns the exit code."""
    names, root = options.names, options.data_root
    if not names:
        _list_all(root)
    elif names[0] != _FETCH:
        for name in names:
            data_set = open_data_set(name, root=None if name == "digits" else root)
            if options.check_images:
                _check_images(data_set)
            _describe(data_set)
    elif names[1:]:
        for name in names[1:]:
            survey = fetch_data_set(name, root=root, progress=to_stderr)
            print(f"{name:19} {_in_words(survey)}")
    else:
        known = ", ".join(name for name, source in DATA_SETS.items() if source.package)
        raise ValueError(f"fetch needs a data set: name one or more of: {known}")
    return DONE


def _list_all(root: Path | None) -> None:
    """Print one line for each known data set, then what the lines have in common."""
    folder = configured_folder(root)
    for name, source in DATA_SETS.items():
        if source.package and folder is None:
            print(f"{name:19} unknown   {size_in_words(source.package.num_bytes)} if it has to be downloaded")
            continue
        try:
            survey = source.survey(root)
        except ValueError as error:
            print(f"{name:19} missing   {error}")
        else:
            print(f"{name:19} present   {_in_words(survey)}")
    print(f"{FOLDER_PREFIX + '<path>':19} any       an image folder: train/ and test/, each with a folder per class")
    if folder is None:
        print(
            f"no folder of data sets is given: --data-root DIR or {DATA_VARIABLE}=DIR looks there; "
            "`python -m data fetch NAME --data-root DIR` downloads one, or takes archives from DIR, and unpacks it"
        )
    print(f"decoded images are kept in {cache_root() / 'images'}")


def _in_words(survey: Survey) -> str:
    """One line about a data set that is present."""
    note = f" ({survey.note})" if survey.note else ""
    return f"{survey.num_train:,} training and {survey.num_test:,} test images: {survey.where}{note}"


def _check_images(data_set: DataSet) -> None:
    """Decode every image. Raises ValueError naming the first file that cannot be decoded."""
    for images in (data_set.train.images, data_set.test.images):
        if isinstance(images, PathImages):
            _decode_all(images, f"checking the images of {data_set.name}")


def _decode_all(images: Images, doing: str) -> None:
    reporter = StepReporter(doing, len(images), to_stderr)
    for start in range(0, len(images), _BLOCK):
        stop = min(start + _BLOCK, len(images))
        images.load(np.arange(start, stop))
        reporter.done(stop)


def _describe(data_set: DataSet) -> None:
    """Print the classes, sizes, statistics and notes of a data set."""
    sizes = data_set.train.class_sizes(data_set.num_classes)
    num_other = len(data_set.train) - sizes.sum()
    others = f"; {num_other:,} of other domains" if num_other else ""
    print(f"{data_set.name}: {data_set.num_classes} classes, {data_set.image_size}x{data_set.image_size} pixels")
    print(f"  training images  {len(data_set.train):,} ({sizes.min():,} to {sizes.max():,} per class{others})")
    print(f"  test images      {len(data_set.test):,}")
    print(f"  classes          {', '.join(data_set.class_names[:8])}{', ...' if data_set.num_classes > 8 else ''}")
    print(f"  mean, deviation  {_rounded(data_set.mean)}, {_rounded(data_set.std)}")
    print(f"  fingerprint      {data_set.fingerprint}")
    for note in data_set.notes:
        print(f"  note             {note}")


def _rounded(values: tuple[float, float, float]) -> str:
    """The three channels' values with four digits."""
    return " ".join(f"{value:.4f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
