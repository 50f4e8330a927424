"""The flags that the commands share, and how a command ends."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from data.console import RunStopped
from data.files import CACHE_VARIABLE, is_unicode, path_argument, shown
from orchestrator.settings.grid import Nested, merge, parse_overrides, seed_range
from orchestrator.settings.trial import TrialConfig
from orchestrator.tracking.uri import masked

LONGEST_LINE = 600
"""Letters of an error that are printed: what a user wrote may be longer than a screen."""
DONE, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""A disk that is full or dying: no mistake in the command."""


class CommandParser(argparse.ArgumentParser):
    """A command line whose mistakes are told in one line, as all other errors; flags are written out."""

    def __init__(self, *, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and exit with `BAD_INPUT`."""
        unknown = message.removeprefix("unrecognized arguments: ").partition(" ")[0].partition("=")[0]
        near = difflib.get_close_matches(unknown, self._option_string_actions, n=1)
        if unknown != message.partition(" ")[0] and near:
            message += f" (did you mean {near[0]}?)"
        self.exit(
            BAD_INPUT,
            f"{self.prog}: error: {shortened(' '.join(message.split()))}; {self.prog} --help lists the flags\n",
        )


def run_command(parser: argparse.ArgumentParser, body: Callable[[argparse.Namespace], int]) -> int:
    """Parse the command line and run `body`; the exit code.

    A ValueError is a user's mistake: one line on the standard error stream, no traceback (unless --debug), exit 2. An
    ArithmeticError or a MemoryError is a computation that went wrong, RunStopped something outside (a full disk): one
    line, exit 1.
    """
    _check_words(parser)
    args = parser.parse_args()
    if not args.debug:
        warnings.simplefilter("ignore")  # libraries warn of what a user of this program can do nothing about
    try:
        return body(args)
    except ValueError as error:
        if args.debug:
            raise
        print(f"{parser.prog}: error: {shortened(' '.join(str(error).split()))}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # whoever read the output has seen enough: head, less
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if args.debug or error.filename is None:
            raise
        if error.errno in DISK_ERRORS:
            told = f"{error.filename}: {error.strerror}: make room or mend the disk, then give the same command again"
            print(f"{parser.prog}: failed: {told}; every finished round that was kept is whole", file=sys.stderr)
            return SOME_FAILED
        print(f"{parser.prog}: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    except (ArithmeticError, MemoryError, RunStopped) as error:
        if args.debug:
            raise
        print(f"{parser.prog}: failed: {error}", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED


def shortened(text: str) -> str:
    """The text, without its middle if it is long: the advice stands at the end."""
    half = LONGEST_LINE // 2
    return text if len(text) <= LONGEST_LINE else f"{text[:half]} ... {text[-half:]}"


def _check_words(parser: argparse.ArgumentParser) -> None:
    """Refuse what no record could hold, before it is computed: a name out of an old ZIP or camera card."""
    for word in sys.argv[1:]:
        if not is_unicode(word):
            parser.error(f"'{shown(word)}' holds bytes that are no UTF-8; rename the file or folder, or link to it")


def add_trial_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that change what every trial computes."""
    group = parser.add_argument_group(
        "what every trial computes",
        f"Weights, CLIPN's features and decoded images are kept in the folder ${CACHE_VARIABLE} (default "
        "~/.cache/vlpure).",
    )
    group.add_argument("--rounds", type=int, metavar="N", help="trainings a trial; there is one query fewer")
    group.add_argument("--budget", type=int, metavar="N", help="labels bought a round, the initial set included")
    group.add_argument(
        "--data-root",
        type=path_argument,
        metavar="DIR",
        help="folder with the data sets' files (default: the data set's own)",
    )
    group.add_argument(
        "--on-bad-image",
        choices=("stop", "skip"),
        help="what an image file that cannot be decoded does: stop (default), or be named and left out",
    )
    group.add_argument(
        "--purity", metavar="DETECTOR", help="purity detector: atd (CLIPN's, the paper's), ctw (CLIPN's other), or mcm"
    )
    group.add_argument(
        "--clipn-checkpoint", metavar="PATH", help="CLIPN's weights (default: a small stand-in, where the data has one)"
    )
    group.add_argument(
        "--clip-pretrained", metavar="TAG", help="with --purity mcm: a plain CLIP, by open_clip tag or path of a file"
    )
    group.add_argument(
        "--clip-model", metavar="NAME", help="open_clip architecture of either, or its .json file (default: ViT-B-16)"
    )
    group.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change any setting of a trial, for example recipe.steps=300, purity.visual_similarity=false or "
        "clipn.checkpoint=PATH; may be repeated",
    )


def add_gpu_flags(group: argparse._ArgumentGroup) -> None:
    """The flags about how a GPU computes; they change nothing on a CPU."""
    group.add_argument(
        "--deterministic",
        action="store_true",
        default=None,
        help="on a GPU: equal seeds give equal records, to the bit, and more slowly (on a CPU they always do)",
    )
    group.add_argument(
        "--plain-steps",
        action="store_true",
        default=None,
        help="on a GPU: launch training steps kernel by kernel, in place of replaying them as CUDA graphs",
    )


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """The flags about what is printed."""
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("-v", "--verbose", action="store_true", help="print more")
    amount.add_argument("-q", "--quiet", action="store_true", help="print results and errors only")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and library warnings")


def trial_overrides(args: argparse.Namespace) -> Nested:
    """What the flags of `add_trial_flags` change, as nested settings; a flag wins over a --set of the same key."""
    flags = {name: getattr(args, name) for name in ("rounds", "budget", "data_root", "on_bad_image")}
    clipn = {
        "checkpoint": args.clipn_checkpoint,
        "pretrained": args.clip_pretrained,
        "model": args.clip_model,
    }
    nested = {"purity": given({"detector": args.purity}), "clipn": given(clipn)}
    return merge(parse_overrides(args.assignments), given(flags), nested)


def ignored_flags(args: argparse.Namespace, trials: Iterable[TrialConfig]) -> list[str]:
    """A line for each flag that was given and that no trial reads."""
    trials = list(trials)
    readers = {"purity": any(trial.uses_purity for trial in trials)}
    readers |= dict.fromkeys(("clipn_checkpoint", "clip_pretrained", "clip_model"), any(t.uses_clipn for t in trials))
    return [
        f"--{name.replace('_', '-')} is not used: no strategy here has a purity step"
        for name, is_read in readers.items()
        if getattr(args, name) and not is_read
    ]


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def comma_list(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """An argparse type for values with commas between them, such as `0.2,0.4`."""

    def parse(text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part.strip()) for part in text.split(","))
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected values with commas between them, not '{text}'") from None

    return parse


def seed_list(text: str) -> tuple[int, ...]:
    """An argparse type for seeds: `0-4`, `0,2,5` or both together."""
    try:
        return seed_range(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


SERVERS, DATABASES = ("http", "https"), ("sqlite", "postgresql", "mysql", "mssql")
"""Schemes of tracking URIs; a database's may name its driver, as in postgresql+psycopg."""


def ray_address(text: str) -> str:
    """An argparse type for a Ray cluster: auto, local, or host:port."""
    if text in ("auto", "local"):
        return text
    match = re.fullmatch(r"(ray://)?(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})", text)
    if match is None or not 0 < int(match[3]) < 2**16:
        raise argparse.ArgumentTypeError(
            f"expected auto, local, or the address of a cluster's head such as 10.0.0.5:6379, not '{text}'"
        )
    if match[1]:
        raise argparse.ArgumentTypeError("a grid needs more than Ray's client; give this command on the head node")
    return text


def experiment_name(text: str) -> str:
    """An argparse type for an experiment of MLflow."""
    name = text.strip()
    if not name or not name.isprintable():
        raise argparse.ArgumentTypeError("expected a name, not an empty text or one that cannot be printed")
    return name


def check_tracking_uri(uri: str, *, option: str) -> None:
    """Raises ValueError, without the password, for what can be no tracking store of MLflow."""
    try:
        parts = urlsplit(uri)
        _ = parts.port  # read when it is asked for
        shown = masked(uri)
    except ValueError as error:
        raise ValueError(f"{option}: no valid URI ({error})") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme not in (*SERVERS, *DATABASES, "databricks"):
        raise ValueError(
            f"{option} is '{shown}'; expected an MLflow server (http://...) or a database "
            f"({', '.join(f'{name}:' for name in DATABASES)} ...), such as sqlite:///mlflow.db"
        )
    if scheme in SERVERS and not parts.hostname:
        raise ValueError(f"{option} is '{shown}': it names no server")
    if scheme == "sqlite" and (parts.netloc or not parts.path.strip("/")):
        raise ValueError(f"{option} is '{shown}'; expected sqlite:/// and the path of a file")


CPU_FACTS = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""How Linux calls bfloat16 instructions: Intel's and AMD's, Intel's for matrices, ARM's."""


def slow_arithmetic(trials: Iterable[TrialConfig], *, gpus: float) -> list[str]:
    """A line where trials are to train in bfloat16 on a CPU, and this machine's has to imitate it step by step."""
    if gpus or has_bf16() or not any(trial.recipe.precision == "bf16" for trial in trials):
        return []
    return [
        "recipe.precision=bf16 on a CPU: this machine's has no bfloat16 instructions, and without them it is many "
        "times slower than fp32"
    ]


def has_bf16() -> bool:
    """Whether this machine's CPU has bfloat16 instructions; True where the system does not tell."""
    try:
        facts = CPU_FACTS.read_text()
    except OSError:
        return True
    flags = {
        word for line in facts.splitlines() if line.lower().startswith(("flags", "features")) for word in line.split()
    }
    return not flags or bool(flags & BF16_FLAGS)
