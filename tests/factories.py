"""Records and planned trials for tests: plausible values, any of which can be changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig

START_MS = 1_700_000_000_000
"""When round 0 of every record was finished, milliseconds since 1970."""


def make_record(number: int, **changes: Any) -> RoundRecord:
    """A round of the digits with a budget of 20: 1.5 s, or 1 s for the first."""
    values: dict[str, Any] = {
        "round": number,
        "accuracy": 0.5 + number / 10,
        "precision": 0.75 if number else None,
        "num_id": 8 + 15 * number,
        "num_ood": 12 + 5 * number,
        "queried_idx": list(range(20 * number, 20 * number + 20)) if number else [],
        "diagnostics": {},
        "pool_checksum": f"{number:064d}",
        "seconds": {"query": 0.5 if number else 0.0, "train": 0.75, "evaluate": 0.25},
        "peak_memory_mib": 100,
        "environment": {"device": "abacus", "threads": 1},
        "time_ms": START_MS + 1000 * number,
    }
    return RoundRecord(**(values | changes))


def make_planned(seed: int = 0, *, num_records: int = 0, error: str | None = None, **settings: Any) -> PlannedTrial:
    """A trial of three rounds on the digits, with its fingerprint made of its seed and strategy."""
    values = {
        "dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": "conf", "rounds": 3, "budget": 20,
        "recipe": {"name": "demo"},
    }  # fmt: skip
    trial: TrialConfig = make_trial(**{**values, **settings}, seed=seed)
    return PlannedTrial(
        trial=trial,
        fingerprint=f"{seed:02d}{trial.strategy}".ljust(64, "0"),
        data_fingerprint="d",
        records=tuple(make_record(number) for number in range(num_records)),
        error=error,
    )


def make_captioner(folder: Path) -> dict[str, str]:
    """Settings of a small CoCa with random weights, whose architecture and weights are written into the folder."""
    import torch
    from safetensors.torch import save_file

    from models.clipn.towers import build

    size = {"width": 16, "heads": 2, "layers": 1, "context_length": 16, "vocab_size": 49408}
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "attentional_pool": True,
            "attn_pooler_heads": 2, "output_tokens": True,
        },
        "text_cfg": {**size, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**size, "attn_pooler_heads": 2},
        "custom_text": True,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        coca = build(config)
        torch.nn.init.normal_(coca.text_decoder.text_projection)  # open_clip leaves what happens to be in memory
    weights, model = folder / "coca.safetensors", folder / "coca.json"
    save_file({name: tensor.contiguous() for name, tensor in coca.state_dict().items()}, weights)
    model.write_text(json.dumps(config))
    return {"captioner": str(weights), "captioner_model": str(model)}
