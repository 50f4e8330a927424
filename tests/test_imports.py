"""The import direction data -> models -> strategies -> orchestrator -> experiments, read from the syntax tree."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("data", "models", "strategies", "orchestrator", "experiments")
SLOW_TO_IMPORT = ("torch", "ray", "mlflow", "jinja2", "fastapi")

PRINT_LOADED_AFTER_HELP = """
import json, runpy, sys
heavy, commands = sys.argv[1].split(","), sys.argv[2:]
loaded = {}
for name in commands:
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        assert stop.code in (None, 0), stop.code
    loaded[name] = [module for module in heavy if module in sys.modules]
print(json.dumps(loaded))
"""


def imported_names(source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every absolute import in `source`, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""


def find_violations(root: Path) -> list[str]:
    """One line for each import under `root` that goes against the direction, or brings torch into `data`."""
    violations = []
    for position, layer in enumerate(LAYERS):
        forbidden = {*LAYERS[position + 1 :], "tests"} | (
            {"torch", "torchvision", "open_clip"} if layer == "data" else set()
        )
        for path in sorted((root / layer).rglob("*.py")):
            for line, name in imported_names(path.read_text()):
                if name.partition(".")[0] in forbidden:
                    violations.append(f"{path.relative_to(root)}:{line} imports {name}")
    return violations


def write_module(root: Path, name: str, source: str) -> None:
    """Write `source` to `name` under `root`."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


def test_every_import_goes_with_the_direction() -> None:
    for layer in LAYERS:
        assert (ROOT / layer / "__init__.py").is_file(), f"{layer} is not a package"
    assert find_violations(ROOT) == []


@pytest.mark.parametrize(
    ("name", "source", "reported"),
    [
        ("data/a.py", "import models.classifier.fit\n", "data/a.py:1 imports models.classifier.fit"),
        ("data/sources/b.py", "def f():\n    import torch.nn\n", "data/sources/b.py:2 imports torch.nn"),
        (
            "models/c.py",
            "if True:\n    from strategies.base import Strategy\n",
            "models/c.py:2 imports strategies.base",
        ),
        ("strategies/d.py", "import numpy, orchestrator\n", "strategies/d.py:1 imports orchestrator"),
        ("orchestrator/e.py", "from experiments import trial\n", "orchestrator/e.py:1 imports experiments"),
        ("experiments/f.py", "from tests.helper import make\n", "experiments/f.py:1 imports tests.helper"),
    ],
)
def test_an_import_against_the_direction_is_found(tmp_path: Path, name: str, source: str, reported: str) -> None:
    write_module(tmp_path, name, source)
    assert find_violations(tmp_path) == [reported]


def test_imports_of_packages_to_the_left_and_of_the_own_package_are_allowed(tmp_path: Path) -> None:
    write_module(
        tmp_path, "models/a.py", "import torch\nfrom data.files import file_hash\nfrom . import b\nimport models.b\n"
    )
    write_module(tmp_path, "experiments/c.py", "import data, models, strategies, orchestrator\nimport database\n")
    assert find_violations(tmp_path) == []


COMMANDS = ("trial", "suggest", "report", "figures", *(f"table{number}" for number in range(4, 10)))


def test_help_loads_nothing_slow(tmp_path: Path) -> None:
    """One process for all commands: what none of them may load is not there after the last, and the first is named."""
    commands = [f"experiments.{name}" for name in COMMANDS]
    outcome = subprocess.run(
        [sys.executable, "-c", PRINT_LOADED_AFTER_HELP, ",".join(SLOW_TO_IMPORT), *commands],
        cwd=tmp_path,  # any folder: the commands are installed
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert [line.split()[1] for line in outcome.stdout.splitlines() if line.startswith("usage: ")] == [
        f"{name}.py" for name in COMMANDS
    ]
    assert json.loads(outcome.stdout.splitlines()[-1]) == {command: [] for command in commands}


def test_the_driver_of_a_grid_loads_no_torch() -> None:
    modules = [
        "cluster.run_grid", "cluster.ray_part", "cluster.watch", "cluster.writer_client", "cluster.trial_worker",
        "cluster.scorer_actor", "cluster.scorer_client", "cluster.scorers",
        "cluster.writer", "ledger.classifiers", "tracking.tracker",
    ]  # fmt: skip
    source = f"import sys, {', '.join(f'orchestrator.{name}' for name in modules)}; print('torch' in sys.modules)"
    outcome = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert outcome.stdout == "False\n"


RUN_TRIALS = """
import json, sys
from experiments.trial import main
words = sys.argv[1:]
for strategy in ("conf", "lfosa"):
    sys.argv = ["trial.py", *words, "--strategy", strategy]
    assert main() == 0
heavy = ("ray", "mlflow", "torch._dynamo", "torchvision", "sklearn", "sympy")
print(json.dumps([[name for name in heavy if name in sys.modules], "torch" in sys.modules]))
"""


def test_a_trial_on_the_cpu_imports_no_compiler_no_torchvision_no_scikit_learn_no_ray_and_no_mlflow(
    tmp_path: Path,
) -> None:
    # Each of the first three alone pulls the others in; together they were half of a short trial's CPU seconds.
    words = ["--dataset", "digits", "--mismatch-ratio", "0.4", "--ood-ratio", "0.6"]
    words += ["--seed", "0", "--rounds", "2", "--set", "recipe.name=demo", "--set", "recipe.steps=2"]
    words += ["--set", "options.lfosa.epochs=1"]
    outcome = subprocess.run(
        [sys.executable, "-c", RUN_TRIALS, *words], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout.splitlines()[-1]) == [[], True]


KEEP_A_RECORD = """
import pickle, sys
from orchestrator.cluster.writer import LedgerWriter
record = pickle.load(sys.stdin.buffer)
writer = LedgerWriter(sys.argv[1])
writer.append("f", {"rounds": 1}, record)
print(type(record.environment["torch"]).__name__, len(writer.history("f")), "torch" in sys.modules)
"""


def test_a_ledger_writer_needs_no_torch(tmp_path: Path) -> None:
    import torch

    from orchestrator.trial.environment import describe_environment
    from tests.factories import make_record

    record = make_record(0, environment=describe_environment(torch.device("cpu")))
    outcome = subprocess.run(
        [sys.executable, "-c", KEEP_A_RECORD, str(tmp_path)], cwd=ROOT, input=pickle.dumps(record),
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert outcome.stdout.decode() == "str 1 False\n"
