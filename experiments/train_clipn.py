"""Trains a CLIPN: a small CLIP and its "no" text tower, or the "no" tower alone on published weights.

python experiments/train_clipn.py --dataset folder:PATH -o clipn.pt
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.files import path_argument

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.console import DONE, CommandParser, Progress, run_command, to_stderr
from data.imageset import DataSet
from data.registry import open_data_set, split_protocol_of
from data.sources.pairs import read_pairs
from experiments.commands.clipn_job import (
    ClassLabels,
    ClipnJob,
    OutputFiles,
    choose_images,
    name_id_sets,
    trained_classes,
)
from experiments.commands.flags import add_output_flags, comma_list
from models.clipn.prompts import class_phrases
from models.clipn.recipe import (
    ClipRecipe,
    NoTowerRecipe,
    SmallClipnRecipe,
    small_clip_config,
    small_resnet_config,
)
from models.clipn.source import DEFAULT_MODEL, clip_config

SMALLEST_RESNET = 32
"""Smallest image size (pixels) that gets a ResNet by default, which halves images five times."""
LARGEST_DEFAULT = 64
"""Largest image size (pixels) of the default architecture; larger images are resized to it."""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    clip, no_tower = ClipRecipe(), NoTowerRecipe()
    parser = CommandParser(
        prog="train_clipn.py",
        description='Train a small CLIP and its "no" text tower, and report how well it separates ID from OOD images. '
        "The same command continues a training that was stopped.",
        epilog="Example: train_clipn.py --dataset folder:images --id-classes car,ship -o clipn.pt; then "
        "trial.py --strategy vlpure --set clipn.checkpoint=clipn.pt --set clipn.model=clipn.json",
    )
    data = parser.add_argument_group("what it is trained on (one of the first two)")
    data.add_argument("--dataset", metavar="NAME", help="labelled images: a data set, or folder:<path>")
    data.add_argument(
        "--pairs", type=path_argument, metavar="FILE", help="a CSV file with the columns path and caption"
    )
    data.add_argument("--data-root", type=path_argument, metavar="DIR", help="folder with the data sets' files")
    data.add_argument("--images", type=int, metavar="N", help="use N images, drawn with the seed, by classes")
    data.add_argument(
        "--subset-of-each-class", type=_span, metavar="FIRST:LAST", help="of each class the images FIRST to LAST-1"
    )
    data.add_argument("--hold-out", type=comma_list(str), default=(), metavar="A,B", help="classes not trained on")
    data.add_argument(
        "--on-bad-image", choices=("stop", "skip"), default="stop", help="of pairs: what a bad image does (stop)"
    )
    how = parser.add_argument_group("how it is trained")
    how.add_argument("--model", metavar="NAME", help="open_clip architecture, or its .json file (default: a small one)")
    how.add_argument("--only-no", action="store_true", help='train only the "no" tower, on the weights of --base')
    how.add_argument("--base", metavar="TAG", help="with --only-no: open_clip tag, or a file with CLIP's weights")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random (0)")
    how.add_argument("--steps-clip", type=int, default=3000, metavar="N", help="steps of the CLIP (3000)")
    how.add_argument("--steps-no", type=int, default=400, metavar="N", help='steps of the "no" tower (400)')
    how.add_argument("--batch-size", type=int, default=clip.batch_size, metavar="N", help="images per step (128)")
    how.add_argument(
        "--batch-size-no", type=int, default=no_tower.batch_size, metavar="N", help="image features per step (512)"
    )
    how.add_argument(
        "--feature-passes", type=int, default=no_tower.num_passes, metavar="N", help="augmented copies of images (4)"
    )
    how.add_argument("--rate-clip", type=float, default=clip.learning_rate, metavar="R", help="learning rate (0.002)")
    how.add_argument("--rate-no", type=float, default=no_tower.learning_rate, metavar="R", help="learning rate (0.002)")
    how.add_argument("--logit-scale", type=float, default=clip.logit_scale, metavar="S", help="the CLIP's, fixed (20)")
    how.add_argument("--tso-weight", type=float, default=1.0, metavar="W", help="of the semantic-opposite loss (1)")
    how.add_argument("--noise", type=float, default=0.0, metavar="S", help="noise on preprocessed images (0)")
    how.add_argument("--no-flip", action="store_true", help="never mirror an image")
    how.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device that computes it (cpu)")
    how.add_argument("--cpus", type=int, default=1, metavar="N", help="torch threads (1)")
    out = parser.add_argument_group("output")
    out.add_argument("-o", "--output", type=path_argument, required=True, metavar="FILE.pt", help="the checkpoint")
    out.add_argument("--save-every", type=float, default=60.0, metavar="SECONDS", help="state for continuing (60)")
    out.add_argument("--report-on", metavar="NAME", help="data set of the report (default: --dataset)")
    out.add_argument(
        "--id-classes",
        type=comma_list(str),
        action="append",
        default=[],
        metavar="A,B",
        help="classes taken as ID in the report; may be repeated (default: those of trials with seeds 0 and 1)",
    )
    add_output_flags(parser)
    return parser


def main() -> int:
    """Run the command, and return its exit code."""
    return run_command(make_parser(), _run)


def _run(args: argparse.Namespace) -> int:
    _check(args)
    progress: Progress = _silent if args.quiet else to_stderr
    files = OutputFiles(args.output)
    data = _open(args.dataset, args, progress)
    tested = _open(args.report_on, args, progress) if args.report_on else data
    id_sets = name_id_sets(tested, args.id_classes, args.hold_out)
    job = _labelled_job(data, args) if data else _pairs_job(args, progress)
    with files.locked():
        done = files.report_of(job.identity)
        if done is None:
            from experiments.commands.clipn_run import (
                train_and_report,  # torch, only now that the input is known to be good
            )

            done = train_and_report(
                job,
                files,
                tested,
                id_sets,
                device=args.device,
                cpus=args.cpus,
                save_every=args.save_every,
                progress=progress,
            )
    print(done.text())
    return DONE


def _check(args: argparse.Namespace) -> None:
    """Refuse values that cannot be used, before anything is read."""
    if (args.dataset is None) == (args.pairs is None):
        raise ValueError("give either --dataset or --pairs")
    if args.only_no != (args.base is not None):
        raise ValueError("--only-no and --base are given together: the base is what the 'no' tower is trained on")
    if args.pairs and (args.hold_out or args.subset_of_each_class):
        raise ValueError("--hold-out and --subset-of-each-class need classes; pairs have none")
    if args.output.suffix != ".pt":
        raise ValueError(f"--output is {args.output}; its name must end in .pt")
    for name in ("images", "steps_clip", "steps_no", "batch_size", "batch_size_no", "cpus"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    for name in ("rate_clip", "rate_no", "logit_scale"):
        if not getattr(args, name) > 0:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be above 0")
    for name in ("tso_weight", "noise", "feature_passes", "seed", "save_every"):
        if not getattr(args, name) >= 0:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must not be below 0")


def _open(name: str | None, args: argparse.Namespace, progress: Progress) -> DataSet | None:
    """The data set of that name, if there is a name."""
    if name is None:
        return None
    if split_protocol_of(name) == "domain":
        raise ValueError(f"{name}: its training images are of six domains; give a folder or pairs of one kind instead")
    return open_data_set(name, root=args.data_root, progress=progress)


def _labelled_job(data: DataSet, args: argparse.Namespace) -> ClipnJob:
    """Training on the training images of a data set."""
    classes = trained_classes(data, args.hold_out)
    idx, labels = choose_images(data, classes, span=args.subset_of_each_class, num_images=args.images, seed=args.seed)
    names = class_phrases([data.class_names[c] for c in classes])
    return ClipnJob(
        config=_config(args, data.image_size, context_length=32),
        recipe=_recipe(args),
        base=args.base,
        model=args.model or DEFAULT_MODEL,
        images=data.train.images,
        images_fingerprint=data.train.images.fingerprint,
        idx=idx,
        captions=ClassLabels(labels=labels, names=names),
    )


def _pairs_job(args: argparse.Namespace, progress: Progress) -> ClipnJob:
    """Training on image-caption pairs."""
    config = _config(args, LARGEST_DEFAULT, context_length=77)
    pairs = read_pairs(
        args.pairs,
        image_size=config["vision_cfg"]["image_size"],
        on_bad_image=args.on_bad_image,
        progress=progress,
    )
    return ClipnJob(
        config=config,
        recipe=_recipe(args),
        base=args.base,
        model=args.model or DEFAULT_MODEL,
        images=pairs.images,
        images_fingerprint=pairs.images.fingerprint,
        idx=pairs.draw(args.images, seed=args.seed),
        captions=pairs.captions,
    )


def _config(args: argparse.Namespace, image_size: int, *, context_length: int) -> dict[str, Any]:
    """The architecture: the named one, the base's, or a small one for images of this size."""
    if args.model or args.only_no:
        return clip_config(args.model or DEFAULT_MODEL)
    if image_size < SMALLEST_RESNET:
        return small_clip_config(image_size)
    size = min(image_size, LARGEST_DEFAULT) // SMALLEST_RESNET * SMALLEST_RESNET
    return small_resnet_config(size, context_length=context_length)


def _recipe(args: argparse.Namespace) -> SmallClipnRecipe:
    """The recipe of the training, from the flags."""
    clip = ClipRecipe(
        steps=args.steps_clip,
        batch_size=args.batch_size,
        learning_rate=args.rate_clip,
        logit_scale=args.logit_scale,
        noise=args.noise,
        max_degrees=0.0,
        max_zoom=0.0,
        flip=not args.no_flip,
    )
    no_tower = replace(
        NoTowerRecipe(),
        steps=args.steps_no,
        batch_size=args.batch_size_no,
        num_passes=args.feature_passes,
        learning_rate=args.rate_no,
        semantic_weight=args.tso_weight,
    )
    return SmallClipnRecipe(clip=clip, no_tower=no_tower, seed=args.seed)


def _span(text: str) -> tuple[int, int]:
    """An argparse type for FIRST:LAST."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"expected FIRST:LAST with FIRST below LAST, such as 0:1500, not '{text}'")
    return int(match[1]), int(match[2])


def _silent(line: str) -> None:
    """Ignore a progress line: --quiet."""


if __name__ == "__main__":
    sys.exit(main())
