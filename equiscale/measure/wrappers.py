"""Test-time averaging: a model made more symmetric, at the price of as many forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from equiscale.data.store import Store
from equiscale.data.structure import Structure
from equiscale.errors import InputError
from equiscale.measure.model import Checkpoint, Failed, Model, Predicted, through_structures
from equiscale.predict import TrainedPotential
from equiscale.symmetry.designs import Coset, FullGroup, Quadrature, Sampler, sampler
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.groups import SO3, Group


class Averaged:
    """Σ_j w_j ρ(g_j)⁻¹ f(ρ(g_j) x): energies, and forces that are turned back; minus the gradient of that energy where
    the model's forces are its own.

    A design ("T", "O", "I", "lebedev:7") is taken as it is, the same for every structure. Random elements are drawn
    from the seed and the structure's composition, charge and spin, not from its positions: along a trajectory and among
    conformers they stay the same, so that the average is as smooth as the model.
    """

    def __init__(
        self,
        model: Model,
        elements: str | Sampler = "O",
        group: Group | None = None,
        *,
        seed: int = 0,
        atoms: int = 8192,
    ):
        """``atoms``: of a batch, copies counted; bounds the memory."""
        self.model, self.group, self.seed, self.atoms = model, group or SO3(), seed, atoms
        if seed < 0:
            raise InputError(f"the seed is a whole number from 0, not {seed}.")
        if "order" in (self.group.part, *(g.part for g in getattr(self.group, "factors", ()))):
            raise InputError(
                "an average is over rotations, reflections and shifts: an order of atoms fits one size only."
            )
        made = sampler(elements) if isinstance(elements, str) else elements
        if isinstance(made, Coset):
            if made.pair:
                raise InputError("a pair of cosets is for measuring: average over one design, such as T, O or I.")
            made = Quadrature(made.name)
        self.sampler: Sampler = made
        self.named = elements if isinstance(elements, str) else str(elements)
        self.fixed = isinstance(made, Quadrature | FullGroup)
        self.copies = self._drawn(()).shape[1]

    @property
    def name(self) -> str:
        return f"{self.model.name}, averaged over {self.named} ({self.copies} forward passes)"

    def __call__(self, structures: Store | Sequence[Structure]) -> Predicted:
        if not isinstance(structures, Store):
            structures = Store.from_structures(
                [replace(s, energy=0.0, forces=np.zeros((len(s), 3))) for s in structures]
            )
        energies, forces = [], []
        begin = 0
        while begin < len(structures):
            room = structures.offsets[begin] + self.atoms // self.copies
            end = max(int(np.searchsorted(structures.offsets, room, side="right")) - 1, begin + 1)
            out = self._batch(structures.take(np.arange(begin, end)), begin)
            energies += [] if out.energy is None else [out.energy]
            forces.append(out.forces)
            begin = end
        return Predicted(np.concatenate(energies) if energies else None, np.concatenate(forces))

    def twisted(self, structures: Store, g: Elements) -> Predicted:
        return through_structures(self, structures, g)

    def _batch(self, store: Store, first: int) -> Predicted:
        keys = [()] * len(store) if self.fixed else [_key(store, s) for s in range(len(store))]
        drawn = {key: self._drawn(key) for key in set(keys)}
        matrix = np.stack([drawn[key].matrix[0] for key in keys], axis=1)
        shifts = [drawn[key].shift for key in keys]
        shift = None if shifts[0] is None else np.stack([s[0] for s in shifts if s is not None], axis=1)
        g = Elements(matrix, shift)
        energy: np.ndarray | None = np.zeros(len(store))
        forces = np.zeros((store.atoms, 3))
        step = max(self.atoms // store.atoms, 1)
        for k in range(0, self.copies, step):
            try:
                out = self.model.twisted(store, g[k : k + step])
            except Failed as error:
                raise Failed(first + error.structure, error.reason) from None
            w = self.weights[k : k + step]
            energy = None if energy is None or out.energy is None else energy + w @ out.energy
            forces = forces + np.tensordot(w, out.forces, 1)
        return Predicted(energy, forces)

    def _drawn(self, key: tuple[int, ...]) -> Elements:
        draws = self.sampler.draw(self.group, np.random.default_rng((self.seed, *key)), 1)
        self.weights = draws.weights
        return draws.elements


def _key(store: Store, s: int) -> tuple[int, ...]:
    """Composition, charge and multiplicity as numbers from zero."""
    kinds, count = np.unique(store.numbers[store.offsets[s] : store.offsets[s + 1]], return_counts=True)
    state = int(store.charge[s]) + 1024, int(store.spin[s])
    return (*state, *(int(v) for pair in zip(kinds, count) for v in pair))


def averaged(trained: TrainedPotential, elements: str, seed: int = 0) -> Averaged:
    """A checkpoint averaged over "T", "O", "I", "lebedev:7" or "random:8"."""
    if elements == "random":
        raise InputError("say how many random rotations are averaged over, as in random:8.")
    return Averaged(Checkpoint(trained), elements, seed=seed)
