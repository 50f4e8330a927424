"""Trials are checked strictly, and the fingerprint holds what changes numbers and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.clipn.source import ClipnSource
from orchestrator.settings.reading import make_trial, read_trial
from orchestrator.settings.trial import TrialConfig
from strategies.registry import STRATEGIES

GOOD: dict[str, Any] = {
    "dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": "vlpure", "seed": 0,
}  # fmt: skip


def fingerprint(**changes: Any) -> str:
    return make_trial(**(GOOD | changes)).fingerprint(data_fingerprint="d", clipn_identity="c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mismatch_ratio": 0.0}, r"mismatch_ratio = 0\.0: .*greater than 0"),
        ({"mismatch_ratio": 1.0}, r"mismatch_ratio = 1\.0: .*less than 1"),
        ({"ood_ratio": -0.1}, r"ood_ratio = -0\.1: .*greater than or equal to 0"),
        ({"ood_ratio": float("nan")}, r"ood_ratio = nan"),
        ({"ood_ratio": "al"}, r"^ood_ratio = 'al': must be a number .*, or all \(every OOD image\)$"),
        ({"ood_ratio": True}, r"^ood_ratio = True: must be a number"),
        ({"id_classes": ["a", "b"]}, r"^mismatch_ratio and id_classes: both are given; take one"),
        ({"mismatch_ratio": None}, r"^mismatch_ratio and id_classes: neither is given"),
        ({"mismatch_ratio": None, "id_classes": []}, r"id_classes = \[\]"),
        ({"mismatch_ratio": None, "id_classes": ["a", " a"]}, r"the class 'a' is given twice; name each class once"),
        (
            {"mismatch_ratio": None, "id_classes": ["\u00e9", "e\u0301"]},
            r"the class '\u00e9' is given twice, in two spellings of Unicode",
        ),
        (
            {"mismatch_ratio": None, "id_classes": ["a", "b"], "class_draw": "open-set-annotation"},
            r"class_draw = 'open-set-annotation' draws the ID classes, but id_classes names them",
        ),
        ({"seed": -1}, r"seed = -1: .*greater than or equal to 0"),
        ({"seed": 1.5}, r"seed = 1\.5: .*integer"),
        ({"seed": True}, r"seed = True: .*integer"),
        ({"rounds": 0}, r"rounds = 0"),
        ({"budget": "20"}, r"budget = '20': .*integer"),
        ({"strategy": "vlpur"}, r"unknown strategy 'vlpur' \(did you mean 'vlpure'\?\)"),
        ({"rouns": 5}, r"^unknown key 'rouns' \(did you mean 'rounds'\?\); known: dataset, mismatch_ratio, "),
        ({"recipe": {"steps": 0}}, r"recipe\.steps = 0"),
        ({"recipe": {"learning_rate": float("inf")}}, r"recipe\.learning_rate = inf"),
        ({"recipe": {"milestones": [1.5]}}, r"recipe\.milestones\.0 = 1\.5"),
        ({"recipe": {"precision": "fp16"}}, r"recipe\.precision = 'fp16'"),
        ({"purity": {"fixed_scale": 0}}, r"purity\.fixed_scale = 0"),
        ({"purity": {"visual": True}}, r"^purity: unknown key 'visual'; known: detector, visual_similarity, "),
        ({"purity": {"detector": "adt"}}, r"purity\.detector = 'adt': .*'atd', 'ctw', .* or 'fused'"),
        ({"clipn": {"domain": " "}}, r"clipn\.domain = ' '"),
        ({"clipn": {"pretrained": ""}}, r"clipn\.pretrained = ''"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_trial(**(GOOD | changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["x\0y", "x\ud800y"], ids=ascii)
@pytest.mark.parametrize(
    ("changes", "place"),
    [
        (lambda text: {"dataset": text}, "dataset"),
        (lambda text: {"data_root": Path(text)}, "data_root"),
        (lambda text: {"recipe": {"name": text}}, "recipe.name"),
        (lambda text: {"clipn": {"templates": [text]}}, "clipn.templates"),
        (lambda text: {"options": {text: {}}}, "options.a key"),
    ],
)
def test_a_text_that_no_record_can_hold_is_refused(
    changes: Callable[[str], dict[str, Any]], place: str, text: str
) -> None:
    with pytest.raises(ValueError, match=f"^{place} = 'x.*y': has a NUL, or half of a character; remove it$") as caught:
        make_trial(**(GOOD | changes(text)))
    assert str(caught.value).isascii()


def test_a_data_set_cannot_write_to_the_terminal_but_its_record_is_read() -> None:
    name = "folder:/data/\x1b[2J"
    with pytest.raises(ValueError, match=r"^dataset: 'folder:/data/\\x1b\[2J' has a character that cannot be printed"):
        make_trial(**(GOOD | {"dataset": name}))
    assert read_trial(**(GOOD | {"dataset": name})).dataset == name


@pytest.mark.parametrize(
    "changes",
    [
        {"mismatch_ratio": None, "id_classes": ["a", "b"]}, {"ood_ratio": "all"}, {"initial_share": 0.01},
        {"class_draw": "open-set-annotation"},
        {"mismatch_ratio": 0.3}, {"ood_ratio": 0.2}, {"strategy": "conf"}, {"seed": 1}, {"budget": 499},
        {"recipe": {"steps": 19_999}}, {"recipe": {"precision": "bf16"}}, {"purity": {"visual_similarity": False}},
        {"purity": {"detector": "ctw"}}, {"purity": {"detector": "mcm"}},
        {"purity": {"detector": "tanl"}},
    ],
)  # fmt: skip
def test_what_changes_numbers_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    assert fingerprint(**changes) != fingerprint()


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, "76aa8477b6250481a9dd3235e75e9ebc4b1fd84bc0683e53510961b8eb386c47"),
        (
            {"strategy": "conf", "budget": 20, "recipe": {"name": "demo"}},
            "721bfb87e572e64f51d225677f99201e3efd6227c895e81c4b199a7f3142a78f",
        ),
        ({"strategy": "mqnet"}, "81ad1e4a3ab50eb50ea0f28b9c0b9ec621714e99d1d59312b2f570dfb5c75a68"),
        (
            {"dataset": "domainnet-sketch", "strategy": "vlpure-domain", "recipe": {"name": "paper-domainnet"}},
            "ddbc296317d0cacbad2045ef94ff0e7d6427c0a598b39ff8f202cc73f79c4efd",
        ),
        (
            {"recipe": {"name": "paper-clip-linear"}, "purity": {"self_temperature": False}},
            "d276a31a7e37217f74ffbf5827446049d05e4f1a980c5169bf6d4a04cd1fe1ff",
        ),
        ({"purity": {"detector": "neglabel"}}, "954792ff817741750b9830fceda5cc0c9206a1cd473c003c04be38fdbb777ae1"),
    ],
)
def test_a_fingerprint_stays_what_it_was(changes: dict[str, Any], known: str) -> None:
    """Else every ledger there is would be computed again; if numbers change, raise NUMBERS_VERSION and these."""
    assert fingerprint(**changes) == known


def test_a_strategy_whose_numbers_changed_does_not_go_on_from_earlier_records(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = fingerprint(strategy="coreset"), fingerprint(strategy="conf")
    monkeypatch.setitem(STRATEGIES, "coreset", replace(STRATEGIES["coreset"], numbers=2))
    assert fingerprint(strategy="coreset") != first
    assert fingerprint(strategy="conf") == other


REFERENCE = {"strategy": "random", "rounds": 1}
ZERO_SHOT = REFERENCE | {"recipe": {"name": "zero-shot"}}


@pytest.mark.parametrize("reference", [REFERENCE | {"full_data": True}, ZERO_SHOT])
def test_without_a_pool_neither_budget_nor_ood_ratio_counts(reference: dict[str, Any]) -> None:
    first = fingerprint(**reference)
    assert fingerprint(**reference, ood_ratio=0.0, budget=7) == first
    assert fingerprint(**reference, mismatch_ratio=0.3) != first
    assert fingerprint(**reference, seed=1) != first
    assert first != fingerprint(**REFERENCE)


def test_zero_shot_counts_clipn_and_no_training() -> None:
    first = fingerprint(**ZERO_SHOT)
    assert fingerprint(**(ZERO_SHOT | {"recipe": {"name": "zero-shot", "steps": 3, "learning_rate": 0.5}})) == first
    other = make_trial(**(GOOD | ZERO_SHOT)).fingerprint(data_fingerprint="d", clipn_identity="other")
    assert other != first


def test_no_ood_images_is_one_ratio_however_it_is_written() -> None:
    assert fingerprint(ood_ratio=-0.0) == fingerprint(ood_ratio=0.0) != fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"full_data": True}, r"full_data = True leaves no pool to query, so rounds = 10 cannot be; take rounds = 1"),
        ({"recipe": {"name": "zero-shot"}, "rounds": 2}, r"recipe\.network = 'zero-shot' leaves no pool .* rounds = 2"),
        ({"recipe": {"network": "zero-shot", "encoder": "timm:resnet10t"}, "rounds": 1}, r"encoder=clipn"),
        ({"recipe": {"network": "zero-shot"}, "rounds": 1}, r"needs an encoder"),
    ],
)
def test_what_a_reference_run_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trial(**(GOOD | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "folder:/elsewhere"}, {"rounds": 3}, {"data_root": "/elsewhere"},
        {"recipe": {"eval_batch_size": 256}},
    ],
)  # fmt: skip
def test_what_changes_no_numbers_does_not(changes: dict[str, Any]) -> None:
    assert fingerprint(**changes) == fingerprint()


def test_how_many_images_are_looked_at_at_a_time_is_no_setting_that_is_compared() -> None:
    usual, smaller = (make_trial(**GOOD, recipe={"eval_batch_size": size}) for size in (512, 256))
    assert usual.settings_read() == smaller.settings_read()
    assert "recipe.eval_batch_size" not in usual.settings_read()
    assert usual.settings_read()["recipe.batch_size"] == 64


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({}, "c511ba22b6d95b75a6222853ae7b0e6fcf027411c1bdd594cec5b6d7d8ccaf48"),
        ({"name": "paper-clip-linear"}, "c2a53e37370a5ee8f5d9bdcd2b33f4bdab60552336285cf0089f5d60091a4000"),
    ],
)
def test_the_first_records_keep_their_fingerprints(recipe: dict[str, Any], expected: str) -> None:
    """A setting that came later and is not used is not in them."""
    trial = make_trial(dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy="conf", seed=0, recipe=recipe)
    assert trial.fingerprint(data_fingerprint="d" * 64, clipn_identity="c" * 64) == expected


def test_a_head_on_crops_is_another_trial() -> None:
    prints = {fingerprint(recipe={"name": f"paper-clip-linear{kind}"}) for kind in ("", "-tiny", "-crops")}
    prints.add(fingerprint(recipe={"name": "paper-clip-linear-crops", "smallest_crop": 0.8}))
    assert len(prints) == 4


def test_purity_counts_only_for_strategies_that_use_it() -> None:
    def random_trial(clipn: str | None, **purity: Any) -> str:
        trial = make_trial(**(GOOD | {"strategy": "random", "purity": purity}))
        return trial.fingerprint(data_fingerprint="d", clipn_identity=clipn)

    assert random_trial("c", self_temperature=False) == random_trial(None)


def test_weights_and_data_count() -> None:
    trial = make_trial(**GOOD)
    prints = {trial.fingerprint(data_fingerprint=d, clipn_identity=c) for d in "de" for c in "cf"}
    assert len(prints) == 4


def test_a_trial_survives_json() -> None:
    trial = make_trial(**(GOOD | {"clipn": {"checkpoint": "weights.pt"}, "data_root": "somewhere"}))
    assert TrialConfig.model_validate_json(trial.model_dump_json()) == trial


@pytest.mark.parametrize("detector", ["atd", "ctw"])
def test_a_plain_clip_serves_only_mcm(detector: str) -> None:
    settings = GOOD | {"clipn": {"pretrained": "openai"}}
    with pytest.raises(ValueError, match=rf"purity\.detector = '{detector}' .*'openai'.*--purity mcm") as caught:
        make_trial(**settings, purity={"detector": detector})
    assert "\n" not in str(caught.value)
    make_trial(**settings, purity={"detector": "mcm"})
    make_trial(**(settings | {"strategy": "random"}), purity={"detector": detector})  # it asks no detector


def test_a_captioner_is_a_setting_of_trials_that_read_captions_only() -> None:
    clipn = {"captioner": "a tag", "captioner_model": "coca_ViT-L-14"}
    other = make_trial(**(GOOD | {"strategy": "vlpure"}), purity={"detector": "mcm"}, clipn=clipn)
    assert other == make_trial(**(GOOD | {"strategy": "vlpure"}), purity={"detector": "mcm"})
    assert not [name for name in other.settings_read() if "captioner" in name]
    zoc = make_trial(**(GOOD | {"strategy": "vlpure"}), purity={"detector": "zoc"}, clipn=clipn)
    assert (zoc.clipn.captioner, zoc.clipn.captioner_model) == ("a tag", "coca_ViT-L-14")
    assert zoc.settings_read()["clipn.captioner_model"] == "coca_ViT-L-14"
    with pytest.raises(ValueError, match=r"'zoc' reads captions.*--captioner.*open_clip_model\.safetensors") as caught:
        make_trial(**(GOOD | {"strategy": "vlpure"}), purity={"detector": "zoc"})
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="visual_similarity = True has no meaning for the detector zoc"):
        make_trial(**GOOD, purity={"detector": "zoc", "visual_similarity": True}, clipn=clipn)


def test_all_that_is_said_of_clipn_reaches_the_models() -> None:
    clipn = {
        "checkpoint": "weights.pt", "pretrained": "openai", "model": "ViT-B-32", "templates": "templates.txt",
        "clean_names": True, "domain": " real ",
    }  # fmt: skip
    assert make_trial(**(GOOD | {"clipn": clipn, "purity": {"detector": "mcm"}})).clipn == ClipnSource(
        checkpoint=Path("weights.pt"),
        pretrained="openai",
        model="ViT-B-32",
        templates=Path("templates.txt"),
        clean_names=True,
        domain="real",
    )


NAMED: dict[str, Any] = {"mismatch_ratio": None, "id_classes": ["dog", "cat"]}


def test_named_classes_are_one_problem_in_any_order_and_spelling() -> None:
    first = fingerprint(**NAMED)
    assert fingerprint(mismatch_ratio=None, id_classes=["cat ", "dog"]) == first
    assert fingerprint(mismatch_ratio=None, id_classes=["cat", "dogs"]) != first
    assert fingerprint(**NAMED, class_draw="seed") == first
    accented = [fingerprint(mismatch_ratio=None, id_classes=["a", name]) for name in ("\u00e9", "e\u0301")]
    assert accented[0] == accented[1]


def test_the_settings_of_the_problem_are_read_only_if_they_are_set() -> None:
    usual, named = make_trial(**GOOD), make_trial(**(GOOD | NAMED))
    new = {"id_classes", "initial_share", "class_draw"}
    assert not new & usual.settings_read().keys()
    assert named.settings_read()["id_classes"] == ["cat", "dog"]
    assert not (new - {"id_classes"} | {"mismatch_ratio"}) & named.settings_read().keys()
    shares = make_trial(**GOOD, initial_share=0.01, class_draw="open-set-annotation").settings_read()
    assert (shares["initial_share"], shares["class_draw"]) == (0.01, "open-set-annotation")


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        (NAMED | {"ood_ratio": "all"}, "digits ID classes cat, dog ood all vlpure seed 0"),
        (
            {"mismatch_ratio": None, "id_classes": list("edcba")},
            "digits ID classes a, b, c and 2 more [af3a] ood 0.6 vlpure seed 0",
        ),
        (NAMED | {"dataset": "domainnet-real"}, "domainnet-real ID classes cat, dog vlpure seed 0"),
    ],
)
def test_label_of_named_classes(changes: dict[str, Any], label: str) -> None:
    assert make_trial(**(GOOD | changes)).label == label
