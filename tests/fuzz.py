"""Seeded random input for everything that reads what a user wrote: each is accepted, or refused in one line.

`make fuzz ARGS="--seconds 100 --seed 0"`. A failure is printed with the command that gives it again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, get_args

from pydantic import BaseModel, ValidationError

if __package__ in (None, ""):  # run as a file: folders of the same names as the packages lie beside it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.console import BAD_INPUT, DISK_ERRORS, DONE, LONGEST_LINE, SOME_FAILED
from experiments.presets import ARMS, PRESETS
from models.clipn.source import clip_config
from orchestrator.settings.grid import GridConfig, load_preset, parse_overrides
from orchestrator.settings.trial import TrialConfig

ROOT = Path(__file__).parents[1]
SECONDS, BYTES = 10, 10**9
"""What one input may take."""

SCALARS = (
    ".nan", ".inf", "-.inf", "1e400", "-1e400", "1e-400", "9" * 30, "9" * 5_000, "-1", "0", "-0.0", "1.5", "true",
    "null", "~", "''", '""', "'\\ud800'", '"\\ud800"', '"\\u202e"', '"\\0"', "2001-01-01", "!!binary aGk=", "!!set {a}",
    "!!python/name:os.system", "0x1F", "0o17", "010", "1:30", "1_000", "&a x", "*a", "*nobody", "&b [*b]", "x" * 60_000,
    "'" + "é" * 60_000 + "'", "- a", "[", "]", "{", "}", "%", "@", "`", "|", ">", "? a", "<<: {a: 1}", "[]", "{}",
    "[[]]", "{a: 1}", "{3: 4}", "{null: 1}", "{'': 1}", "[1, 1]", "[nan]", "[x, 3]", "{[a]: 1}", "vlpure", "digits",
    "0-9999", "folder:", "folder:~nobody", "json:JSONDecoder", "nothing:Mine", "a.b:c", ":", "~nobody/x", "/dev/null",
    "x.json", "[" * 3_000 + "]" * 3_000, "{a: " * 200 + "1" + "}" * 200, "[" * 200 + "]" * 200,
)  # fmt: skip
"""YAML values, most of which no setting takes."""
GOOD = {
    "datasets": "[digits]", "mismatch_ratios": "[0.2]", "ood_ratios": "[0.6]", "strategies": "[random, vlpure]",
    "seeds": "[0]",
}  # fmt: skip


def inner(model: type[BaseModel], field: str) -> type[BaseModel] | None:
    """The model of a field that has settings below it."""
    annotation = TrialConfig if (model, field) == (GridConfig, "trial") else model.model_fields[field].annotation
    each = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
    return next((one for one in each if issubclass(one, BaseModel)), None)


def odd_key(draw: random.Random, model: type[BaseModel]) -> str:
    """A key that the model may or may not have."""
    key = draw.choice([*model.model_fields, *(["name"] * 3 if "steps" in model.model_fields else [])])
    odd = draw.choice((key, key[:-1], key.upper(), "name", "x" * 60_000, "3", "null", "''", "[a]", '"\\ud800"', "<<"))
    return key if draw.random() < 0.8 else odd


def settings_text(draw: random.Random, model: type[BaseModel]) -> str:
    """Some settings of a model as a YAML flow mapping."""
    parts = {}
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        key = odd_key(draw, model)
        below = inner(model, key) if key in model.model_fields else None
        parts[key] = settings_text(draw, below) if below and draw.random() < 0.8 else draw.choice(SCALARS)
    return "{" + ", ".join(f"{key}: {value}" for key, value in parts.items()) + "}"


def preset_bytes(draw: random.Random) -> bytes:
    """A preset file: a good one with things wrong, at any place."""
    lines = dict(GOOD)
    for _ in range(draw.choice((1, 1, 2))):
        key = draw.choice(("trial", "trial", "run", "arms", "per_dataset", "tables", odd_key(draw, GridConfig)))
        name = draw.choice(("mine", "conf", "digits", "table4", "tabel4", "3", "null", "a,b", '"\\e[2J"'))
        of_trial = settings_text(draw, TrialConfig)
        lines[key] = draw.choice(SCALARS) if draw.random() < 0.2 else of_trial
        if key in ("arms", "per_dataset") and draw.random() < 0.8:
            lines[key] = f"{{{name}: {of_trial[:1]}strategy: {draw.choice(('vlpure', *SCALARS))}, {of_trial[1:]}}}"
        elif key == "tables" and draw.random() < 0.8:
            lines[key] = f"{{{name}: {settings_text(draw, GridConfig)}}}"
    content = "\n".join(f"{key}: {value}" for key, value in lines.items()).encode()
    match draw.randrange(20):
        case 0:
            return draw.randbytes(draw.randrange(100))
        case 1:
            return content[: draw.randrange(len(content))]
        case 2:
            at = draw.randrange(len(content))
            return content[:at] + draw.randbytes(draw.randrange(1, 4)) + content[at:]
        case 3:
            return draw.choice((b"", b"\n", b"---\n---\n", b"# no more\n", b"\xef\xbb\xbf" + content, content * 2))
        case 4:
            return content.decode().encode("utf-16")
    return content


def try_preset(draw: random.Random, folder: Path) -> None:
    """One preset file."""
    (folder / "p.yaml").write_bytes(preset_bytes(draw))
    table = draw.choice((None, "table4", "table9"))
    load_preset(PRESETS, str(folder / "p.yaml"), {}, {}, table=table, arms=ARMS).trials()


def set_words(draw: random.Random) -> list[str]:
    """Some words for --set."""
    words = []
    for _ in range(draw.choice((1, 1, 2))):
        model: type[BaseModel] | None = TrialConfig
        path = []
        while model is not None:
            path.append(odd_key(draw, model))
            model = inner(model, path[-1]) if path[-1] in model.model_fields and draw.random() < 0.9 else None
        value = draw.choice(SCALARS)
        words.append(draw.choice((f"{'.'.join(path)}={value}",) * 8 + (value, f"{'a.' * 3_000}b={value}", f"={value}")))
    return words


def try_set(draw: random.Random, folder: Path) -> None:
    """Some words of --set on top of a good preset."""
    load_preset(PRESETS, "demo", {"seeds": [0]}, {}, arms=ARMS).trials(parse_overrides(set_words(draw)))


JSON_VALUES = (
    "null", "true", "0", "-1", "1", "2.5", "1e400", "NaN", "-Infinity", "9" * 30, "9" * 5_000, '""', '"x"', "[]", "{}",
    "[1, 2]", '{"a": 1}', '"' + "x" * 60_000 + '"', "[" * 100_000, '"\\ud800"', "224", "[" * 300 + "]" * 300,
)  # fmt: skip
CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}
"""A tiny plain CLIP."""


def model_json(draw: random.Random) -> bytes:
    """An open_clip model config with things wrong."""
    config: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in CLIP.items()}
    odd: dict[str, str] = {}
    for _ in range(draw.choice((1, 1, 2))):
        part = draw.choice([config, *(value for value in config.values() if isinstance(value, dict))])
        key = draw.choice([*part, "quick_gelu", "timm_model_name", "x"])
        if draw.random() < 0.2:
            part.pop(key, None)
        else:
            odd[f"odd-{len(odd)}"] = draw.choice(JSON_VALUES)
            part[key] = f"odd-{len(odd) - 1}"
    text = json.dumps(config)
    for name, value in odd.items():
        text = text.replace(f'"{name}"', value)
    match draw.randrange(12):
        case 0:
            return draw.randbytes(draw.randrange(60))
        case 1:
            return text.encode()[: draw.randrange(len(text))]
        case 2:
            return draw.choice((*JSON_VALUES, "")).encode()
        case 3:
            return text.encode("utf-16")
    return text.encode()


def try_model(draw: random.Random, folder: Path) -> None:
    """One model config; what is accepted must give a model, too."""
    from models.clipn.model import Clipn

    (folder / "m.json").write_bytes(model_json(draw))
    Clipn.without_weights(clip_config(str(folder / "m.json")))


def checkpoint_bytes(draw: random.Random) -> bytes:
    """A weights file that is damaged, or holds something else."""
    import torch

    tensor = draw.choice(
        (
            torch.zeros(3), torch.zeros(2, 2, dtype=torch.complex64), torch.zeros(3, dtype=torch.bool),
            torch.zeros(0), torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(()),
            torch.full((2,), float("nan")), torch.zeros(4, dtype=torch.float16)[::2], torch.ones(1),
        )
    )  # fmt: skip
    inside: Any = {
        "visual.proj": tensor,
        draw.choice(("a", 3, None, "module.a", ("b",))): draw.choice((tensor, 1, "x")),
    }
    for _ in range(draw.choice((0, 0, 1, 2, 3, 200))):
        inside = {draw.choice(("state_dict", "model", "x")): inside}
    content = draw.choice((inside, inside, inside, [tensor], tensor, {}, None, 3, Path, {"state_dict": None}))
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=draw.random() < 0.7)
    whole = buffer.getvalue()
    match draw.randrange(6):
        case 0:
            return draw.choice((b"", b"PK", b"PK\x03\x04")) + draw.randbytes(draw.randrange(200))
        case 1:
            return whole[: draw.randrange(len(whole))]
        case 2 | 3:
            damaged = bytearray(whole)
            for _ in range(draw.randrange(1, 20)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            return bytes(damaged)
    return whole


def try_checkpoint(draw: random.Random, folder: Path) -> None:
    """One weights file, read for a tiny CLIPN."""
    from models.clipn.weights import read_tensors

    path = folder / draw.choice(("c.pt", "c.pt", "c.pt", "c.safetensors"))
    path.write_bytes(checkpoint_bytes(draw))
    if path.suffix == ".safetensors" and draw.random() < 0.7:
        header = draw.choice(
            (b'{"a": 1}', b"{}", b"[" * 5_000, b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 9]}}')
        )
        path.write_bytes(draw.choice((len(header), 0, 2**63)).to_bytes(8, "little") + header)
    read_tensors(path)


def try_command(draw: random.Random, folder: Path) -> None:
    """One whole command as a process of its own."""
    words = ["table4.py", "--dry-run", "--preset", str(folder / "p.yaml")]
    if draw.random() < 0.5:
        (folder / "p.yaml").write_bytes(preset_bytes(draw))
    else:
        (folder / "p.yaml").write_text("\n".join(f"{key}: {value}" for key, value in GOOD.items()))
        words = ["trial.py", "--preset", words[-1], "--rounds", "999"]  # never computed: more labels than there are
        words += [part for word in set_words(draw) for part in ("--set", word.replace("\0", ""))]
    errors = folder / "stderr"
    with errors.open("wb") as file:
        environment = os.environ | {"VLPURE_CACHE": str(folder / "cache")}
        process = subprocess.Popen(
            [sys.executable, ROOT / "experiments" / words[0], *words[1:]],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=file, env=environment,
        )  # fmt: skip
        try:
            _, status, used = os.wait4(process.pid, 0)
        except TimeoutError:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    told = errors.read_text(errors="surrogateescape")
    errors.unlink()
    assert used.ru_maxrss * 1024 < BYTES, f"it took {used.ru_maxrss // 1024} MiB"
    assert process.returncode in (DONE, BAD_INPUT), f"exit code {process.returncode}: {told[-2000:]}"
    if process.returncode == BAD_INPUT:
        raise ValueError(told.removesuffix("\n"))


KINDS: dict[str, Callable[[random.Random, Path], None]] = {
    "preset": try_preset, "set": try_set, "model": try_model, "checkpoint": try_checkpoint, "command": try_command,
}  # fmt: skip
INPUT_FILES = {"p.yaml", "m.json", "c.pt", "c.safetensors"}


@contextmanager
def limit() -> Any:
    """Raises TimeoutError in the body after `SECONDS`."""

    def stop(number: int, frame: object) -> NoReturn:
        raise TimeoutError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fault_of(error: BaseException) -> str | None:
    """What is wrong with how an input was refused; none: a command says it in one line and exits with 2."""
    is_told = type(error) is ValueError or (
        isinstance(error, OSError) and error.filename is not None and error.errno not in DISK_ERRORS
    )
    if not is_told or isinstance(error, ValidationError | TimeoutError):
        return "".join(traceback.format_exception(error)[-6:])[-3000:]
    text = str(error)
    if not text.strip() or "Traceback" in text:
        return f"a bad message: {text[:600]!r}"
    return None


def attempt(kind: str, seed: int) -> tuple[str, str]:
    """Try one input: (refused, message), (accepted, "") or (failed, why)."""
    with tempfile.TemporaryDirectory() as name:
        folder, back = Path(name), Path.cwd()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.chdir(folder)
        outcome, why = "accepted", ""
        try:
            with limit():
                KINDS[kind](random.Random(f"{kind}-{seed}"), folder)
        except Exception as error:  # whatever it is: that is the question
            fault = fault_of(error)
            outcome, why = ("failed", fault) if fault else ("refused", str(error))
        finally:
            os.chdir(back)
        if kind == "command" and outcome == "refused" and ("\n" in why or len(why) > LONGEST_LINE + 100):
            outcome, why = "failed", f"more than a line: {why[:2000]}"
        if made := {str(path.relative_to(folder)) for path in folder.rglob("*")} - INPUT_FILES:
            outcome, why = "failed", f"it created {sorted(made)}"
        if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > BYTES:
            outcome, why = "failed", "it took more than 1 GB"
    return outcome, why


def fuzz(seed: int, seconds: float, kinds: dict[str, float]) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Try inputs of each kind for its share of the time: how many of each outcome, and the failures."""
    import models.clipn.weights  # noqa: F401  # torch: not in the time of the first input

    counts: Counter[tuple[str, str]] = Counter()
    failures = []
    for kind, share in kinds.items():
        end, number = time.monotonic() + seconds * share, seed * 1_000_000
        while time.monotonic() < end:
            outcome, why = attempt(kind, number)
            counts[kind, outcome] += 1
            if outcome == "failed":
                failures.append(f"--kind {kind} --only {number}\n{why}")
            number += 1
    return counts, failures


SHARES = {"preset": 0.25, "set": 0.2, "model": 0.15, "checkpoint": 0.1, "command": 0.3}


def main() -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=100, help="how long it tries (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="what the inputs are drawn from (default: 0)")
    parser.add_argument("--kind", choices=KINDS, help="inputs of this kind only")
    parser.add_argument("--only", type=int, metavar="N", help="with --kind: this one input, as a failure names it")
    args = parser.parse_args()
    if args.only is not None:
        print(*attempt(args.kind, args.only), sep="\n")
        return DONE
    counts, failures = fuzz(args.seed, args.seconds, {args.kind: 1.0} if args.kind else SHARES)
    for failure in failures:
        print(f"FAILED python tests/fuzz.py {failure}\n")
    print("kind          tried  refused  accepted  failed")
    for kind in KINDS:
        found = [counts[kind, outcome] for outcome in ("refused", "accepted", "failed")]
        print(f"{kind:12s} {sum(found):6,d} {found[0]:8,d} {found[1]:9,d} {found[2]:7,d}")
    return SOME_FAILED if failures else DONE


if __name__ == "__main__":
    sys.exit(main())
