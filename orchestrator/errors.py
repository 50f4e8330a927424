"""Why a run ends before its time through no mistake of the user's."""

from __future__ import annotations


class RunStopped(Exception):
    """The run cannot go on; what it recorded so far is kept. The message says why and what to do."""
