"""Who is a rank, where ranks meet, what each takes of a step, and what is refused."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torch
from runs import tiny_spec, tiny_store

from equiscale.cli import main
from equiscale.errors import InputError
from equiscale.train.force_field import ForceField, dealt
from equiscale.train.ranks import Ranks, first_host, in_environment, joined, meeting_point


def test_a_step_is_dealt_out_whole_and_evenly():
    """Every structure to one rank; no rank without; none with more work than its share and one structure."""
    sizes = np.random.default_rng(0).integers(1, 25, 64)
    for world in (2, 3, 4, 64):
        parts = [dealt(sizes, Ranks(r, world, r)) for r in range(world)]
        assert sorted(np.concatenate(parts).tolist()) == list(range(64))
        work = [(sizes[p] * np.minimum(sizes[p], 31)).sum() for p in parts]
        assert all(len(p) for p in parts)
        assert max(work) <= (sizes**2).sum() / world + (sizes**2).max()


def test_ranks_are_read_from_the_environment():
    assert in_environment({}) is None
    assert in_environment({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Ranks(3, 8, 1)
    step = {"SLURM_PROCID": "5", "SLURM_NTASKS": "16", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "77"}
    assert in_environment(step) == Ranks(5, 16, 1)
    assert in_environment({**step, "SLURM_STEP_NUM_TASKS": "8"}) == Ranks(5, 8, 1)
    assert in_environment({k: v for k, v in step.items() if k != "SLURM_STEP_ID"}) is None  # an sbatch script itself
    for wrong in ({"RANK": "a", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}):
        with pytest.raises(InputError, match="environment names"):
            in_environment(wrong)
    nodes = {"SLURM_STEP_NODELIST": "gpu[003-007,9],login1"}
    assert meeting_point(Ranks(5, 16, 1), {**step, **nodes}) == ("gpu003", 20_000 + 16 * 77)
    assert meeting_point(Ranks(5, 16, 1), {**step, **nodes, "MASTER_PORT": "1234"}) == ("gpu003", 1234)
    ports = {meeting_point(Ranks(1, 2, 1), {**step, "SLURM_JOB_ID": str(j), "SLURM_STEP_ID": str(s)})[1]
             for j in range(100, 200) for s in range(4)}  # fmt: skip
    assert len(ports) == 400
    assert first_host("a") == "a"
    assert first_host("n[1,4]-r[02-03],b") == "n1-r02"


def test_refusals(tmp_path, monkeypatch, capsys):
    """One sentence each."""
    spec, store = tiny_spec(batch_structures=2), tiny_store()
    with pytest.raises(InputError, match="4 ranks are more than the 2 structures of a step"):
        ForceField.of(spec, store, ranks=Ranks(0, 4, 0))
    with pytest.raises(InputError, match="MASTER_PORT"):
        meeting_point(Ranks(0, 2, 0), {"RANK": "0", "WORLD_SIZE": "2"})
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        step = {"SLURM_STEP_ID": "0", "SLURM_JOB_ID": "0", "MASTER_ADDR": "localhost"}
        monkeypatch.setattr("equiscale.train.ranks.FIRST_PORT", taken.getsockname()[1])
        with pytest.raises(InputError, match="is taken: set MASTER_PORT"):
            meeting_point(Ranks(0, 2, 0), step)
        assert meeting_point(Ranks(1, 2, 1), step)[1] == taken.getsockname()[1]
    environment = {"RANK": "0", "WORLD_SIZE": "1"}
    with pytest.raises(InputError, match="--device cuda, not cuda:1"), joined("cuda:1", environment):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="cannot be used here"), joined("cuda", environment):
            pass
    assert main(["train", str(tmp_path / "study.py"), "--width", "4", "--ranks", "0"]) == 2
    assert "--ranks must be at least 1" in capsys.readouterr().err
