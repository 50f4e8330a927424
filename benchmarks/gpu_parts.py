"""The measurements of `make gpu-check`, each part in a process of its own (`benchmarks/gpu_check.py` starts them).

A part gives figures by name, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.gpu_passes import passes_part, tower_figures
from benchmarks.gpu_steps import Figures, fresh_device, memory_part, ms_a_step, sharing_part, steps_part
from benchmarks.gpu_trainings import contrastive_ms, eoal_ms, lfosa_ms, trainings_part
from models import graphs


def warm(what: str, size: int) -> None:
    """Compile a training's step into the cache; processes side by side do so while the tests run."""
    device = fresh_device()
    {
        "step": lambda: ms_a_step(size, blocks=1),
        "csi": lambda: contrastive_ms(size),
        "lfosa": lambda: lfosa_ms(size),
        "eoal": lambda: eoal_ms(size, device),
        "tower": lambda: tower_figures(device),
    }[what]()


PARTS: dict[str, Callable[[], Figures]] = {
    "steps": steps_part,
    "passes": passes_part,
    "trainings": trainings_part,
    "memory": memory_part,
}


def main() -> int:
    """Measure one part, named first, and write its figures to the file named second."""
    name, path = sys.argv[1], Path(sys.argv[2])
    if name.startswith("warm:"):
        _, what, size = name.split(":")
        warm(what, int(size))
        return 0
    figures = sharing_part(name.partition(":")[2]) if name.startswith("sharing:") else PARTS[name]()
    if graphs._Process.failure is not None:
        figures["compile_failure"] = graphs._Process.failure
    path.write_text(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
