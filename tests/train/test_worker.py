"""What a launcher's process refuses: data that are others, and runs that do not fit into memory."""

from __future__ import annotations

import errno
import json
import platform
from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import here, structures, tiny_spec, write_extxyz, write_study

from equiscale.data.sources import load as load_data
from equiscale.errors import InputError
from equiscale.ladder import load_study
from equiscale.launch import Local
from equiscale.launch.events import failure
from equiscale.results import Results
from equiscale.run import RunSpec, load
from equiscale.study import run_study
from equiscale.train.force_field import ForceField
from equiscale.train.memory import TooLarge, asked_for, out_of_memory
from equiscale.train.worker import TimeAll, TrainOne, Worker

MORE_THAN_THERE_IS = 2**46  # floats: 2^18 GiB, which no system promises


def raised(work) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        work()
    return caught.value


def test_memory_that_ran_out_is_recognised():
    """torch's own words on this machine, numpy's, a GPU's; would catch a new torch that words it in another way."""
    real = raised(lambda: torch.empty(MORE_THAN_THERE_IS))
    assert out_of_memory(real)
    assert asked_for(real) == "2.62e+05 GiB"
    assert out_of_memory(raised(lambda: np.empty(MORE_THAN_THERE_IS)))
    gpu = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB"
    )
    assert out_of_memory(gpu)
    assert asked_for(gpu) == "20.00 GiB"
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    for other in (RuntimeError("shapes differ"), InputError("out of memory"), OSError(errno.ENOSPC, "No space")):
        assert not out_of_memory(other)
    assert asked_for(MemoryError()) == ""


def data_in(folder, count: int = 60, **fields) -> RunSpec:
    """A run on a file of its own."""
    path = write_extxyz(folder / "data.xyz", structures(count))
    spec = tiny_spec(structures=16, **fields)
    data = replace(spec.data, name=str(path), keys=(("group_key", "group"),), content_hash="")
    return replace(spec, data=replace(data, content_hash=load_data(str(path), group_key="group").content_hash))


@pytest.fixture
def hungry(monkeypatch):
    """Potentials from width 6 on ask for more memory than there is, within a step. The loss without that."""
    whole = ForceField.loss

    def loss(self, model, batch):
        if self.spec.model.width >= 6:
            torch.empty(MORE_THAN_THERE_IS)
        return whole(self, model, batch)

    monkeypatch.setattr(ForceField, "loss", loss)
    return whole


def test_a_run_that_does_not_fit_is_one_sentence(tmp_path, hungry):
    """Would catch torch's page of advice as the error, a claim that is kept, and a process that cannot go on."""
    (tmp_path / "out").mkdir()
    worker = Worker(tmp_path / "out")
    spec = data_in(tmp_path)
    with pytest.raises(TooLarge) as caught:
        worker(TrainOne(spec), lambda told: None)
    said = str(caught.value)
    assert said.startswith("mpnn w=8 seed=0 ran out of memory on cpu (2.62e+05 GiB were asked for at once): give its ")
    assert "`atom_budget` below 4096" in said
    assert "`equiscale dry-run STUDY --probe` says what fits." in said
    small = replace(spec, model=replace(spec.model, width=4))
    assert worker(TrainOne(small), lambda told: None) == small.key
    with pytest.raises(TooLarge):  # the claim was given up
        worker(TrainOne(spec), lambda told: None)


def test_another_error_is_not_held_for_memory(tmp_path, monkeypatch):
    def loss(self, model, batch):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(ForceField, "loss", loss)
    with pytest.raises(RuntimeError, match="shapes differ"):
        Worker(tmp_path)(TrainOne(data_in(tmp_path)), lambda told: None)


def test_rungs_that_do_not_fit_leave_the_others_alone(tmp_path, monkeypatch, hungry):
    """Four of six rungs are too large: would catch timing that ends the study, and the end after three in a row."""
    whole = hungry
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("equiscale.launch.local.local_processes", here)
    study = load_study(write_study(tmp_path, structures=12, widths=(4, 6, 8)))
    results, said = Results(tmp_path / "out"), []
    with pytest.raises(InputError, match="4 of 6 runs failed"):
        run_study(study, results, launcher=Local(1), say=said.append)
    assert sorted(r.spec.model.width for r in results.records()) == [4, 4]
    assert sum("ran out of memory on cpu" in line for line in said) == 4
    timings = json.loads((results.folder / "timing.json").read_text())
    assert sorted(t["fits"] for t in timings.values()) == [False] * 4 + [True] * 2
    assert all(t["step_seconds"] > 0 for t in timings.values())
    monkeypatch.setattr(ForceField, "loss", whole)  # as on a larger device: what was estimated is in no record
    assert run_study(study, results, launcher=Local(1), say=said.append)
    timed = {r.spec.model.width: r.step_seconds for r in results.records() if r.spec.model.kind == "mpnn"}
    assert timed[4] is not None
    assert timed[6] is timed[8] is None


def test_where_no_rung_fits_the_study_ends_with_that(tmp_path, hungry):
    """Would catch seconds estimated from nothing, and hours of runs that are bound to fail one by one."""
    spec = data_in(tmp_path, cutoff=8.0)
    with pytest.raises(TooLarge, match="mpnn w=8 seed=0 ran out of memory"):
        Worker(tmp_path).time((spec,), lambda told: None)


def test_two_runs_that_do_not_fit_are_two_reasons():
    """Would catch a launcher that takes the third such run for a full disk, and stops."""
    one, other = (failure(TooLarge(f"mpnn w={w} ran out of memory.")) for w in (8, 16))
    assert one.reason != other.reason
    assert failure(InputError("3 of 4.")).reason == failure(InputError("2 of 5.")).reason


def test_data_that_are_others_than_declared_are_refused(tmp_path):
    """Would catch a node whose copy of the data is older, and whose records would pass for those of the study's."""
    spec = data_in(tmp_path)
    worker = Worker(tmp_path)
    assert worker.data(spec.data)[0].content_hash == spec.data.content_hash
    older = replace(spec.data, content_hash="f" * 64)
    for asked in (worker, Worker(tmp_path)):  # read before, and not
        with pytest.raises(InputError) as caught:
            asked.data(older)
        said = str(caught.value)
        assert said.startswith(f"the data at {spec.data.name} on {platform.node()} are not those that the study was")
        assert f"(content {spec.data.content_hash[:16]}, not ffffffffffffffff)" in said
    assert worker.data(replace(spec.data, content_hash=""))[0] is worker.data(spec.data)[0]


def test_data_that_lie_elsewhere_here(tmp_path):
    """The path that the study names is not there; another one holds the same data, and the record does not say so."""
    spec = data_in(tmp_path)
    there = tmp_path / "elsewhere.xyz"
    (tmp_path / "data.xyz").rename(there)
    with pytest.raises(InputError, match=r"data\.xyz"):
        Worker(tmp_path).data(spec.data)
    (tmp_path / "out").mkdir()
    worker = Worker(tmp_path / "out", places={spec.data.name: str(there)})
    key = worker(TrainOne(spec), lambda told: None)
    assert load(tmp_path / "out" / f"{key}.json").spec == spec


def test_what_an_item_reads():
    specs = [tiny_spec(), tiny_spec(width=4), tiny_spec()]
    specs[2] = replace(specs[2], data=replace(specs[2].data, name="builtin"))
    other = replace(specs[0], data=replace(specs[0].data, name="b.xyz"))
    worker = Worker(None)  # type: ignore[arg-type]
    assert worker.needs(TrainOne(specs[0])) == ["tiny"]
    assert worker.needs(TrainOne(specs[2])) == []
    assert worker.needs(TimeAll((*specs, other))) == ["tiny", "b.xyz"]


def test_a_step_time_of_other_hardware_is_in_no_record(tmp_path, monkeypatch):
    """Would catch laws in hours of a cluster of unlike nodes whose rungs were timed on one of them."""
    spec = data_in(tmp_path, cutoff=8.0)
    (tmp_path / "out").mkdir()
    worker = Worker(tmp_path / "out")
    timed = worker(TimeAll((spec,)), lambda told: None)[spec.key]
    assert timed.hardware
    for seed, on, kept in ((0, timed.hardware, 1.0), (1, "another processor", None), (2, "", 1.0)):
        key = worker(TrainOne(replace(spec, seed=seed), 1.0, timed_on=on), lambda told: None)
        assert load(tmp_path / "out" / f"{key}.json").step_seconds == kept
