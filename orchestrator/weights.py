"""Checks of the weights that a user gave, before anything starts: their files in plans, their tensors before a grid.

The second needs torch and has a process of its own.

`python -m orchestrator.weights` reads the job as JSON from its standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from data.console import BAD_INPUT, DONE, RunStopped, to_stderr
from data.files import user_path
from models.classifier.recipe import EncoderName
from models.clipn.source import PRETRAINED, ClipnSource, clip_config
from models.clipn.weights_file import weights_format
from orchestrator.settings.trial import TrialConfig


def check_weights_files(trial: TrialConfig) -> None:
    """Look at the outside of the weights files that a trial names. Raises ValueError for those that cannot be read."""
    source = trial.clipn if trial.uses_clipn else ClipnSource()
    plain = None if source.pretrained is None else user_path(source.pretrained)
    if source.checkpoint is not None and plain is None:  # of two sources, one too many, `clipn_identity` says so
        clip_config(source.model)  # an unknown architecture is the likelier mistake of the two
        weights_format(source.checkpoint)
    if source.checkpoint is None and plain is not None and plain.is_file():
        weights_format(plain, setting=PRETRAINED)
    if source.captioner is not None and user_path(source.captioner).is_file():
        weights_format(user_path(source.captioner), setting="clipn.captioner")
    file = None if trial.recipe.encoder is None else EncoderName.parse(trial.recipe.encoder).file
    if file is not None:
        weights_format(file, setting="recipe.encoder")


def check_weights(trials: Iterable[TrialConfig]) -> None:
    """Open the checkpoints and encoders that the trials name, as they will: header, tensor names and shapes.

    Tensors are mapped, not read, and those without files of their own (a stand-in, published weights) cost nothing.
    Raises ValueError for weights that do not fit, and RunStopped if that cannot be found out.
    """
    job = _job(trials)
    if not any(job.values()):
        return
    # In another process: 250 MiB and some seconds of torch, which a driver that waits for days does without.
    process = subprocess.run(
        [sys.executable, "-m", "orchestrator.weights"],
        input=json.dumps(job),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode == BAD_INPUT:
        raise ValueError(process.stdout.strip())
    if process.returncode != DONE:
        last = process.stderr.strip().rpartition("\n")[2]
        raise RunStopped(f"the weights could not be checked (exit code {process.returncode}: {last})")


def _job(trials: Iterable[TrialConfig]) -> dict[str, list[Any]]:
    """What is to be opened, each once."""
    clipn: dict[str, Any] = {}
    encoders: dict[str, None] = {}
    captioners: dict[str, Any] = {}
    for trial in trials:
        source = trial.clipn
        if trial.uses_clipn and (source.checkpoint or (source.pretrained and user_path(source.pretrained).is_file())):
            clipn.setdefault(source.model_dump_json(include={"checkpoint", "pretrained", "model"}))
        if trial.uses_captioner:  # by a tag too: a grid would find out after hours that it cannot be fetched
            captioners.setdefault(source.model_dump_json(include={"captioner", "captioner_model"}))
        if trial.recipe.encoder is not None and trial.recipe.encoder != "clipn":
            encoders.setdefault(trial.recipe.encoder)
    return {
        "clipn": [json.loads(each) for each in clipn],
        "encoders": list(encoders),
        "captioners": [json.loads(each) for each in captioners],
    }


def _open(job: dict[str, list[Any]]) -> None:
    """Open what the job names. Raises ValueError for the first that does not fit."""
    from torch import nn

    from models.classifier.frozen import check_encoder
    from models.clipn.pretrained import load_pretrained
    from models.clipn.weights import check_finite, load_clipn

    for each in job["clipn"]:
        source = ClipnSource(**each)
        if source.checkpoint is not None:
            told = f"clipn.checkpoint: {source.checkpoint}"
            towers: nn.Module = load_clipn(source.checkpoint, clip_config(source.model))
        else:
            assert source.pretrained is not None
            told = f"{PRETRAINED}: {source.pretrained}"
            towers = load_pretrained(source.model, source.pretrained, progress=to_stderr)
        check_finite(towers, told)
    if job["captioners"]:
        from models.clipn.captioner import load_captioner

        for each in job["captioners"]:
            load_captioner(ClipnSource(**each), progress=to_stderr)
    for encoder in job["encoders"]:
        check_encoder(encoder)


def main() -> int:
    """Open what the job on the standard input names, print the first mistake, and return the exit code."""
    try:
        _open(json.load(sys.stdin))
    except ValueError as error:
        print(" ".join(str(error).split()))
        return BAD_INPUT
    return DONE


if __name__ == "__main__":
    sys.exit(main())
