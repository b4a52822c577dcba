"""The elements that structures are moved by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from equiscale.symmetry.designs import Draws, Sampler
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.groups import O3, SO3, Group, Permutations, Product, Translations


@dataclass(frozen=True)
class Moves:
    """Rotations about the centroid, and what else a structure is moved by at the same time."""

    reflections: bool = False
    translations: float | None = None  # Å, standard deviation along each axis
    permutations: bool = False

    def group(self, atoms: int) -> Group:
        """Of a structure of so many atoms."""
        turns: Group = O3() if self.reflections else SO3()
        others: list[Group] = [] if self.translations is None else [Translations(self.translations)]
        others += [Permutations(atoms)] if self.permutations else []
        return Product(turns, *others) if others else turns

    def __str__(self) -> str:
        words = ["rotations and reflections" if self.reflections else "rotations"]
        words += [] if self.translations is None else [f"shifts of {self.translations:g} Å"]
        words += ["orders of the atoms"] if self.permutations else []
        return ", ".join(words)


def drawn(sampler: Sampler, moves: Moves, sizes: Iterable[int], keys: Iterable[tuple[int, ...]]) -> Draws:
    """Elements [M, structures]. Each structure has a stream of its own, seeded by its key, so that neither the batch
    it is in nor its neighbours change what it is moved by.
    """
    each = [sampler.draw(moves.group(int(n)), np.random.default_rng(key), 1) for n, key in zip(sizes, keys)]

    def joined(name: str) -> np.ndarray | None:
        arrays = [getattr(d.elements, name) for d in each]
        return None if arrays[0] is None else np.concatenate(arrays).swapaxes(0, 1)

    matrix = joined("matrix")
    assert matrix is not None
    return Draws(Elements(matrix, joined("shift"), joined("order")), each[0].weights, each[0].kind)
