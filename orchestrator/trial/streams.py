"""Named random streams: everything random in a trial comes from (seed, stream name, round) and nothing else.

So strategies of one seed share their split, initial labels and initial weights, and a trial that is continued draws
what it would have drawn. The names in use: weights, batches, query, learn, and for networks of a strategy's own
"weights of NAME" and "batches of NAME". The split is the exception: it is drawn as the official code does
(data/splits/ratios.py).
"""

from __future__ import annotations

import zlib

import numpy as np


def stream_generator(seed: int, stream: str, round_number: int) -> np.random.Generator:
    """The NumPy generator of one stream in one round."""
    return np.random.default_rng(_sequence(seed, stream, round_number))


def stream_seed(seed: int, stream: str, round_number: int = 0) -> int:
    """A seed in [0, 2^63) for a torch generator of one stream in one round."""
    return int(_sequence(seed, stream, round_number).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(seed: int, stream: str, round_number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(stream.encode()), round_number))
