"""A grid: the trials of a table, from a preset and the user's changes to it, and the arms that are its rows.

An arm is a strategy with settings on top, under its own name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, field_validator

from data.console import unknown_name
from data.files import user_path
from data.registry import DATA_SETS, FOLDER_PREFIX
from data.splits.ratios import OodRatio
from orchestrator.settings.keys import check_keys, check_name, check_texts, one_line
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import Settings, TrialConfig
from strategies.registry import STRATEGIES, find_strategy

Nested = dict[str, Any]
AXES = {
    "datasets": "dataset", "mismatch_ratios": "mismatch_ratio", "ood_ratios": "ood_ratio", "strategies": "strategy",
    "seeds": "seed",
}  # fmt: skip
"""The axes of a grid, and the field of a trial that each gives."""
TABLES = ("table4", "table5", "table6", "table7", "table8", "table9", "table10", "figures")
"""The commands that a preset may have other settings for, under `tables`."""
LEAST_GPU = 0.01
"""Smallest part of a card that can be asked for."""


MOST_SEEDS = 10_000
"""Largest number of seeds in a range; more is taken for a typing error."""


def seed_range(text: str) -> tuple[int, ...]:
    """Parse `0-4`, `0,2,5` or both together as seeds. Raises ValueError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,20})(?:-(\d{1,20}))?\s*", part, re.ASCII)
        if match is None:
            raise ValueError(f"expected seeds such as 0-4 or 0,2,5, not '{text}'")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"seeds {part.strip()} run backwards")
        if last - first >= MOST_SEEDS:
            raise ValueError(f"seeds {part.strip()} are more than {MOST_SEEDS:,}")
        seeds.extend(range(first, last + 1))
    return tuple(seeds)


class RunSettings(Settings):
    """Settings of how a grid is computed; they change no number. Each field is a flag, with its docstring as help."""

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    """CPUs reserved for a trial, and its torch threads."""
    gpus_per_trial: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """GPUs reserved for a trial; 0.25 puts four trials on a card, 0 uses none."""
    scorers: Annotated[int, Field(ge=1)] = 1
    """Actors that answer purity requests."""
    gpus_per_scorer: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """GPUs reserved for a scoring actor."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Most trials at a time; if not set, as many as the resources allow."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often a trial whose process dies is started again without a finished round in between."""
    scorers_on: str | None = None
    """Where scoring actors run: a node label such as role=scorer, or a custom resource of which each takes 1; if not
    set, on nodes with the resource clip_scorer if there are any, else anywhere."""
    trials_on: str | None = None
    """Where trials run, written as for scoring actors; if not set, on nodes with the resource trainer if there are any,
    else anywhere."""
    fetch_data: bool = False
    """Nodes download data sets that they lack, once."""
    deterministic: bool = False
    """On a GPU: equal seeds give equal records, to the bit and more slowly. On a CPU they always do."""
    plain_steps: bool = False
    """On a GPU: training steps are launched kernel by kernel, not recorded and replayed as CUDA graphs."""
    no_compile: bool = False
    """On a GPU: long trainings do not use torch's compiler. Their steps are still recorded."""

    @field_validator("gpus_per_trial", "gpus_per_scorer")
    @classmethod
    def _gpus(cls, gpus: float) -> float:
        """Check that it is a part of a card or whole cards, which is what Ray can reserve."""
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("above 1 it must be a whole number: parts of a card come from one card")
        if 0 < gpus < LEAST_GPU:
            raise ValueError(f"must be 0 (no GPU) or at least {LEAST_GPU:g}")
        return gpus


def _number_or_all(ratio: Any) -> Any:
    """Check that an OOD ratio is one by its type. One message: a union of types would give one for each of them."""
    if ratio == "all" or (isinstance(ratio, int | float) and not isinstance(ratio, bool)):
        return ratio
    raise ValueError("must be a number, or all (every OOD image)")


class GridConfig(Settings):
    """The axes of a grid and the settings that all its trials share."""

    datasets: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    mismatch_ratios: Annotated[tuple[float, ...], Field(min_length=1, strict=False)]
    ood_ratios: Annotated[
        tuple[Annotated[OodRatio, BeforeValidator(_number_or_all)], ...], Field(min_length=1, strict=False)
    ]
    strategies: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    """Names of strategies, or of `arms`."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1, strict=False)]

    @field_validator("datasets", "strategies", mode="before")
    @classmethod
    def _one_name(cls, names: Any) -> Any:
        """Accept a single name as a list of one."""
        return (names,) if isinstance(names, str) else names

    @field_validator("mismatch_ratios", "ood_ratios", mode="before")
    @classmethod
    def _one_ratio(cls, ratios: Any) -> Any:
        """Accept a single ratio as a list of one."""
        return (
            (ratios,)
            if (isinstance(ratios, int | float) or ratios == "all") and not isinstance(ratios, bool)
            else ratios
        )

    @field_validator("seeds", mode="before")
    @classmethod
    def _seed_range(cls, seeds: Any) -> Any:
        """Accept seeds as the command line does: a number, or `0-4`, alone or in a list."""
        given = seeds if isinstance(seeds, list | tuple) else (seeds,)
        if not given or isinstance(seeds, bool) or not all(isinstance(each, int | str) for each in given):
            return seeds
        return tuple(seed for each in given for seed in (seed_range(each) if isinstance(each, str) else (each,)))

    trial: Nested = Field(default_factory=dict)
    """Settings of every trial (fields of TrialConfig)."""
    per_dataset: dict[str, Nested] = Field(default_factory=dict)
    """Settings of the trials of one data set, on top of `trial`."""
    arms: dict[str, Nested] = Field(default_factory=dict)
    """Arms by name: each a strategy and settings of its trials, which go on top of everything."""
    run: RunSettings = RunSettings()
    """How it is computed."""
    _origin: str = PrivateAttr(default="")
    """Where it is from (`preset demo`): for messages."""

    def arm_trials(self, overrides: Nested | None = None) -> list[ArmTrial]:
        """All trials with their arms, seed by seed, so that a grid stopped early has every cell with some seeds.

        `overrides` go on top of everything but the arms' own settings. A trial that an arm has at several points of the
        grid (one without OOD images, whatever the OOD ratio) is returned once. Raises ValueError for settings that are
        not a trial's, and for a repeated value on an axis.
        """
        for axis in AXES:
            values = getattr(self, axis)
            repeated = [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]
            if repeated:
                raise ValueError(f"{axis} = {', '.join(map(str, values))}: {', '.join(repeated)} is repeated")
        for name in self.datasets:
            check_name("datasets", name)
        for name in self.per_dataset:
            if name not in DATA_SETS and not name.startswith(FOLDER_PREFIX):
                raise unknown_name("data set", name, DATA_SETS)
        check_keys(TrialConfig, self.trial, self._origin, ("trial",))
        for name, settings in self.per_dataset.items():
            check_keys(TrialConfig, settings, self._origin, ("per_dataset", name))
        for name, settings in self.arms.items():
            check_arm(name, settings)
            check_keys(TrialConfig, settings, self._origin, ("arms", name))
        check_keys(TrialConfig, overrides or {}, "--set")
        points = product(self.seeds, self.datasets, self.mismatch_ratios, self.ood_ratios, self.strategies)
        return list(dict.fromkeys(self._arm_trial(*point, overrides or {}) for point in points))

    def trials(self, overrides: Nested | None = None) -> list[TrialConfig]:
        """The trials of `arm_trials`, each once."""
        return list(dict.fromkeys(each.trial for each in self.arm_trials(overrides)))

    def _arm_trial(
        self, seed: int, dataset: str, mismatch_ratio: float, ood_ratio: OodRatio, arm: str, overrides: Nested
    ) -> ArmTrial:
        shared = merge(self.trial, self.per_dataset.get(dataset, {}), overrides)
        for axis, field in AXES.items():
            if field in shared:
                raise ValueError(f"{field} = {shared[field]}: it is an axis of the grid; set {axis} instead")
        point: Nested = {"dataset": dataset, "ood_ratio": ood_ratio, "seed": seed}
        # Named classes take the place of the mismatch ratios, however many the preset has.
        point |= {"mismatch_ratio": mismatch_ratio} if shared.get("id_classes") is None else {}
        trial = make_trial(**merge(shared, point, settings_of(arm, self.arms)))
        for name in trial.id_classes or ():
            check_name("id_classes", name)
        return ArmTrial(arm=arm, trial=trial)


def load_preset(
    folder: Path,
    name: str,
    axes: Mapping[str, Any],
    run: Mapping[str, Any],
    *,
    table: str | None = None,
    arms: Mapping[str, Nested] | None = None,
) -> GridConfig:
    """Read the preset `<folder>/<name>.yaml`, or the YAML file `name`, with some axes and run settings replaced.

    Its settings under `tables: {<table>: ...}` go on top of its others, and its `arms` on top of the given ones.

    Raises ValueError, in one line, for an unknown preset (the nearest is suggested) and for a file that does not fit.
    """
    path = preset_path(folder, name)
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), origin=path.name)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8 text") from None
    for section in ("run", "trial", "arms"):
        if content.get(section) is None:
            content.pop(section, None)  # a heading with nothing under it
        elif not isinstance(content[section], dict):
            raise ValueError(f"preset {name}: {section} = {content[section]!r}: expected settings, 'key: value'")
    of_tables = content.pop("tables", {})
    if not isinstance(of_tables, dict) or not all(isinstance(each, dict) for each in of_tables.values()):
        raise ValueError(f"preset {name}: tables = {of_tables}: expected settings under the name of each table")
    for each, settings in of_tables.items():
        if each not in TABLES:
            raise ValueError(f"preset {name}: tables: {unknown_name('key', str(each), TABLES)}")
        check_keys(GridConfig, settings, f"preset {name}", ("tables", each))
    content = merge(content, of_tables.get(table, {}))
    check_texts(content, f"preset {name}")
    content["run"] = merge(content.get("run", {}), dict(run))
    content["arms"] = merge(arms or {}, content.get("arms", {}))
    check_keys(GridConfig, content, f"preset {name}")
    try:
        grid = GridConfig(**{**content, **axes})
    except ValidationError as error:
        raise ValueError(f"preset {name}: {one_line(error)}") from None
    grid._origin = f"preset {name}"
    return grid


def preset_path(folder: Path, name: str) -> Path:
    """Path of a preset: of that name in the folder, or anywhere for a name that ends in .yaml or .yml.

    Raises ValueError if there is no such preset.
    """
    if name.endswith((".yaml", ".yml")):
        path = user_path(name)
        if not path.is_file():
            raise ValueError(f"preset {name}: there is no such file")
        return path
    known = sorted(preset.stem for preset in folder.glob("*.yaml"))
    if name not in known:
        raise unknown_name("preset", name, [*known, "<path>.yaml"])
    return folder / f"{name}.yaml"


def preset_name(name: str) -> str:
    """Name of a preset: the file's name without folder and suffix."""
    return Path(name).stem if name.endswith((".yaml", ".yml")) else name


def read_yaml(text: str, *, origin: str) -> Nested:
    """Parse a YAML mapping. Raises ValueError for text that is not one, or that has a key twice."""
    import yaml  # only commands that read a preset need it

    class UniqueKeyLoader(yaml.SafeLoader):
        """SafeLoader that refuses a key given twice; YAML itself would let the last one win."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key) for key, _ in node.value]
            repeated = [key for key in keys if keys.count(key) > 1]
            if repeated:
                raise ValueError(f"{origin}: key '{repeated[0]}' is given twice")
            return super().construct_mapping(node, deep)

    # YAML 1.1 takes 1e-3 for a word.
    UniqueKeyLoader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
    )

    def number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        """Read a number as people write it: YAML 1.1 takes 010 for 8 and 1:30 for 90."""
        if (re.match(r"[-+]?0\d", node.value) and "." not in node.value) or ":" in node.value:
            raise ValueError(
                f"{origin}: {node.value}: YAML reads a number with a 0 in front or a colon in another base; write it "
                "plainly, or in quotes if it is a text"
            )
        is_int = node.tag.endswith(":int")
        return loader.construct_yaml_int(node) if is_int else loader.construct_yaml_float(node)

    for kind in ("int", "float"):
        UniqueKeyLoader.add_constructor(f"tag:yaml.org,2002:{kind}", number)
    try:
        # Before loading: a few lines of nested aliases would fill the memory while the values are made.
        _check_aliases(yaml.compose(text, UniqueKeyLoader), origin)
        content = yaml.load(text, UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{origin}: no valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise ValueError(f"{origin}: nested too deeply") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{origin}: expected 'key: value' pairs, each key a word")
    return content


MOST_VALUES = 100_000
"""Most values of a preset with its aliases expanded; ten lines of them can exceed the memory."""


def _check_aliases(node: Any, origin: str) -> None:
    """Raise ValueError if a YAML document's aliases expand to too much, or one of them contains itself."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: Any) -> int:
        if not isinstance(node.value, list):
            return 1
        if id(node) in open_nodes:
            raise ValueError(f"{origin}: an alias holds itself")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            parts = [part for each in node.value for part in (each if isinstance(each, tuple) else (each,))]
            sizes[id(node)] = 1 + sum(size(part) for part in parts)
            open_nodes.remove(id(node))
        return sizes[id(node)]

    if node is not None and size(node) > MOST_VALUES:
        raise ValueError(f"{origin}: its aliases stand for more than {MOST_VALUES:,} values; write fewer")


DEEPEST = 20
"""Levels of a key of --set; the deepest setting has 4. Two keys of a thousand levels ended in a RecursionError."""


def parse_overrides(assignments: Sequence[str]) -> Nested:
    """Parse `["recipe.steps=300", "purity.visual_similarity=false"]` as nested settings; values are read as YAML.

    Raises ValueError for an assignment without '=', and for a key of more than `DEEPEST` levels.
    """
    overrides: Nested = {}
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals or not all(name.strip() for name in path.split(".")):
            raise ValueError(f"--set {assignment}: expected key=value, for example recipe.steps=300")
        if path.count(".") >= DEEPEST:
            raise ValueError(f"--set {assignment}: nested too deeply")
        content: Any = read_yaml(f"value: {value}", origin=f"--set {assignment}")["value"]
        for name in reversed(path.strip().split(".")):
            content = {name: content}
        overrides = merge(overrides, content)
    return overrides


def merge(*layers: Mapping[str, Any]) -> Nested:
    """Merge nested settings, later layers on top of earlier ones, key by key."""
    merged: Nested = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else value
    return merged


FIXED = ("dataset", "mismatch_ratio", "id_classes", "seed")
"""Settings that an arm cannot have: these join it to the other arms of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTrial:
    """A trial of an arm. The trial itself does not know the arm: equal settings are one trial in every arm."""

    arm: str
    trial: TrialConfig


def check_arm(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ValueError for an arm without strategy, with settings that are not an arm's, or a strategy's name."""
    if not isinstance(settings.get("strategy"), str):
        raise ValueError(f"arms.{name}: an arm needs a strategy; settings of a trial may follow")
    for field in FIXED:
        if field in settings:
            raise ValueError(f"arms.{name}.{field}: an arm cannot set it; it comes from the grid")
    if name in STRATEGIES:
        raise ValueError(f"arms.{name}: a strategy has that name; rename the arm")
    check_name("arms", name)
    if not name.strip():
        raise ValueError(f"arms: {name!r} is no name; give it letters")
    if "," in name:
        raise ValueError(f"arms.{name}: a comma separates names on the command line; omit it")


def settings_of(name: str, arms: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Settings of the arm of that name; a strategy is an arm by itself.

    Raises ValueError for a name that is neither, with the nearest known one.
    """
    if name in arms:
        return arms[name]
    find_strategy(name, others=arms)
    return {"strategy": name}
