"""The plan: which trials a grid has, which are done, and whether the rest can be run at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data.console import duration
from data.image_store import SMALLEST_IMAGE
from data.imageset import DataSet
from data.registry import open_data_set
from data.splits.draw import count_data_split
from data.splits.ratios import SplitCounts, ratio_of_classes
from models.clipn.bill import FeatureBill, caption_bill, feature_bill
from models.clipn.source import clipn_identity
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.records import RoundRecord
from orchestrator.problem import check_budget
from orchestrator.settings.grid import ArmTrial
from orchestrator.settings.trial import TrialConfig
from orchestrator.weights import check_weights_files
from strategies.registry import find_strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrial:
    """A trial that can be run, and what the ledger holds of it."""

    trial: TrialConfig
    fingerprint: str
    data_fingerprint: str
    records: tuple[RoundRecord, ...] = ()
    """Finished rounds, at most as many as the trial is to have."""
    error: str | None = None
    """Reason of the last attempt's failure, if it failed."""
    arm: str = ""
    """Arm that it is planned for, its row in tables. Empty: its strategy."""

    @property
    def row(self) -> str:
        """Name of its row in tables."""
        return self.arm or self.trial.strategy

    @property
    def label(self) -> str:
        """Short line that names the trial by its row."""
        return self.trial.label_as(self.row)

    @property
    def is_finished(self) -> bool:
        """Whether all its rounds are finished."""
        return len(self.records) >= self.trial.rounds


def plan_trials(trials: Sequence[ArmTrial | TrialConfig], ledger: Ledger | None) -> list[PlannedTrial]:
    """Check the trials before anything is computed; return them with fingerprints and their records in a ledger.

    A trial that two arms have in common is there for each of them, with one fingerprint (`distinct`).

    Raises ValueError for a data set that cannot be opened, ratios or budgets that it cannot give, and missing CLIPN
    weights.
    """
    data_sets: dict[tuple[str, str, str], DataSet] = {}
    clipn: dict[tuple[str, str], str] = {}
    looked_at = set()
    planned = []
    for each in trials:
        trial, arm = (each.trial, each.arm) if isinstance(each, ArmTrial) else (each, "")
        where = (trial.dataset, str(trial.data_root), trial.on_bad_image)
        if where not in data_sets:
            data_sets[where] = _open(trial)
        data = data_sets[where]
        _check(trial, data)
        which = (data.fingerprint, trial.clipn.model_dump_json())
        if (files := (trial.uses_clipn, trial.clipn, trial.recipe.encoder)) not in looked_at:
            looked_at.add(files)
            check_weights_files(trial)
        if trial.uses_clipn and which not in clipn:
            clipn[which] = clipn_identity(trial.clipn, data)
        fingerprint = trial.fingerprint(data_fingerprint=data.fingerprint, clipn_identity=clipn.get(which))
        planned.append(look_up(ledger, trial, fingerprint, data.fingerprint, arm=arm))
    return planned


def distinct(planned: Iterable[PlannedTrial]) -> list[PlannedTrial]:
    """Each trial once, whatever arms it is planned for: the trials to compute, count and mirror."""
    first: dict[str, PlannedTrial] = {}
    for each in planned:
        first.setdefault(each.fingerprint, each)
    return list(first.values())


def feature_lines(planned: Sequence[PlannedTrial]) -> list[str]:
    """Lines for people, one per data set whose purity needs image features: whether the store holds them."""
    needed = {(p.data_fingerprint, p.trial.clipn): p.trial for p in planned if p.trial.uses_scorer}
    lines = []
    for trial in needed.values():
        data = _open(trial)
        bill = feature_bill(data, trial.clipn)
        lines.append(f"{trial.dataset}: CLIPN's features of {bill.num_images:,} images: {feature_state(bill)}")
        captions = caption_bill(data, trial.clipn)
        lines += [f"{trial.dataset}: captions for zoc: {feature_state(captions)}"] if captions else []
    return list(dict.fromkeys(lines))  # with and without a captioner the features are the same


def missing_features(trials: Iterable[TrialConfig]) -> int:
    """Number of features and captions that are still to be computed for these trials, on this machine."""
    bills = (make(_open(trial), trial.clipn) for trial in trials for make in (feature_bill, caption_bill))
    return sum(bill.num_missing for bill in bills if bill is not None)


def feature_state(bill: FeatureBill) -> str:
    """Describe which features are missing and how long they take."""
    if not bill.num_missing:
        return "in the store"
    missing = "to be computed first, once"
    if bill.num_missing < bill.num_images:
        missing = f"{bill.num_missing:,} still to be computed"
    if bill.num_bytes:
        missing += f" ({bill.num_bytes / 1e6:.3g} MB in the cache)"
    if bill.waits_for_stand_in:
        return f"{missing}, after the small CLIPN that stands in is trained (a minute)"
    if bill.seconds is None:
        return f"{missing}: time not known yet"
    basis = "as measured on other images" if bill.is_measured else "estimated, on one CPU core; a GPU is far faster"
    return f"{missing}: about {duration(bill.seconds)} ({basis})"


def look_up(
    ledger: Ledger | None, trial: TrialConfig, fingerprint: str, data_fingerprint: str, *, arm: str = ""
) -> PlannedTrial:
    """Planned trial with its records in the ledger."""
    state = ledger.state(fingerprint) if ledger else None
    return PlannedTrial(
        trial=trial,
        fingerprint=fingerprint,
        data_fingerprint=data_fingerprint,
        records=state.records[: trial.rounds] if state else (),
        error=state.error if state else None,
        arm=arm,
    )


def _open(trial: TrialConfig) -> DataSet:
    return open_data_set(trial.dataset, root=trial.data_root, skip_bad_images=trial.on_bad_image == "skip")


def _check_id_classes(trial: TrialConfig, data: DataSet, counts: SplitCounts) -> None:
    """Raise ValueError for a single ID class: the classifier has one answer, so accuracy is 1 whatever it learns."""
    if counts.num_id_classes > 1:
        return
    if data.split_protocol == "domain" and trial.id_classes is None:
        # One ID class would give a table of ones without any warning.
        raise ValueError(f"{trial.label}: num_id_classes = 1, so accuracy is always 1; take 2 or more")
    if trial.id_classes is not None:
        raise ValueError(f"{trial.label}: id_classes names 1 ID class, so accuracy is always 1; name 2 or more")
    advice = f"raise the mismatch ratio to {ratio_of_classes(data.num_classes, 2)} or more"
    if data.num_classes < 3:
        advice = "take a data set of at least 3 classes: 2 that are ID and 1 that is OOD"
    raise ValueError(
        f"{trial.label}: mismatch ratio {trial.mismatch_ratio} of {data.num_classes} classes gives 1 ID class, so "
        f"accuracy is always 1; {advice}"
    )


def _check(trial: TrialConfig, data: DataSet) -> None:
    """Raise ValueError if the data set cannot pose the trial's problem."""
    try:
        counts = count_data_split(data, trial.split)
    except ValueError as error:
        raise ValueError(f"{trial.label}: {error}") from None
    _check_id_classes(trial, data, counts)
    check_budget(trial, data, counts)
    if trial.detection is not None:
        return  # no classifier is trained, so the recipe is not checked
    if data.split_protocol == "domain" and trial.ood_ratio == 0 and trial.supervision == "budget":
        raise ValueError(
            f"{trial.label}: ood_ratio = 0, but the OOD images of {trial.dataset} are all that is not of its ID "
            "classes, in every domain; set ood_ratio above 0"
        )
    if find_strategy(trial.strategy).uses_domain and data.domain is None:
        raise ValueError(f"{trial.label}: a prompt with the domain needs a data set with one, such as domainnet-sketch")
    if trial.recipe.network == "resnet18" and data.image_size < SMALLEST_IMAGE:
        raise ValueError(
            f"{trial.label}: its images have {data.image_size} pixels a side; a ResNet-18 needs {SMALLEST_IMAGE}"
        )
