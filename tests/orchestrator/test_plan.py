"""What a dry run says of image features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.clipn.bill import FeatureBill
from orchestrator.plan import distinct, feature_state, plan_trials
from orchestrator.settings.grid import ArmTrial
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig
from tests.data.published_files import write_domainnet


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
        (900, None, False, "to be computed first, once: time not known yet"),
        (400, 61.0, True, "400 still to be computed: about 1 min 1 s (as measured on other images)"),
    ],
)
def test_features_present_or_not_and_how_long(
    missing: int, seconds: float | None, is_measured: bool, expected: str
) -> None:
    bill = FeatureBill(
        num_images=900,
        num_missing=missing,
        seconds=seconds,
        is_measured=is_measured,
        waits_for_stand_in="stand" in expected,
    )
    assert feature_state(bill) == expected


def test_a_trial_of_two_arms_is_one_trial() -> None:
    def trial(**changes: Any) -> TrialConfig:
        settings = {"dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": "conf", "seed": 0}
        return make_trial(**(settings | {"budget": 20, "rounds": 2} | changes))

    # The purity options are not read by CONF, so that the second differs from the first in name only.
    arms = [
        ArmTrial(arm="conf", trial=trial()),
        ArmTrial(arm="mine", trial=trial(purity={"fixed_scale": 3.0})),
        ArmTrial(arm="other", trial=trial(budget=30)),
    ]
    planned = plan_trials(arms, None)
    assert [p.row for p in planned] == ["conf", "mine", "other"]
    assert [p.row for p in distinct(planned)] == ["conf", "other"]
    assert planned[1].label == "digits mismatch 0.2 ood 0.6 mine seed 0"
    (plain,) = plan_trials([trial()], None)
    assert (plain.row, plain.fingerprint) == ("conf", planned[0].fingerprint)


def test_a_domain_has_no_pool_without_ood_images(tmp_path: Path) -> None:
    write_domainnet(tmp_path)
    settings: dict[str, Any] = {
        "dataset": "domainnet-sketch", "mismatch_ratio": 0.5, "ood_ratio": 0.0, "strategy": "random", "seed": 0,
        "budget": 3, "rounds": 1, "num_id_classes": 2, "data_root": tmp_path,
        "recipe": {"name": "paper-domainnet", "encoder": "untrained:resnet10t"},
    }  # fmt: skip
    with pytest.raises(ValueError, match="ood_ratio = 0, but the OOD images of domainnet-sketch are all"):
        plan_trials([make_trial(**settings)], None)
    plan_trials([make_trial(**settings, full_data=True)], None)
