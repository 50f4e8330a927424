"""The scorer in this process: requests of indices against a plain loop over images, for every detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.clipn.features import VisionLanguage
from models.clipn.source import POSITIONS, TOKENS, ClipnSource
from models.clipn.tokens import byte_pairs
from models.words.lists import Synset, WordList
from orchestrator.trial import purity_scorer
from orchestrator.trial.purity_scorer import LocalPurityScorer, TrialScorer, bank_name
from strategies.purity.contract import PurityOptions, PurityRequest, PurityScores, TanlOptions, WordOptions
from strategies.purity.tuning import SCALES
from strategies.purity.words import group_logits
from tests.card import card

Array = NDArray[np.float64]
NAMES = ("a", "b", "c")
CPU = torch.device("cpu")


def unit(rows: Array) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


GENERATOR = np.random.default_rng(0)
IMAGES = unit(GENERATOR.normal(size=(60, 8)) + 0.3)
YES, NO = (unit(GENERATOR.normal(size=(3, 8)) + 0.3) for _ in range(2))


def scorer() -> LocalPurityScorer:
    vision_language = VisionLanguage(
        image_features_ND=IMAGES, logit_scale=20.0, encode_classes=lambda names: (YES[: len(names)], NO[: len(names)])
    )
    return LocalPurityScorer({"here": vision_language}, torch.device("cpu"))


def request(options: PurityOptions, **changes: Any) -> PurityRequest:
    values: dict[str, Any] = {
        "data_fingerprint": "here",
        "class_names": NAMES,
        "labelled_id_idx": np.array([3, 0, 7, 9, 12]),
        "labelled_id_labels": np.array([0, 2, 0, 2, 2]),  # class 1 has no labelled image
        "labelled_ood_idx": np.array([5, 1, 20]),
        "unlabelled_idx": np.arange(30, 60)[::-1].copy(),
        "options": options,
    }
    return PurityRequest(**(values | changes))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


def plain_scores(image: int, asked: PurityRequest, scale: float) -> tuple[float, float]:
    """ID and OOD score of one image, written out in float64; MCM's OOD score is NaN."""
    f = IMAGES[image].astype(np.float64)
    p = softmax(scale * YES @ f)
    kept = 1 / (1 + np.exp(-scale * (YES @ f - NO @ f)))
    weights = np.ones(3)
    divisor = 1
    if asked.options.visual_similarity:
        divisor = 3
        similarity = [
            IMAGES[asked.labelled_id_idx[asked.labelled_id_labels == c]].astype(np.float64).mean(axis=0) @ f
            for c in (0, 2)
        ]
        weights = np.insert(softmax(scale * np.array(similarity)) * 2 / 3, 1, 1 / 3)
    if asked.options.detector == "atd":
        return float((weights * p * kept).max()), float((1 - (p * kept).sum()) / divisor)
    if asked.options.detector == "ctw":
        top = int((weights * p).argmax())
        return float(weights[top] * kept[top]), float((1 - kept[top]) / divisor)
    return float((weights * p).max()), float("nan")


def balanced(asked: PurityRequest, scale: float, threshold: float | None) -> float:
    """Mean recall on the labelled images at a scale."""
    shares = []
    for images, is_id in ((asked.labelled_id_idx, True), (asked.labelled_ood_idx, False)):
        scores = [plain_scores(image, asked, scale) for image in images]
        shares.append(np.mean([(i > (o if threshold is None else threshold)) == is_id for i, o in scores]))
    return float(np.mean(shares))


def check(answer: PurityScores, asked: PurityRequest, threshold: float | None) -> None:
    """The answer's scores are those of the plain loop at the answer's scale."""
    expected = np.array([plain_scores(image, asked, answer.logit_scale) for image in asked.unlabelled_idx])
    if threshold is not None:
        expected[:, 1] = threshold
    np.testing.assert_allclose(answer.id_scores, expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(answer.ood_scores, expected[:, 1], atol=1e-5)
    np.testing.assert_array_equal(answer.is_id, answer.id_scores > answer.ood_scores)
    assert (answer.id_scores.dtype, answer.ood_scores.dtype, answer.is_id.dtype) == (np.float32, np.float32, np.bool_)


@pytest.mark.parametrize("visual_similarity", [False, True])
@pytest.mark.parametrize("detector", ["atd", "ctw"])
def test_a_tuned_scale_against_a_plain_loop(detector: str, visual_similarity: bool) -> None:
    asked = request(PurityOptions(detector=detector, visual_similarity=visual_similarity))
    answer = scorer().score(asked)
    check(answer, asked, None)
    if detector == "ctw" and not visual_similarity:  # every scale decides the same
        assert (answer.logit_scale, answer.is_tuned, answer.labelled_accuracy) == (10.0, False, None)
        return
    reached = [balanced(asked, scale, None) for scale in SCALES]
    assert answer.is_tuned
    assert answer.labelled_accuracy == pytest.approx(max(reached), abs=1e-12)
    assert answer.logit_scale == SCALES[int(np.argmax(reached))]


@pytest.mark.parametrize("visual_similarity", [False, True])
@pytest.mark.parametrize("self_temperature", [False, True])
def test_mcm_against_a_plain_loop(self_temperature: bool, visual_similarity: bool) -> None:
    asked = request(
        PurityOptions(detector="mcm", visual_similarity=visual_similarity, self_temperature=self_temperature)
    )
    answer = scorer().score(asked)
    (threshold,) = np.unique(answer.ood_scores)
    check(answer, asked, float(threshold))
    labelled = [*asked.labelled_id_idx, *asked.labelled_ood_idx]
    scales = SCALES[::5] if self_temperature else (10.0,)
    best = max(
        balanced(asked, scale, t)
        for scale in scales
        for t in [0.0, *(plain_scores(i, asked, scale)[0] for i in labelled)]
    )
    assert answer.labelled_accuracy is not None
    assert answer.labelled_accuracy == balanced(asked, answer.logit_scale, float(threshold))
    assert answer.labelled_accuracy >= best
    if not self_temperature:
        assert (answer.logit_scale, answer.labelled_accuracy) == (10.0, best)
    assert answer.is_tuned is self_temperature


@pytest.mark.parametrize("detector", ["atd", "ctw", "mcm"])
def test_before_any_ood_image_is_labelled(detector: str) -> None:
    asked = request(PurityOptions(detector=detector, fixed_scale=4.0), labelled_ood_idx=np.empty(0, dtype=np.int64))
    answer = scorer().score(asked)
    assert (answer.logit_scale, answer.is_tuned, answer.labelled_accuracy) == (4.0, False, None)
    lowest = min(plain_scores(image, asked, 4.0)[0] for image in asked.labelled_id_idx)
    check(answer, asked, lowest if detector == "mcm" else None)


def test_the_detectors_answer_differently() -> None:
    answers = [scorer().score(request(PurityOptions(detector=d))) for d in ("atd", "ctw", "mcm")]
    assert len({answer.id_scores.tobytes() for answer in answers}) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="the card itself is there")
@pytest.mark.parametrize(
    "detector",
    ["atd", "ctw", "mcm", "neglabel", "tanl", "probe", "knn", "mahalanobis", "relative-mahalanobis", "fused"],
)
def test_a_card_s_answer_lies_where_it_computes(detector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(PurityOptions(detector=detector, words=WordOptions(active=3)))  # type: ignore[arg-type]
    here = word_scorer(monkeypatch).score(asked)
    with card():
        there = word_scorer(monkeypatch, torch.device("cuda")).score(asked)
    np.testing.assert_array_equal(there.is_id, here.is_id)
    np.testing.assert_allclose(there.id_scores, here.id_scores, rtol=1e-6)


def test_an_unknown_data_set_is_told() -> None:
    with pytest.raises(ValueError, match="the scorer holds no features of data set elsewhere"):
        scorer().score(request(PurityOptions(), data_fingerprint="elsewhere"))


def sentences(what: str, texts: tuple[str, ...]) -> NDArray[np.float32]:
    """A direction for each sentence, whatever it is kept as."""
    return unit(np.stack([np.random.default_rng(len(text) + 100 * ord(text[-3])).normal(size=8) for text in texts]))


def word_scorer(monkeypatch: pytest.MonkeyPatch, device: torch.device = CPU) -> LocalPurityScorer:
    """A scorer that knows a dozen words."""
    lines = [f"word{letter}" for letter in "defghijklmno"]
    synsets = [Synset(is_noun=True, kind="artifact", hypernyms=(), lemmas=(line,)) for line in lines]
    known = WordList(synsets=tuple(synsets), words=tuple(each.lemmas[0] for each in synsets), num_nouns=12)
    monkeypatch.setattr(purity_scorer, "word_list", lambda: known)
    language = VisionLanguage(
        image_features_ND=IMAGES, logit_scale=20.0, encode_classes=lambda names: (YES, NO), encode_texts=sentences
    )
    return LocalPurityScorer({"here": language}, device)


def test_neglabel_compares_images_with_names_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(PurityOptions(detector="neglabel"))
    found = word_scorer(monkeypatch).score(asked)
    names = sentences("", tuple(f"The nice {name}." for name in NAMES)).astype(np.float64)
    negatives = sentences("", tuple(f"The nice word{letter}." for letter in "defghijklmno")).astype(np.float64)
    images = IMAGES[asked.unlabelled_idx].astype(np.float64)
    positive = np.exp(20 * images @ names.T).sum(axis=1)
    expected = positive / (positive + np.exp(20 * images @ negatives.T).sum(axis=1))
    np.testing.assert_allclose(found.id_scores, expected, rtol=1e-4)
    assert found.labelled_accuracy is not None


def test_tanl_scores_labelled_and_other_images_together(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def record(features_AD: torch.Tensor, words_MD: torch.Tensor, scale: float, **options: Any) -> torch.Tensor:
        given.update(options, features_AD=features_AD, words_MD=words_MD, scale=scale)
        return torch.arange(38) / 38

    monkeypatch.setattr(purity_scorer, "tanl", record)
    words = WordOptions(active=3, groups=5)
    asked = request(PurityOptions(detector="tanl", words=words, tanl=TanlOptions(sure_images=2)))
    found = word_scorer(monkeypatch).score(asked)
    np.testing.assert_array_equal(found.id_scores, np.arange(8, 38, dtype=np.float32) / 38)

    pool = torch.from_numpy(IMAGES[[3, 0, 7, 9, 12, 5, 1, 20, *asked.unlabelled_idx]])
    names, negatives = (
        torch.from_numpy(sentences("", tuple(f"The nice {word}." for word in words)))
        for words in (NAMES, [f"word{letter}" for letter in "defghijklmno"])
    )
    torch.testing.assert_close(given["features_AD"], pool, rtol=0, atol=0)
    torch.testing.assert_close(given["words_MD"], negatives, rtol=0, atol=0)
    torch.testing.assert_close(given["names_A"], (20.0 * pool @ names.T).logsumexp(dim=1))
    torch.testing.assert_close(given["groups_AG"], group_logits(pool, negatives, 20.0, 5))
    assert given["known_A"].tolist() == [1] * 5 + [0] * 3 + [-1] * 30
    assert (given["scale"], given["num"], given["sure_images"]) == (20.0, 3, 2)


def test_zoc_compares_images_with_names_and_the_words_of_their_captions() -> None:
    pieces = byte_pairs()
    word_tokens = [token for token in (2368, 1929, 1615, 4558, 6716) if pieces[token].endswith("</w>")]
    assert len(word_tokens) == 5
    tokens = np.full((60, POSITIONS, TOKENS), 49407, dtype=np.float32)  # captions that are over
    for image in range(1, 60):
        tokens[image, 0, : image % 4 + 1] = np.roll(word_tokens, image)[: image % 4 + 1]
    language = VisionLanguage(
        image_features_ND=IMAGES,
        logit_scale=20.0,
        encode_classes=lambda names: (YES, NO),
        encode_texts=sentences,
        caption_tokens_NT=tokens.reshape(60, -1),
    )
    names = (pieces[word_tokens[0]].removesuffix("</w>"), "b", "c")  # the first word is a class, so no candidate
    asked = request(PurityOptions(detector="zoc"), class_names=names, unlabelled_idx=np.array([0, *range(30, 60)]))
    found = LocalPurityScorer({"here": language}, torch.device("cpu")).score(asked)
    texts_of_names = sentences("", tuple(f"This is a photo of a {name}." for name in names)).astype(np.float64)
    expected = []
    for image in asked.unlabelled_idx:
        own = {pieces[int(token)] for token in tokens[image, 0]} - {pieces[word_tokens[0]], "<end_of_text>"}
        words = sentences(
            "", tuple(f"This is a photo of a {word.removesuffix('</w>')}." for word in sorted(own)) or ("xxx",)
        )
        negative = np.exp(20 * words @ IMAGES[image]).sum() if own else 0.0
        positive = np.exp(20 * texts_of_names @ IMAGES[image]).sum()
        expected.append(positive / (positive + negative))
    assert expected[0] == 1.0
    np.testing.assert_allclose(found.id_scores, expected, rtol=1e-4)
    assert found.labelled_accuracy is not None


def test_features_are_those_of_the_images() -> None:
    idx = np.array([5, 3, 59])
    np.testing.assert_array_equal(scorer().features("here", idx), IMAGES[idx])
    with pytest.raises(ValueError, match="holds no features of data set elsewhere"):
        scorer().features("elsewhere", idx)


def test_features_that_are_all_alike_are_refused() -> None:
    language = VisionLanguage(
        image_features_ND=np.ones((4, 2), np.float32), logit_scale=1.0, encode_classes=lambda names: (YES, NO)
    )
    with pytest.raises(ValueError, match="every image has the same features"):
        LocalPurityScorer({"here": language}, torch.device("cpu"))


@pytest.mark.parametrize("detector", ["probe", "knn", "mahalanobis", "relative-mahalanobis", "fused"])
def test_detectors_of_features_get_those_of_the_request(detector: str) -> None:
    asked = request(PurityOptions(detector=detector))
    found = scorer().score(asked)
    case = scorer().case(asked)
    assert case.sight is not None
    np.testing.assert_array_equal(case.sight.features_ND, IMAGES[asked.unlabelled_idx])
    np.testing.assert_array_equal(case.sight.labelled.features_LD, IMAGES[[3, 0, 7, 9, 12, 5, 1, 20]])
    assert case.sight.labelled.classes_L.tolist() == [0, 2, 0, 2, 2, 3, 3, 3]
    assert found.id_scores.shape == found.is_id.shape == (30,)


def test_a_detector_without_text_asks_for_no_class_features() -> None:
    def refuse(names: tuple[str, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        raise AssertionError("class features were asked for")

    language = VisionLanguage(image_features_ND=IMAGES, logit_scale=20.0, encode_classes=refuse)
    blind = LocalPurityScorer({"here": language}, torch.device("cpu"))
    assert len(blind.score(request(PurityOptions(detector="probe"))).id_scores) == 30


def test_the_number_of_tied_scales_is_among_what_a_request_took() -> None:
    local = scorer()
    scores = local.score(request(PurityOptions()))
    assert scores.num_tied_scales > 0
    assert local.last_request is not None
    assert local.last_request.tied_scales == scores.num_tied_scales


def test_arms_of_a_grid_that_differ_in_their_clipn_are_scored_by_their_own() -> None:
    sources = [ClipnSource(precision="fp32"), ClipnSource(precision="bf16")]
    images = [IMAGES, IMAGES[::-1].copy()]
    held = {
        bank_name("here", source): VisionLanguage(
            image_features_ND=rows, logit_scale=20.0, encode_classes=lambda names: (YES[: len(names)], NO[: len(names)])
        )
        for source, rows in zip(sources, images, strict=True)
    }
    both = LocalPurityScorer(held, torch.device("cpu"))
    asked = request(PurityOptions(detector="atd"))
    for source, rows in zip(sources, images, strict=True):
        alone = LocalPurityScorer({"here": held[bank_name("here", source)]}, torch.device("cpu"))
        own = TrialScorer(both, source)
        np.testing.assert_array_equal(own.score(asked).id_scores, alone.score(asked).id_scores)
        np.testing.assert_array_equal(own.features("here", np.array([4, 2])), rows[[4, 2]])
        assert own.last_request is both.last_request is not None
        # A captioner makes no other features, and a scorer of one CLIPN needs no name of it.
        with_captions = source.model_copy(update={"captioner": "a-tag"})
        np.testing.assert_array_equal(TrialScorer(both, with_captions).features("here", np.array([3])), rows[[3]])
        np.testing.assert_array_equal(TrialScorer(alone, source).features("here", np.array([3])), rows[[3]])
    with pytest.raises(ValueError, match=r"the scorer holds features of several CLIPNs of data set here$"):
        both.score(asked)
    with pytest.raises(ValueError, match=r"the scorer holds no features of data set here .*ViT-L-14"):
        TrialScorer(both, ClipnSource(model="ViT-L-14")).score(asked)
