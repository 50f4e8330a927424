"""The hub library's messages, held back. Importing this needs no torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Suppress the hub library's warnings about its retries."""
    # It warns at each retry, for up to a minute; the one error that follows holds all that a user needs.
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
