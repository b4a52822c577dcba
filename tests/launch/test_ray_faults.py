"""Each fault once, at a moment drawn by chance, on a Ray cluster of two nodes: every run ends recorded once, as if
nothing had happened. benchmarks/faults.py does it ten times each."""

from __future__ import annotations

import os
import random
import subprocess

import pytest
from faults import FAULTS, Bench, Trial, two_nodes
from on_ray import quiet

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("faults"), epochs=15)
    made.reference()
    return made


@pytest.fixture(scope="module")
def cluster():
    with quiet(), two_nodes() as made:
        yield made


def can_mount(folder) -> bool:
    folder.mkdir()
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True


@pytest.mark.parametrize("fault", FAULTS)
def test_every_run_ends_recorded_once(fault, bench, cluster, tmp_path):
    if fault == "disk" and not can_mount(tmp_path / "disk"):
        pytest.skip("a small disk cannot be mounted here: that needs root and a system that allows it")
    outcome = Trial(bench, cluster, tmp_path / "results", random.Random()).run(fault)
    assert outcome.same, outcome
    assert not outcome.left, outcome
    assert outcome.codes[-1] == 0, outcome
    if fault in ("worker", "node"):  # the command itself goes on
        assert outcome.codes == [0], outcome
