"""How probable it is that an image shows one of the classes.

A score by the purity step's detectors, made a probability by a logistic curve with a prior, which the answers correct.
Shapes: N images, L answered images, S scores, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from data.console import unknown_name
from experiments.annotate.photos import Photos
from orchestrator.trial.purity_scorer import Case, LocalPurityScorer
from strategies.numeric.gaussian_mixture import fit_mixtures
from strategies.purity.contract import PurityOptions, PurityRequest
from strategies.purity.detectors import DETECTORS, DetectorName
from strategies.purity.features import fold_of_each
from strategies.purity.fusion import learn_fusion
from strategies.purity.judge import judge
from strategies.purity.probe import learn_probe
from strategies.purity.scores import Evidence, maxlogit

Floats = NDArray[np.float64]
Given = Literal["text", "no text"]
TINY = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The answered images, without those set aside."""

    idx: NDArray[np.int64]
    """Positions among the photos."""
    classes: NDArray[np.int64]
    """0..K-1, and K for none of the classes."""
    num_classes: int

    @property
    def is_wanted(self) -> NDArray[np.bool_]:
        """Mask (L,) of the images that show a class."""
        return self.classes < self.num_classes

    def ordered(self) -> Answers:
        """These answers with the wanted ones first, as a purity request has them."""
        order = np.argsort(~self.is_wanted, kind="stable")
        return Answers(idx=self.idx[order], classes=self.classes[order], num_classes=self.num_classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is believed of the curve log odds = offset + slope * score before any answer."""

    offset: float
    slope: float
    offset_sd: float
    slope_sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of all images, larger for wanted, and those of the answered ones by what did not learn from them."""

    all_N: Floats
    answered_L: Floats
    prior: Prior
    detector: str
    """What made them, for people."""


def pick_detector(asked: str | None, *, texts: frozenset[Given], has_both: bool) -> str:
    """The detector to use: the one asked for, else what the weights and the answers allow.

    Without answers of both kinds it is `atd` for a CLIPN, `neglabel` for a plain CLIP and `probe` (then a vote of
    neighbours) without texts; with them it is `fused`: the text detector mixed with the largest cosine and a probe.
    Raises ValueError for an unknown one, and for one that needs texts that the weights do not have.
    """
    text = "atd" if "no text" in texts else "neglabel" if texts else "probe"
    if asked is None:
        return "fused" if has_both and texts else text
    if asked not in get_args(DetectorName):
        raise unknown_name("--purity", asked, get_args(DetectorName))
    if "captioner" in DETECTORS[asked].needs:
        raise ValueError(f"--purity {asked} reads captions, which only trials have; use {text}, or omit --purity")
    missing = DETECTORS[asked].needs & frozenset({"text", "no text"}) - texts
    if asked == "fused" and texts:
        missing = frozenset()  # here it mixes whatever text detector there is
    if missing:
        what = "texts" if not texts else '"no" texts, which only a CLIPN has (--clipn-checkpoint)'
        raise ValueError(f"--purity {asked} needs {what}; use {text}, or omit --purity")
    return asked


class Judge:
    """Scores the photos of a folder by any detector."""

    def __init__(self, photos: Photos, classes: Sequence[str], texts: frozenset[Given]) -> None:
        """`texts` are the texts that the photos' weights can encode."""
        self._photos, self._classes, self._texts = photos, tuple(classes), texts
        self._scorer = None
        if photos.towers is not None:
            self._scorer = LocalPurityScorer({photos.identity: photos.towers}, torch.device("cpu"))

    def scores(self, asked: str | None, answers: Answers) -> Scores:
        """Scores by the detector that `pick_detector` picks. Raises ValueError as it does."""
        answers = answers.ordered()
        is_wanted_L = answers.is_wanted
        has_both = bool(min(is_wanted_L.sum(), (~is_wanted_L).sum()) >= 2)
        name = pick_detector(asked, texts=self._texts, has_both=has_both)
        if name == "fused":
            name = name if has_both else pick_detector(None, texts=self._texts, has_both=False)
        with torch.inference_mode():
            if name == "fused":
                return self._fused(answers)
            return self._plain(name, answers)

    def _plain(self, name: str, answers: Answers) -> Scores:
        """Scores by one detector, those of answered images from folds that were left out."""
        everything = np.arange(len(self._photos.names))
        case = self._case(name, answers, everything)
        options = _options(name)
        all_N = _judged(case, case.is_id_L, case.images, options)
        answered_L = all_N[answers.idx]
        if DETECTORS[name].needs & {"labels"} and len(answers.idx):
            answered_L = self._held_out(name, answers, fallback_L=answered_L)
        return Scores(all_N=all_N, answered_L=answered_L, prior=self._prior(name, all_N), detector=name)

    def _held_out(self, name: str, answers: Answers, *, fallback_L: Floats) -> Floats:
        """Scores (L,) of the answered images by a detector that learnt from the others."""
        from strategies.purity.features import Labelled

        labelled = Labelled(
            features_LD=torch.from_numpy(self._photos.features_ND[answers.idx]),
            classes_L=torch.from_numpy(answers.classes),
            num_classes=answers.num_classes,
        )
        folds_L = fold_of_each(labelled, 5)
        if folds_L is None:
            return fallback_L
        scores_L = np.empty(len(answers.idx))
        for fold in range(int(folds_L.max()) + 1):
            inside = (folds_L == fold).numpy()
            others = Answers(
                idx=answers.idx[~inside], classes=answers.classes[~inside], num_classes=answers.num_classes
            )
            case = self._case(name, others, answers.idx[inside])
            scores_L[inside] = _judged(case, case.is_id_L, case.images, _options(name))
        return scores_L

    def _fused(self, answers: Answers) -> Scores:
        """The text detector, the largest cosine and a probe, mixed by weights that the answers choose."""
        text = pick_detector(None, texts=self._texts, has_both=False)
        everything = np.arange(len(self._photos.names))
        case = self._case(text, answers, everything)
        sight = self._case("probe", answers, everything).sight
        assert sight is not None
        options = PurityOptions(detector="probe")
        probe = learn_probe(sight.labelled, options.probe.strengths, folds=options.probe.folds, two_classes=False)
        assert probe is not None
        assert probe.held_out_L is not None
        text_N = torch.from_numpy(_judged(case, case.is_id_L, case.images, _options(text)))
        cosine_N = maxlogit(case.images, 1.0).double()
        answered = torch.from_numpy(answers.idx)
        labelled_LS = torch.stack([text_N[answered], cosine_N[answered], probe.held_out_L.double()], dim=1)
        fused = learn_fusion(labelled_LS, case.is_id_L)
        all_N = fused(torch.stack([text_N, cosine_N, probe.score(sight.features_ND).double()], dim=1)).double().numpy()
        answered_L = fused(labelled_LS).double().numpy()
        return Scores(
            all_N=all_N,
            answered_L=answered_L,
            # The fusion's scores are log odds but for a constant.
            prior=Prior(offset=-float(np.median(answered_L)), slope=1.0, offset_sd=3.0, slope_sd=0.5),
            detector=f"{text} + probe",
        )

    def _case(self, name: str, answers: Answers, images: NDArray[np.int64]) -> Case:
        """Inputs of a detector for some images."""
        num_wanted = int(answers.is_wanted.sum())
        request = PurityRequest(
            data_fingerprint=self._photos.identity,
            class_names=self._classes,
            labelled_id_idx=answers.idx[:num_wanted],
            labelled_id_labels=answers.classes[:num_wanted],
            labelled_ood_idx=answers.idx[num_wanted:],
            unlabelled_idx=images,
            options=_options(name),
        )
        if self._scorer is not None:
            return self._scorer.case(request)
        return _case_without_texts(self._photos.features_ND, request, answers)

    def _prior(self, name: str, all_N: Floats) -> Prior:
        """What a detector's scores say before any answer."""
        if name in ("atd", "ctw"):
            # At the checkpoint's own scale CLIPN's odds are near the truth (CIFAR-10: 891 expected of 800 wanted).
            return Prior(offset=0.0, slope=1.0, offset_sd=0.7, slope_sd=0.3)
        # Other scores have no unit: two groups are sought among them.
        mixtures = fit_mixtures(all_N, np.zeros(len(all_N), dtype=np.int64), 1)
        means, spread = mixtures.means_G2[0], float(np.std(all_N)) or 1.0
        if not np.isfinite(means).all() or means[1] - means[0] < TINY:
            return Prior(offset=-float(np.median(all_N)) / spread, slope=1 / spread, offset_sd=1.5, slope_sd=1 / spread)
        slope = (means[1] - means[0]) / float((mixtures.weights_G2[0] * mixtures.variances_G2[0]).sum())
        odds = float(np.log(mixtures.weights_G2[0][1] / mixtures.weights_G2[0][0]))
        slope = min(slope, 4 / spread)
        return Prior(offset=odds - slope * float(means.mean()), slope=slope, offset_sd=1.5, slope_sd=slope / 2)


def _case_without_texts(features_ND: NDArray[np.float32], request: PurityRequest, answers: Answers) -> Case:
    """Inputs of a detector that reads features and answers only."""
    from strategies.purity.features import Labelled
    from strategies.purity.judge import Sight

    num = len(request.labelled_id_idx)
    labelled = Labelled(
        features_LD=torch.from_numpy(features_ND[answers.idx]),
        classes_L=torch.from_numpy(answers.classes),
        num_classes=answers.num_classes,
    )
    rows_ND = torch.from_numpy(features_ND[request.unlabelled_idx])
    nothing_L0, nothing_N0 = labelled.features_LD[:, :0], rows_ND[:, :0]
    return Case(
        labelled=Evidence(yes_NK=nothing_L0, no_NK=nothing_L0),
        is_id_L=torch.arange(len(answers.idx)) < num,
        images=Evidence(yes_NK=nothing_N0, no_NK=nothing_N0),
        sight=Sight(labelled=labelled, features_ND=rows_ND),
    )


def _options(name: str) -> PurityOptions:
    """Options of a detector, without visual weights: they make ATD's odds small numbers without a meaning."""
    return PurityOptions.model_validate({"detector": name, "visual_similarity": False, "fixed_scale": 20.0})


def _judged(case: Case, is_id_L: torch.Tensor, images: Evidence, options: PurityOptions) -> Floats:
    """Scores (N,) by a detector: log odds for one that has an ID and an OOD score, else the ID score alone."""
    judged = judge(case.labelled, is_id_L, images, options, sight=case.sight)
    id_N, ood_N = judged.id_scores.astype(np.float64), judged.ood_scores.astype(np.float64)
    if options.detector in ("atd", "ctw"):
        return np.log(np.maximum(id_N, TINY)) - np.log(np.maximum(ood_N, TINY))
    if options.detector in ("neglabel", "tanl", "mcm"):
        bounded = np.clip(id_N, TINY, 1 - TINY)
        return np.log(bounded) - np.log1p(-bounded)
    return id_N


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The posterior of offset and slope, as a normal distribution."""

    mean_2: Floats
    covariance_22: Floats

    def probabilities(self, scores_N: Floats) -> Floats:
        """Probability (N,) of being wanted, averaged over what the curve may be."""
        design_N2 = np.stack([np.ones_like(scores_N), scores_N], axis=1)
        variance_N = np.einsum("ni,ij,nj->n", design_N2, self.covariance_22, design_N2)
        # MacKay's approximation of the average of a sigmoid over a normal distribution.
        return sigmoid(design_N2 @ self.mean_2 / np.sqrt(1 + np.pi * variance_N / 8))


def fit_curve(scores: Scores, is_wanted_L: NDArray[np.bool_]) -> Curve:
    """The curve from scores to probabilities: the prior, corrected by the answers (Laplace's approximation).

    Which images were answered depends on their scores, and that is allowed: a curve given the score stays the same.
    """
    prior = scores.prior
    mean_2 = np.array([prior.offset, prior.slope])
    precision_22 = np.diag([prior.offset_sd**-2, prior.slope_sd**-2])
    design_L2 = np.stack([np.ones_like(scores.answered_L), scores.answered_L], axis=1)
    solution_2 = mean_2.copy()
    for _ in range(50):
        probs_L = sigmoid(design_L2 @ solution_2)
        gradient_2 = design_L2.T @ (probs_L - is_wanted_L) + precision_22 @ (solution_2 - mean_2)
        hessian_22 = (design_L2.T * (probs_L * (1 - probs_L))) @ design_L2 + precision_22
        step_2 = np.linalg.solve(hessian_22, gradient_2)
        solution_2 = solution_2 - step_2 * min(1.0, 2.0 / max(1e-12, float(np.abs(design_L2 @ step_2).max(initial=0))))
    probs_L = sigmoid(design_L2 @ solution_2)
    hessian_22 = (design_L2.T * (probs_L * (1 - probs_L))) @ design_L2 + precision_22
    # A higher score never means less wanted; the prior's slope is positive, so this needs misleading answers.
    solution_2[1] = max(solution_2[1], 0.0)
    return Curve(mean_2=solution_2, covariance_22=np.linalg.inv(hessian_22).astype(np.float64))


def sigmoid(values: Floats) -> Floats:
    """Probabilities of log odds."""
    result: Floats = 1.0 / (1.0 + np.exp(-np.clip(values, -500, 500)))
    return result
