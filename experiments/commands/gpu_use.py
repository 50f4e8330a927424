"""How busy this machine's GPUs are, asked of the driver's own tool: no library, and nothing where there is no GPU."""

from __future__ import annotations

import shutil
import subprocess
import time

EVERY = 5.0
"""Seconds for which an answer is good."""
TIMEOUT = 5.0
QUERY = ("--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")


class GpuUse:
    """Asks at most every few seconds."""

    def __init__(self) -> None:
        self._tool = shutil.which("nvidia-smi")
        self._asked = float("-inf")
        self._words = ""

    def words(self) -> str:
        """For people: "GPU 87 %, 31 of 80 GiB" (the mean and the sums of several); empty where there is none."""
        if self._tool is not None and time.monotonic() - self._asked >= EVERY:
            self._words = _ask(self._tool)
            self._asked = time.monotonic()
        return self._words


def _ask(tool: str) -> str:
    try:
        answer = subprocess.run(
            [tool, *QUERY], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=True
        ).stdout
        cards = [[float(part) for part in line.split(",")] for line in answer.splitlines() if line.strip()]
        uses, used, total = zip(*cards, strict=True)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""  # no driver, or a card that does not tell: not worth a word
    name = "GPU" if len(cards) == 1 else f"{len(cards)} GPUs"
    return f"{name} {sum(uses) / len(uses):.0f} %, {sum(used) / 1024:.0f} of {sum(total) / 1024:.0f} GiB"
