"""The generator: its dynamics are canonical, its turns uniform, and killing it changes nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from equiscale.data import shards
from equiscale.data.label import KB, gfn2, langevin, make, molecule_list, place, to_grid
from equiscale.data.orientation import haar
from equiscale.errors import InputError


def test_haar_is_uniform():
    """E[R] = 0 and E[R_ij²] = 1/3; trace has the density of rotation angles, E[tr] = 0 and E[tr²] = 1."""
    turns = np.array([haar(np.random.default_rng(i), 1)[0] for i in range(4000)])
    assert np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max() < 1e-14
    assert np.abs(np.linalg.det(turns) - 1).max() < 1e-14
    assert np.abs(turns.mean(0)).max() < 0.04
    assert np.abs((turns**2).mean(0) - 1 / 3).max() < 0.03
    trace = np.trace(turns, axis1=1, axis2=2)
    assert abs(trace.mean()) < 0.06
    assert abs((trace**2).mean() - 1) < 0.1


def test_place_moves_and_does_not_deform():
    x = np.random.default_rng(0).normal(size=(7, 3)) + 10
    y = place(x, np.random.default_rng(1))
    distances = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (x, y)]
    assert np.allclose(*distances, atol=1e-12)
    assert np.abs(y.mean(0)).max() <= 1
    # A reflection would keep distances too.
    volume = [np.linalg.det(p[1:4] - p[0]) for p in (x, y)]
    assert np.isclose(*volume)


def test_langevin_is_canonical():
    """A harmonic atom at T: <x²> = kT/k from a start at rest; BAOAB makes no error in x here."""
    temperature, k = 600.0, 50.0  # kcal/mol/Å²
    masses = np.full((400, 1), 12.0)
    kept = langevin(lambda x: -k * x, np.zeros((400, 3)), masses, temperature, 20, np.random.default_rng(3))
    measured = np.mean([np.mean(x**2) for x in kept])
    assert abs(measured / (KB * temperature / k) - 1) < 0.03


def test_grid_holds_thirty_eV_per_angstrom():
    assert to_grid(np.array([-30.0, 0.0004, 0.0006, 31.0])).tolist() == [-30000, 0, 1, 31000]


def test_labels_turn_with_the_molecule():
    pytest.importorskip("tblite")
    rng = np.random.default_rng(5)
    numbers = np.array([8, 1, 1, 6, 1, 1, 1, 1])  # water and a bent methane
    water = [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]
    methane = [[0, 0, 3.2], [0.9, 0, 3.7], [-0.5, 0.8, 3.6], [-0.5, -0.9, 3.5], [0.1, 0, 4.4]]
    x = np.array(water + methane)
    energy, forces = gfn2(numbers, x)
    turn = haar(rng, 1)[0]
    again, turned = gfn2(numbers, x @ turn.T + rng.normal(size=3))
    assert abs(again - energy) < 1e-6
    assert np.abs(turned - forces @ turn.T).max() < 1e-4
    assert np.abs(forces.sum(0)).max() < 1e-4  # nothing outside pulls
    # Forces are minus the gradient of the energy, in eV/Å.
    step = np.zeros_like(x)
    step[1, 0] = 1e-3
    slope = (gfn2(numbers, x + step)[0] - gfn2(numbers, x - step)[0]) / 2e-3
    assert abs(forces[1, 0] + slope) < 1e-3


def test_the_list_is_small_closed_and_neutral():
    pytest.importorskip("rdkit")
    from rdkit import Chem

    names = molecule_list(30)
    assert 2700 < len(names) == len(set(names))
    for name in names[:200]:
        molecule = Chem.AddHs(Chem.MolFromSmiles(name))
        assert molecule.GetNumAtoms() <= 30
        assert Chem.GetFormalCharge(molecule) == 0
        assert "." not in name
        assert sum(a.GetAtomicNum() for a in molecule.GetAtoms()) % 2 == 0


CODE = """
import sys
from pathlib import Path
from equiscale.data.orientation import haar
from equiscale.data.label import make
if __name__ == "__main__":
    make(Path(sys.argv[1]), molecules=24, frames=4, workers=int(sys.argv[2]))
"""


def start(folder: Path, workers: int = 1) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(folder), str(workers)],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(folder: Path, workers: int = 1) -> str:
    process = start(folder, workers)
    text = process.communicate(timeout=120)[1]
    assert process.returncode == 0, text
    return text


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> bytes:
    pytest.importorskip("rdkit")
    pytest.importorskip("tblite")
    folder = tmp_path_factory.mktemp("whole")
    said = finish(folder, workers=2)
    assert "left" in said
    assert (folder / "builtin.toml").exists()
    return (folder / "builtin.h5").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the workers")
def test_a_kill_loses_unfinished_shards_only(undisturbed, tmp_path):
    process = start(tmp_path)
    wait_for(lambda: list(tmp_path.glob("shard-*.npz")))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = {p: p.stat().st_mtime_ns for p in tmp_path.glob("shard-*.npz")}
    assert not (tmp_path / "builtin.h5").exists()
    (tmp_path / "shard-0002.npz.123.part").write_bytes(b"half a shard")
    assert "already" in finish(tmp_path)
    assert all(p.stat().st_mtime_ns == t for p, t in done.items())
    assert (tmp_path / "builtin.h5").read_bytes() == undisturbed


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the workers")
def test_a_dead_worker_is_replaced(undisturbed, tmp_path):
    process = start(tmp_path)
    wait_for(lambda: list(tmp_path.glob("shard-*.npz")))
    (worker,) = workers_of(process.pid)
    os.kill(worker, signal.SIGKILL)
    assert process.wait(timeout=60) == 0, process.communicate()[1]
    assert (tmp_path / "builtin.h5").read_bytes() == undisturbed


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the workers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_main_process(number, tmp_path):
    pytest.importorskip("rdkit")
    pytest.importorskip("tblite")
    process = start(tmp_path)
    wait_for(lambda: workers_of(process.pid) and list(tmp_path.glob("shard-*.npz")))
    (worker,) = workers_of(process.pid)
    os.kill(process.pid, number)
    said = process.communicate(timeout=60)[1]
    wait_for(lambda: not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2])
    if number == signal.SIGINT:
        assert "goes on" in said
        assert not list(tmp_path.glob("*.part"))


def test_a_folder_of_other_settings_is_refused(tmp_path):
    pytest.importorskip("rdkit")
    pytest.importorskip("tblite")
    (tmp_path / "recipe.json").write_text('{"seed": 1}')
    with pytest.raises(InputError, match="other settings"):
        make(tmp_path, molecules=1)
    with pytest.raises(InputError, match="at least 1"):
        make(tmp_path, molecules=0)
    with pytest.raises(InputError, match="another folder"):
        make(tmp_path / "recipe.json", molecules=1)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        shards.write_atomically(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
