"""The files that docs/clusters.md gives for Kubernetes and for Ray's cluster launcher: no cluster has read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "clusters.md"

JOB = {
    "entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec",
    "submissionMode", "entrypointNumCpus", "activeDeadlineSeconds", "submitterPodTemplate",
}  # fmt: skip
CLUSTER = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling"}
HEAD, WORKERS = {"rayStartParams", "template"}, {"groupName", "replicas", "minReplicas", "maxReplicas"}
"""Of KubeRay's reference, ray.io/v1."""


def files() -> dict[str, list[dict[str, Any]]]:
    yaml = pytest.importorskip("yaml")
    found = re.findall(r'^```yaml title="([^"]*)"\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return {title: list(yaml.safe_load_all(text)) for title, text in found}


def test_the_ray_job_has_the_fields_that_there_are():
    """Would catch a field that KubeRay does not know, a volume that a pod lacks, a head that trains."""
    volume, job = files()["paper.yaml"]
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert set(job["spec"]) <= JOB
    assert set(cluster) <= CLUSTER
    assert cluster["authOptions"] == {"mode": "token"}
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(head) == HEAD
    assert set(workers) == HEAD | WORKERS
    assert head["rayStartParams"]["num-cpus"] == "0"  # values are strings
    for group in (head, workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]}
        assert {m["name"] for m in container["volumeMounts"]} == set(claims)
        assert set(claims.values()) == {volume["metadata"]["name"]}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == container["resources"]["requests"]["nvidia.com/gpu"]


def test_the_commands_in_it_are_there():
    """Would catch an option in a file's command that the program no longer has."""
    from equiscale.cli import _parser

    _, job = files()["paper.yaml"]
    name, *words = job["spec"]["entrypoint"].split()
    assert name == "equiscale"
    _parser().parse_args(words)
    for words in re.findall(r"^ray exec spot\.yaml (?:--tmux )?'equiscale ([^']*)'$", PAGE.read_text(), re.MULTILINE):
        _parser().parse_args(words.split())


def test_the_launchers_file_names_its_nodes():
    (spot,) = files()["spot.yaml"]
    assert spot["head_node_type"] in spot["available_node_types"]
    market = {
        name: "InstanceMarketOptions" in kind["node_config"] for name, kind in spot["available_node_types"].items()
    }
    assert market == {"head": False, "gpu": True}
