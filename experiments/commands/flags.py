"""Flags that the commands share, and advice on valid settings that are probably a mistake."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from data.console import CommandParser
from data.files import CACHE_VARIABLE, path_argument
from data.splits.named import parse_names
from data.splits.ratios import OodRatio
from models.clipn.source import DEFAULT_CAPTIONER
from models.mps import mps_runs
from orchestrator.settings.grid import Nested, RunSettings, merge, parse_overrides, seed_range
from orchestrator.settings.keys import check_name
from orchestrator.settings.trial import TrialConfig, field_docstrings
from orchestrator.tracking.uri import masked
from strategies.purity.detectors import DETECTORS
from strategies.registry import STRATEGIES


def strategy_names() -> str:
    """The registered strategies in words; those with a purity step in front as one, since every other has its own."""
    standard = [name for name in STRATEGIES if not name.startswith("vlpure-") or name == "vlpure-domain"]
    return f"{', '.join(standard)}, vlpure-<name of another>"


def add_trial_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that change what every trial computes."""
    group = parser.add_argument_group(
        "what every trial computes",
        f"Weights, CLIPN's features and decoded images are kept in the folder ${CACHE_VARIABLE} (default "
        "~/.cache/vlpure).",
    )
    group.add_argument(
        "--id-classes",
        type=class_list,
        metavar="A,B",
        help="names of the ID classes, in place of a mismatch ratio; all other classes are OOD (a name with a comma in "
        "double quotes)",
    )
    group.add_argument("--rounds", type=int, metavar="N", help="trainings per trial; there is one query fewer")
    group.add_argument("--budget", type=int, metavar="N", help="labels bought per round, the initial set included")
    group.add_argument(
        "--data-root",
        type=path_argument,
        metavar="DIR",
        help="folder with the data sets' files (default: the data set's own)",
    )
    group.add_argument(
        "--on-bad-image",
        choices=("stop", "skip"),
        help="what to do with an image file that cannot be decoded: stop (default), or report and skip it",
    )
    group.add_argument(
        "--purity", metavar="DETECTOR", help=f"purity detector: {', '.join(DETECTORS)} (default: atd, the paper's)"
    )
    group.add_argument(
        "--clipn-checkpoint",
        metavar="PATH",
        help="CLIPN's weights (default: the data set's small stand-in, if any)",
    )
    group.add_argument(
        "--clip-pretrained",
        metavar="TAG",
        help='for detectors without "no" texts: any model of open_clip, by its tag or the path of a weights file',
    )
    group.add_argument(
        "--clip-model", metavar="NAME", help="open_clip architecture of either, or its .json file (default: ViT-B-16)"
    )
    group.add_argument(
        "--captioner",
        metavar="TAG",
        help="for the detector zoc: weights of a CoCa, by its tag in open_clip or the path of a weights file",
    )
    group.add_argument(
        "--captioner-model", metavar="NAME", help=f"its open_clip architecture (default: {DEFAULT_CAPTIONER})"
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


METAVARS: dict[type, str] = {int: "N", float: "X", str: "WHERE"}


def add_run_flags(parser: CommandParser, group: argparse._ArgumentGroup, names: Iterable[str]) -> None:
    """Add a flag for each of these fields of `RunSettings`; --help shows the field's docstring."""
    actions = {}
    for name in names:
        field = RunSettings.model_fields[name]
        flag, kind = f"--{name.replace('_', '-')}", _plain_type(field.annotation)
        actions[name] = (
            group.add_argument(flag, action="store_true", default=None, help="")
            if kind is bool
            else group.add_argument(flag, type=kind, metavar=METAVARS[kind], help="")
        )

    def fill() -> None:
        for name, text in field_docstrings(RunSettings).items():
            if name in actions:
                begin = text[:1] if text[1:2].isupper() else text[:1].lower()  # as other helps; CPUs stay
                actions[name].help = (begin + text[1:].rstrip(".")).replace("%", "%%")

    # Docstrings are read from the source, so only --help reads them: every other start of a command does without.
    parser.before_help(fill)


def _plain_type(annotation: Any) -> Any:
    """The plain type inside `Annotated[int, ...]` or `int | None`."""
    parts = get_args(annotation)
    return _plain_type(parts[0]) if parts else annotation


def given_run_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `RunSettings` that the command line sets."""
    return given({name: getattr(args, name) for name in RunSettings.model_fields if name in args})


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose how much is printed."""
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("-v", "--verbose", action="store_true", help="print more")
    amount.add_argument("-q", "--quiet", action="store_true", help="print results and errors only")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and library warnings")


def trial_overrides(args: argparse.Namespace) -> Nested:
    """The settings that `add_trial_flags` changed, nested; a flag wins over a --set of the same key."""
    # trial.py and the tables have the flag of the mismatch ratio under two names.
    ratios = next((flag for flag in ("--mismatch-ratio", "--mismatch-ratios") if _is_given(args, flag)), None)
    flags = {name: getattr(args, name) for name in ("id_classes", "rounds", "budget", "data_root", "on_bad_image")}
    clipn = {
        "checkpoint": args.clipn_checkpoint,
        "pretrained": args.clip_pretrained,
        "model": args.clip_model,
        "captioner": args.captioner,
        "captioner_model": args.captioner_model,
    }
    if args.id_classes is not None and ratios:
        raise ValueError(f"{ratios} and --id-classes: both choose the ID classes; give one")
    nested = {"purity": given({"detector": args.purity}), "clipn": given(clipn)}
    return merge(parse_overrides(args.assignments), given(flags), nested)


def _is_given(args: argparse.Namespace, flag: str) -> bool:
    """Whether the command has the flag and it was given."""
    return getattr(args, flag.removeprefix("--").replace("-", "_"), None) is not None


def ignored_flags(args: argparse.Namespace, trials: Iterable[TrialConfig]) -> list[str]:
    """One line per flag that was given and that no trial reads."""
    trials = list(trials)
    readers = {"purity": any(trial.uses_purity for trial in trials)}
    readers |= dict.fromkeys(("clipn_checkpoint", "clip_pretrained", "clip_model"), any(t.uses_clipn for t in trials))
    lines = [
        f"--{name.replace('_', '-')} is not used: no strategy here has a purity step"
        for name, is_read in readers.items()
        if getattr(args, name) and not is_read
    ]
    reads_captions = any(trial.uses_captioner for trial in trials)
    return lines + [
        f"--{name.replace('_', '-')} is not used: no detector here is zoc"
        for name in ("captioner", "captioner_model")
        if getattr(args, name) and not reads_captions
    ]


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The entries whose value is not None: the flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def comma_list(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """An argparse type for comma-separated values, such as `0.2,0.4`."""

    def parse(text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part.strip()) for part in text.split(","))
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected comma-separated values, not '{text}'") from None

    return parse


def class_list(text: str) -> tuple[str, ...]:
    """An argparse type for names of classes: `cat,dog`."""
    try:
        return parse_names(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def ood_ratio(text: str) -> OodRatio:
    """An argparse type for an OOD ratio: a number, or `all`."""
    return "all" if text == "all" else float(text)


def seed_list(text: str) -> tuple[int, ...]:
    """An argparse type for seeds: `0-4`, `0,2,5` or both together."""
    try:
        return seed_range(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


SERVERS, DATABASES = ("http", "https"), ("sqlite", "postgresql", "mysql", "mssql")
"""Schemes of tracking URIs; that of a database may name its driver, as in postgresql+psycopg."""


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
        raise argparse.ArgumentTypeError("a grid cannot run through ray://; run this command on the head node")
    return text


def experiment_name(text: str) -> str:
    """An argparse type for the name of an MLflow experiment."""
    name = text.strip()
    try:
        check_name("name", name)
    except ValueError:
        name = ""
    if not name:
        raise argparse.ArgumentTypeError("expected a name, not an empty or unprintable text")
    return name


def check_tracking_uri(uri: str, *, option: str) -> None:
    """Raises ValueError, without showing the password, for a URI that cannot be an MLflow tracking store."""
    try:
        parts = urlsplit(uri)
        _ = parts.port  # urlsplit checks the port only when it is read
        shown = masked(uri)
    except ValueError as error:
        raise ValueError(f"{option}: not a valid URI ({error})") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme not in (*SERVERS, *DATABASES, "databricks"):
        raise ValueError(
            f"{option} is '{shown}'; expected an MLflow server (http://...) or a database "
            f"({', '.join(f'{name}:' for name in DATABASES)} ...), such as sqlite:///mlflow.db"
        )
    if scheme in SERVERS and not parts.hostname:
        raise ValueError(f"{option} is '{shown}'; the name of a server is missing")
    if scheme == "sqlite" and (parts.netloc or not parts.path.strip("/")):
        raise ValueError(f"{option} is '{shown}'; expected sqlite:/// and the path of a file")


CPU_FACTS = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Linux's names of bfloat16 instructions: Intel's and AMD's, Intel's for matrices, ARM's."""


def slow_arithmetic(trials: Iterable[TrialConfig], *, gpus: float) -> list[str]:
    """A line if trials are to train in bfloat16 on a CPU without bfloat16 instructions, which has to emulate them."""
    if gpus or has_bf16() or not any(trial.recipe.precision == "bf16" for trial in trials):
        return []
    return [
        "recipe.precision=bf16 on a CPU: this machine's has no bfloat16 instructions, and without them it is many "
        "times slower than fp32"
    ]


def shared_card(gpus: float, *, address: str) -> list[str]:
    """A line if trials are to share a card of this machine while NVIDIA's MPS, which makes that pay, is not running."""
    if not 0 < gpus < 1 or address not in ("auto", "local") or mps_runs():
        return []
    return [
        f"--gpus-per-trial {gpus:g} without NVIDIA's MPS: trials on a card take turns, which saves only the CPU work "
        "in between; nvidia-cuda-mps-control -d starts MPS (docs/cluster.md)"
    ]


def has_bf16() -> bool:
    """Whether this machine's CPU has bfloat16 instructions; True if the system does not report it."""
    try:
        facts = CPU_FACTS.read_text()
    except OSError:
        return True
    flags = {
        word for line in facts.splitlines() if line.lower().startswith(("flags", "features")) for word in line.split()
    }
    return not flags or bool(flags & BF16_FLAGS)
