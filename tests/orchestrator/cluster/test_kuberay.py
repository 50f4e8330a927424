"""docs/kuberay.yaml: KubeRay's fields alone, this project's resources, Ray's version and commands that exist.

SCHEMA is written by hand: of each field that the file may use, the type in KubeRay's definition of a RayJob. With that
definition at hand (ray-operator/config/crd/bases/ray.io_rayjobs.yaml of KubeRay's repository; 1.4 MB, not kept here)
VLPURE_KUBERAY_CRD=FILE checks both the file and SCHEMA against it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from experiments.commands.grid_command import make_parser
from experiments.table4 import TABLE4
from orchestrator.cluster.placement import SCORER_RESOURCE, TRIAL_RESOURCE

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docs" / "kuberay.yaml"

Schema = dict[str, Any]
TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITIES = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^\d+(\.\d+)?([KMGT]i?|m)?$"}}


def mapping(*required: str, **fields: Schema) -> Schema:
    """A mapping with these fields and no others."""
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def listing(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


CONTAINER = mapping(
    "name",
    name=TEXT,
    image=TEXT,
    env=listing(mapping("name", name=TEXT, value=TEXT)),
    resources=mapping(requests=QUANTITIES, limits=QUANTITIES),
    volumeMounts=listing(mapping("name", "mountPath", name=TEXT, mountPath=TEXT, readOnly=FLAG)),
)
VOLUME = mapping(
    "name",
    name=TEXT,
    persistentVolumeClaim=mapping("claimName", claimName=TEXT, readOnly=FLAG),
    emptyDir=mapping(medium=TEXT, sizeLimit=QUANTITIES["additionalProperties"]),
)
POD = mapping(
    spec=mapping(
        "containers",
        automountServiceAccountToken=FLAG,
        securityContext=mapping(runAsNonRoot=FLAG, runAsUser=NUMBER, fsGroup=NUMBER),
        terminationGracePeriodSeconds=NUMBER,
        nodeSelector=TEXTS,
        containers=listing(CONTAINER),
        volumes=listing(VOLUME),
    )
)
WORKERS = mapping(
    "groupName", "maxReplicas", "minReplicas", "template",
    groupName=TEXT, replicas=NUMBER, minReplicas=NUMBER, maxReplicas=NUMBER, rayStartParams=TEXTS, template=POD,
)  # fmt: skip
SPEC = mapping(
    entrypoint=TEXT,
    backoffLimit=NUMBER,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=NUMBER,
    rayClusterSpec=mapping(
        "headGroupSpec",
        rayVersion=TEXT,
        authOptions=mapping(mode={"type": "string", "enum": ["disabled", "token"]}),
        headGroupSpec=mapping("template", rayStartParams=TEXTS, template=POD),
        workerGroupSpecs=listing(WORKERS),
    ),
)
SCHEMA = mapping(
    "apiVersion", "kind", "metadata", "spec",
    apiVersion={"const": "ray.io/v1"}, kind={"const": "RayJob"}, metadata=mapping("name", name=TEXT), spec=SPEC,
)  # fmt: skip


def read() -> Schema:
    job: Schema = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return job


def cluster(job: Schema) -> Schema:
    found: Schema = job["spec"]["rayClusterSpec"]
    return found


def worker(job: Schema, number: int) -> Schema:
    found: Schema = cluster(job)["workerGroupSpecs"][number]
    return found


def errors(job: Schema, schema: Schema) -> list[str]:
    """Where the job departs from a schema."""
    return [error.json_path for error in jsonschema.Draft202012Validator(schema).iter_errors(job)]


def test_the_file_has_kuberays_fields_alone() -> None:
    assert errors(read(), SCHEMA) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda job: job["spec"].update(entryPoint="python x"), "$.spec"),
        (lambda job: job["spec"].update(backoffLimit="3"), "$.spec.backoffLimit"),
        (lambda job: cluster(job)["authOptions"].update(mode="k8s"), "$.spec.rayClusterSpec.authOptions.mode"),
        (lambda job: cluster(job)["headGroupSpec"].pop("template"), "$.spec.rayClusterSpec.headGroupSpec"),
        (
            lambda job: worker(job, 0)["rayStartParams"].update({"num-cpus": 1}),
            "$.spec.rayClusterSpec.workerGroupSpecs[0].rayStartParams['num-cpus']",
        ),
        (lambda job: worker(job, 1).pop("minReplicas"), "$.spec.rayClusterSpec.workerGroupSpecs[1]"),
    ],
)
def test_a_wrong_field_is_found(change: Callable[[Schema], object], place: str) -> None:
    job = json.loads(json.dumps(read()))  # a mapping of its own at each alias
    change(job)
    assert errors(job, SCHEMA) == [place]


def test_the_nodes_are_those_that_the_runner_looks_for() -> None:
    groups = {group["groupName"]: group for group in cluster(read())["workerGroupSpecs"]}
    # KubeRay puts the value into a shell command as it is: quotes for the shell around JSON.
    offered = {name: json.loads(shlex.split(g["rayStartParams"]["resources"])[0]) for name, g in groups.items()}
    assert offered == {"trainer": {TRIAL_RESOURCE: 1}, "scorer": {SCORER_RESOURCE: 1}}
    assert groups["scorer"]["rayStartParams"]["num-cpus"] == "1"  # no trial of the paper's preset fits beside it
    assert cluster(read())["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    assert cluster(read())["authOptions"] == {"mode": "token"}


def test_every_mount_has_its_volume() -> None:
    for group in (cluster(read())["headGroupSpec"], *cluster(read())["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = [mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]]
        assert mounted == [volume["name"] for volume in pod["volumes"]]


def test_the_version_of_ray_and_the_command() -> None:
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert cluster(read())["rayVersion"] == pinned[1]
    python, script, *words = shlex.split(read()["spec"]["entrypoint"])
    assert (python, script) == ("python", "/home/ray/vlpure/experiments/table4.py")
    args = make_parser(TABLE4).parse_args(words)
    assert (args.preset, args.address, args.output_dir) == ("paper", "auto", Path("/records/table4"))


def fields(schema: Schema, where: str = "$") -> Iterator[tuple[str, str]]:
    """(place, type) of each field of a schema."""
    for name, inner in schema.get("properties", {}).items():
        if "type" in inner:
            yield f"{where}.{name}", inner["type"]
        yield from fields(inner, f"{where}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{where}[]")


@pytest.mark.skipif("VLPURE_KUBERAY_CRD" not in os.environ, reason="set VLPURE_KUBERAY_CRD to KubeRay's definition")
def test_kuberays_own_definition() -> None:
    definition = yaml.load(Path(os.environ["VLPURE_KUBERAY_CRD"]).read_text(), Loader=yaml.CSafeLoader)
    (v1,) = (version for version in definition["spec"]["versions"] if version["name"] == "v1")
    theirs = v1["schema"]["openAPIV3Schema"]
    assert errors(read(), theirs) == []
    known = dict(fields(theirs))
    # Kubernetes' own metadata has no fields there, and a quantity may be a number, too.
    ours = {place: kind for place, kind in fields(SCHEMA) if not place.startswith("$.metadata.")}
    assert {place: kind for place, kind in ours.items() if known.get(place, kind) != kind} == {}
    assert [place for place in ours if place not in known and not place.endswith("sizeLimit")] == []
