"""Composition of a batch: images that are probably wanted and worth a label, border cases, and a few at random.

Shapes: N images, C candidates, K classes, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from data.imageset import ArrayImages
from experiments.annotate.head import Head
from experiments.annotate.photos import Photos
from experiments.annotate.wanted import Answers, Floats
from models.classifier.inputs import FeatureRows, Normalise
from models.classifier.networks import build_classifier
from models.classifier.recipe import Recipe, named_recipe
from models.classifier.workshop import Workshop
from models.device import Machine
from strategies.base import IndexArray, PoolView, check_selection, highest_first
from strategies.numeric.kcenter import kcenter_greedy
from strategies.options import StrategyOptions
from strategies.purity.contract import PurityOptions, PurityRequest, PurityScores, RequestFigures
from strategies.registry import Entry, FrozenFeatures, Services, find_strategy
from strategies.typiclust import typical_points

if TYPE_CHECKING:
    from models.contrastive.encoder import ContrastiveFeatures
    from models.contrastive.recipe import Method

DEFAULT = "typiclust"
"""Strategy as soon as there are wanted answers."""
# On CIFAR-10 (docs/annotate_results.md): with few labels uncertainty asks for what is hard and often unwanted.
CANDIDATES = 5
"""Without answers: so many times the batch are the candidates among which it is spread, the most wanted ones."""
# Of 40 images, three sets of classes: 3 gave heads of 64 to 86 %, 5 of 71 to 87 %, 8 no better and fewer wanted ones.
MOST = 20_000
"""Candidates of a strategy at most, the most wanted ones. With TypiClust's k-means of 65,000 images of 512 numbers a
round of 100,000 images took 88 CPU seconds and 1.9 GB, twice that of the first round."""
BORDER = 10
"""So many times the number of border cases are candidates for them, those nearest to even odds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """The images of a batch, in order."""

    idx: IndexArray
    informativeness: Floats
    """By the strategy; 0 for an image that was drawn at random."""
    border: NDArray[np.bool_]
    drawn: NDArray[np.bool_]
    """Drawn at random from all free images, each with the same probability."""


def check_strategy(name: str) -> Entry:
    """The entry of a strategy that can work on frozen features. Raises ValueError for others, with those that can."""
    name = name.removeprefix("vlpure-") if name != "vlpure" else "conf"
    entry = find_strategy(name)
    why = _cannot(name, entry)
    if why:
        raise ValueError(f"--strategy {name} {why}; on frozen features work conf, margin, entropy, badge, coreset, ...")
    return entry


def choose_batch(
    photos: Photos,
    classes: tuple[str, ...],
    answers: Answers,
    head: Head,
    wanted_N: Floats,
    free_N: NDArray[np.bool_],
    count: int,
    *,
    strategy: str | None,
    num_drawn: int,
    rng: np.random.Generator,
) -> Picks:
    """The next images to label: `count` of the free ones, or all of them if there are fewer.

    Without a wanted answer the probably wanted ones are spread over looks and a fifth are border cases; with answers
    `strategy` picks among the images judged wanted and a tenth are border cases. `num_drawn` of the batch are drawn at
    random from all free images.
    """
    free = np.flatnonzero(free_N)
    count = min(count, len(free))
    # Before the others are chosen: only then has every free image the same chance.
    drawn = rng.choice(free, min(num_drawn, count), replace=False) if num_drawn else free[:0]
    free_N = free_N.copy()
    free_N[drawn] = False
    free = np.flatnonzero(free_N)
    has_answers = bool(answers.is_wanted.any())
    num_border = min(count - len(drawn), count // (10 if has_answers else 5))
    border = _border(photos, wanted_N, free, num_border)
    free_N[border] = False
    free = np.flatnonzero(free_N)
    by_wanted = free[highest_first(wanted_N[free], len(free))]
    num_best = count - len(border) - len(drawn)
    likely = by_wanted[wanted_N[by_wanted] > 0.5][:MOST]
    if len(free) and np.ptp(wanted_N[free]) == 0:
        # No texts and no answers: the first images by name would be the candidates, often one folder.
        likely = rng.choice(free, min(MOST, len(free)), replace=False)
    if strategy is None and not has_answers:
        likely = _most_likely_of_each_class(photos, head, likely, CANDIDATES * num_best)
    candidates = likely if len(likely) >= num_best else by_wanted[:num_best]
    if strategy is None and not has_answers:
        places, scores_Q = typical_points(photos.features_ND[candidates], 0, num_best, rng)
        best = candidates[places]
    else:
        name = strategy or DEFAULT
        best, scores_Q = _by_strategy(name, photos, classes, answers, head, np.sort(candidates), num_best, rng)
    chosen = np.concatenate([best, border])
    places = spread_places(len(drawn), len(chosen))
    informativeness = np.concatenate([scores_Q, 1 - 2 * np.abs(wanted_N[border] - 0.5)])
    return Picks(
        idx=np.insert(chosen, places, drawn),
        informativeness=np.insert(informativeness, places, 0.0),
        border=np.insert(np.arange(len(chosen)) >= len(best), places, False),
        drawn=np.insert(np.zeros(len(chosen), dtype=bool), places, True),
    )


def spread_places(num_drawn: int, num_others: int) -> IndexArray:
    """Places among the others, for `np.insert`, at which drawn images stand evenly in a batch."""
    # At the end of the batch, someone who labels only half of it would label none of them.
    places: IndexArray = ((np.arange(num_drawn) + 0.5) * num_others / max(1, num_drawn)).astype(np.int64)
    return places


def _most_likely_of_each_class(photos: Photos, head: Head, likely: IndexArray, count: int) -> IndexArray:
    """Up to `count` of these images, which are sorted: for each class as many of the first ones predicted to be it.

    The texts are surest of one or two classes: without this, of the first 40 of 2,000 CIFAR-10 photos 26 were ships and
    14 trucks, no bird and no deer, and a head learnt from them was right for 47 % of other images in place of 86 %.
    """
    predicted_C = head.probabilities(photos.features_ND[likely]).argmax(axis=1)
    rank_C = np.empty(len(likely), dtype=np.int64)
    for label in np.unique(predicted_C):
        members = np.flatnonzero(predicted_C == label)
        rank_C[members] = np.arange(len(members))
    chosen: IndexArray = likely[rank_C < -(-count // len(head.weight_KD))]
    return chosen


def _border(photos: Photos, wanted_N: Floats, free: IndexArray, count: int) -> IndexArray:
    """`count` images near even odds that look unlike each other, nearest to even odds first."""
    near = free[highest_first(-np.abs(wanted_N[free] - 0.5), BORDER * count)]
    picks, _ = kcenter_greedy(
        torch.empty(0, photos.features_ND.shape[1]), torch.from_numpy(photos.features_ND[near]), count
    )
    places: IndexArray = np.sort(picks.numpy())
    return near[places]


def _by_strategy(
    strategy: str,
    photos: Photos,
    classes: tuple[str, ...],
    answers: Answers,
    head: Head,
    candidates: IndexArray,
    count: int,
    rng: np.random.Generator,
) -> tuple[IndexArray, Floats]:
    """The strategy's picks of the candidates, with its scores."""
    view = _view(photos, classes, answers.ordered(), head, candidates)
    built = check_strategy(strategy).build(_services(photos))
    selection = check_selection(
        built.select(view, count, rng), unlabelled_idx=candidates, budget=count, who=f"strategy {strategy}"
    )
    return selection.idx, selection.scores


def _view(photos: Photos, classes: tuple[str, ...], answers: Answers, head: Head, candidates: IndexArray) -> PoolView:
    """What a strategy sees: the head in place of a trial's classifier, features in place of pixels."""
    num_wanted = int(answers.is_wanted.sum())
    labelled = answers.idx[:num_wanted]
    return PoolView(
        images=_NO_PIXELS,
        data_fingerprint=photos.identity,
        class_names=classes,
        labelled_id_idx=labelled,
        labelled_id_labels=answers.classes[:num_wanted],
        labelled_ood_idx=answers.idx[num_wanted:],
        unlabelled_idx=candidates,
        compute_outputs=lambda: head.outputs(photos.features_ND[candidates]),
        compute_labelled_outputs=lambda: head.outputs(photos.features_ND[labelled]),
        workshop=_workshop(photos, len(classes)),
    )


_NO_PIXELS = ArrayImages(np.zeros((0, 1, 1, 3), dtype=np.uint8))


def _workshop(photos: Photos, num_classes: int) -> Workshop:
    """A workshop that trains linear heads on the features."""
    rows, machine = FeatureRows(photos.features_ND, identity=photos.identity), Machine(device=torch.device("cpu"))
    recipe = Recipe.model_validate(named_recipe({"name": "paper-clip-linear"}))
    return Workshop(
        images=rows,
        classifier=build_classifier(recipe, num_classes, weights_seed=0, num_features=rows.num_features).eval(),
        recipe=recipe,
        normalise=Normalise((0.0,) * 3, (1.0,) * 3, machine.device),
        machine=machine,
        weights_seed=lambda name: 0,
        batches_seed=lambda name: 0,
    )


def _services(photos: Photos) -> Services:
    """The parts that a strategy may be built from: frozen features, and nothing that would be trained."""
    return Services(
        scorer=None,
        purity=PurityOptions(),
        options=StrategyOptions(),
        contrastive=_no_contrastive,
        pretrained=lambda: FrozenFeatures(scorer=_Rows(photos), data_fingerprint=photos.identity),
    )


def _no_contrastive(method: Method) -> ContrastiveFeatures:
    raise AssertionError("check_strategy() lets no strategy with an encoder of its own pass")


class _Rows:
    """The photos' features, behind the interface by which strategies ask for frozen ones."""

    def __init__(self, photos: Photos) -> None:
        self._photos = photos
        self.last_request: RequestFigures | None = None

    def features(self, data_fingerprint: str, idx: IndexArray) -> NDArray[np.float32]:
        """Unit features (n, D) of some photos."""
        return self._photos.features_ND[idx]

    def score(self, request: PurityRequest) -> PurityScores:
        """Not used: strategies with a purity step of their own are refused."""
        raise AssertionError(request)


def _cannot(name: str, entry: Entry) -> str | None:
    """Why a strategy cannot work on frozen features and probabilities; None if it can."""
    if entry.uses_purity:
        return "has a purity step of its own, which this command has already"
    if entry.target is not None or entry.head_dropout or entry.extra_networks not in ("none", "not known"):
        return "trains or needs networks of its own"
    return None
