"""Settings of one trial, checked strictly, and the fingerprint of those that change its numbers."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from data.files import content_hash
from data.registry import split_protocol_of
from data.splits.domain import NUM_ID_CLASSES
from data.splits.draw import ClassDraw, SplitSettings, Supervision
from data.splits.named import checked_names, short_text
from data.splits.ratios import OodRatio
from models.classifier.recipe import EncoderName, Fraction, Recipe, named_recipe
from models.clipn.source import ClipnSource
from strategies.options import StrategyOptions
from strategies.purity.contract import PurityOptions
from strategies.purity.detectors import DETECTORS
from strategies.registry import find_strategy, settings_entry

NUMBERS_VERSION = 1
"""Raised when code changes the numbers of a trial whose settings are the same, so that old records are not reused."""


class Settings(BaseModel):
    """Base of the settings that a user writes: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Docstrings of the fields, each in one line, by field. Reads the source: for --help only.

    (pydantic's `use_attribute_docstrings` reads it whenever the class is made, which took 0.25 s of every command.)
    """
    (body,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in pairwise(body.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                texts[name] = " ".join(said.split())
    return texts


class DetectionSettings(Settings):
    """Settings of a trial without a classifier, which measures its detector as labels are bought (Table 9)."""

    labels: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False)]
    """Labels bought at each stage, ascending, drawn at random from the whole pool; a stage is a round."""

    @field_validator("labels")
    @classmethod
    def _ascending(cls, labels: tuple[int, ...]) -> tuple[int, ...]:
        """Check that each stage adds labels to the one before."""
        if list(labels) != sorted(set(labels)):
            raise ValueError("must be ascending, each number once, such as 0, 20, 60")
        return labels


def _checked_ood_ratio(ratio: Any) -> Any:
    """Check an OOD ratio. One message: a union of types would give one for each of them."""
    if ratio == "all":
        return ratio
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
        raise ValueError("must be a number greater than or equal to 0 and less than 1, or all (every OOD image)")
    return float(ratio)


class TrialConfig(Settings):
    """One trial: a condition, a strategy, a seed, and how to compute it."""

    dataset: str
    """Name in the data registry, or `folder:<path>`."""
    mismatch_ratio: Fraction | None = None
    """Share of the classes that are ID, in (0, 1); not set if `id_classes` names them."""
    id_classes: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    """Names of the ID classes in place of a mismatch ratio; all other classes are OOD."""
    ood_ratio: Annotated[OodRatio, BeforeValidator(_checked_ood_ratio)]
    """Share of OOD images in the unlabelled data, in [0, 1); 0: a pool of ID images only; all: every OOD image."""
    strategy: str
    """Name in the strategy registry."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Seed of split, weights, batches and queries."""
    rounds: Annotated[int, Field(ge=1)] = 10
    """Number of trainings; there is one query fewer."""
    budget: Annotated[int, Field(ge=1)] = 500
    """Labels bought per round, the initial set included as the first."""
    initial_share: Fraction | None = None
    """Share of the ID images that are labelled at the start, drawn uniformly and without OOD images; not set: `budget`
    images, ID and OOD. Data sets split by domains do not read it."""
    class_draw: ClassDraw = "seed"
    """Draw of the ID classes for a mismatch ratio: by the seed, or the one order of classes that the official codes of
    the open-set annotation line have for every seed (`data.splits.pinned`)."""
    num_id_classes: Annotated[int, Field(ge=1)] = NUM_ID_CLASSES
    """ID classes of a data set whose OOD images are other domains' (DomainNet): it uses neither ratio and starts with
    one label per class. Other data sets do not read it."""
    full_data: bool = False
    """Full supervision: every ID training image is labelled from the start, and there is no pool; one round."""
    recipe: Recipe = Recipe()
    """How the classifier is trained."""
    purity: PurityOptions = PurityOptions()
    """Switches of the purity step (strategies that have one)."""
    clipn: ClipnSource = ClipnSource()
    """The vision-language model behind the purity step."""
    options: StrategyOptions = StrategyOptions()
    """Settings of the strategies, one section per family."""
    detection: DetectionSettings | None = None
    """Stages at which the purity detector is measured, without a classifier; none: an ordinary trial."""

    @field_validator("recipe", mode="before")
    @classmethod
    def _by_name(cls, recipe: Any) -> Any:
        """Replace `name` by the settings of the recipe of that name."""
        return named_recipe(recipe) if isinstance(recipe, Mapping) else recipe

    @field_validator("id_classes")
    @classmethod
    def _checked_classes(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Bring the names into the form in which they are compared, and in one order."""
        return None if names is None else checked_names(names)

    on_bad_image: Literal["stop", "skip"] = "stop"
    """What happens if an image file cannot be decoded: stop and name it, or name it and skip it."""
    data_root: Annotated[Path | None, Field(strict=False)] = None
    """Folder that holds the data sets' files; none: the data set's default place."""

    @property
    def uses_purity(self) -> bool:
        """Whether the strategy uses a purity scorer."""
        return settings_entry(self.strategy).uses_purity

    @property
    def uses_scorer(self) -> bool:
        """Whether it uses a scorer: for purity, or for features of the pre-trained tower."""
        return self.uses_purity or settings_entry(self.strategy).uses_pretrained

    @property
    def uses_clipn(self) -> bool:
        """Whether CLIPN changes its numbers: by the purity step, by its features, or as the classifier's encoder."""
        return self.uses_scorer or self.recipe.encoder == "clipn"

    @property
    def uses_captioner(self) -> bool:
        """Whether its purity detector reads captions of the images."""
        return self.uses_purity and "captioner" in DETECTORS[self.purity.detector].needs

    @property
    def supervision(self) -> Supervision:
        """The labels that exist at the start: those of a budget, all, or none."""
        if self.recipe.network == "zero-shot":
            return "none"
        return "all" if self.full_data else "budget"

    @property
    def split(self) -> SplitSettings:
        """The settings that decide its open-set split."""
        return SplitSettings(
            mismatch_ratio=self.mismatch_ratio,
            ood_ratio=self.ood_ratio,
            budget=self.budget,
            seed=self.seed,
            num_id_classes=self.num_id_classes,
            supervision=self.supervision,
            id_classes=self.id_classes,
            initial_share=self.initial_share,
            class_draw=self.class_draw,
        )

    @property
    def has_domain_split(self) -> bool:
        """Whether its data set is split by domains (DomainNet), not by the two ratios."""
        return split_protocol_of(self.dataset) == "domain"

    @property
    def label(self) -> str:
        """Short line that names the trial."""
        return self.label_as(self.strategy)

    def label_as(self, arm: str) -> str:
        """Short line that names the trial, with the name of an arm in place of the strategy's."""
        classes = f"mismatch {self.classes_text}" if self.id_classes is None else f"ID classes {self.classes_text}"
        condition = f"{classes} ood {self.ood_text}"
        if self.has_domain_split:
            condition = f"{self.num_id_classes} ID classes" if self.id_classes is None else classes
        return f"{self.dataset} {condition} {arm} seed {self.seed}"

    @property
    def classes_text(self) -> str:
        """What decides its ID classes, in a label: the mismatch ratio, or their names."""
        return f"{self.mismatch_ratio:g}" if self.id_classes is None else short_text(self.id_classes)

    @property
    def ood_text(self) -> str:
        """Its OOD ratio in a label."""
        return "all" if self.ood_ratio == "all" else f"{self.ood_ratio:g}"

    def settings_read(self) -> dict[str, Any]:
        """Plain values, by dotted name, of all settings that its numbers depend on, axes included.

        The one answer to that question: MLflow's params, the names of rows, departures from the paper and the command
        that reruns a trial are made of it. Not in it: where files lie, the number of rounds, the number of
        images processed at a time, and what only other strategies, detectors or split protocols read.
        """
        # More rounds continue fewer, and moved data is the same data: neither may orphan the finished rounds.
        unread = {"rounds", "data_root", "on_bad_image", "options"}
        unread |= set() if self.uses_purity else {"purity"}
        unread |= set() if self.uses_clipn else {"clipn"}
        unread |= set() if self.has_domain_split and self.id_classes is None else {"num_id_classes"}
        unread |= self._absent_axes()
        if self.detection is None:
            unread |= {"detection"}  # newer than the first ledgers
        else:
            unread |= {"recipe", "budget"}
        settings = self.model_dump(mode="json", exclude=unread)
        # Only the speed depends on it: a user who lowered it as advised once found a finished grid at zero.
        settings.get("recipe", {}).pop("eval_batch_size", None)
        if self.uses_purity:
            settings["purity"] = self.purity.settings_read()
        if self.uses_clipn:
            settings["clipn"] = self.clipn.settings_read()
        return flat(settings | {"options": self.options.read_by(settings_entry(self.strategy).sections)})

    def _absent_axes(self) -> set[str]:
        """The fields of the problem that are newer than the first records, as far as they are not set."""
        absent = {"mismatch_ratio"} if self.id_classes is not None else {"id_classes"}
        absent |= {"initial_share"} if self.initial_share is None or self.has_domain_split else set()
        return absent | ({"class_draw"} if not self._has_pinned_classes else set())

    @property
    def _has_pinned_classes(self) -> bool:
        """Whether its ID classes are the first of a fixed order."""
        return self.class_draw != "seed" and self.id_classes is None and not self.has_domain_split

    def fingerprint(self, *, data_fingerprint: str, clipn_identity: str | None) -> str:
        """Hash (64 hex digits) of everything that changes the records, and of nothing else.

        A detection trial (Table 9) has its own kind of fingerprint: no recipe, strategy or budget enters it.

        Not in it: where files lie, the data set's name (its content counts), the number of rounds (more rounds go on
        from fewer), for a strategy without purity step everything about purity, and the options of other strategies.
        """
        if self.detection is not None:
            split = {name: value for name, value in self.split_identity().items() if name != "budget"}
            return content_hash(
                {
                    "numbers_version": NUMBERS_VERSION,
                    "data": data_fingerprint,
                    **split,
                    "detection": self.detection.model_dump(mode="json"),
                    "seed": self.seed,
                    "purity": self.purity.settings_read() | {"clipn": clipn_identity},
                }
            )
        strategy = find_strategy(self.strategy)
        return content_hash(
            {
                "numbers_version": NUMBERS_VERSION,
                "data": data_fingerprint,
                **self.split_identity(),
                # A plug-in counts by its code: records are not reused after its file changed.
                "strategy": strategy.source or self.strategy,
                "options": self.options.read_by(settings_entry(self.strategy).sections),
                "seed": self.seed,
                "recipe": self._recipe_identity(clipn_identity),
                "purity": self.purity.settings_read() | {"clipn": clipn_identity} if self.uses_purity else None,
                # Absent unless used: a new key for all would have changed the fingerprints of earlier records.
                **({"pretrained": clipn_identity} if strategy.uses_pretrained else {}),
                **({"numbers": strategy.numbers} if strategy.numbers > 1 else {}),
            }
        )

    def split_identity(self) -> dict[str, Any]:
        """Settings that decide which images are ID, which start labelled and how many are bought per round.

        Only those that the data set's split protocol reads.
        """
        is_domain = self.has_domain_split
        classes: dict[str, Any]
        if self.id_classes is not None:
            classes = {"id_classes": list(self.id_classes)}
        elif is_domain:
            classes = {"num_id_classes": self.num_id_classes}
        else:
            assert self.mismatch_ratio is not None, "read_trial checks that one of both is set"
            classes = {"mismatch_ratio": float(self.mismatch_ratio)}
        # Here and below: absent unless set, since a new key for all would change the fingerprints of earlier records.
        classes |= {"class_draw": self.class_draw} if self._has_pinned_classes else {}
        if self.supervision != "budget":
            return classes | {"supervision": self.supervision}
        initial = {"initial_share": self.initial_share} if "initial_share" not in self._absent_axes() else {}
        # abs: -0.0 is the same ratio as 0, but another text in the hash.
        ratio = "all" if self.ood_ratio == "all" else abs(float(self.ood_ratio))
        return classes | ({} if is_domain else {"ood_ratio": ratio}) | initial | {"budget": self.budget}

    def _recipe_identity(self, clipn_identity: str | None) -> dict[str, Any]:
        """The recipe as plain values, its encoder by what identifies the weights; without training, little counts."""
        recipe = self.recipe.identity()
        if self.recipe.network == "zero-shot":
            recipe = {name: recipe[name] for name in ("network", "encoder", "precision")}
        if self.recipe.encoder is not None:
            recipe["encoder"] = EncoderName.parse(self.recipe.encoder).identity(clipn=clipn_identity)
        return recipe


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to one level with dotted names."""
    flattened: dict[str, Any] = {}
    for name, value in settings.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flattened
