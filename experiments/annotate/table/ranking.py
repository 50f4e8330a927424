"""The next round of a table: answers in, a batch out, with the table read once in shards.

Shapes: N images, L answered, M candidates, Q suggestions, K classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.console import Progress
from data.files import content_hash
from experiments.annotate.answers.labels import NONE, UNSURE
from experiments.annotate.choose import BORDER, MOST, choose_batch, spread_places
from experiments.annotate.copies import near_copies
from experiments.annotate.estimate import ByCurve, Draws, Estimate, corrected, estimate_by_curve
from experiments.annotate.head import Head
from experiments.annotate.rank import Ranker
from experiments.annotate.reasons import reason
from experiments.annotate.table.parquet import Shard
from experiments.annotate.table.rounds import Asked, Pick, read_rounds, write_round
from experiments.annotate.table.scoring import Beliefs, Best, Candidates, FeatureSource, ScoreShard, Stream, TakeRows
from experiments.annotate.wanted import Curve, fit_curve
from models.clipn.source import ClipnSource
from orchestrator.cluster.shards import ShardRunner

SAMPLE, SAMPLED_SHARDS = 20_000, 8
"""Images, and the shards they are from, by which the curve's prior and the estimate's interval are found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRound:
    """All that a round of a table is made with."""

    directory: Path
    """Folder that the rounds are kept in."""
    source: FeatureSource
    shards: tuple[Shard, ...]
    sizes: tuple[int, ...]
    """Images with features in each shard."""
    scores: str
    """Folder for the shards of probabilities, one below it for each set of answers."""
    weights: ClipnSource | None
    classes: tuple[str, ...]
    detector: str | None
    strategy: str | None
    count: int
    num_drawn: int
    run: ShardRunner
    progress: Progress

    def next(self) -> tuple[Path, dict[str, Any]]:
        """Rank what has no answer. Returns the file to fill in, and what is expected.

        A round without any answer is replaced. Raises ValueError if nothing is left, and for answers that are none.
        """
        rounds = list(read_rounds(self.directory, self.classes))
        number = max(1, len(rounds) + (1 if rounds and rounds[-1].answers else 0))
        rounds = [each for each in rounds if each.number < number]
        beliefs, answered = self._beliefs(rounds)
        curve, head, ends_2 = self._fit(beliefs)
        answers_hash = content_hash(
            [beliefs.classes_L.tolist(), answered, self.detector, self.classes, str(self.weights), str(self.source)]
        )
        folder = f"{self.scores}/round-{number}-{answers_hash[:16]}"
        work = ScoreShard(source=self.source, beliefs=beliefs, curve=curve, head=head, answered=answered, folder=folder)
        self.run(work, self.shards, what="probabilities", sizes=self.sizes)
        stream = Stream(likely=Best(MOST), border=Best(BORDER * self.count), drawn=Best(self.num_drawn))
        stream.read(folder, self.shards, number)
        if not stream.num_free:
            raise ValueError(f"every image of {self.source.table} has an answer")
        picks, features_QD = self._choose(beliefs, head, stream, folder, number)
        facts = self._facts(beliefs, ends_2, stream, picks, [each.draws for each in rounds])
        return write_round(self.directory, number, picks, features_QD, facts), {"round": number, **facts}

    def _beliefs(self, rounds: Sequence[Asked]) -> tuple[Beliefs, dict[int, list[int]]]:
        """What was answered, and the rows that are not asked again, those set aside among them."""
        numbers = {name: place for place, name in enumerate((*self.classes, NONE))}
        features, classes = [], []
        answered: dict[int, list[int]] = {}
        for each in rounds:
            for pick, features_D in zip(each.picks, each.features_QD, strict=True):
                answer = each.answers.get(pick.rank)
                if answer is None:
                    continue
                answered.setdefault(pick.shard, []).append(pick.row)
                if answer != UNSURE:
                    features.append(features_D)
                    classes.append(numbers[answer])
        num_dims = self.source.features(self.shards[0]).shape[1] if not features else len(features[0])
        beliefs = Beliefs(
            weights=self.weights,
            classes=self.classes,
            detector=self.detector,
            features_LD=np.array(features, dtype=np.float32).reshape(len(features), num_dims),
            classes_L=np.array(classes, dtype=np.int64),
        )
        return beliefs, answered

    def _fit(self, beliefs: Beliefs) -> tuple[Curve, Head, NDArray[np.float64]]:
        """The curve, the classifier, and the ends (2,) of the curve's interval about its mean, per unanswered image."""
        chosen = np.unique(np.linspace(0, len(self.shards) - 1, SAMPLED_SHARDS).astype(np.int64))
        each = -(-SAMPLE // len(chosen))
        places = [(self.shards[at].number, row) for at in chosen for row in _spread(self.sizes[at], each)]
        sample_MD = self._take(np.array(places), None, "a sample").features_MD
        scores = beliefs.scores(sample_MD, "sample")
        curve = fit_curve(scores, beliefs.answers.ordered().is_wanted)
        photos = beliefs.photos(sample_MD[:0], "answers")
        ranker = Ranker(photos, self.classes, has_no_texts=bool(self.weights and self.weights.checkpoint))
        num_known = len(beliefs.classes_L)
        by_curve = estimate_by_curve(curve, scores.all_N[num_known:], 0).total
        ends_2 = np.array([by_curve.low - by_curve.mean, by_curve.high - by_curve.mean]) / len(sample_MD)
        return curve, ranker.fit(beliefs.answers), ends_2

    def _take(self, places: NDArray[np.int64], folder: str | None, what: str) -> Candidates:
        """The images at these places (M, 2), in one more pass over their shards."""
        rows: dict[int, list[int]] = {}
        for number, row in np.unique(places, axis=0).tolist():
            rows.setdefault(number, []).append(row)
        shards = [shard for shard in self.shards if shard.number in rows]
        work = TakeRows(source=self.source, rows=rows, folder=folder)
        return Candidates.join(self.run(work, shards, what=what, sizes=[len(rows[shard.number]) for shard in shards]))

    def _choose(
        self, beliefs: Beliefs, head: Head, stream: Stream, folder: str, number: int
    ) -> tuple[list[Pick], NDArray[np.float32]]:
        """The batch with its features."""
        places = [stream.likely.places, stream.border.places, stream.drawn.places]
        candidates = self._take(np.concatenate(places), folder, "candidates")
        place_of = {tuple(place): at for at, place in enumerate(candidates.places_M2.tolist())}
        drawn = np.array([place_of[tuple(place)] for place in stream.drawn.places.tolist()], dtype=np.int64)
        num_known, answers = len(beliefs.classes_L), beliefs.answers
        photos = beliefs.photos(candidates.features_MD, f"candidates-{number}")
        # Exact among the candidates and the answered ones, which is all that a batch needs: a search among all images
        # would cost more than everything else together.
        stands_for = near_copies(photos.features_ND, self.progress)
        free = stands_for == np.arange(len(stands_for))
        free[:num_known] = False
        free[num_known + drawn] = False
        best = choose_batch(
            photos, self.classes, answers, head, np.concatenate([answers.is_wanted, candidates.wanted_M]), free,
            self.count - len(drawn), strategy=self.strategy, num_drawn=0, rng=np.random.default_rng(number),
        )  # fmt: skip
        at = spread_places(len(drawn), len(best.idx))
        idx = np.insert(best.idx - num_known, at, drawn)
        picks = self._picks(
            candidates, idx, beliefs, head,
            border=np.insert(best.border, at, False),
            drawn=np.insert(np.zeros(len(best.idx), dtype=bool), at, True),
            copies=np.bincount(stands_for, minlength=len(stands_for))[num_known + idx] - 1,
        )  # fmt: skip
        return picks, candidates.features_MD[idx]

    def _picks(
        self, candidates: Candidates, idx: NDArray[np.int64], beliefs: Beliefs, head: Head, *,
        border: NDArray[np.bool_], drawn: NDArray[np.bool_], copies: NDArray[np.int64],
    ) -> list[Pick]:  # fmt: skip
        """The suggestions, in order."""
        shares_QK = head.probabilities(candidates.features_MD[idx])
        similar_QL = candidates.features_MD[idx] @ beliefs.features_LD.T
        picks = []
        for place, row in enumerate(idx.tolist()):
            first, second = np.argsort(-shares_QK[place], kind="stable")[:2]
            probabilities = float(shares_QK[place, first]), float(shares_QK[place, second])
            wanted, is_border, is_drawn = float(candidates.wanted_M[row]), bool(border[place]), bool(drawn[place])
            why = reason(
                best=self.classes[first], second=self.classes[second], probabilities=probabilities, picked=True,
                nearest=float(similar_QL[place].max()) if similar_QL.size else None,
                num_copies=max(0, int(copies[place])), wanted=wanted, border=is_border, drawn=is_drawn,
            )  # fmt: skip
            shard, number = candidates.places_M2[row].tolist()
            picks.append(
                Pick(
                    rank=place + 1, image=candidates.names[row], shard=shard, row=number, wanted=wanted,
                    predicted=self.classes[first], probability=probabilities[0], border=is_border, drawn=is_drawn,
                    reason=why,
                )
            )  # fmt: skip
        return picks

    def _facts(
        self, beliefs: Beliefs, ends_2: NDArray[np.float64], stream: Stream, picks: Sequence[Pick],
        draws: Sequence[Draws | None],
    ) -> dict[str, Any]:  # fmt: skip
        """What is expected of the round and of the table."""
        known = int(beliefs.answers.is_wanted.sum())
        mean, (low, high) = stream.total + known, ends_2 * stream.num_free
        by_curve = ByCurve(
            total=Estimate(mean=mean, low=mean + low, high=mean + high),
            known=known, num_left=stream.num_free, variance=stream.variance,
        )  # fmt: skip
        folder = corrected(by_curve, [each for each in draws if each]) if len(beliefs.classes_L) else by_curve.total
        return {
            "wanted": sum(pick.wanted for pick in picks),
            "at_random": stream.total / stream.num_free * len(picks),
            "folder": folder.mean, "low": folder.low, "high": folder.high,
            "by_curve": mean, "variance": stream.variance, "num_free": stream.num_free,
            "answers": len(beliefs.classes_L), "random answers": sum(len(each.errors_M) for each in draws if each),
            "num_images": sum(self.sizes),
        }  # fmt: skip


def _spread(size: int, count: int) -> list[int]:
    """`count` rows spread evenly over a shard; all of a smaller one."""
    rows: list[int] = np.unique(np.linspace(0, size - 1, min(size, count)).astype(np.int64)).tolist()
    return rows
