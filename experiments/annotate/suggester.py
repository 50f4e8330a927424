"""The next round of a folder: photos, answers and settings in, suggestions in the state out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.console import Progress
from experiments.annotate.answers.state import NONE, UNSURE, Expected, Listing, State, Suggestion
from experiments.annotate.photos import Photos, list_photos, photos_with_features, photos_with_own_features
from experiments.annotate.settings import Settings, default_drawn

if TYPE_CHECKING:
    from experiments.annotate.estimate import Draws
    from experiments.annotate.rank import Ranker, Ranking
    from experiments.annotate.wanted import Answers

SAMPLE = 40
"""Unwanted images that are kept to be looked at."""


class Suggester:
    """Ranks the photos of a state round after round; the photos are read once."""

    def __init__(self, state: State, settings: Settings, progress: Progress, *, device: str = "cpu") -> None:
        """Open or compute the features, and keep the folder's listing in the state, which this process has locked.

        Raises ValueError for weights, features or a folder that cannot be used, and for a state of another folder.
        """
        from experiments.annotate.rank import Ranker

        self._state, self.settings = state, settings
        _check_same_folder(state)
        self.photos = self._open(progress, device)
        self.listing = self._listing(progress)
        self._place = {name: place for place, name in enumerate(self.photos.names)}
        self._stands_for_N = np.arange(len(self.photos.names))
        for copy, original in self.listing.copy_of.items():
            self._stands_for_N[self._place[copy]] = self._place[original]
        self.ranker: Ranker = Ranker(self.photos, state.classes, has_no_texts=settings.checkpoint is not None)

    def _open(self, progress: Progress, device: str) -> Photos:
        state, settings = self._state, self.settings
        if settings.features is not None:
            return photos_with_own_features(state.folder, Path(settings.features))
        try:
            return photos_with_features(
                state.folder, state.classes, settings.source, state.directory, device=device, progress=progress
            )
        except ValueError as error:
            if "cannot be downloaded" in str(error):
                raise ValueError(f"{error}; or give features of your own with --features") from None
            raise

    def _listing(self, progress: Progress) -> Listing:
        """The folder's listing, with near-copies looked for if images or features changed."""
        from experiments.annotate.copies import confirmed, near_copies

        kept, photos = self._state.listing(), self.photos
        if kept.identity == photos.identity and kept.images == photos.names:
            return kept
        stands_for = confirmed(self._state.folder, photos.names, near_copies(photos.features_ND, progress))
        copies = np.flatnonzero(stands_for != np.arange(len(stands_for)))
        listing = Listing(
            images=photos.names,
            damaged=photos.damaged,
            copy_of={photos.names[copy]: photos.names[stands_for[copy]] for copy in copies},
            identity=photos.identity,
        )
        self._state.write_listing(listing)
        return listing

    def answers(self, upto: int | None = None) -> tuple[Answers, NDArray[np.bool_]]:
        """The answers, one for each group of near-copies, and which images (N,) may still be asked.

        An answer about the image that stands for a group counts before those about its copies. `upto`: without the
        answers about suggestions of later rounds. Answered images that are gone from the folder are ignored.
        """
        from experiments.annotate.wanted import Answers

        later = {
            each.image
            for number in self._state.rounds()
            if upto is not None and number > upto
            for each in self._state.suggestions(number)
        }
        by_place: dict[int, str] = {}
        for label in self._state.labels().values():
            place = self._place.get(label.image)
            if place is None or label.image in later:
                continue
            asked = int(self._stands_for_N[place])
            if asked == place or asked not in by_place:
                by_place[asked] = label.answer
        free_N = self._stands_for_N == np.arange(len(self._stands_for_N))
        free_N[list(by_place)] = False
        known = sorted(place for place, answer in by_place.items() if answer != UNSURE)
        numbers = {name: number for number, name in enumerate(self._state.classes)}
        num_classes = len(numbers)
        classes = [numbers.get(by_place[place], num_classes) for place in known]
        return (
            Answers(
                idx=np.array(known, dtype=np.int64),
                classes=np.array(classes, dtype=np.int64),
                num_classes=num_classes,
            ),
            free_N,
        )

    def draws(self) -> list[Draws]:
        """The answered images that earlier rounds drew at random, for each round that drew among the same images."""
        from experiments.annotate.estimate import Draws

        labels, found = self._state.labels(), []
        for number in self._state.rounds():
            expected = self._state.expected(number)
            # An estimate about another number of images says nothing about these.
            if expected.by_curve is None or expected.num_images != len(self.photos.names):
                continue
            told = [
                (each, labels[each.image].answer)
                for each in self._state.suggestions(number)
                if each.drawn and each.image in labels and labels[each.image].answer != UNSURE
            ]
            errors = [(1 + len(each.copies)) * ((answer != NONE) - each.wanted) for each, answer in told]
            if errors:
                found.append(
                    Draws(
                        by_curve=expected.by_curve,
                        num_free=expected.num_free,
                        variance=expected.variance,
                        errors_M=np.array(errors),
                    )
                )
        return found

    def rank(self, number: int, *, count: int | None = None, whatever_is_left: bool = False) -> Ranking:
        """The ranking of what is left, for the round of that number.

        Raises ValueError if nothing is left, unless `whatever_is_left`.
        """
        answers, free_N = self.answers()
        if not free_N.any() and not whatever_is_left:
            raise ValueError(f"every image of {self._state.folder} has an answer; --finish DIR writes the set")
        count = count or self.settings.count or 50
        drawn = self.settings.drawn
        return self.ranker.rank(
            answers,
            free_N,
            count,
            detector=self.settings.purity,
            strategy=self.settings.strategy,
            num_drawn=default_drawn(count) if drawn is None else drawn,
            draws=self.draws(),
            rng=np.random.default_rng(number),
            stands_for_N=self._stands_for_N,
        )

    def next_round(self) -> int:
        """Rank what is left, keep the round in the state, and return its number.

        A round without any answer is replaced. Raises ValueError if nothing is left to ask.
        """
        rounds, labels = self._state.rounds(), self._state.labels()
        number = rounds[-1] if rounds else 1
        if rounds and any(each.image in labels for each in self._state.suggestions(number)):
            number += 1
        ranking = self.rank(number)
        self._state.write_round(
            number,
            list(self._suggestions(ranking, ranking.picks.idx)),
            Expected(
                wanted=ranking.batch,
                at_random=ranking.at_random,
                folder=ranking.folder.mean,
                low=ranking.folder.low,
                high=ranking.folder.high,
                num_images=len(self.photos.names),
                by_curve=ranking.by_curve.total.mean,
                variance=ranking.by_curve.variance,
                num_free=ranking.num_free,
            ),
            unwanted=list(self._suggestions(ranking, self._unwanted(ranking))),
            settings=self._facts(ranking),
        )
        return number

    def _facts(self, ranking: Ranking) -> Mapping[str, Any]:
        answers, draws = ranking.answers, self.draws()
        return {
            "detector": ranking.detector,
            "strategy": ranking.strategy,
            "weights": self.settings.weights_in_words,
            "answers": len(answers.idx),
            "wanted answers": int(answers.is_wanted.sum()),
            "border cases": int(ranking.picks.border.sum()),
            "drawn at random": int(ranking.picks.drawn.sum()),
            "random answers": sum(len(each.errors_M) for each in draws),
        }

    def _unwanted(self, ranking: Ranking) -> NDArray[np.int64]:
        """A sample of what was taken for unwanted, least wanted first, evenly over its probabilities."""
        _, free_N = self.answers()
        below = np.flatnonzero(free_N & (ranking.wanted_N < 0.5))
        below = below[np.argsort(ranking.wanted_N[below], kind="stable")]
        places = np.unique(np.linspace(0, len(below) - 1, min(SAMPLE, len(below))).astype(np.int64))
        sample: NDArray[np.int64] = below[places]
        return sample

    def _suggestions(self, ranking: Ranking, idx: NDArray[np.int64]) -> Iterator[Suggestion]:
        """Suggestions for images, in order."""
        from experiments.annotate.reasons import reason

        photos, answers = self.photos, ranking.answers
        copies: dict[str, list[str]] = {}
        for copy, original in self.listing.copy_of.items():
            copies.setdefault(original, []).append(copy)
        similar_QL = photos.features_ND[idx] @ photos.features_ND[answers.idx].T
        picks = {place: number for number, place in enumerate(ranking.picks.idx.tolist())}
        for number, place in enumerate(idx.tolist()):
            probs_K = ranking.classes_NK[place]
            best, second = np.argsort(-probs_K, kind="stable")[:2]
            at = int(similar_QL[number].argmax()) if len(answers.idx) else None
            pick = picks.get(place)
            border = pick is not None and bool(ranking.picks.border[pick])
            near = None if at is None else photos.names[answers.idx[at]]
            drawn = pick is not None and bool(ranking.picks.drawn[pick])
            own = tuple(copies.get(photos.names[place], ()))
            yield Suggestion(
                rank=number + 1,
                image=photos.names[place],
                wanted=float(ranking.wanted_N[place]),
                predicted=self._state.classes[best],
                predicted_probability=float(probs_K[best]),
                informativeness=0.0 if pick is None else float(ranking.picks.informativeness[pick]),
                nearest_labelled=near,
                copies=own,
                border=border,
                drawn=drawn,
                reason=reason(
                    wanted=float(ranking.wanted_N[place]),
                    best=self._state.classes[best],
                    second=self._state.classes[second],
                    probabilities=(float(probs_K[best]), float(probs_K[second])),
                    border=border,
                    nearest=None if at is None else float(similar_QL[number, at]),
                    num_copies=len(own),
                    picked=pick is not None,
                    drawn=drawn,
                ),
            )


def _check_same_folder(state: State) -> None:
    """Raise ValueError if the state lists images and none of them is in the folder any more."""
    kept = state.images()
    if kept and not any((state.folder / name).exists() for name in kept):
        present = list_photos(state.folder).files
        raise ValueError(
            f"none of the {len(kept):,} images that {state.directory} is about is in {state.folder}, which has "
            f"{len(present):,} others: this is the state of another folder; choose another one with -o"
        )
