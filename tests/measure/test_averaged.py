"""Averages over rotations as models: less error by the law, still a gradient, the same answer each time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from broken import field, well
from molecules import random_molecules
from runs import structures, tiny_store

from equiscale.calculator import Calculator
from equiscale.data.store import Store
from equiscale.errors import InputError
from equiscale.measure.decompose import Options, measure
from equiscale.measure.model import as_model
from equiscale.measure.structures import choose
from equiscale.measure.wrappers import Averaged
from equiscale.symmetry.groups import O3, Permutations

WELL, FIELD = as_model(well), as_model(field)


def equiv(model, sampler="random:10"):
    data = tiny_store().take(np.arange(16))
    return measure(model, choose(data), Options(sampler=sampler)).whole.equiv


@pytest.mark.parametrize("elements", ["T", "O", "lebedev:3"])
def test_a_design_that_is_high_enough_is_exact(elements):
    """A constant field is of degree 1, a well about an axis of degree 2: T averages both away."""
    for model in (FIELD, WELL):
        assert equiv(Averaged(model, elements), "random:3").value < 1e-20


def test_random_rotations_leave_one_part_in_so_many():
    """c² / 3M. Would catch rotations that turn with the structure, whose average were a different one each time."""
    found = equiv(Averaged(FIELD, "random:8"))
    assert found.value == pytest.approx(0.03 / 8, rel=0.5)  # one draw for each composition, shared by its structures
    assert equiv(Averaged(FIELD, "random:2", O3())).value > found.value


def test_the_average_has_its_forces_for_gradient():
    """Along a displacement the rotations stay the same, so energies change as forces say."""
    store = Store.from_structures(structures(3))
    model = Averaged(WELL, "random:3")
    forces = model(store).forces
    way = np.random.default_rng(1).normal(size=forces.shape)
    plus, minus = (model(replace(store, positions=store.positions + h * way)).energy for h in (1e-5, -1e-5))
    slope = np.add.reduceat((forces * way).sum(1), store.offsets[:-1])
    np.testing.assert_allclose((plus - minus) / 2e-5, -slope, rtol=1e-4)


def test_one_structure_has_one_answer():
    """In any company and in any batch; another seed, another answer."""
    store = tiny_store().take(np.arange(8))
    whole = Averaged(WELL, "random:4", atoms=20)(store)
    for s in range(8):
        alone = Averaged(WELL, "random:4")(store.take([s]))
        np.testing.assert_allclose(whole.energy[s], alone.energy[0], rtol=1e-12)
        np.testing.assert_allclose(whole.forces[store.offsets[s] : store.offsets[s + 1]], alone.forces, rtol=1e-9)
    assert np.abs(Averaged(WELL, "random:4", seed=1)(store).energy - whole.energy).max() > 1e-6


def test_in_ase():
    """A calculator takes an average as it takes a potential."""
    s = random_molecules(1, 5, 5, seed=2)[0]
    model = Averaged(WELL, "T")
    atoms = Atoms(s.numbers, s.positions, calculator=Calculator(model))
    turned = Atoms(s.numbers, s.positions @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])
    turned.calc = Calculator(model)
    assert atoms.get_potential_energy() == pytest.approx(turned.get_potential_energy(), rel=1e-12)
    assert np.linalg.norm(atoms.get_forces()) == pytest.approx(np.linalg.norm(turned.get_forces()), rel=1e-10)


def test_a_checkpoint_averaged():
    from test_any_model import trained

    from equiscale.measure.wrappers import averaged
    from equiscale.models import MPNNConfig

    potential = trained(MPNNConfig(width=8, depth=2, num_radial=8), torch.float64)
    before, after = equiv(as_model(potential)), equiv(averaged(potential, "I"))
    assert after.value < 1e-3 * before.value
    assert averaged(potential, "I").name.endswith("averaged over I (60 forward passes)")


REFUSED = {
    "no such": (lambda: Averaged(FIELD, "X"), "no sampler 'X'"),
    "a pair": (lambda: Averaged(FIELD, "T*2"), "a pair of cosets is for measuring"),
    "orders": (lambda: Averaged(FIELD, "random:2", Permutations(3)), "an order of atoms fits one size"),
    "seed": (lambda: Averaged(FIELD, "T", seed=-1), "the seed is a whole number"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    make, expected = REFUSED[what]
    with pytest.raises(InputError, match=expected):
        make()
