"""Short forms of evidence, for tests that write cosines by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.purity.scores import Evidence


def seen(
    yes_NK: Tensor,
    no_NK: Tensor | None = None,
    *,
    similarity_NK: Tensor | None = None,
    has_prototype_K: Tensor | None = None,
) -> Evidence:
    """The evidence of these cosines; "no" cosines that are not given are NaN, and every class has a prototype if it
    is not said which ones have."""
    if similarity_NK is not None and has_prototype_K is None:
        has_prototype_K = torch.ones(yes_NK.shape[-1], dtype=torch.bool)
    return Evidence(
        yes_NK=yes_NK,
        no_NK=torch.full_like(yes_NK, torch.nan) if no_NK is None else no_NK,
        similarity_NK=similarity_NK,
        has_prototype_K=has_prototype_K,
    )
