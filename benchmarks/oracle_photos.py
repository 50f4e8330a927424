"""Photos made of CIFAR-10 whose classes are known, for benchmarks in which an oracle answers what `suggest.py` asks.

Of the images 0 to 2999 of each training class (the CLIPN must have been trained on others) 2,000 photos are drawn for
each seed: 800 of the wanted classes and 1,200 of the others. Heads are tested on the test images of the wanted classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.console import to_stderr
from experiments.annotate.estimate import Draws
from experiments.annotate.photos import Photos, photos_with_features
from experiments.annotate.rank import Ranker, Ranking
from experiments.annotate.wanted import Answers
from models.clipn.features import VisionLanguage
from models.clipn.source import ClipnSource

PER_CLASS, WANTED, OTHERS = 3000, 800, 1200


class Shelf:
    """The features of all images that photos are drawn from, and of the test images, each computed once."""

    def __init__(self, images: Path, source: ClipnSource, directory: Path) -> None:
        """`images` has train/CLASS/ and test/CLASS/. Links and lists of files go to `directory`."""
        pool = directory / "pool"
        if not pool.exists():
            for folder in sorted((images / "train").iterdir()):
                (pool / folder.name).mkdir(parents=True)
                for file in sorted(folder.iterdir())[:PER_CLASS]:
                    (pool / folder.name / file.name).symlink_to(file.resolve())
        self.class_names = tuple(sorted(path.name for path in (images / "train").iterdir()))
        self.pool, self.test = (
            photos_with_features(
                folder, self.class_names, source, directory / f"state-{what}", device="cpu", progress=to_stderr
            )
            for folder, what in ((pool, "pool"), (images / "test", "test"))
        )

    def draw(self, wanted: tuple[str, ...], seed: int) -> tuple[Photos, NDArray[np.str_]]:
        """The photos of a seed in an order that says nothing, and their classes."""
        rng = np.random.default_rng(seed)
        rows = {name: row for row, name in enumerate(self.pool.names)}
        drawn: list[str] = []
        for name in self.class_names:
            files = [file for file in self.pool.names if file.startswith(f"{name}/")]
            count = WANTED // len(wanted) if name in wanted else OTHERS // (len(self.class_names) - len(wanted))
            drawn += [files[place] for place in rng.choice(len(files), count, replace=False)]
        names = [drawn[place] for place in rng.permutation(len(drawn))]
        features_ND = self.pool.features_ND[[rows[name] for name in names]]
        towers = self.pool.towers
        assert towers is not None
        photos = Photos(
            names=tuple(names),
            damaged={},
            num_other=0,
            features_ND=features_ND,
            towers=VisionLanguage(
                image_features_ND=features_ND,
                logit_scale=towers.logit_scale,
                encode_classes=towers.text_features,
                encode_texts=towers.sentence_features,
            ),
            identity=f"{self.pool.identity}-{seed}",
        )
        return photos, np.array([name.partition("/")[0] for name in names])


class Problem:
    """Photos of one seed with their hidden classes, and the images that heads are tested on."""

    def __init__(self, shelf: Shelf, classes: tuple[str, ...], seed: int) -> None:
        self.classes = classes
        self.photos, names_N = shelf.draw(classes, seed)
        self.hidden = self._classes_of(names_N.tolist())
        classes_T = self._classes_of([name.partition("/")[0] for name in shelf.test.names])
        own_T = classes_T < len(classes)
        self.test_TD, self.test_T = shelf.test.features_ND[own_T], classes_T[own_T]
        without = Photos(
            names=self.photos.names, damaged={}, num_other=0, features_ND=self.photos.features_ND, towers=None,
            identity=self.photos.identity,
        )  # fmt: skip
        self.with_text = Ranker(self.photos, classes, has_no_texts=True)
        self.without_text = Ranker(without, classes, has_no_texts=False)

    def _classes_of(self, names: list[str]) -> NDArray[np.int64]:
        numbers = {name: number for number, name in enumerate(self.classes)}
        return np.array([numbers.get(name, len(numbers)) for name in names], dtype=np.int64)

    def answers(self, idx: NDArray[np.int64]) -> Answers:
        """The oracle's answers about some photos."""
        return Answers(idx=idx, classes=self.hidden[idx], num_classes=len(self.classes))

    def draws(self, ranking: Ranking) -> Draws:
        """The images that a ranking drew at random, with the oracle's answers."""
        drawn = ranking.picks.idx[ranking.picks.drawn]
        return Draws(
            by_curve=ranking.by_curve.total.mean,
            num_free=ranking.num_free,
            variance=ranking.by_curve.variance,
            errors_M=(self.hidden[drawn] < len(self.classes)) - ranking.wanted_N[drawn],
        )

    def accuracy(self, idx: NDArray[np.int64], ranker: Ranker) -> float:
        """Accuracy of a linear head learnt from the answers about some photos."""
        logits_TK = ranker.fit(self.answers(idx)).outputs(self.test_TD).logits_NK
        return float((logits_TK.argmax(axis=1) == self.test_T).mean())
