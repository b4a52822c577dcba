"""A trained potential against labels. Structures pass in batches of a budget of atoms and leave only sums behind, so
memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from equiscale.data.checks import check
from equiscale.data.store import Store
from equiscale.data.structure import SYMBOLS, Structure
from equiscale.errors import InputError
from equiscale.evaluate.sums import Assessment, Sums
from equiscale.predict import TrainedPotential

SIZES = ((1, 10), (11, 20), (21, 30), (31, 50), (51, 100), (101, 200), (201, 500), (501, 1000), (1001, None))
"""Bins of a structure's number of atoms, ends included."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """A batch, and which of its structures have which label; what is not labelled is zero in the store."""

    store: Store
    energy: Bool[np.ndarray, " structures"]
    forces: Bool[np.ndarray, " structures"]


def evaluate(
    trained: TrainedPotential,
    structures: Store | Iterable[Structure],
    *,
    atoms: int = 4096,
    where: str = "the data",
    tell: Callable[[int], None] = lambda structures: None,
    predict: Callable[[Store], Any] | None = None,
) -> Assessment:
    """Compare a potential with labels. ``atoms``: of a batch, at most; changes rounding only. ``predict``: what is
    made of the potential and asked instead of it, such as its average over rotations.

    Structures may lack a label: each figure is of those that have what it needs. InputError where no structure has
    any, for an element the potential does not know, and for what ``checks.check`` refuses. ``tell`` is told how many
    structures are done.
    """
    if atoms < 1:
        raise InputError(f"a batch has at least one atom, not {atoms}.")
    count = size = with_energy = with_forces = 0
    of_potential, of_trivial = Sums(), Sums()
    by_element: dict[int, Sums] = {}
    by_size: dict[str, Sums] = {}
    for batch in _batches(structures, atoms, where):
        store = batch.store
        count, size = count + len(store), size + int(store.offsets[-1])
        with_energy, with_forces = with_energy + int(batch.energy.sum()), with_forces + int(batch.forces.sum())
        chosen = np.flatnonzero(batch.energy | batch.forces)
        if len(chosen):
            part = Labelled(store.take(chosen), batch.energy[chosen], batch.forces[chosen])
            trained.refuse_unknown(part.store.elements, where)
            out = (predict or trained)(part.store)
            energy, forces = np.asarray(out.energy), np.asarray(out.forces)
            _add(of_potential, part, energy, forces, trained.references.sigma)
            baseline = trained.references.baseline(part.store)
            _add(of_trivial, part, baseline, np.zeros_like(forces), trained.references.sigma)
            _add_elements(by_element, part, forces)
            _add_sizes(by_size, part, energy, forces, trained.references.sigma)
        tell(count)
    if not count:
        raise InputError(f"{where} is empty: there are no structures.")
    if not with_energy + with_forces:
        raise InputError(f"{where}: found energy in 0/{count}, forces in 0/{count} structures: nothing to compare.")
    return Assessment(
        count,
        size,
        with_energy,
        with_forces,
        of_potential.errors(),
        of_trivial.errors(),
        {SYMBOLS[z]: e for z in sorted(by_element) if (e := by_element[z].forces()) is not None},
        {name: by_size[name].errors() for name in map(_named, SIZES) if name in by_size},
    )


def _add(
    sums: Sums,
    batch: Labelled,
    energy: Float[np.ndarray, " structures"],
    forces: Float[np.ndarray, "atoms 3"],
    sigma: float,
) -> None:
    """Add what the labels of a batch allow. ``energy``, ``forces``: predicted, eV and eV/Å; ``sigma``: eV."""
    store, sizes = batch.store, batch.store.sizes
    error = energy - store.energy
    sums.structures += len(store)
    sums.add_energies(error[batch.energy], sizes[batch.energy])
    rows = np.repeat(batch.forces, sizes)
    sums.add_forces(forces[rows], store.forces[rows].astype(np.float64))
    both = batch.energy & batch.forces
    length = np.linalg.norm(forces - store.forces, axis=1)
    mean = np.add.reduceat(length, store.offsets[:-1]) / sizes
    sums.add_losses(np.abs(error)[both] / sizes[both] / sigma, mean[both] / sigma)


def _add_elements(by_element: dict[int, Sums], batch: Labelled, forces: Float[np.ndarray, "atoms 3"]) -> None:
    rows = np.repeat(batch.forces, batch.store.sizes)
    for z in batch.store.elements:
        own = rows & (batch.store.numbers == z)
        if own.any():
            by_element.setdefault(z, Sums()).add_forces(forces[own], batch.store.forces[own].astype(np.float64))


def _add_sizes(
    by_size: dict[str, Sums],
    batch: Labelled,
    energy: Float[np.ndarray, " structures"],
    forces: Float[np.ndarray, "atoms 3"],
    sigma: float,
) -> None:
    sizes = batch.store.sizes
    for low, high in SIZES:
        own = np.flatnonzero((sizes >= low) & (sizes <= (high or np.inf)))
        if len(own):
            part = Labelled(batch.store.take(own), batch.energy[own], batch.forces[own])
            rows = np.isin(np.repeat(np.arange(len(sizes)), sizes), own)
            _add(by_size.setdefault(_named((low, high)), Sums()), part, energy[own], forces[rows], sigma)


def _named(sizes: tuple[int, int | None]) -> str:
    low, high = sizes
    return f"{low}+" if high is None else f"{low}-{high}"


def _batches(structures: Store | Iterable[Structure], atoms: int, where: str) -> Iterator[Labelled]:
    """Consecutive structures, as many as fit the budget of atoms and at least one; checked."""
    if isinstance(structures, Store):
        start = 0
        while start < len(structures):
            end = int(np.searchsorted(structures.offsets, structures.offsets[start] + atoms, side="right")) - 1
            end = max(end, start + 1)
            all_of_them = np.ones(end - start, bool)
            yield Labelled(structures.take(np.arange(start, end)), all_of_them, all_of_them)
            start = end
        return
    held: list[Structure] = []
    first = room = 0
    for structure in structures:
        room -= len(structure)
        if held and room < 0:
            yield _packed(held, where, first)
            first, held = first + len(held), []
        if not held:
            room = atoms - len(structure)
        held.append(structure)
    if held:
        yield _packed(held, where, first)


def _packed(held: list[Structure], where: str, first: int) -> Labelled:
    energy = np.array([s.energy is not None for s in held])
    forces = np.array([s.forces is not None for s in held])
    whole = [
        replace(
            s,
            energy=0.0 if s.energy is None else s.energy,
            forces=np.zeros((len(s), 3)) if s.forces is None else s.forces,
        )
        for s in held
    ]
    return Labelled(check(Store.from_structures(whole), where, first), energy, forces)
