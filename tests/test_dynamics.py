"""Energy along a run at constant energy: a smooth gradient conserves it to the integrator's order, a head does not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from runs import refused, structures, tiny_spec, tiny_store, write_extxyz

from equiscale.cli import main
from equiscale.dynamics import energy_drift, start
from equiscale.errors import InputError
from equiscale.predict import TrainedPotential
from equiscale.run import checkpoint_path
from equiscale.train.record import train

SMOOTH = dict(envelope="polynomial", aggregation="sum", max_neighbors=None, norm="atom")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for forces in ("direct", "conservative"):
        spec = tiny_spec("egnn", **SMOOTH, forces=forces, epochs=4)
        train(spec, tiny_store(), folder)
        found[forces] = checkpoint_path(folder, spec.key)
    return found


def molecule() -> Atoms:
    s = structures(8)[3]
    return Atoms(s.numbers, s.positions)


def test_a_smooth_gradient_conserves_to_second_order(folders):
    """The fluctuation of velocity Verlet goes with the square of the timestep, and the drift is small beside it."""
    trained = TrainedPotential.load(folders["conservative"], dtype="float64")
    found = [energy_drift(trained, molecule(), steps=int(50 / dt), timestep=dt) for dt in (0.5, 0.25, 0.125)]
    rms = [d.fluctuation_meV_per_atom for d in found]
    assert 3.0 < rms[0] / rms[1] < 5.5
    assert 3.0 < rms[1] / rms[2] < 5.5
    assert abs(found[-1].drift_meV_per_atom_per_ps) < 1.0
    assert all(d.status == "ok" and d.smooth and d.forces == "conservative" for d in found)
    direct = energy_drift(TrainedPotential.load(folders["direct"]), molecule(), steps=200, timestep=0.25)
    assert direct.largest_change_meV_per_atom > 30 * found[1].largest_change_meV_per_atom
    assert "no gradient" in str(direct)


def test_the_figures_are_those_of_the_energies(folders):
    """Slope, rms and largest change again from the energies; the start stays; the seed decides the velocities."""
    trained, atoms = TrainedPotential.load(folders["conservative"]), molecule()
    before = atoms.positions.copy()
    found = energy_drift(trained, atoms, steps=50, timestep=1.0, seed=3)
    assert np.array_equal(atoms.positions, before)
    assert atoms.calc is None
    per_atom = 1e3 * (found.energies - found.energies[0]) / len(atoms)
    assert len(per_atom) == 51
    time = np.arange(51) * 1e-3
    slope, offset = np.polyfit(time, per_atom, 1)
    assert found.drift_meV_per_atom_per_ps == pytest.approx(slope)
    assert found.fluctuation_meV_per_atom == pytest.approx(np.sqrt(np.mean((per_atom - slope * time - offset) ** 2)))
    assert found.largest_change_meV_per_atom == np.abs(per_atom).max()
    again = energy_drift(trained, atoms, steps=50, timestep=1.0, seed=3)
    other = energy_drift(trained, atoms, steps=50, timestep=1.0, seed=4)
    assert np.array_equal(again.energies, found.energies)
    assert not np.array_equal(other.energies, found.energies)


def test_a_run_that_explodes_says_so(folders, monkeypatch):
    """Its figures are of the steps before, and finite."""
    trained, squeezed = TrainedPotential.load(folders["conservative"]), molecule()
    squeezed.positions *= 0.8
    monkeypatch.setattr("equiscale.dynamics.EXPLODED", 600.0)
    found = energy_drift(trained, squeezed, steps=200)
    assert found.status == "exploded"
    assert found.steps < 200
    assert np.isfinite(found.energies).all()
    assert "exploded" in str(found)


def test_one_atom_and_a_crystal(folders):
    """One atom flies straight on; a periodic structure moves too."""
    trained = TrainedPotential.load(folders["conservative"])
    alone = energy_drift(trained, Atoms("O", [[0, 0, 0]]), steps=20)
    assert alone.largest_change_meV_per_atom == pytest.approx(0.0, abs=1e-6)
    salt = Atoms("COOH", [[0, 0, 0], [1.2, 0, 0], [0, 1.3, 0], [0, 0, 1.1]], cell=[4, 4, 4], pbc=True)
    assert np.isfinite(energy_drift(trained, salt, steps=10, timestep=0.1).energies).all()


def test_the_command(folders, tmp_path, capsys):
    path = write_extxyz(tmp_path / "a.xyz", structures(4))
    words = ["nve", folders["conservative"], path, "--index", "3", "--steps", "20", "--json", tmp_path / "a.json"]
    assert main([str(w) for w in words]) == 0
    said = capsys.readouterr().out
    assert "conservative forces, smooth" in said
    written = json.loads((tmp_path / "a.json").read_text())
    assert f"{written['drift_meV_per_atom_per_ps']:+.4g} meV/atom/ps" in said
    assert len(written["energies"]) == 21


def test_a_molecule_of_the_built_in_set(folders):
    """The first one that the potential knows the elements of; one sentence where there is none."""
    trained = TrainedPotential.load(folders["direct"])
    atoms, what = start(trained)
    assert set(atoms.numbers) <= {1, 6, 7, 8}
    assert "built-in set" in what
    strange = replace(trained, references=replace(trained.references, energies={8: -1.0}))
    with pytest.raises(InputError, match="give a structure"):
        start(strange)


def test_bad_input_is_one_sentence(folders, tmp_path, capsys):
    good, path = folders["direct"], write_extxyz(tmp_path / "a.xyz", structures(2))
    assert "there is no checkpoint" in refused(capsys, "nve", tmp_path / "nothing", path)
    assert "there is no file" in refused(capsys, "nve", good, tmp_path / "nothing.xyz")
    assert "no structure 7" in refused(capsys, "nve", good, path, "--index", "7")
    (tmp_path / "b.txt").write_text("hello\n")
    assert "that can be read" in refused(capsys, "nve", good, tmp_path / "b.txt")
    for option, value in (("--steps", "3"), ("--timestep", "0"), ("--timestep", "nan"), ("--temperature", "-4")):
        assert "must be" in refused(capsys, "nve", good, path, option, value)
    strange = write_extxyz(tmp_path / "c.xyz", [replace(s, numbers=np.full(len(s), 16)) for s in structures(1)])
    assert "holds S" in refused(capsys, "nve", good, strange)
