"""One run on two ranks is the run on one but for rounding: its curve, what it counts, and how it goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import ENVIRONMENT, refused, tiny_spec, tiny_store, write_study

from equiscale.cli import main
from equiscale.run import Remedy, Tracking, checkpoint_path, load, load_losses
from equiscale.train.distributed import told
from equiscale.train.ranks import REQUEUE, Alike, Asked, Call, here, joined
from equiscale.train.record import train

HERE = Path(__file__)

ROUNDING = 2e-5
"""Relative: sums of gradients in another order, in float32, over the eight steps of a run; ten times what is seen."""

LOOKS = Tracking(rotations=2, structures=5, gradients=True, gradient_structures=3)
SPECS = {
    "direct": tiny_spec("mpnn", batch_structures=4, atom_budget=8, augment=True, clip=1.0),
    "conservative": tiny_spec(
        "egnn", batch_structures=4, envelope="polynomial", forces="conservative", symmetry=LOOKS, structures=16
    ),
    "symmetry loss": tiny_spec("mpnn", batch_structures=5, remedy=Remedy(loss="symmetry", copies=2), structures=15),
}
GOES_ON = tiny_spec("mpnn", batch_structures=4, augment=True, linear_points=16, seed=3)  # a tell after every step


def stop_at(step: int, rank: int):
    """What a scheduler does to one rank of a run: SIGUSR1 once the step is done."""

    def tell(progress):
        if progress.step == step and here().rank == rank:
            os.kill(os.getpid(), signal.SIGUSR1)

    return tell


def work(folder: Path) -> None:
    """What each of two processes does, in a process of its own."""
    store = tiny_store()
    with joined("cpu") as ranks:
        assert ranks is not None

        def together(spec, where, **options):
            if not ranks.leads:
                ranks.awaited()
            return train(spec, store, folder / where, **options)

        for spec in SPECS.values():
            together(spec, "two")
        together(GOES_ON, "one to two")
        try:
            together(GOES_ON, "two to one", tell=stop_at(3, 1), checkpoint_every=1e9)
        except Asked:
            ranks.all((folder / f"asked{ranks.rank}").touch())


FOUR = tiny_spec("mpnn", batch_structures=6, augment=True, structures=24, log_points=1, linear_points=2)


def work_by_four(folder: Path) -> None:
    """What each of four processes does: six structures a step, so that two have one each, of one evaluation batch."""
    with joined("cpu") as ranks:
        assert ranks is not None
        if not ranks.leads:
            ranks.awaited()
        train(FOUR, tiny_store(), folder)


def wait_for_data(patience: float) -> None:
    """Two processes, of which each in turn takes longer to read its data than a step may take."""
    import torch.distributed as dist

    whole = dist.init_process_group
    dist.init_process_group = lambda *args, **options: whole(
        *args, **{**options, "timeout": timedelta(seconds=patience)}
    )
    with joined("cpu") as ranks:
        assert ranks is not None
        call = Call("spec", Path(), "cpu", None)
        if ranks.leads:
            time.sleep(2 * patience)
        else:
            assert ranks.awaited() == call
            time.sleep(2 * patience)
        ranks.call(call)
        if ranks.leads:
            ranks.dismiss()
        else:
            assert ranks.awaited() is None


def processes(code: str, count: int = 2, **environment: str) -> list[subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    about = {**ENVIRONMENT, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), **environment}
    about["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    return [
        subprocess.Popen(
            [sys.executable, "-c", code], env={**about, "RANK": str(r), "LOCAL_RANK": str(r)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for r in range(count)
    ]  # fmt: skip


def ended_well(crew: list[subprocess.Popen], seconds: float = 400) -> None:
    try:
        said = [process.communicate(timeout=seconds)[0] for process in crew]
    finally:
        for process in crew:
            process.kill()
    assert [process.returncode for process in crew] == [0] * len(crew), "\n".join(said)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Everything that two processes do, once; and the same by one."""
    folder = tmp_path_factory.mktemp("ranks")
    store = tiny_store()

    class Stopped(BaseException):
        pass

    def stop(progress):
        if progress.step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(GOES_ON, store, folder / "one to two", tell=stop, checkpoint_every=0.0)
    crew = processes(f"import pathlib, test_distributed; test_distributed.work(pathlib.Path({str(folder)!r}))")
    for spec in (*SPECS.values(), GOES_ON):
        train(spec, store, folder / "one")
    ended_well(crew)
    assert (folder / "asked0").exists()
    assert (folder / "asked1").exists()
    assert (checkpoint_path(folder / "two to one", GOES_ON.key) / "unfinished.pt").exists()
    train(GOES_ON, store, folder / "two to one")
    return folder


def records(done, spec, other):
    return load(done / "one" / f"{spec.key}.json"), load(done / other / f"{spec.key}.json")


def alike(one, two, executed=0.02):
    """Curves, ends and weights agree to rounding; what is counted, exactly."""
    assert len(one.curve) == len(two.curve)
    for a, b in zip(one.curve, two.curve):
        assert (a.step, a.structures, a.atoms, a.unique_atoms) == (b.step, b.structures, b.atoms, b.unique_atoms)
        assert a.flops_model == pytest.approx(b.flops_model, rel=1e-12)
        # What is executed once a micro-batch, whatever its size, is executed once a rank.
        assert a.flops_executed == pytest.approx(b.flops_executed, rel=executed)
        assert a.train_loss == pytest.approx(b.train_loss, rel=ROUNDING)
        for name in ("molecules", "conformers"):
            for part in ("loss", "energy_loss", "force_loss", "atom_loss"):
                assert getattr(getattr(a, name), part) == pytest.approx(getattr(getattr(b, name), part), rel=ROUNDING)
    assert one.final_molecules.loss == pytest.approx(two.final_molecules.loss, rel=ROUNDING)
    assert one.trivial_molecules == two.trivial_molecules
    assert one.max_gradient_norm == pytest.approx(two.max_gradient_norm, rel=ROUNDING)
    assert one.clipped_steps == two.clipped_steps


@pytest.mark.parametrize("name", SPECS)
def test_the_curve_is_that_of_one_rank(name, done):
    """Would catch a mean of means, a share left out, other rotations, a clipped part of a gradient."""
    one, two = records(done, SPECS[name], "two")
    alike(one, two)
    assert two.provenance["ranks"] == "2"
    assert "ranks" not in one.provenance
    last = two.curve[-1].clock
    assert last.seconds_total == pytest.approx(2 * float(two.provenance["wall_seconds"]), rel=0.5)
    if name == "direct":
        assert one.clipped_steps > 0


@pytest.mark.parametrize("name", SPECS)
def test_the_files_beside_are_those_of_one_rank(name, done):
    """Every structure's losses in the order of the set, every step in the log, the weights."""
    import pyarrow.parquet as pq

    key = SPECS[name].key
    a, b = (load_losses(done / folder, [key])[key] for folder in ("one", "two"))
    assert a.keys() == b.keys()
    for part in a:
        if a[part].dtype.kind == "f":
            np.testing.assert_allclose(a[part], b[part], rtol=10 * ROUNDING, atol=1e-6)
        else:
            np.testing.assert_array_equal(a[part], b[part])
    logs = [pq.read_table(done / folder / f"{key}.curve.parquet") for folder in ("one", "two")]
    assert logs[0].column_names == logs[1].column_names
    for column in logs[0].column_names:
        np.testing.assert_allclose(logs[0][column], logs[1][column], rtol=10 * ROUNDING, err_msg=column)
    x, y = (torch.load(checkpoint_path(done / f, key) / "weights.pt", weights_only=True) for f in ("one", "two"))
    assert x.keys() == y.keys()
    # Biases that a norm subtracts again have gradients of rounding alone, of which Adam makes whole steps.
    for tensor in (t for t in x if not t.endswith(".node.2.bias")):
        torch.testing.assert_close(x[tensor], y[tensor], rtol=1e-3, atol=1e-5)


def test_the_curve_of_four_ranks_is_that_of_one(tmp_path):
    """Ranks with unlike shares of a step, and three without any batch of a look: would catch a rank that waits for
    another where it has nothing to do, or the mean over ranks of means over structures."""
    crew = processes(
        f"import pathlib, test_distributed; test_distributed.work_by_four(pathlib.Path({str(tmp_path)!r}))", 4
    )
    one = train(FOUR, tiny_store(), tmp_path / "one")
    ended_well(crew)
    four = load(tmp_path / f"{FOUR.key}.json")
    alike(one, four, executed=0.1)
    assert four.provenance["ranks"] == "4"


def test_ranks_wait_for_one_that_reads_its_data():
    """Would catch a run on a large set that is given up, since its references take longer than any step may."""
    ended_well(processes("import test_distributed; test_distributed.wait_for_data(2.0)"))


def test_too_few_devices_are_one_sentence(tmp_path, monkeypatch, capsys):
    """Not one of each rank; asked before any is started."""
    study = write_study(tmp_path, structures=8, widths=(4,))
    words = ["train", str(study), "--architecture", "mpnn", "--width", "4", "--ranks", "2", "--device", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "2 ranks want a GPU each, and this machine has 1: start 1 or fewer." in refused(capsys, *words)
    if not torch.version.cuda:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert "the device 'cuda' cannot be used here" in refused(capsys, *words)


@pytest.mark.parametrize("rank", [0, 1])
def test_what_every_rank_meets_is_told_by_the_first(rank, monkeypatch):
    def work():
        raise Alike("the ranks share a GPU.")

    monkeypatch.setenv("RANK", str(rank))
    if rank:
        assert told(work) == 2
    else:
        with pytest.raises(Alike):
            told(work)


def test_tracking_is_that_of_one_rank(done):
    """The decomposition's sums, and its gradients', add up over ranks: the same rotations on the same structures."""
    one, two = records(done, SPECS["conservative"], "two")
    assert len(one.symmetry) == len(two.symmetry) > 0
    for a, b in zip(one.symmetry, two.symmetry):
        for name in ("total", "mean", "size", "loss", "loss_mean"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-4), name
        assert a.gradient_mean == pytest.approx(b.gradient_mean, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("how", ["one to two", "two to one"])
def test_a_run_goes_on_with_another_number_of_ranks(how, done):
    """From a checkpoint of one rank on two; and of two, that SIGUSR1 at the second asked to stop, on one."""
    one, other = records(done, GOES_ON, how)
    alike(one, other)
    assert other.provenance["ranks"] == "2"
    assert not (checkpoint_path(done / how, GOES_ON.key) / "unfinished.pt").exists()


def test_one_rank_under_torchrun_is_a_plain_run(tmp_path, monkeypatch, capsys):
    """The environment of a single rank changes no bit."""
    study = write_study(tmp_path, structures=8, widths=(4,))
    words = ["train", str(study), "--architecture", "mpnn", "--width", "4", "--results"]
    assert main([*words, str(tmp_path / "plain")]) == 0
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main([*words, str(tmp_path / "ranked")]) == 0
    (record,) = (tmp_path / "plain").glob("????????????????.json")
    a, b = (load(tmp_path / folder / record.name) for folder in ("plain", "ranked"))
    assert a.without_clock() == b.without_clock()
    assert a.provenance == b.provenance
    for beside in (f"{record.stem}.losses.npz", f"{record.stem}.curve.parquet"):
        assert (tmp_path / "plain" / beside).read_bytes() == (tmp_path / "ranked" / beside).read_bytes()
    assert here().world == 1


def children(parent: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds ranks through /proc")
def test_a_killed_rank_ends_the_others(tmp_path):
    """kill -9 of one: one sentence, an exit code that asks for the same again, and nobody left who waits for it."""
    study = write_study(tmp_path, structures=4000, widths=(4,), count=5000)
    words = ["train", str(study), "--architecture", "mpnn", "--width", "4", "--ranks", "2", "--results"]
    process = subprocess.Popen(
        [sys.executable, "-m", "equiscale.cli", *words, str(tmp_path / "results")],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "results").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        crew = children(process.pid)
        assert len(crew) == 2
        time.sleep(1)
        os.kill(crew[1], signal.SIGKILL)
        said, _ = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == REQUEUE, said
    assert "was killed (signal 9)" in said
    assert "Traceback" not in said
    assert not any(Path(f"/proc/{c}").exists() for c in crew)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus(tmp_path):
    """NCCL: `--ranks 2 --device cuda` learns what one GPU does."""
    study = write_study(tmp_path, structures=24, widths=(4,))
    words = ["train", str(study), "--architecture", "mpnn", "--width", "4", "--device", "cuda", "--results"]
    assert main([*words, str(tmp_path / "one")]) == 0
    assert main([*words, str(tmp_path / "two"), "--ranks", "2"]) == 0
    (record,) = (tmp_path / "one").glob("????????????????.json")
    one, two = (load(tmp_path / folder / record.name) for folder in ("one", "two"))
    assert one.curve[-1].molecules.loss == pytest.approx(two.curve[-1].molecules.loss, rel=1e-3)
    assert one.curve[-1].atoms == replace(two.curve[-1]).atoms
