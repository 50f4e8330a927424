"""The purity detectors by name: what each needs, costs and comes from. Importing this needs no torch.

Their computations are in `strategies.purity.scores` (cosines with texts), `features` (labelled images), `words`
(negative words) and `fusion` (several); `judge` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DetectorName = Literal[
    "atd", "ctw", "mcm", "energy", "maxlogit", "neglabel", "tanl", "zoc", "probe", "knn", "mahalanobis",
    "relative-mahalanobis", "fused",
]  # fmt: skip

Need = Literal["text", "no text", "labels", "words", "captioner"]
"""Texts of the classes, "no" texts (a CLIPN), labelled images (without any it ranks nothing), a word list, a
captioner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A detector's properties, for checks and for the page about it."""

    needs: frozenset[Need]
    takes_weights: bool = False
    """Whether visual similarity weights can enter it."""
    learns: str
    """Description of what it learns on the labelled images."""
    sections: tuple[str, ...] = ()
    """Sections of `PurityOptions` that it reads."""
    cost: str
    """Cost per round, in words, once the features are stored. A: images, L: labelled ones, D: length of a feature."""
    source: str
    departures: str = "none"
    """Departures from the source."""
    defects: str = "none known"
    """Leaks and defects of its original code, which are not repeated here."""

    @property
    def reads_text(self) -> bool:
        """Whether the class names change its scores."""
        return "text" in self.needs

    @property
    def looks_past_cosines(self) -> bool:
        """Whether it reads image features, words or captions in addition to the cosines with class texts."""
        return bool(self.needs & {"labels", "words", "captioner"})


_ON_COSINES = "a search over scales and thresholds on the labelled images"

DETECTORS: dict[str, Detector] = {
    "atd": Detector(
        needs=frozenset({"text", "no text"}),
        takes_weights=True,
        learns="the logit scale",
        cost="a search over 1,000 scales on the labelled images",
        source="Wang et al. 2023 (CLIPN, agreeing-to-differ); the paper's with visual weights",
        departures="CLIPN's code has no decision rule; the one here is the (K + 1)-class reading of its paper",
        defects="CLIPN's evaluation uses the constant scale 100, whatever the checkpoint's logit scale is",
    ),
    "ctw": Detector(
        needs=frozenset({"text", "no text"}),
        takes_weights=True,
        learns="the logit scale, if visual weights are on",
        cost="a search over 1,000 scales on the labelled images",
        source="Wang et al. 2023 (CLIPN, competing-to-win)",
        departures='a tie of "yes" and "no" is OOD; there it is ID',
    ),
    "mcm": Detector(
        needs=frozenset({"text"}),
        takes_weights=True,
        learns="logit scale and threshold",
        cost=_ON_COSINES,
        source="Ming et al. 2022",
        departures="scale and threshold are learnt; there the scale is 1 and the threshold keeps 95 % of ID images",
    ),
    "energy": Detector(
        needs=frozenset({"text"}),
        learns="logit scale and threshold",
        cost=_ON_COSINES,
        source="Liu et al. 2020, on cosines",
        departures="scale and threshold are learnt",
    ),
    "maxlogit": Detector(
        needs=frozenset({"text"}),
        learns="the threshold",
        cost="a sort of the labelled images' scores",
        source="Hendrycks et al. 2022, on cosines",
        departures="the threshold is learnt",
    ),
    "neglabel": Detector(
        needs=frozenset({"text", "words"}),
        learns="the threshold",
        sections=("words",),
        cost="nothing, after one product of all images with all words for each data set, which is stored, and one with "
        "about a tenth of them for each set of classes",
        source="Jiang et al. 2024",
        departures="all words in one group (published: 15 % of the words in 100 groups, purity.words.share=0.15 "
        "purity.words.groups=100), as its authors' successors found better for few classes; animals and food are in "
        "the list (published: left out), but for the synonyms and hyponyms of the class names; the threshold is learnt",
        defects="a class name in capitals, in the plural or by a synonym stays among its negatives (auto for car); the "
        "word list lacks WordNet's files animal and food, which is right for ImageNet only; with one group it adds "
        "logits in place of probabilities",
    ),
    "tanl": Detector(
        needs=frozenset({"text", "words"}),
        learns="the active words on the pool, and the threshold",
        sections=("words", "tanl"),
        cost="twice: a product of at most 1,024 images (purity.tanl.sure_images of either kind) with all words, and "
        "two of the pool with a few thousand words",
        source="Zhang et al. 2026 (transductive form)",
        departures="the whole pool at once in place of a stream; the labelled images seed the activations (there: "
        "texts and noise images); the words' means are over all sure images (there: over the last 300 of either kind), "
        "but only for the words, twice as many as are chosen, that are most active on 512 of either kind: near all of "
        "the words that exact means of all words choose (purity.tanl.sure_images=null computes these)",
        defects="its author's script says that it does not work on CIFAR, for a reason that he does not know",
    ),
    "zoc": Detector(
        needs=frozenset({"text", "captioner"}),
        learns="the threshold",
        cost="nothing, after a caption of each image, which is stored, and one product of all images with the words "
        "that the captions propose",
        source="Esmaeilpour et al. 2022",
        departures="the captioner is a CoCa of open_clip on the image, not a BERT on CLIP's feature of it; whole "
        "words, joined of CLIP's byte pairs; a caption ends where its decoder ends it; stop words, and class names in "
        "the plural or as a word of a longer name, are no candidates; the logit scale is the model's own; the "
        "threshold is learnt",
        defects="its loader casts the image features of COCO, on which the decoder is trained, to whole numbers, most "
        "of them 0; pieces of words and punctuation count as words; class names in the plural or in capitals stay "
        "among the candidates; its weights are on a file-sharing site only",
    ),
    "probe": Detector(
        needs=frozenset({"labels"}),
        learns="a logistic regression, its penalty, and a threshold on held-out scores",
        sections=("probe",),
        cost="26 logistic regressions: 20 on at most 1,000 labelled images for the penalty, 6 on all",
        source="the control: no text at all",
        departures="none; without labelled ID and OOD images it falls back on knn",
    ),
    "knn": Detector(
        needs=frozenset({"labels"}),
        learns="nothing; the vote decides (purity.knn.threshold=learnt: a threshold)",
        sections=("knn",),
        cost="a product of A x D with D x L",
        source="Mao, Xu and Guo 2024 (NEAT's purity)",
        departures="ties of the vote are ranked by mean similarity; without labelled OOD images the mean similarity to "
        "the five nearest labelled images counts, with a threshold that keeps 95 % of them",
        defects="without labelled OOD images the first of the pool, in the order of their index, are taken as ID",
    ),
    "mahalanobis": Detector(
        needs=frozenset({"labels"}),
        learns="class means, one covariance, and a threshold on held-out scores",
        cost="six factorisations of D x D",
        source="Lee et al. 2018",
        departures="Ledoit-Wolf shrinkage; a multiple of the identity with fewer than two labelled images per class; "
        "no input perturbation, one layer",
    ),
    "relative-mahalanobis": Detector(
        needs=frozenset({"labels"}),
        learns="as mahalanobis",
        cost="seven factorisations of D x D",
        source="Ren et al. 2021",
        departures="as mahalanobis; the background is the whole pool, whose labels are not read",
    ),
    "fused": Detector(
        needs=frozenset({"text", "no text", "labels"}),
        learns="the probe, and on held-out scores the weights of ATD's score, the largest cosine and the probe",
        sections=("probe",),
        cost="as probe and atd",
        source="this project",
    ),
}
