"""Settings as a user or a record writes them -> a checked `TrialConfig`, or one line that says what is wrong."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from models.classifier.recipe import EncoderName
from models.clipn.source import DEFAULT_CAPTIONER, PUBLISHED_CAPTIONER
from models.words.lists import word_list
from orchestrator.settings.keys import check_keys, check_name, check_texts, one_line
from orchestrator.settings.trial import DetectionSettings, TrialConfig
from strategies.purity.detectors import DETECTORS
from strategies.registry import find_strategy


def make_trial(**settings: Any) -> TrialConfig:
    """Make a checked TrialConfig from a user's settings; a strategy from elsewhere is imported and checked too.

    Raises ValueError with one line that names each wrong field and what it may be.
    """
    trial = read_trial(**settings)
    check_name("dataset", trial.dataset)  # records of earlier versions may hold such a name, and are read
    find_strategy(trial.strategy)
    return trial


def read_trial(**settings: Any) -> TrialConfig:
    """Make a TrialConfig from a record's settings, checked as in `make_trial`, but its strategy stays a name.

    Nothing is imported for it: records may come from somebody else. Raises ValueError as `make_trial`.
    """
    check_texts(settings)
    check_keys(TrialConfig, settings)
    try:
        trial = TrialConfig(**settings)
    except ValidationError as error:
        raise ValueError(one_line(error)) from None
    trial = _with_captioner_if_read(trial)
    _check_classes(trial)
    if trial.recipe.encoder is not None:
        EncoderName.parse(trial.recipe.encoder)
    if trial.supervision != "budget" and trial.rounds != 1:
        what = "full_data = True" if trial.full_data else "recipe.network = 'zero-shot'"
        raise ValueError(f"{what} leaves no pool to query, so rounds = {trial.rounds} cannot be; take rounds = 1")
    if trial.detection is not None:
        _check_detection(trial, trial.detection)
    if trial.uses_purity and "words" in DETECTORS[trial.purity.detector].needs:
        word_list().check_kinds(trial.purity.words.leave_out)  # refused now, and not by a scorer later
    _check_texts_of_weights(trial)
    return trial


def _check_texts_of_weights(trial: TrialConfig) -> None:
    """Raise ValueError for a detector that reads "no" texts with weights that have none."""
    needs = DETECTORS[trial.purity.detector].needs
    if not trial.uses_purity or "no text" not in needs or trial.clipn.pretrained is None:
        return
    others = [name for name, each in DETECTORS.items() if not each.needs & {"no text", "captioner"} and name != "mcm"]
    raise ValueError(
        f'purity.detector = {trial.purity.detector!r} reads CLIPN\'s "no" texts, and the plain CLIP '
        f'{trial.clipn.pretrained!r} (clipn.pretrained) has no trained "no" tower; take --purity mcm (or '
        f"{', '.join(others)}), or give a CLIPN checkpoint instead (--clipn-checkpoint)"
    )


def _with_captioner_if_read(trial: TrialConfig) -> TrialConfig:
    """The trial without a captioner if it reads none, so that all trials but those with `zoc` stay as they were.

    Raises ValueError for a trial that reads one and has none.
    """
    if not trial.uses_captioner:
        plain = {"captioner": None, "captioner_model": DEFAULT_CAPTIONER}
        return trial.model_copy(update={"clipn": trial.clipn.model_copy(update=plain)})
    if trial.clipn.captioner is None:
        raise ValueError(
            f"purity.detector = {trial.purity.detector!r} reads captions, and no captioner is given: give a CoCa with "
            f"--captioner (clipn.captioner): the tag {PUBLISHED_CAPTIONER}, which is fetched once, or the path of its "
            f"file open_clip_model.safetensors (laion/mscoco_finetuned_CoCa-ViT-B-32-laion2B-s13B-b90k)"
        )
    return trial


def _check_classes(trial: TrialConfig) -> None:
    """Raise ValueError unless exactly one setting decides the ID classes."""
    if (trial.mismatch_ratio is None) == (trial.id_classes is None):
        both = "both are given" if trial.id_classes is not None else "neither is given"
        raise ValueError(f"mismatch_ratio and id_classes: {both}; take one to choose the ID classes")
    if trial.class_draw != "seed" and trial.id_classes is not None:
        raise ValueError(f"class_draw = {trial.class_draw!r} draws the ID classes, but id_classes names them; omit one")


def _check_detection(trial: TrialConfig, detection: DetectionSettings) -> None:
    """Raise ValueError for a detection trial in which nothing could be measured."""
    if not trial.uses_purity:
        raise ValueError(f"detection: the strategy {trial.strategy} has no purity step; take vlpure or an arm")
    if trial.rounds > len(detection.labels):
        raise ValueError(
            f"rounds = {trial.rounds}, but detection.labels has {len(detection.labels)} stage(s), one per round; take "
            f"--rounds {len(detection.labels)}, or name more stages"
        )
    if trial.supervision != "budget" or trial.ood_ratio == 0:
        raise ValueError("detection: a pool without unlabelled OOD images leaves nothing to detect")
