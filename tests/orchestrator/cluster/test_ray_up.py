"""`ray up` for real: the commands of docs/cluster.md with a copy of cluster.yaml, against an SSH server here.

The copy is made from the file. It differs in the machines (Ray's provider `local` instead of AWS) and in the images,
which this test does not download. VLPURE_RAY_UP_HOME names a folder that stays the node's home from one run to the
next, so that packages are installed in the first run alone.
"""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.settings.grid import read_yaml
from tests.orchestrator.cluster.ssh_node import SshNode, reason_to_skip, ssh_node

ROOT = Path(__file__).parents[3]
ADDRESS = "127.0.0.22"
FETCH = "data fetch cifar10 cifar100 tiny-imagenet"
GRID = "--preset demo --strategies random,vlpure --rounds 2 --address auto"
PORTS = (5000, 6379, 8076, 8265)
"""Those that cluster.yaml names, and the dashboard's."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def local_copy(file: Path, key: Path) -> dict[str, Any]:
    """The configuration of `file`, for one machine at `ADDRESS` instead of AWS."""
    config = read_yaml(file.read_text(encoding="utf-8"), origin=file.name)
    for name in ("available_node_types", "head_node_type", "max_workers"):
        del config[name]
    config["provider"] = {"type": "local", "head_ip": ADDRESS, "worker_ips": []}
    config["auth"]["ssh_private_key"] = str(key)
    for name in ("head_setup_commands", "worker_setup_commands"):
        assert sum(FETCH in command for command in config[name]) == 1
        config[name] = [command.replace(FETCH, "data digits") for command in config[name]]
    return config


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whoever types the commands: at the project's folder, with a home of their own."""

    home: Path
    file: Path

    def ray(self, command: str, *arguments: str) -> str:
        """What a command of Ray printed. Fails with that if the command does."""
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        environment |= {"HOME": str(self.home), "RAY_TMPDIR": str(temporary), "TMPDIR": str(temporary)}
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", command, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(f"$ ray {command} {' '.join(arguments)}: {time.monotonic() - started:.0f} s", flush=True)
        with (self.home / "ray.log").open("a") as log:
            log.write(f"$ ray {command} {' '.join(arguments)}\n{done.stdout}\n")
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SshNode]:
    """An empty machine, or one whose packages are there."""
    reason = reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    for port in PORTS:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))  # the node shares this machine's network: fails if something listens there
    kept = os.environ.get("VLPURE_RAY_UP_HOME")
    with ssh_node(tmp_path / "node", address=ADDRESS, home=Path(kept) if kept else tmp_path / "node" / "home") as node:
        node.run("rm -rf ~/table4 ~/table4.py ~/mlflow ~/.cache/vlpure ~/.bashrc; cp -r /etc/skel/. ~")
        yield node


@pytest.fixture
def user(tmp_path: Path, node: SshNode) -> User:
    """A user with a token and a copy of cluster.yaml."""
    home = tmp_path / "user"
    token = home / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("f00d" * 16)
    token.chmod(0o600)
    file = home / "cluster.yaml"
    file.write_text(yaml.safe_dump(local_copy(ROOT / "cluster.yaml", node.key)))
    return User(home=home, file=file)


def test_up_submit_up_down(user: User, node: SshNode) -> None:
    file, table = str(user.file), "experiments/table4.py"
    said = user.ray("up", "-y", file)
    assert "ERROR" not in said
    raylet = node.run("pgrep -x raylet")

    said = user.ray("submit", file, table, "--", *GRID.split(), "--seeds", "0", "-o", "table4")
    assert "Table 4: 2 trials, 0 finished, 2 to run" in said
    assert "warning: " not in said

    # Nothing changed: nothing is copied, installed or restarted.
    node.run("touch ~/now")
    said = user.ray("up", "-y", "--no-restart", file)
    assert "Configuration already up to date" in said
    assert node.run("pgrep -x raylet") == raylet
    assert node.run("find ~/vlpure ~/.bashrc -newer ~/now -not -path '*/__pycache__*'") == ""

    # As KubeRay starts it (docs/kuberay.yaml): as a job of Ray's, which continues what there is.
    job = f"ray job submit --address http://127.0.0.1:8265 -- python ~/vlpure/{table} {GRID} --seeds 0-1 -o ~/table4"
    said = user.ray("exec", file, job)
    assert "Table 4: 4 trials, 2 finished, 2 to run" in said
    assert "succeeded" in said

    said = user.ray("exec", file, f"cd ~/vlpure && .venv/bin/python {table} --preset demo -o ~/table4 --status")
    assert "4 trial(s): 4 finished, 0 started, 0 waiting, 0 failed; 8 of 8 rounds" in said
    user.ray("rsync-down", file, "~/table4/", str(user.home / "table4"))
    with (user.home / "table4" / "table4" / "trials.csv").open() as lines:
        assert sorted((row["strategy"], row["seed"]) for row in csv.DictReader(lines)) == [
            ("random", "0"),
            ("random", "1"),
            ("vlpure", "0"),
            ("vlpure", "1"),
        ]
    user.ray("down", "-y", file)
    assert node.run("pgrep -x raylet || pgrep -x gcs_server || echo none") == "none\n"
