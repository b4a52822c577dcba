"""Models that break a symmetry by a known amount, for the tests of what measures it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones
from runs import labelled


class Field(LennardJones):
    """Lennard-Jones and a constant force ``field`` (eV/Å) along z on every atom, with no energy of its own.

    Z(R) = f + c Rᵀe_z, whose mean over rotations is f: L_equiv = E |c Rᵀe_z|² / 3 = c² / 3 per component, all of l = 1.
    """

    def __init__(self, field: float = 0.3, sigma: float = 1.2, **options):
        super().__init__(sigma=sigma, rc=20.0, **options)
        self.field = field

    def calculate(self, *words, **options):
        super().calculate(*words, **options)
        self.results["forces"] = self.results["forces"] + self.field * np.array([0.0, 0.0, 1.0])


class Well(LennardJones):
    """Lennard-Jones and an energy ½ k z² per atom about the centroid: an energy and forces that know the z axis."""

    k = 0.4

    def calculate(self, *words, **options):
        super().calculate(*words, **options)
        z = self.atoms.positions[:, 2] - self.atoms.positions[:, 2].mean()
        self.results["energy"] += 0.5 * self.k * float(z @ z)
        self.results["forces"] = self.results["forces"] - self.k * np.outer(z, [0.0, 0.0, 1.0])


class Random(LennardJones):
    """Another answer each time."""

    def calculate(self, *words, **options):
        super().calculate(*words, **options)
        noise = np.random.default_rng().normal(size=self.results["forces"].shape)
        self.results["forces"] = self.results["forces"] + 0.01 * noise


class Picky(LennardJones):
    """Fails on structures of five atoms."""

    def calculate(self, *words, **options):
        super().calculate(*words, **options)
        if len(self.atoms) == 5:
            raise RuntimeError("five atoms are\ntoo many.")


class Forceless(Calculator):
    implemented_properties: ClassVar[list[str]] = ["energy"]


def pairs(store):
    """Morse bonds, without a calculator's overhead: energies and forces of a store."""
    made = [labelled(s) for s in store]
    return np.array([s.energy for s in made]), np.concatenate([s.forces for s in made])


def field(store):
    """The same with a constant force of 0.3 eV/Å along z on every atom."""
    energy, forces = pairs(store)
    return energy, forces + np.array([0.0, 0.0, 0.3])


def well(store):
    """The same with an energy ½ k z² per atom about the centroid, k = 0.4 eV/Å²."""
    energy, forces = pairs(store)
    z = store.positions[:, 2] - np.repeat(
        np.add.reduceat(store.positions[:, 2], store.offsets[:-1]) / store.sizes, store.sizes
    )
    energy = energy + 0.2 * np.add.reduceat(z * z, store.offsets[:-1])
    return energy, forces - 0.4 * np.outer(z, [0.0, 0.0, 1.0])
