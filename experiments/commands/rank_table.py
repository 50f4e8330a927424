"""Suggests which images of a table to label next: addresses in Parquet files, of any number, here or on a cluster.

python experiments/commands/rank_table.py s3://bucket/images/ --classes cat,dog,horse -o cats --shards s3://bucket/cats
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.console import DONE, CommandParser, run_command, to_stderr, unknown_name
from data.files import file_lock, path_argument, shown, write_text_atomically
from data.sealed import read_sealed_json, seal
from experiments.annotate.answers.labels import NONE, UNSURE, check_classes
from experiments.annotate.report import what_is_known
from experiments.annotate.settings import PUBLISHED, Settings, default_drawn
from strategies.purity.detectors import DETECTORS

if TYPE_CHECKING:
    from experiments.annotate.table.parquet import Shard
    from experiments.annotate.table.scoring import FeatureSource
    from orchestrator.cluster.shards import ShardRunner

STATE = "table.json"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(
        prog="rank_table.py",
        usage="rank_table.py TABLE --classes A,B,... -o DIR [--shards ADDRESS] [--address RAY] [options]",
        description="Suggest which images of a table to label next. Fill in the column answer of DIR/round-N/"
        f"suggestions.csv with a class, '{NONE}' or '{UNSURE}', and call it again.",
    )
    parser.add_argument("table", metavar="TABLE", help="Parquet file or folder of them; a path, s3://, gs://, hdfs://")
    parser.add_argument("--classes", required=True, metavar="A,B,...", help="names of the wanted classes")
    parser.add_argument("-n", "--number", type=int, default=50, metavar="N", help="suggestions per round (default: 50)")
    parser.add_argument("-o", "--output-dir", type=path_argument, required=True, metavar="DIR", help="for the rounds")
    parser.add_argument(
        "--shards", metavar="ADDRESS",
        help="where shards of features and probabilities go; every machine must reach it (default: DIR)",
    )  # fmt: skip
    parser.add_argument(
        "--image-column", default="image", metavar="NAME", help="column of paths or addresses (default: image)"
    )
    parser.add_argument(
        "--features-column", metavar="NAME", help="column with features of your own, in place of weights"
    )
    parser.add_argument(
        "--clip-pretrained", metavar="TAG", help=f"a plain CLIP, by open_clip tag or file (default: {PUBLISHED})"
    )
    parser.add_argument("--clipn-checkpoint", type=path_argument, metavar="PATH", help="a CLIPN's weights instead")
    parser.add_argument("--clip-model", metavar="NAME", help="open_clip architecture of either (default: ViT-B-16)")
    parser.add_argument("--purity", metavar="DETECTOR", help=f"{', '.join(DETECTORS)}")
    parser.add_argument("--strategy", metavar="NAME", help="what chooses among the wanted ones")
    parser.add_argument(
        "--drawn", type=int, metavar="N", help="suggestions drawn at random per round (default: 1 in 25; 0: none)"
    )
    parser.add_argument("--address", metavar="RAY", help="Ray cluster to work on: auto, local or host:port of its head")
    parser.add_argument("--gpu", action="store_true", help="compute features on GPUs, one worker each")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and library warnings")
    return parser


def _run(args: argparse.Namespace) -> int:
    _check(args)
    try:
        with file_lock(args.output_dir / ".lock", wait=False):
            return _rank(args)
    except BlockingIOError:
        raise ValueError(f"another process is writing to {args.output_dir}; end it, or use another -o") from None


def _rank(args: argparse.Namespace) -> int:
    from experiments.annotate.table.parquet import list_shards
    from experiments.annotate.table.ranking import TableRound
    from experiments.annotate.table.scoring import FeatureSource
    from orchestrator.cluster.shards import shard_runner

    columns = [args.image_column, *([args.features_column] if args.features_column else [])]
    shards = list_shards(args.table, columns)
    classes = check_classes(args.classes.split(","))
    settings = _settings(args)
    _check_same(args, classes, shards, settings)
    place = (args.shards or str(args.output_dir.absolute())).rstrip("/")
    source = FeatureSource(
        table=args.table, image_column=args.image_column, own_column=args.features_column, folder=f"{place}/features"
    )
    sizes = tuple(shard.num_rows for shard in shards)
    with shard_runner(args.address, to_stderr) as run:
        if args.features_column is None:
            sizes = _make_features(args, source, settings, classes, shards, run)
        print(f"{shown(args.table)}: {sum(sizes):,} images with features in {len(shards):,} shards", flush=True)
        path, facts = TableRound(
            directory=args.output_dir, source=source, shards=shards, sizes=sizes, scores=f"{place}/probabilities",
            weights=None if args.features_column else settings.source, classes=classes, detector=args.purity,
            strategy=args.strategy, count=args.number,
            num_drawn=default_drawn(args.number) if args.drawn is None else args.drawn, run=run, progress=to_stderr,
        ).next()  # fmt: skip
    print("\n".join(what_is_known(facts, facts["round"], args.number)))
    print(f"fill in the column answer of {path}, and call this again")
    return DONE


def _make_features(
    args: argparse.Namespace, source: FeatureSource, settings: Settings, classes: tuple[str, ...],
    shards: tuple[Shard, ...], run: ShardRunner,
) -> tuple[int, ...]:  # fmt: skip
    """Compute the features that are missing. Returns the images with features in each shard."""
    from experiments.annotate.table.encoding import FeatureShard

    work = FeatureShard(
        table=args.table, column=args.image_column, source=settings.source, classes=classes,
        device="cuda" if args.gpu else "cpu", folder=source.folder,
    )  # fmt: skip
    sizes = [shard.num_rows for shard in shards]
    made = run(work, shards, what="features", sizes=sizes, gpus=1.0 if args.gpu else 0.0)
    damaged = sum(each["damaged"] for each in made)
    if damaged:
        print(f"{damaged:,} images cannot be read or decoded and are left out")
    return tuple(each["rows"] for each in made)


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        checkpoint=None if args.clipn_checkpoint is None else str(args.clipn_checkpoint.absolute()),
        pretrained=args.clip_pretrained,
        model=args.clip_model,
    )


def _check_same(
    args: argparse.Namespace, classes: tuple[str, ...], shards: tuple[Shard, ...], settings: Settings
) -> None:
    """Keep what DIR is about. Raises ValueError if it was about something else."""
    about: dict[str, Any] = {
        "table": args.table,
        "rows": [shard.num_rows for shard in shards],
        "columns": [args.image_column, args.features_column],
        "classes": list(classes),
        "weights": None if args.features_column else settings.weights_in_words,
    }
    path = args.output_dir / STATE
    if path.exists():
        kept, _ = read_sealed_json(path, STATE)
        changed = [name for name in about if kept.get(name) != about[name]]
        if changed:
            raise ValueError(
                f"{args.output_dir} is about another table: its {', '.join(changed)} changed; use another -o"
            )
    write_text_atomically(path, json.dumps(seal(about, STATE)) + "\n")


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError for settings that cannot be used, before anything is computed."""
    if args.number < 1:
        raise ValueError(f"-n is {args.number}; expected 1 or more")
    if args.drawn is not None and not 0 <= args.drawn < args.number:
        raise ValueError(f"--drawn is {args.drawn}; expected 0 to {args.number - 1}, fewer than -n")
    if args.features_column and (args.clipn_checkpoint or args.clip_pretrained or args.clip_model):
        raise ValueError("--features-column is given with weights; give one or the other")
    if args.purity is not None and args.purity not in DETECTORS:
        raise unknown_name("--purity", args.purity, DETECTORS)
    if args.strategy is not None:
        from experiments.annotate.choose import check_strategy

        check_strategy(args.strategy)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return run_command(make_parser(), _run, arguments)


if __name__ == "__main__":
    sys.exit(main())
