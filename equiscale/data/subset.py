"""The training part of a set that does not fit into memory: normalised where it is gathered, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Int

from equiscale.data.packed import Packed
from equiscale.data.references import References
from equiscale.data.store import PARTS, Store

ROWS = 2**18  # structures looked at at once


@dataclass(frozen=True, eq=False)
class Subset:
    """One part of a packed store with dimensionless labels. Reads as the Store of that part: ``len``, ``take``,
    ``sizes_at``, ``atoms``; places count within the part.
    """

    data: Packed
    part: str
    references: References

    def __len__(self) -> int:
        return self.data.count(self.part)

    def take(self, places: Int[np.ndarray, " n"]) -> Store:
        """The structures at ``places`` of the part, in that order, with e' and f' for labels."""
        return normalised(self.data.take(self.data.pick(self.part, places)), self.references)

    def sizes_at(self, places: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return self.data.sizes_at(self.data.pick(self.part, places))

    @property
    def group(self) -> Int[np.ndarray, " n"]:
        """The molecule of every structure of the part: all in memory, so not to be asked of a very large one."""
        return self.data.group[self.data.where(self.part)]

    @cached_property
    def atoms(self) -> int:
        """Of the whole part."""
        return atoms_of(self.data, self.part)


def normalised(store: Store, references: References) -> Store:
    """The store with dimensionless labels e' and f'."""
    energy, forces = references.normalise(store)
    return replace(store, energy=energy, forces=forces)


def atoms_of(data: Packed, part: str) -> int:
    """Atoms of a part, counted in pieces."""
    total = 0
    for start in range(0, len(data), ROWS):
        stop = min(start + ROWS, len(data))
        chosen = data.part[start:stop] == PARTS.index(part)
        total += int(np.diff(data.offsets[start : stop + 1])[chosen].sum())
    return total
