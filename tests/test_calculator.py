"""The ASE calculator: what the trained potential says, in every kind of structure that ASE has; and what it refuses."""

from __future__ import annotations

import typing
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.optimize import BFGS
from molecules import crystal, random_molecules
from runs import structures, tiny_spec, tiny_store

from equiscale.calculator import Calculator
from equiscale.data.references import fit_references
from equiscale.data.structure import Structure
from equiscale.errors import InputError
from equiscale.models import EGNNConfig, ModelConfig
from equiscale.predict import TrainedPotential
from equiscale.run import checkpoint_path
from equiscale.train.optim import build
from equiscale.train.record import train

SMOOTH = dict(envelope="polynomial", aggregation="sum", max_neighbors=None, norm="atom")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints of short runs on the tiny set: a direct and a smooth conservative EGNN."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for forces in ("direct", "conservative"):
        spec = tiny_spec("egnn", **SMOOTH, forces=forces, epochs=4)
        train(spec, tiny_store(), folder)
        found[forces] = checkpoint_path(folder, spec.key)
    return found


def untrained(**fields) -> TrainedPotential:
    """Any potential with the tiny set's references: what a calculator does does not depend on its weights."""
    spec = tiny_spec("egnn", **fields)
    return TrainedPotential(build(spec.model, spec.optim, 0).eval(), spec.model, fit_references(tiny_store()))


def atoms_of(s: Structure, **options) -> Atoms:
    return Atoms(s.numbers, s.positions, cell=s.cell, pbc=s.cell is not None, **options)


@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_it_says_what_the_potential_says(forces, folders):
    """Molecules, a crystal, one atom; energy and free energy; a structure that moved or changed is computed again."""
    trained, calculator = TrainedPotential.load(folders[forces]), Calculator(folders[forces])
    one = Structure(np.array([8]), np.zeros((1, 3)))
    made = [*random_molecules(3, 2, 9, seed=5), crystal(4, seed=2), one]
    atoms = atoms_of(made[0])
    for s in made:
        out = trained([s])
        atoms = atoms_of(s)
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(float(out.energy[0]), abs=1e-9)
        assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
        np.testing.assert_allclose(atoms.get_forces(), out.forces.numpy(), atol=1e-6)
    atoms = atoms_of(made[0])
    atoms.calc = calculator
    before = atoms.get_potential_energy()
    atoms.positions[0] += 0.1
    moved = replace(made[0], positions=atoms.positions)
    assert atoms.get_potential_energy() == pytest.approx(float(trained([moved]).energy[0]))
    assert atoms.get_potential_energy() != before


def test_images_are_seen():
    """Two atoms that meet across a face only: would catch a calculator that forgets the cell."""
    trained = untrained()
    atoms = Atoms("OH", [[0.1, 5, 5], [9.1, 5, 5]], cell=[10, 10, 10], pbc=True, calculator=Calculator(trained))
    periodic = atoms.get_forces()
    assert np.abs(periodic).max() > 0
    atoms.pbc = False
    assert np.abs(atoms.get_forces()).max() == 0


def test_charge_and_spin_come_from_info():
    """They reach the potential; changing them alone computes again, which ASE's own comparison would not."""
    trained = untrained(charge_spin=True)
    (s,) = random_molecules(1, 5, 5, seed=0)
    atoms = atoms_of(s, calculator=Calculator(trained))
    seen = [atoms.get_potential_energy()]
    for charge, spin in ((1, 1), (1, 2), (0, 1)):
        atoms.info.update(charge=charge, spin=spin)
        seen.append(atoms.get_potential_energy())
        assert seen[-1] == pytest.approx(float(trained([replace(s, charge=charge, spin=spin)]).energy[0]))
    assert len({round(x, 9) for x in seen}) == 3
    assert seen[0] == seen[-1]
    atoms.info["charge"] = "many"
    with pytest.raises(InputError, match="'many', not a whole number"):
        atoms.get_potential_energy()


def test_forces_are_the_energys_gradient(folders):
    """Central differences of the calculator's energy, in double precision; molecule and crystal."""
    calculator = Calculator(folders["conservative"], dtype="float64")
    for s in (structures(1)[0], crystal(4, seed=2)):
        atoms = atoms_of(s, calculator=calculator)
        forces, h = atoms.get_forces(), 1e-4
        for i, k in ((0, 0), (1, 2), (2, 1)):
            energies = []
            for step in (h, -h):
                moved = atoms.copy()
                moved.calc = calculator
                moved.positions[i, k] += step
                energies.append(moved.get_potential_energy())
            assert -(energies[0] - energies[1]) / (2 * h) == pytest.approx(forces[i, k], rel=1e-5, abs=1e-7)


def test_a_short_relaxation(folders):
    """BFGS on a conservative potential goes down and ends where no force is left."""
    s = structures(8)[3]
    atoms = atoms_of(s, calculator=Calculator(folders["conservative"], dtype="float64"))
    before = atoms.get_potential_energy()
    assert BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    assert atoms.get_potential_energy() < before
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.01


def test_what_is_refused(folders, tmp_path):
    calculator = Calculator(folders["direct"])
    slab = Atoms("OH", [[0, 0, 0], [1, 0, 0]], cell=[5, 5, 5], pbc=[True, True, False], calculator=calculator)
    with pytest.raises(InputError, match="periodic in some directions only"):
        slab.get_potential_energy()
    with pytest.raises(InputError, match="cell has no volume"):
        Atoms("OH", [[0, 0, 0], [1, 0, 0]], pbc=True, calculator=calculator).get_potential_energy()
    with pytest.raises(InputError, match="holds S, which the potential was not trained on"):
        Atoms("S", [[0, 0, 0]], calculator=calculator).get_forces()
    with pytest.raises(InputError, match="no atoms"):
        Atoms(calculator=calculator).get_potential_energy()
    with pytest.raises(InputError, match="there is no checkpoint"):
        Calculator(tmp_path / "nothing")
    with pytest.raises(InputError, match="device 'abacus' cannot be used"):
        Calculator(folders["direct"], device="abacus")
    with pytest.raises(InputError, match="is where it is"):
        Calculator(calculator.trained, dtype="float64")


def test_no_cutoff_no_cells():
    """A potential that looks at all atoms at once sees no images, and says so."""
    for cls in typing.get_args(typing.get_args(ModelConfig)[0]):
        if cls().cutoff is None:
            model = cls(elements=(1, 6, 7, 8))
            trained = TrainedPotential(model.build().eval(), model, fit_references(tiny_store()))
            atoms = atoms_of(crystal(3, seed=1), calculator=Calculator(trained))
            with pytest.raises(InputError, match="no periodic images"):
                atoms.get_forces()
    assert EGNNConfig().cutoff is not None
