"""cluster.yaml: the file of this project is sound, a broken copy is told in one line, and its commands install it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.__main__ import MARKER, check_cluster, main
from orchestrator.cluster.placement import check_resources, choose_placement, nodes_to_come
from orchestrator.settings.grid import RunSettings, read_yaml

ROOT = Path(__file__).parents[3]
FILE = ROOT / "cluster.yaml"

Config = dict[str, Any]
Change = Callable[[Config], object]


def read() -> Config:
    return read_yaml(FILE.read_text(encoding="utf-8"), origin=FILE.name)


def node(config: Config, name: str) -> Config:
    found: Config = config["available_node_types"][name]["node_config"]
    return found


def replace(config: Config, key: str, number: int, old: str, new: str) -> None:
    commands = config[key]
    assert old in commands[number]
    commands[number] = commands[number].replace(old, new)


def test_the_projects_file_is_a_sound_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(FILE), "--template"]) == 0
    assert capsys.readouterr() == ("cluster.yaml: a template with 5 value(s) to fill in\n", "")


def test_the_template_itself_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(FILE)]) == 2
    lines = capsys.readouterr().err.splitlines()
    places = [line.split(": is still ")[0] for line in lines if MARKER in line]
    assert places == [
        "cluster.yaml: error: provider.region",
        "cluster.yaml: error: available_node_types.head.node_config.IamInstanceProfile.Arn",
        "cluster.yaml: error: available_node_types.head.node_config.ImageId",
        "cluster.yaml: error: available_node_types.head.node_config.SecurityGroupIds[0]",
        "cluster.yaml: error: available_node_types.trainer.node_config.IamInstanceProfile.Arn",
    ]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a filled-in cluster.yaml and all it mounts, and a home with a token."""
    folder, home = tmp_path / "project", tmp_path / "home"
    folder.mkdir()
    for local in read()["file_mounts"].values():
        if not local.startswith("~"):
            (folder / local).symlink_to(ROOT / local)
    (folder / "cluster.yaml").write_text(FILE.read_text().replace(f"{MARKER}-", "my-"))
    token = home / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("f00d")
    token.chmod(0o600)
    monkeypatch.setenv("HOME", str(home))
    return folder


def test_a_filled_in_file_is_ready(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "cluster.yaml"
    assert main([str(path)]) == 0
    assert capsys.readouterr() == (f"cluster.yaml: ready for: ray up {path}\n", "")


@pytest.mark.parametrize(
    ("mode", "text", "said"),
    [
        (0o644, "f00d", "others on this machine can read it; close it: chmod 600 ~/.ray/auth_token"),
        (0o600, "\n", "there is no token on this machine; make one: ray get-auth-token --generate"),
        (None, "", "there is no token on this machine; make one: ray get-auth-token --generate"),
    ],
)
def test_the_token_of_this_machine(
    project: Path, capsys: pytest.CaptureFixture[str], mode: int | None, text: str, said: str
) -> None:
    token = Path.home() / ".ray" / "auth_token"
    token.unlink()
    if mode is not None:
        token.write_text(text)
        token.chmod(mode)
    assert main([str(project / "cluster.yaml")]) == 2
    assert capsys.readouterr().err == f"cluster.yaml: error: file_mounts.~/.ray/auth_token: {said}\n"


BROKEN: list[tuple[str, Change, str]] = [
    ("top-level key", lambda c: c.update(max_worker=3), "Additional properties are not allowed ('max_worker' was une"),
    ("another cloud", lambda c: c["provider"].update(type="gcp"), "provider.type: this project's checks know AWS only"),
    ("no provider", lambda c: c.pop("provider"), "provider.type: "),
    ("unknown head", lambda c: c.update(head_node_type="boss"), "`head_node_type` must be one of"),
    (
        "fraction",
        lambda c: c["available_node_types"]["scorer"]["resources"].update(clip_scorer=0.5),
        "available_node_types.scorer.resources.clip_scorer: 0.5 is not of type 'integer'",
    ),
    (
        "no resources",
        lambda c: c["available_node_types"]["trainer"].pop("resources"),
        "available_node_types.trainer: 'resources' is a required property",
    ),
    (
        "too many at least",
        lambda c: c["available_node_types"]["trainer"].update(min_workers=20),
        "The specified global `max_workers` is smaller",
    ),
    ("a command as text", lambda c: c.update(setup_commands="make"), "setup_commands: must be a list"),
    ("misspelt for AWS", lambda c: node(c, "head").update(InstanceTyp="x"), "did you mean InstanceType?"),
    ("no group", lambda c: node(c, "trainer").pop("SecurityGroupIds"), "trainer.node_config.SecurityGroupIds: must"),
    ("group as text", lambda c: node(c, "head").update(SecurityGroupIds="sg-1"), "must be given, as a list"),
    (
        "no profile",
        lambda c: node(c, "scorer").pop("IamInstanceProfile"),
        "scorer.node_config.IamInstanceProfile: ",
    ),
    ("no image", lambda c: node(c, "head").update(ImageId=""), "head.node_config.ImageId: must be given, as a text"),
    (
        "spot scorer",
        lambda c: node(c, "scorer").update(InstanceMarketOptions={}),
        "a scorer on spot leaves",
    ),
    (
        "spot head",
        lambda c: node(c, "head").update(InstanceMarketOptions={}),
        "head.node_config: a head on spot takes the records with it",
    ),
    (
        "old metadata service",
        lambda c: node(c, "trainer").update(MetadataOptions={"HttpTokens": "optional"}),
        "trainer.node_config.MetadataOptions: HttpTokens must be required (IMDSv2)",
    ),
    (
        "metadata service as it comes",
        lambda c: node(c, "head").pop("MetadataOptions"),
        "head.node_config.MetadataOptions: HttpTokens must be required (IMDSv2)",
    ),
    (
        "disk in the clear",
        lambda c: node(c, "scorer").update(BlockDeviceMappings=[{"Ebs": {"Encrypted": False}}]),
        "scorer.node_config.BlockDeviceMappings[0]: Ebs must have Encrypted: true",
    ),
    (
        "disk as it comes",
        lambda c: node(c, "head").pop("BlockDeviceMappings"),
        "head.node_config.BlockDeviceMappings[0]: Ebs must have Encrypted: true",
    ),
    (
        "head packages as they come",
        lambda c: replace(c, "head_setup_commands", 0, "--require-hashes", ""),
        "head_setup_commands[0]: installs packages without hashes",
    ),
    (
        "own group of Ray",
        lambda c: c["provider"].update(security_group={"GroupName": "g"}),
        "provider.security_group: Ray's group opens port 22 to the whole world",
    ),
    (
        "stopped nodes",
        lambda c: c["provider"].pop("cache_stopped_nodes"),
        "provider.cache_stopped_nodes: must",
    ),
    (
        "trials on the head",
        lambda c: c["available_node_types"]["head"].update(resources={}),
        "head.resources: CPU must be 0, or trials run on the head",
    ),
    (
        "no scorer",
        lambda c: c["available_node_types"]["scorer"].pop("labels"),
        "available_node_types: none has labels {role: scorer}",
    ),
    (
        "scorer without its resource",
        lambda c: c["available_node_types"]["scorer"].update(resources={"CPU": 1}),
        "scorer.resources: clip_scorer must be 1 or more",
    ),
    (
        "trainer without its resource",
        lambda c: c["available_node_types"]["trainer"].update(resources={}),
        "trainer.resources: trainer must be 1 or more",
    ),
    (
        "open dashboard",
        lambda c: replace(c, "head_start_ray_commands", 2, "=127.0.0.1", "=10.0.0.1"),
        "head_start_ray_commands: the dashboard runs code for whoever reaches it",
    ),
    (
        "default dashboard",
        lambda c: replace(c, "head_start_ray_commands", 2, " --dashboard-host=127.0.0.1", ""),
        "head_start_ray_commands: the dashboard runs code for whoever reaches it",
    ),
    (
        "no token at the head",
        lambda c: replace(c, "head_start_ray_commands", 2, "RAY_AUTH_MODE=token ", ""),
        "head_start_ray_commands: `ray start` without RAY_AUTH_MODE=token",
    ),
    (
        "no token at the workers",
        lambda c: replace(c, "worker_start_ray_commands", 1, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
        "worker_start_ray_commands: `ray start` without RAY_AUTH_MODE=token",
    ),
    ("Ray's own start", lambda c: c.pop("worker_start_ray_commands"), "worker_start_ray_commands: is missing"),
    ("nothing started", lambda c: c.update(worker_start_ray_commands=["true"]), "has no `ray start`"),
    (
        "open to all",
        lambda c: c["initialization_commands"].append("nc -l 0.0.0.0"),
        "initialization_commands[0]: 0.0.0.0 opens a port to every network",
    ),
    (
        "open MLflow",
        lambda c: replace(c, "head_start_ray_commands", 0, "--host 127.0.0.1", "--host 10.0.0.1"),
        "head_start_ray_commands[0]: MLflow's server asks for no password",
    ),
    (
        "a mount that is not there",
        lambda c: c["file_mounts"].update(x="nowhere"),
        "nowhere is not there",
    ),
    ("everything", lambda c: c["file_mounts"].update(x="."), "file_mounts.x: . holds .git or .venv"),
    ("a package left out", lambda c: c["file_mounts"].pop("~/vlpure/models"), "~/vlpure/models is missing"),
    (
        "no token mount",
        lambda c: c["file_mounts"].pop("~/.ray/auth_token"),
        "~/.ray/auth_token is missing",
    ),
    (
        "another Ray",
        lambda c: c["initialization_commands"].append("pip install 'ray[default]==1.60.0'"),
        "initialization_commands[0]: installs Ray 1.60.0, but constraints.txt has 2.60.0",
    ),
    (
        "another image",
        lambda c: c.update(
            docker={"image": "rayproject/ray:latest", "container_name": "r", "run_options": ["-e RAY_AUTH_MODE=token"]}
        ),
        "docker.image: rayproject/ray:latest is not tagged with Ray 2.60.0",
    ),
    (
        "packages as they come",
        lambda c: replace(c, "setup_commands", 3, "--require-hashes", ""),
        "setup_commands: none installs constraints.txt with --require-hashes",
    ),
]


@pytest.mark.parametrize(("change", "said"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_copy_is_told_in_one_line(change: Change, said: str) -> None:
    config = read()
    config.setdefault("initialization_commands", [])
    assert check_cluster(config, folder=ROOT, template=True) == []
    change(config)
    (problem,) = check_cluster(config, folder=ROOT, template=True)
    assert said in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("text", "said"), [("a: 1\na: 2\n", "key 'a' is given twice"), ("- a\n", "expected 'key: value'"), ("a: [", "YAML")]
)
def test_what_is_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert main([str(tmp_path / "c.yaml")]) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "c.yaml")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_runner_finds_the_nodes_of_each_role(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.cluster.placement.AUTOSCALER_CONFIG", FILE)
    nodes = nodes_to_come()
    assert nodes is not None
    run = RunSettings(cpus_per_trial=2, gpus_per_trial=0.25, scorers=1, gpus_per_scorer=1)
    placement = choose_placement(run, nodes)
    check_resources(run, placement, nodes, scorers=1)
    (scorer,) = (n for n in nodes if placement.scorers.admits(n))
    (trainer,) = (n for n in nodes if placement.trials.admits(n))
    assert (scorer.labels, trainer.labels) == ({"role": "scorer"}, {"role": "trainer"})
    assert scorer.resources["CPU"] < run.cpus_per_trial  # no trial of the paper's preset fits beside the scorer


def test_the_start_commands_listen_to_nobody_else() -> None:
    config = read()
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert sum("ray start" in command for command in config[key]) == 1
    assert "0.0.0.0" not in FILE.read_text()


def run(command: str, home: Path) -> None:
    """A command as `ray up` gives it to a node, in a home of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=home,
        env=environment | {"HOME": str(home), "TMUX_TMPDIR": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=3600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # bash alone would leave pip at work
        raise
    assert process.returncode == 0, f"{command}\n{said}"


def copy_mounts(config: Config, home: Path) -> None:
    """What `ray up` copies to a node."""
    for target, local in config["file_mounts"].items():
        to = home / target.removeprefix("~/")
        to.parent.mkdir(parents=True, exist_ok=True)
        if local.startswith("~"):
            to.write_text("f00d")
        elif (ROOT / local).is_dir():
            shutil.copytree(ROOT / local, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / local, to)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_setup_commands_install_the_project_in_an_empty_home(tmp_path: Path) -> None:
    """Downloads, or takes from pip's cache, all packages: 7 GB."""
    config = read()
    copy_mounts(config, tmp_path)
    for command in config["setup_commands"]:
        run(command, tmp_path)
    started = time.monotonic()
    for command in config["setup_commands"]:  # as a second `ray up` does
        run(command, tmp_path)
    print(f"setup commands again: {time.monotonic() - started:.0f} s")
    assert (tmp_path / ".bashrc").read_text().count("export PATH") == 1
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o077 == 0
    trial = "python -m experiments.trial --dataset digits --mismatch-ratio 0.2 --ood-ratio 0.6 --strategy random"
    short = "--rounds 2 --budget 20 --set recipe.name=demo --set recipe.steps=2"
    run(f"set -e; . ~/.bashrc; {trial} --seed 0 {short}; ray --version", tmp_path)
    _check_mlflow_starts(config["head_start_ray_commands"][0], tmp_path)


def _check_mlflow_starts(command: str, home: Path) -> None:
    if shutil.which("tmux") is None:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "--port 5000" in command
    try:
        for _ in range(2):  # the second time it is there already
            run(command.replace("--port 5000", f"--port {port}"), home)
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (home / "mlflow" / "server.log").read_text()
                time.sleep(1)
        assert (home / "mlflow" / "mlflow.db").exists()
    finally:
        run("tmux kill-server", home)
        # The server's own children outlive its terminal. In brackets, so that the pattern is not found in itself.
        subprocess.run(["pkill", "-f", f"[/]{str(home)[1:]}/vlpure/.venv/bin/"], check=False)
