"""Whatever a user gets wrong is told in one line, with exit code 2, and nothing is created."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import FORMAT

ROOT = Path(__file__).parents[2]
DEMO = ["table4.py", "--preset", "demo"]
TRIAL = ["trial.py", "--strategy", "conf"]
Snapshot = dict[str, bytes | None]

GOOD_PRESET = """
datasets: [digits]
mismatch_ratios: [0.2]
ood_ratios: [0.6]
strategies: [random]
seeds: [0]
trial: {rounds: 2, budget: 20, recipe: {name: demo}}
"""
PRESETS = {
    "good": GOOD_PRESET,
    "twice": GOOD_PRESET + "seeds: [1]\n",
    "twice-inside": GOOD_PRESET + "run: {scorers: 1, scorers: 2}\n",
    "misspelt": GOOD_PRESET.replace("datasets", "dataset"),
    "misspelt-inside": GOOD_PRESET.replace("rounds: 2", "runds: 2"),
    "octal": GOOD_PRESET.replace("budget: 20", "budget: 010"),
    "sexagesimal": GOOD_PRESET.replace("budget: 20", "budget: 1:30"),
    "long": GOOD_PRESET.replace("budget: 20", "budget: " + "x" * 60_000),
    "bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "in-itself": "a: &a [*a]\n",
    "nul": GOOD_PRESET.replace("[digits]", '["x\\0y"]'),
    "nul-in-a-key": GOOD_PRESET + 'run: {"sc\\0rers": 1}\n',
    "half-a-character": GOOD_PRESET + 'run: {trials_on: "\\ud800"}\n',
    "no-list": GOOD_PRESET.replace("seeds: [0]", "seeds: {a: 0}"),
    "no-seeds": GOOD_PRESET.replace("seeds: [0]", "seeds: []"),
    "run-is-a-number": GOOD_PRESET + "run: 3\n",
    "trial-is-a-list": GOOD_PRESET.replace("{rounds: 2, budget: 20, recipe: {name: demo}}", "[1]"),
    "an-axis-inside": GOOD_PRESET.replace("rounds: 2", "seed: 3"),
    "for-nobody": GOOD_PRESET + "per_dataset: {digts: {budget: 30}}\n",
    "infinite": GOOD_PRESET.replace("rounds: 2", "rounds: .inf"),
    "code": 'a: !!python/object/apply:os.system ["true"]\n',
    "a-list": "- digits\n",
    "torn": "datasets: [digits\n",
    "list-for-a-key": "? [a]\n: 3\n",
    "number-for-a-key": "3: 4\n",
}  # fmt: skip

CASES: dict[str, tuple[list[str], str]] = {
    # Names
    "unknown data set": ([*DEMO, "--datasets", "digts"], "unknown data set 'digts' (did you mean 'digits'?)"),
    "no data set": ([*DEMO, "--datasets", "digits,"], "unknown data set ''"),
    "data set twice": ([*DEMO, "--datasets", "digits,digits"], "datasets = digits, digits: digits is repeated"),
    "unknown strategy": ([*DEMO, "--strategies", "confid"], "unknown strategy 'confid' (did you mean 'conf'?)"),
    "strategy twice": ([*DEMO, "--strategies", "conf,conf"], "strategies = conf, conf: conf is repeated"),
    "strategy from a module that is none": ([*DEMO, "--strategies", "nothing:Mine"], "cannot import nothing"),
    "strategy that is none": ([*DEMO, "--strategies", "json:JSONDecoder"], "json has no class 'JSONDecoder' that is"),
    "unknown preset": ([*DEMO[:2], "dmeo"], "unknown preset 'dmeo' (did you mean 'demo'?)"),
    "empty preset": ([*DEMO[:2], ""], "unknown preset ''"),
    "unknown recipe": ([*DEMO, "--set", "recipe.name=dmeo"], "unknown recipe 'dmeo' (did you mean 'demo'?)"),
    "unknown detector": ([*DEMO, "--purity", "atdd"], "purity.detector = 'atdd': input should be 'atd'"),
    "unknown architecture": (
        [*DEMO, "--clipn-checkpoint", "{there}/file", "--clip-model", "ViT-Q"], "unknown clipn.model 'ViT-Q'",
    ),
    "unknown choice": ([*DEMO, "--on-bad-image", "maybe"], "invalid choice: 'maybe'"),
    "a number with a 0 in front": ([*DEMO[:2], "{there}/octal.yaml"], "octal.yaml: 010: YAML reads a number with a 0"),
    "a number with a colon": ([*DEMO[:2], "{there}/sexagesimal.yaml"], "sexagesimal.yaml: 1:30: YAML reads a number"),
    "the same by --set": ([*DEMO, "--set", "recipe.steps=010"], "--set recipe.steps=010: 010: YAML reads a number"),
    "60,000 letters": ([*DEMO[:2], "{there}/long.yaml"], "input should be a valid integer"),
    "an alias bomb": ([*DEMO[:2], "{there}/bomb.yaml"], "its aliases stand for more than 100,000 values"),
    "an alias that holds itself": ([*DEMO[:2], "{there}/in-itself.yaml"], "an alias holds itself"),
    # Numbers
    "OOD ratio of 1": ([*DEMO, "--ood-ratios", "1.0"], "ood_ratio = 1.0: must be a number greater than or equal to 0"),
    "mismatch ratio of 0": ([*DEMO, "--mismatch-ratios", "0"], "mismatch_ratio = 0.0: input should be greater than 0"),
    "ratio below 0": ([*DEMO, "--mismatch-ratios", "-0.2"], "mismatch_ratio = -0.2: input should be greater than 0"),
    "ratio in percent": ([*DEMO, "--ood-ratios", "60%"], "expected comma-separated values, not '60%'"),
    "ratio that is no number": ([*DEMO, "--ood-ratios", "nan"], "ood_ratio = nan"),
    "ratio twice": ([*DEMO, "--ood-ratios", "0.2,0.2"], "ood_ratios = 0.2, 0.2: 0.2 is repeated"),
    "no ID class": ([*DEMO, "--mismatch-ratios", "0.05"], "gives no ID class"),
    "too few OOD images": ([*DEMO, "--mismatch-ratios", "0.4", "--ood-ratios", "0.9"], "3240"),
    "seeds backwards": ([*DEMO, "--seeds", "4-0"], "seeds 4-0 run backwards"),
    "seeds that are none": ([*DEMO, "--seeds", "a"], "expected seeds such as 0-4 or 0,2,5, not 'a'"),
    "seed below 0": ([*DEMO, "--seeds", "-1"], "expected seeds such as 0-4 or 0,2,5, not '-1'"),
    "seed below 0, one trial": ([*TRIAL, "--seed", "-1"], "seed = -1: input should be greater than or equal to 0"),
    "seed that is too large": ([*DEMO, "--seeds", "99999999999"], "seed = 99999999999: input should be less than"),
    "seeds repeated": ([*DEMO, "--seeds", "0,0-1"], "seeds = 0, 0, 1: 0 is repeated"),
    "seeds without end": ([*DEMO, "--seeds", "0-99999999999"], "seeds 0-99999999999 are more than 10,000"),
    "no round": ([*DEMO, "--rounds", "0"], "rounds = 0: input should be greater than or equal to 1"),
    "half a round": ([*DEMO, "--rounds", "1.5"], "argument --rounds: invalid int value: '1.5'"),
    "labels above the pool": (
        [*DEMO, "--rounds", "90"], "90 rounds x budget 20 = 1800 labels, but there are only",
    ),
    "budget below the classes": ([*DEMO, "--budget", "2"], "fewer than the"),
    "budget of 0": ([*DEMO, "--budget", "0"], "budget = 0: input should be greater than or equal to 1"),
    # --set
    "unknown setting": ([*DEMO, "--set", "recipe.stps=3"], "--set: recipe: unknown key 'stps' (did you mean 'steps'?)"),
    "setting without value": ([*DEMO, "--set", "recipe.steps"], "--set recipe.steps: expected key=value"),
    "setting without a name": ([*DEMO, "--set", "recipe..steps=3"], "--set recipe..steps=3: expected key=value"),
    "setting of a wrong type": ([*DEMO, "--set", "recipe.steps=many"], "recipe.steps = 'many'"),
    "setting that is infinite": ([*DEMO, "--set", "recipe.learning_rate=.inf"], "should be a finite number"),
    "setting that is an axis": ([*DEMO, "--set", "seed=3"], "seed = 3: it is an axis of the grid; set seeds instead"),
    "truth for a number": ([*DEMO, "--set", "budget=true"], "budget = True: input should be a valid integer"),
    "code for a value": ([*DEMO, "--set", "budget=!!python/name:os.system"], "no valid YAML"),
    "setting of another strategy": ([*DEMO, "--set", "options.mqnet.epochs=0"], "options.mqnet.epochs = 0"),
    # Presets by path
    **{
        f"preset: {name}": ([*DEMO[:2], f"{{there}}/{name}.yaml"], message)
        for name, message in {
            "nowhere": "there is no such file",
            "twice": "twice.yaml: key 'seeds' is given twice",
            "twice-inside": "twice-inside.yaml: key 'scorers' is given twice",
            "misspelt": "misspelt.yaml: unknown key 'dataset' (did you mean 'datasets'?); known: datasets, ",
            "misspelt-inside": "misspelt-inside.yaml: trial: unknown key 'runds' (did you mean 'rounds'?); known: ",
            "no-list": "seeds = {'a': 0}: input should be a valid tuple",
            "no-seeds": "seeds = []",
            "run-is-a-number": "run = 3: expected settings",
            "trial-is-a-list": "trial = [1]: expected settings",
            "an-axis-inside": "seed = 3: it is an axis of the grid; set seeds instead",
            "for-nobody": "unknown data set 'digts' (did you mean 'digits'?)",
            "infinite": "rounds = inf",
            "nul": "datasets = 'x\\x00y': has a NUL",
            "nul-in-a-key": "run.a key = 'sc\\x00rers': has a NUL",
            "half-a-character": "run.trials_on = '\\ud800': has a NUL, or half of a character",
            "code": "code.yaml: no valid YAML",
            "a-list": "a-list.yaml: expected 'key: value' pairs",
            "torn": "torn.yaml: no valid YAML",
            "list-for-a-key": "list-for-a-key.yaml: no valid YAML",
            "number-for-a-key": "number-for-a-key.yaml: expected 'key: value' pairs",
            "binary": "is not UTF-8 text",
        }.items()
    },
    # Data
    "folder without a path": ([*DEMO, "--datasets", "folder:"], "'folder:' names no folder"),
    "folder that is not there": ([*DEMO, "--datasets", "folder:nowhere"], "nowhere: no such folder"),
    "folder that is a file": ([*DEMO, "--datasets", "folder:{there}/file"], "no such folder"),
    "folder without images": ([*DEMO, "--datasets", "folder:{there}/empty"], "train"),
    "data that is not there": (
        [*DEMO, "--datasets", "cifar10", "--data-root", "{there}/empty"], "data fetch cifar10 --data-root",
    ),
    "data root for what has none": ([*DEMO, "--data-root", "{there}/empty"], "omit the data root"),
    "data root that is empty": ([*DEMO, "--data-root", ""], "--data-root: expected a path"),
    "checkpoint that is not there": ([*DEMO, "--clipn-checkpoint", "nowhere.pt"], "there is no file"),
    "checkpoint that is a folder": ([*DEMO, "--clipn-checkpoint", "{there}"], "there is no file"),
    "checkpoint that is none": (
        [*DEMO, "--clipn-checkpoint", "{there}/file"], "file is truncated or not a weights file",
    ),
    "encoder that is none": (
        [
            *DEMO, "--set", "recipe.name=paper-clip-linear", "--set", "recipe.encoder=timm:resnet18@{there}/file",
        ],
        "recipe.encoder: ",
    ),
    "NUL in a name": ([*DEMO, "--set", 'clipn.model="a\\0b"'], "clipn.model = 'a\\x00b': has a NUL"),
    "half a character": ([*DEMO, "--set", 'clipn.model="a\\ud800b"'], "clipn.model = 'a\\ud800b': has a NUL, or half"),
    "plain CLIP for CLIPN's detector": ([*DEMO, "--clip-pretrained", "openai"], "take --purity mcm"),
    # Output folders
    "output in a file": ([*DEMO, "-o", "{there}/file/deep/out"], "file is a file, not a folder"),
    "output that is a file": ([*DEMO, "-o", "{there}/file"], "file is a file, not a folder"),
    "output of one trial in a file": ([*TRIAL, "-o", "{there}/file/out"], "file is a file, not a folder"),
    "output among other files": ([*DEMO, "-o", "{there}/thesis"], "thesis holds other files and no vlpure.json"),
    "output of a newer version": ([*DEMO, "-o", "{there}/newer"], f"its format is {FORMAT + 1}, ours is {FORMAT}"),
    "output with a damaged marker": ([*DEMO, "-o", "{there}/damaged"], "vlpure.json is damaged; mend it with"),
    "output with a folder for a marker": ([*DEMO, "-o", "{there}/folder-marker"], "vlpure.json: Is a directory"),
    "output whose ledger is a file": ([*DEMO, "-o", "{there}/file-ledger"], "ledger is in the way: it is not a folder"),
    "output at nobody's": ([*DEMO, "-o", "~nobody-of-this-name/out"], "no home folder for '~nobody-of-this-name'"),
    "output that is empty": ([*DEMO, "-o", ""], "--output-dir: expected a path"),
    "name that is too long": ([*DEMO, "-o", "x" * 300], "File name too long"),
    "ledger file of a newer version": ([*DEMO, "-o", "{there}/newer-file"], "another version"),
    "status of nothing": ([*DEMO, "--status", "-o", "nowhere"], "nowhere does not exist"),
    "status of other files": ([*DEMO, "--status", "-o", "{there}/thesis"], "thesis is not an output folder"),
    "status of chosen seeds": ([*DEMO, "--status", "--seeds", "1"], "--seeds cannot be combined with --status"),
    "ledger of nothing": (["python -m orchestrator.ledger", "nowhere", "--repair"], "nowhere does not exist"),
    # Resources
    "no scorer": ([*DEMO, "--scorers", "0"], "run.scorers = 0"),
    "no trial at a time": ([*DEMO, "--max-concurrent", "0"], "run.max_concurrent = 0"),
    "no CPU": ([*DEMO, "--cpus-per-trial", "0"], "run.cpus_per_trial = 0"),
    "half a CPU": ([*DEMO, "--cpus-per-trial", "0.5"], "--cpus-per-trial: invalid int value: '0.5'"),
    "more CPUs than there are": ([*TRIAL, "--cpus-per-trial", "99999"], "but this machine has"),
    "GPUs below 0": ([*DEMO, "--gpus-per-trial", "-1"], "run.gpus_per_trial = -1.0"),
    "GPUs that are no number": ([*DEMO, "--gpus-per-trial", "nan"], "run.gpus_per_trial = nan"),
    "endless GPUs": ([*DEMO, "--gpus-per-scorer", "inf"], "run.gpus_per_scorer = inf"),
    "a GPU and a half": ([*DEMO, "--gpus-per-trial", "1.5"], "above 1 it must be a whole number"),
    "a speck of a GPU": ([*DEMO, "--gpus-per-trial", "1e-5"], "must be 0 (no GPU) or at least 0.01"),
    "restarts below 0": ([*DEMO, "--max-failures", "-1"], "run.max_failures = -1"),
    "nodes without a name": ([*DEMO, "--scorers-on", ""], "--scorers-on is ''; expected a node label"),
    "nodes with half a label": ([*DEMO, "--trials-on", "role="], "--trials-on is 'role='; expected a node label"),
    # Addresses
    "empty address": ([*DEMO, "--address", ""], "expected auto, local, or the address"),
    "address without a port": ([*DEMO, "--address", "10.0.0.5"], "such as 10.0.0.5:6379, not '10.0.0.5'"),
    "port that is none": ([*DEMO, "--address", "head:99999"], "such as 10.0.0.5:6379, not 'head:99999'"),
    "address of a client": ([*DEMO, "--address", "ray://head:10001"], "run this command on the head node"),
    "tracking store of no kind": ([*DEMO, "--tracking-uri", "ftp://u:secret@h/x"], "'ftp://u:***@h/x'; expected"),
    "tracking store that is a path": ([*DEMO, "--tracking-uri", "mlruns"], "'mlruns'; expected an MLflow server"),
    "empty tracking store": ([*DEMO, "--tracking-uri", ""], "--tracking-uri is ''"),
    "tracking server without a name": ([*DEMO, "--tracking-uri", "http://u:secret@/x"], "name of a server is missing"),
    "tracking server of no port": ([*DEMO, "--tracking-uri", "http://u:secret@h:99999"], "Port out of range"),
    "tracking server torn": ([*DEMO, "--tracking-uri", "http://[::1"], "not a valid URI"),
    "SQLite with two slashes": ([*DEMO, "--tracking-uri", "sqlite://mlflow.db"], "sqlite:/// and the path of a file"),
    "experiment without a name": ([*DEMO, "--experiment-name", " "], "expected a name"),
    # Flags against each other
    "loud and quiet": ([*DEMO, "-q", "-v"], "not allowed with"),
    "bill and status": ([*DEMO, "--dry-run", "--status"], "not allowed with"),
    "tracking and none": ([*DEMO, "--no-tracking", "--tracking-uri", "sqlite:///x"], "not allowed with"),
    "flag that is none": ([*DEMO, "--seed", "0"], "unrecognized arguments: --seed 0 (did you mean --seeds?)"),
    "word that is no flag": ([*DEMO, "digits"], "unrecognized arguments: digits"),
}  # fmt: skip


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Files and folders to go wrong with."""
    folder = tmp_path / "there"
    for name in (
        "empty",
        "thesis",
        "newer",
        "damaged",
        "folder-marker/vlpure.json",
        "file-ledger",
        "newer-file/ledger",
    ):
        (folder / name).mkdir(parents=True)
    marker = json.dumps({"format": FORMAT, "grid_id": "a"})
    files = {
        "file": "text", "thesis/thesis.tex": "text", "damaged/vlpure.json": "{",
        "newer/vlpure.json": json.dumps({"format": FORMAT + 1, "grid_id": "a"}),
        "file-ledger/vlpure.json": marker, "file-ledger/ledger": "text", "newer-file/vlpure.json": marker,
        **{f"{name}.yaml": text for name, text in PRESETS.items()},
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    return folder


def put_newer_ledger_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger file of a newer version, of whatever trial is looked up first."""
    newer = json.dumps({"format": FORMAT + 1, "records": []})
    monkeypatch.setattr(
        "orchestrator.ledger.ledger.Ledger._path", lambda ledger, fingerprint: ledger.folder / "one.json"
    )
    (folder / "newer-file" / "ledger" / "one.json").write_text(newer)


def snapshot(folder: Path) -> Snapshot:
    """Everything below a folder, with its content."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command in this process: quick, for input that is refused before anything is computed."""
    mains: dict[str, Callable[[], int]] = {}
    if words[0] == "table4.py":
        from experiments.table4 import main as mains_table4

        mains["table4.py"] = mains_table4
    elif words[0] == "trial.py":
        from experiments.trial import main as mains_trial

        mains["trial.py"] = mains_trial
    else:
        from orchestrator.ledger.__main__ import main as mains_ledger

        mains[words[0]] = mains_ledger
    monkeypatch.setattr(sys, "argv", words)
    try:
        return mains[words[0]]()
    except SystemExit as stop:  # argparse
        return int(str(stop.code))


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_line_and_nothing_is_created(
    case: str, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = CASES[case]
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    if case == "ledger file of a newer version":
        put_newer_ledger_file(there, monkeypatch)
    before = snapshot(tmp_path)
    assert call([word.replace("{there}", str(there)) for word in words], monkeypatch) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{words[0]}: error: ")
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 700
    assert message in printed.err
    assert "secret" not in printed.err
    assert printed.out == ""
    assert snapshot(tmp_path) == before


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 100


def test_the_preset_that_the_bad_ones_are_made_from_is_good(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["table4.py", "--preset", f"{there}/good.yaml", "--dry-run"], monkeypatch) == 0
    assert f"1 trials, 0 finished, 1 to run (2 rounds) -> {tmp_path}/runs/good" in capsys.readouterr().out


def test_a_folder_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    monkeypatch.chdir(tmp_path)
    for words in (DEMO, [*TRIAL, "-o", "out"]):
        assert call(words, monkeypatch) == 2
        assert f"{tmp_path} cannot be written; choose another --output-dir" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_nobody_can_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (DEMO, TRIAL):  # found out when it is made, after the plan is told
        assert call([*words, "-o", "/proc/nothing/here"], monkeypatch) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"{words[0]}: error: /proc/")
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_tracking_store_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://u:secret@host/")
    monkeypatch.chdir(tmp_path)
    assert call(DEMO, monkeypatch) == 2
    assert "MLFLOW_TRACKING_URI is 'ftp://u:***@host/'; expected" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--purity", "ctw"], ["--clipn-checkpoint", "x.pt"], ["--clip-model", "RN50"]])
def test_a_flag_that_nobody_reads_is_told(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call([*DEMO, "--strategies", "conf,random", *words, "--dry-run"], monkeypatch) == 0
    assert f"{words[0]} is not used: no strategy here has a purity step" in capsys.readouterr().err
    if words[0] == "--purity":
        assert call([*DEMO, "--strategies", "conf,vlpure-mcm", "--captioner", "x", "--dry-run"], monkeypatch) == 0
        assert capsys.readouterr().err == "--captioner is not used: no detector here is zoc\n"
        assert call([*DEMO, "--strategies", "conf,vlpure", *words, "--dry-run"], monkeypatch) == 0
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["experiments/trial.py", "--strategy", "conf", "--gpus-per-trial", "1", "-o", "{out}"],
            "torch sees no GPU here",
        ),
        (["experiments/table4.py", "--preset", "demo", "-o", "/dev/null/x"], "/dev/null is a file, not a folder"),
        (["-m", "orchestrator.ledger", "{out}"], "out does not exist, or is not a folder"),
    ],
    ids=["a GPU where there is none", "output in a device", "no ledger"],
)
def test_the_same_from_a_shell(words: list[str], message: str, tmp_path: Path) -> None:
    environment = os.environ | {"VLPURE_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *(word.format(out=tmp_path / "out") for word in words)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster answers there"),
        (
            ["--address", "local", "--cpus-per-trial", "9999"],
            "--cpus-per-trial is 9999, but no node of the cluster has",
        ),
        (["--address", "local", "--gpus-per-trial", "8"], "--gpus-per-trial is 8, but no node of the cluster has"),
        (["--address", "local", "--trials-on", "role=nowhere"], "no node of the cluster has role=nowhere"),
    ],
    ids=["nobody there", "CPUs that no node has", "GPUs that no node has", "a label that no node has"],
)
def test_what_only_the_cluster_can_tell(words: list[str], message: str, tmp_path: Path) -> None:
    environment = os.environ | {"VLPURE_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    command = [*DEMO[1:], "--strategies", "conf", "--seeds", "0", *words, "-o", str(tmp_path / "deep" / "out")]
    done = subprocess.run(
        [sys.executable, "experiments/table4.py", *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("table4.py: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
