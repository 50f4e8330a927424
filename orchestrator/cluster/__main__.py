"""Check a cluster.yaml before any machine is rented: `python -m orchestrator.cluster cluster.yaml`.

Ray's own schema lets much through that costs money or opens a door: keys that AWS does not know, files that are not
there, start commands without authentication. What is checked here is what this project needs of a cluster.
"""

from __future__ import annotations

import argparse
import copy
import io
import logging
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from data.console import BAD_INPUT, DONE, CommandParser, nearest, run_command
from data.files import path_argument, user_path
from orchestrator.cluster.placement import SCORER_RESOURCE, TRIAL_RESOURCE
from orchestrator.cluster.session import TOKEN
from orchestrator.settings.grid import Nested, read_yaml

MARKER = "CHANGE-ME"
"""Placeholder that a user must replace by a value."""
PROJECT = "~/vlpure"
"""The project's folder on every node."""
RESOURCE_OF_ROLE = {"trainer": TRIAL_RESOURCE, "scorer": SCORER_RESOURCE}
"""Resource of the nodes of each role, by which the runner finds them."""
LOCAL_HOSTS = ("127.0.0.1", "localhost")

EC2_KEYS = frozenset({
    "BlockDeviceMappings", "CapacityReservationSpecification", "CpuOptions", "CreditSpecification", "DisableApiStop",
    "DisableApiTermination", "EbsOptimized", "EnclaveOptions", "HibernationOptions", "IamInstanceProfile", "ImageId",
    "InstanceInitiatedShutdownBehavior", "InstanceMarketOptions", "InstanceType", "Ipv6AddressCount", "Ipv6Addresses",
    "KernelId", "KeyName", "LaunchTemplate", "LicenseSpecifications", "MaintenanceOptions", "MetadataOptions",
    "Monitoring", "NetworkInterfaces", "Placement", "PrivateDnsNameOptions", "PrivateIpAddress", "RamdiskId",
    "SecurityGroupIds", "SecurityGroups", "SubnetId", "SubnetIds", "TagSpecifications", "UserData",
})  # fmt: skip
"""What a node_config may hold: the parameters of EC2's RunInstances, and Ray's SubnetIds."""
NEEDED_EC2_KEYS = (
    ("InstanceType", str, "a text"),
    ("ImageId", str, "a text"),
    ("SecurityGroupIds", list, "a list"),
    ("IamInstanceProfile", dict, "a mapping such as {Arn: ...}"),
)


def check_cluster(config: Nested, *, folder: Path, template: bool) -> list[str]:
    """Problems of a cluster configuration that lies in `folder`, one line each; empty if there are none.

    A template may have markers where a user's values go, and needs no authentication token on this machine.
    """
    shape = _schema_problem(config)
    if shape is not None:
        return [shape]  # what follows relies on the shape
    problems = [*_nodes(config), *_commands(config), *_mounts(config, folder), *_versions(config, folder)]
    if not template:
        problems += [*_markers(config), *_local_token()]
    return problems


def _schema_problem(config: Nested) -> str | None:
    """Problem of the shape, mostly in the words of Ray's own check; None if there is none."""
    if not isinstance(config.get("provider"), dict) or config["provider"].get("type") != "aws":
        return "provider.type: this project's checks know AWS only (provider: {type: aws, ...})"
    for key in (name for name in config if name.endswith("_commands")):
        if not isinstance(config[key], list):  # Ray would fail on these before its schema is asked
            return f"{key}: must be a list of commands"
    try:
        # No public function of Ray checks a file without a cloud.
        logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError as error:
        return f"this version of Ray has no check of cluster files where it was looked for ({error})"
    try:
        with redirect_stdout(io.StringIO()):  # it prints hints for Docker, which do not apply here
            validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:  # jsonschema's, Ray's own, and whatever a file of a wrong shape makes of them
        where = "".join(f"{part}." for part in getattr(error, "absolute_path", ())).rstrip(".")
        said = str(getattr(error, "message", error)).strip().split("\n")[0]
        return f"{where}: {said}" if where else said
    return None


def _nodes(config: Nested) -> Iterator[str]:
    """Node types: what AWS is asked for, and which roles there are."""
    types: dict[str, Nested] = config.get("available_node_types", {})
    if not types:
        yield "available_node_types: a head, a trainer and a scorer are needed"
        return
    if config["provider"].get("cache_stopped_nodes", True):
        yield "provider.cache_stopped_nodes: must be false; stopped machines keep their disks and an old installation"
    if "security_group" in config["provider"]:
        yield (
            "provider.security_group: Ray's group opens port 22 to the whole world and this only adds to it; make a "
            "group and name it in SecurityGroupIds"
        )
    if types[config["head_node_type"]]["resources"].get("CPU") != 0:
        yield f"{config['head_node_type']}.resources: CPU must be 0, or trials run on the head"
    roles = {name: node.get("labels", {}).get("role") for name, node in types.items()}
    for role in RESOURCE_OF_ROLE:
        if role not in roles.values():
            yield f"available_node_types: none has labels {{role: {role}}}"
    for name, node in types.items():
        yield from _node_config(name, node["node_config"])
        resource = RESOURCE_OF_ROLE.get(roles[name] or "")
        if resource is not None and node["resources"].get(resource, 0) < 1:
            yield f"{name}.resources: {resource} must be 1 or more, or nothing is placed there"
        if "InstanceMarketOptions" in node["node_config"]:
            if name == config["head_node_type"]:
                yield f"{name}.node_config: a head on spot takes the records with it; take InstanceMarketOptions out"
            if roles[name] == "scorer":
                yield f"{name}.node_config: a scorer on spot leaves every trial waiting; take InstanceMarketOptions out"


def _node_config(name: str, node: Nested) -> Iterator[str]:
    for key in node:
        if key not in EC2_KEYS:
            near = nearest(key, EC2_KEYS)
            yield f"{name}.node_config.{key}: EC2 knows no such key" + (f"; did you mean {near}?" if near else "")
    for key, kind, what in NEEDED_EC2_KEYS:
        if not isinstance(node.get(key), kind) or not node[key]:
            yield f"{name}.node_config.{key}: must be given, as {what}; Ray's default is not safe, or there is none"
    if _at(node, "MetadataOptions", "HttpTokens") != "required":
        yield (
            f"{name}.node_config.MetadataOptions: HttpTokens must be required (IMDSv2); without it a process that can "
            "be made to fetch an address hands out the machine's credentials"
        )
    for number, disk in enumerate(node.get("BlockDeviceMappings") or [{}]):
        if _at(disk, "Ebs", "Encrypted") is not True:
            yield f"{name}.node_config.BlockDeviceMappings[{number}]: Ebs must have Encrypted: true"


def _at(value: Any, *keys: str) -> Any:
    """What stands under these keys; None if something else does."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _commands(config: Nested) -> Iterator[str]:
    """Start commands: nothing listens to the world, and every process asks for the token."""
    for where, text in _texts(config):
        if "0.0.0.0" in text:
            yield f"{where}: 0.0.0.0 opens a port to every network; use 127.0.0.1 and an SSH tunnel"
    for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        if not config.get(key):
            yield f"{key}: is missing, and Ray's default is not safe or installs another version"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [command for command in config.get(key, []) if re.search(r"\bray start\b", command)]
        if config.get(key) and not starts:
            yield f"{key}: has no `ray start`"
        for command in starts:
            if not re.search(r"\bRAY_AUTH_MODE=token\b", command.partition("ray start")[0]):
                yield f"{key}: `ray start` without RAY_AUTH_MODE=token before it lets anyone in who reaches the port"
            if "--head" in command and _option(command, "--dashboard-host") not in LOCAL_HOSTS:
                yield f"{key}: the dashboard runs code for whoever reaches it; give --dashboard-host=127.0.0.1"
    for where, text in _texts(config):
        if re.search(r"\bmlflow (server|ui)\b", text) and _option(text, "--host") not in (None, *LOCAL_HOSTS):
            yield f"{where}: MLflow's server asks for no password; give --host 127.0.0.1"


def _option(command: str, name: str) -> str | None:
    """Value of an option in a command line; None if it is not given."""
    found = re.search(rf"{re.escape(name)}[= ]\s*(\S+)", command)
    return found[1].strip("'\"") if found else None


def _mounts(config: Nested, folder: Path) -> Iterator[str]:
    """Files: the project, by name, and the token."""
    mounts: dict[str, str] = config.get("file_mounts", {})
    for target, local in mounts.items():
        path = folder / user_path(local)
        if target == TOKEN:
            continue
        if MARKER not in local and not path.exists():
            yield f"file_mounts.{target}: {local} is not there"
        elif (path / ".git").exists() or (path / ".venv").exists():
            yield f"file_mounts.{target}: {local} holds .git or .venv, and Ray reads all below it; name its folders"
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    needed = [*sorted(packages), "pyproject.toml", "constraints.txt", project["project"]["readme"]]
    for name in needed:
        if f"{PROJECT}/{name}" not in mounts:
            yield f"file_mounts: {PROJECT}/{name} is missing; the project cannot be installed without it"
    if TOKEN not in mounts:
        yield f"file_mounts: {TOKEN} is missing; without it the workers cannot join"


def _local_token() -> Iterator[str]:
    token = user_path(TOKEN)
    if not token.is_file() or not token.read_text().strip():
        yield f"file_mounts.{TOKEN}: there is no token on this machine; make one: ray get-auth-token --generate"
    elif token.stat().st_mode & 0o077:
        yield f"file_mounts.{TOKEN}: others on this machine can read it; close it: chmod 600 {TOKEN}"


def _versions(config: Nested, folder: Path) -> Iterator[str]:
    """One version of Ray everywhere, that of constraints.txt."""
    pinned = re.search(r"^ray(?:\[[^\]]*\])?==([^\s;\\]+)", (folder / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None, "constraints.txt fixes Ray"
    ours = pinned[1]
    if not any("--require-hashes" in c and "constraints.txt" in c for c in config.get("setup_commands", [])):
        yield "setup_commands: none installs constraints.txt with --require-hashes"
    for key in (name for name in config if name.endswith("setup_commands")):
        for where, text in _texts(config[key], key):
            # constraints.txt has its rule above; the project itself is a folder, which has no hash
            ours_alone = "constraints.txt" in text or re.search(r"\s(-e|--editable)\s", text)
            if re.search(r"\bpip\b.*\binstall\b", text) and "--require-hashes" not in text and not ours_alone:
                yield (
                    f"{where}: installs packages without hashes; name them in pyproject.toml's extra `cluster`, run "
                    "`make constraints`, and install constraints-cluster.txt with --require-hashes"
                )
    for where, text in _texts(config):
        for found in re.findall(r"\bray(?:\[[^\]]*\])?==([0-9][\w.]*)", text):
            if found != ours:
                yield f"{where}: installs Ray {found}, but constraints.txt has {ours}"
    docker = config.get("docker", {})
    for key in ("image", "head_image", "worker_image"):
        if docker.get(key) and not docker[key].partition(":")[2].startswith(f"{ours}-"):
            yield f"docker.{key}: {docker[key]} is not tagged with Ray {ours}, which constraints.txt has"
    if docker.get("image") and not any("RAY_AUTH_MODE=token" in option for option in docker.get("run_options", [])):
        yield "docker.run_options: -e RAY_AUTH_MODE=token is missing"


def _markers(config: Nested) -> Iterator[str]:
    """Each marker that is left, once: by YAML's aliases one value stands in several places."""
    places = {text: where for where, text in reversed(list(_texts(config))) if MARKER in text}
    for text, where in reversed(places.items()):
        yield f"{where}: is still {text}; put your own value there"


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """(place, text) of every text in a configuration."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{where}[{number}]")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 for a file that can be used, 2 otherwise."""
    parser = CommandParser(
        prog="python -m orchestrator.cluster",
        description="Check a cluster.yaml without a cloud: Ray's schema, and what this project needs.",
    )
    parser.add_argument("file", type=path_argument, metavar="FILE", help="the cluster.yaml, in the project's folder")
    parser.add_argument(
        "--template", action="store_true", help=f"values that are still {MARKER} are no error, nor is a missing token"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return run_command(parser, _check, argv)


def _check(args: argparse.Namespace) -> int:
    """Check the file that the command line names, and print what is wrong with it; return the exit code."""
    config = read_yaml(args.file.read_text(encoding="utf-8"), origin=args.file.name)
    problems = check_cluster(config, folder=args.file.absolute().parent, template=args.template)
    for problem in problems:
        print(f"{args.file.name}: error: {problem}", file=sys.stderr)
    if problems:
        return BAD_INPUT
    left = sum(1 for _ in _markers(config))
    print(
        f"{args.file.name}: a template with {left} value(s) to fill in"
        if left
        else f"{args.file.name}: ready for: ray up {shlex.quote(str(args.file))}"
    )
    return DONE


if __name__ == "__main__":
    sys.exit(main())
