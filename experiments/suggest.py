"""Suggests which photos of a folder are worth labelling, round after round; python experiments/suggest.py --help.

python experiments/suggest.py photos/ --classes cat,dog,horse,deer -n 50
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.console import DONE, CommandParser, run_command, to_stderr, unknown_name
from data.files import path_argument, shown
from experiments.annotate.answers.state import State
from experiments.annotate.contact_sheet import write_contact_sheet
from experiments.annotate.exchange import export_round, take_labels, unfinished_round
from experiments.annotate.formats import registry as formats
from experiments.annotate.photos import list_photos
from experiments.annotate.report import folder_lines, outcome_lines, round_lines
from experiments.annotate.settings import PUBLISHED, Settings, read_settings, write_settings
from experiments.annotate.suggester import Suggester
from strategies.purity.detectors import DETECTORS


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(
        prog="suggest.py",
        usage="suggest.py FOLDER --classes A,B,... [-n N] [--labels FILE ...] [options]",
        description="Suggest which photos of a folder are worth labelling: those that probably show one of the classes "
        "and teach most. The same command continues from where it was, with all answers so far.",
        epilog="Example: suggest.py photos/ --classes cat,dog,horse,deer -n 50; then suggest.py photos/ --annotate",
    )
    parser.add_argument("folder", type=path_argument, metavar="FOLDER", help="folder of images, with any subfolders")
    what = parser.add_argument_group("what is wanted (the first time; later calls know it)")
    names = what.add_mutually_exclusive_group()
    names.add_argument("--classes", type=_names, metavar="A,B,...", help="names of the wanted classes")
    names.add_argument("--classes-file", type=path_argument, metavar="FILE", help="the same, one name per line")
    what.add_argument("-n", "--number", type=int, metavar="N", help="suggestions per round (default: 50)")
    what.add_argument(
        "-o",
        "--output-dir",
        type=path_argument,
        metavar="DIR",
        help="where the state is kept (default: FOLDER.suggest)",
    )
    how = parser.add_argument_group("how photos are ranked (kept for later calls)")
    how.add_argument(
        "--clip-pretrained", metavar="TAG", help=f"a plain CLIP, by open_clip tag or file (default: {PUBLISHED})"
    )
    how.add_argument("--clipn-checkpoint", type=path_argument, metavar="PATH", help="a CLIPN's weights instead")
    how.add_argument(
        "--clip-model", metavar="NAME", help="open_clip architecture of either, or its .json file (default: ViT-B-16)"
    )
    how.add_argument(
        "--features", type=path_argument, metavar="FILE.npy",
        help="features of your own in place of weights: a row per image, in the order of --list-images",
    )  # fmt: skip
    how.add_argument(
        "--purity", metavar="DETECTOR", help=f"what judges whether an image is wanted: {', '.join(DETECTORS)}"
    )
    how.add_argument("--strategy", metavar="NAME", help="what chooses among the wanted ones, such as margin or badge")
    how.add_argument(
        "--drawn", type=int, metavar="N",
        help="suggestions per round that are drawn at random, to check the estimate (default: 1 in 25; 0: none)",
    )  # fmt: skip
    how.add_argument("--gpu", action="store_true", help="compute features on a GPU")
    other = parser.add_argument_group("in and out")
    other.add_argument(
        "--labels", type=path_argument, metavar="FILE", action="append", default=[],
        help="answers from a file or folder of another tool; may be repeated",
    )  # fmt: skip
    other.add_argument(
        "--export", metavar="FORMAT", action="append", default=[], choices=tuple(formats.WRITERS),
        help=f"write the round for another tool: {', '.join(formats.WRITERS)}; may be repeated",
    )  # fmt: skip
    other.add_argument("--annotate", action="store_true", help="label in a browser, on this machine only")
    other.add_argument(
        "--port", type=int, default=0, metavar="N", help="with --annotate: the port (default: a free one)"
    )
    other.add_argument("--advice", action="store_true", help="report what more labels would bring, and stop")
    other.add_argument("--finish", type=path_argument, metavar="DIR", help="write the labelled images as a data set")
    other.add_argument("--list-images", action="store_true", help="print the images in order, one per line, and stop")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and library warnings")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return run_command(make_parser(), _run, arguments)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _run(args: argparse.Namespace) -> int:
    if args.list_images:
        _check_folder(args.folder)
        for file in list_photos(args.folder).files:
            # A line break in a name would be read as two images.
            sys.stdout.buffer.write(os.fsencode(file.name.replace("\n", "\\n")) + b"\n")
        return DONE
    if args.number is not None and args.number < 1:
        raise ValueError(f"-n is {args.number}; expected 1 or more")
    if args.drawn is not None and args.drawn < 0:
        raise ValueError(f"--drawn is {args.drawn}; expected 0 or more")
    state = State.open(args.folder, _classes(args), args.output_dir)
    if args.port and not args.annotate:
        print("--port is ignored without --annotate", file=sys.stderr)
    if args.finish is not None:
        return _finish(state, args)
    list_photos(args.folder)  # an empty folder leaves no state behind
    with ExitStack() as stack:
        # Before anything is computed: a port that is taken is known at once.
        listener = stack.enter_context(_listen(args.port)) if args.annotate else None
        stack.enter_context(state.locked())
        settings = _settings(args).over(read_settings(state))
        _check(settings)
        return _work(state, settings, args, listener)


def _listen(port: int) -> socket.socket:
    from experiments.annotate.server import listen

    return listen(port)


def _finish(state: State, args: argparse.Namespace) -> int:
    """Write the labelled images as a data set."""
    from experiments.annotate.finish import finish

    if not state.images():
        raise ValueError(f"{state.directory} holds no answers yet; run this command without --finish first")
    if args.labels:
        with state.locked():
            take_labels(state, args.labels, report=print)
    print("\n".join(finish(state, args.finish)))
    return DONE


def _work(state: State, settings: Settings, args: argparse.Namespace, listener: socket.socket | None) -> int:
    """Read answers, rank, and do what was asked for. The state is locked."""
    suggester = Suggester(state, settings, to_stderr, device="cuda" if args.gpu else "cpu")
    write_settings(state, settings)
    take_labels(state, args.labels, report=print)
    print("\n".join(folder_lines(state, suggester.photos.num_other, settings.weights_in_words)), flush=True)
    if args.advice:
        from experiments.annotate.advice import advice_lines

        print("\n".join(advice_lines(state, suggester)))
        return DONE
    print("".join(f"{line}\n" for line in outcome_lines(state)), end="")
    left = unfinished_round(state) if listener is not None else None
    number = suggester.next_round() if left is None else left
    print("\n".join(round_lines(state, number)))
    write_contact_sheet(state, number, progress=to_stderr)
    for name in args.export:
        export_round(state, name, report=print)
    if listener is not None:
        return _serve(state, suggester, listener)
    own_state = [] if args.output_dir is None else ["-o", str(args.output_dir)]
    command = shown(shlex.join(["python", "experiments/suggest.py", str(args.folder), *own_state]))
    print(f"look at them: {state.round_folder(number) / 'index.html'}")
    print(f"label them: {command} --annotate     (or with other tools: --export, then --labels FILE)")
    return DONE


def _serve(state: State, suggester: Suggester, listener: socket.socket) -> int:
    """Serve the page for the latest round, and those that its button asks for, until Ctrl-C."""
    from experiments.annotate.server import serve
    from experiments.annotate.session import Session

    def following() -> int:
        number = suggester.next_round()
        write_contact_sheet(state, number, progress=to_stderr)
        return number

    return serve(Session(state, following), listener)


def _classes(args: argparse.Namespace) -> tuple[str, ...] | None:
    """The class names of the command line or its file; None if there are none."""
    if args.classes_file is None:
        given: tuple[str, ...] | None = args.classes
        return given
    try:
        text = args.classes_file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"--classes-file: {args.classes_file} is not UTF-8 text") from None
    return tuple(line for line in text.splitlines() if line.strip())


def _settings(args: argparse.Namespace) -> Settings:
    """The settings of this call."""
    return Settings(
        checkpoint=None if args.clipn_checkpoint is None else str(args.clipn_checkpoint.absolute()),
        pretrained=args.clip_pretrained,
        model=args.clip_model,
        features=None if args.features is None else str(args.features.absolute()),
        purity=args.purity,
        strategy=args.strategy,
        count=args.number,
        drawn=args.drawn,
    )


def _check(settings: Settings) -> None:
    """Raise ValueError for settings that cannot be used, before anything is computed."""
    if settings.features is not None and (settings.checkpoint or settings.pretrained or settings.model):
        raise ValueError("--features is given with weights; give one or the other")
    if settings.purity is not None and settings.purity not in DETECTORS:
        raise unknown_name("--purity", settings.purity, DETECTORS)
    if settings.strategy is not None:
        from experiments.annotate.choose import check_strategy

        check_strategy(settings.strategy)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")


if __name__ == "__main__":
    sys.exit(main())
