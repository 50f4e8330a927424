"""What a dry run says of image features."""

from __future__ import annotations

import pytest

from models.vision_language import FeatureBill
from orchestrator.plan import feature_state


@pytest.mark.parametrize(
    ("missing", "seconds", "is_measured", "expected"),
    [
        (0, 0.0, True, "in the store"),
        (900, None, False, "to be computed first, once, after the small CLIPN that stands in is trained (a minute)"),
        (
            900,
            7300.0,
            False,
            "to be computed first, once: about 2 h 1 min (estimated, on one CPU core; a GPU is far faster)",
        ),
        (400, 61.0, True, "400 still to be computed: about 1 min 1 s (as measured on other images)"),
    ],
)
def test_features_present_or_not_and_how_long(
    missing: int, seconds: float | None, is_measured: bool, expected: str
) -> None:
    bill = FeatureBill(num_images=900, num_missing=missing, seconds=seconds, is_measured=is_measured)
    assert feature_state(bill) == expected
