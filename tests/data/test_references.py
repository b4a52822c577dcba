"""References against plain numpy, in float64; normalisation and trivial loss as method.md defines them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from equiscale.data.references import References, fit_references
from equiscale.data.store import Store
from equiscale.data.structure import Structure
from equiscale.errors import InputError

TRUE = {1: -500.123456789, 6: -100_000.987654321, 8: -2_000_000.5}


def made(count: int = 60, noise: float = 0.3, seed: int = 0) -> Store:
    """Random compositions, energies sums of TRUE plus noise: totals of 1e7 eV, residuals of tenths."""
    rng = np.random.default_rng(seed)
    structures = []
    for s in range(count):
        numbers = rng.choice([1, 6, 8], size=rng.integers(3, 12))
        energy = sum(TRUE[z] for z in numbers) + noise * rng.normal()
        x, forces = rng.normal(size=(2, len(numbers), 3))
        structures.append(Structure(numbers, 3 * x, energy, forces, group=f"m{s}"))
    return Store.from_structures(structures)


def test_least_squares_finds_what_made_the_energies():
    references = fit_references(made(noise=0.0))
    for z, energy in TRUE.items():
        assert references.energies[z] == pytest.approx(energy, rel=1e-12)
    assert "zero" in references.note


def test_mu_and_sigma_are_of_the_residual_totals():
    store = made()
    references = fit_references(store)
    residual = [s.energy - sum(references.energies[int(z)] for z in s.numbers) for s in store]
    assert references.mu == pytest.approx(np.mean(residual), abs=1e-6)
    assert references.sigma == pytest.approx(np.std(residual), rel=1e-6)
    energy, forces = references.normalise(store)
    assert energy.dtype == forces.dtype == np.float64
    assert abs(energy.mean()) < 1e-6
    assert energy.std() == pytest.approx(1, rel=1e-6)


def test_least_squares_has_no_better_neighbour():
    """The fitted sum of squares is least: moving any reference raises it."""
    store = made()
    references = fit_references(store)

    def squares(energies):
        return np.sum((store.energy - replace(references, energies=energies, mu=0.0).baseline(store)) ** 2)

    least = squares(references.energies)
    for z in TRUE:
        for step in (-0.01, 0.01):
            assert squares({**references.energies, z: references.energies[z] + step}) > least


def test_labels_come_back():
    store = made()
    references = fit_references(store)
    energy, forces = references.denormalise(store, *references.normalise(store))
    assert np.abs(energy - store.energy).max() < 1e-8
    assert np.abs(forces - store.forces).max() < 1e-14


def test_only_training_structures_are_looked_at():
    store = made()
    part = np.zeros(len(store), np.int8)
    part[40:] = 1
    split = replace(store, part=part)
    spoiled = replace(split, energy=np.where(part == 1, 1e9, split.energy))
    assert fit_references(spoiled) == fit_references(split) == fit_references(split.take(np.arange(40)))
    with pytest.raises(InputError, match="training part is empty"):
        fit_references(split.take(np.arange(40, 60)))


def test_isolated_atoms():
    store = made()
    references = fit_references(store, method="isolated_atoms", isolated=TRUE)
    assert references.energies == TRUE
    with pytest.raises(InputError, match="isolated atom of O"):
        fit_references(store, method="isolated_atoms", isolated={1: 0.0, 6: 0.0})


def test_force_scale():
    store = made()
    references = fit_references(store, scale="force_rms")
    assert references.sigma == pytest.approx(np.sqrt(np.mean(store.forces**2)))
    assert np.mean(references.normalise(store)[1] ** 2) == pytest.approx(1)


def test_trivial_loss_is_the_loss_of_zero():
    """L = mean over structures of |e'|/n + (1/n) Σ ‖f'_i‖, spelt out."""
    store = made()
    references = fit_references(store)
    energy_part, force_part = [], []
    for s in store:
        e = (s.energy - sum(references.energies[int(z)] for z in s.numbers) - references.mu) / references.sigma
        energy_part.append(abs(e) / len(s))
        force_part.append(np.mean([np.linalg.norm(f) for f in s.forces / references.sigma]))
    found = references.trivial(store)
    assert found["energy_loss"] == pytest.approx(np.mean(energy_part), rel=1e-6)
    assert found["force_loss"] == pytest.approx(np.mean(force_part), rel=1e-6)
    assert found["loss"] == found["energy_loss"] + found["force_loss"]


@pytest.mark.parametrize(("factor", "drowned"), [(1.0, False), (1e-3, True), (1e3, True)])
def test_a_drowned_term_is_said(factor, drowned):
    store = made()
    references = fit_references(store)
    scaled = replace(store, forces=store.forces * factor)
    assert bool(references.trivial(scaled)["warning"]) is drowned


def test_an_unknown_element_is_named():
    references = fit_references(made())
    sulphur = Store.from_structures([Structure(np.array([16, 1, 1]), np.eye(3), 0.0, np.zeros((3, 3)))])
    with pytest.raises(InputError, match=r"reference for S: .*know H, C, O"):
        references.normalise(sulphur)


def test_one_composition_takes_least_norm():
    water = [Structure(np.array([8, 1, 1]), np.eye(3), e, np.ones((3, 3))) for e in (-10.0, -10.5)]
    references = fit_references(Store.from_structures(water))
    assert "least norm" in references.note
    # Among all (o, h) with o + 2h = -10.25 the shortest is along (1, 2).
    assert references.energies[8] == pytest.approx(-10.25 / 5)
    assert references.energies[1] == pytest.approx(-2 * 10.25 / 5)


def test_json_both_ways():
    references = fit_references(made())
    assert References.from_dict(json.loads(json.dumps(references.to_dict()))) == references


@pytest.mark.parametrize("wrong", [{"method": "guess"}, {"scale": "max"}])
def test_unknown_choices_are_listed(wrong):
    with pytest.raises(InputError, match="use one of"):
        fit_references(made(), **wrong)
