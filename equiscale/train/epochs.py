"""Which training structures a step takes: the seed's order, of few structures or of a thousand million."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from equiscale.data.order import Order

STREAM = 1  # of the run's seed

SHUFFLED_AT_ONCE = 2**20
"""Structures of the training part up to which an epoch's order is NumPy's permutation, as in every published run; of
more, each place of the order is computed when it is asked for (``equiscale.data.order``)."""

BLOCK = 4096  # places of such an order that are computed together and kept


@dataclass(frozen=True)
class Epochs:
    """Epochs over the first ``chosen`` of ``size`` training structures in the seed's order.

    The first epoch of a smaller run is a prefix of a larger one's; later ones shuffle the same structures anew. What
    stands at a place depends on (size, chosen, seed, epoch) and nothing else, so a run goes on anywhere.

    ``groups`` [size], where they are given: the molecule of each structure. Then the chosen are those of whole
    molecules in the seed's order of molecules, the last one cut to make the count exact: fewer are a prefix of more.
    Every epoch, the first too, shuffles them, so that a step does not hold conformers of one molecule only.
    """

    size: int
    chosen: int
    seed: int
    groups: np.ndarray | None = field(default=None, repr=False, compare=False)
    _kept: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def first(self, count: int) -> Int[np.ndarray, " count"]:
        """The first ``count`` (or all) of the whole training part in the seed's order, whatever ``chosen`` is."""
        count = min(count, self.size)
        if self.size > SHUFFLED_AT_ONCE:
            return Order(self.size, count, self.seed).shard(0, 0, count)
        return self._whole()[:count]

    def at(self, epoch: int, start: int, stop: int) -> Int[np.ndarray, " n"]:
        """The structures at places start … stop of an epoch; a slice, so ``stop`` may lie beyond its end."""
        stop = min(stop, self.chosen)
        if self.size <= SHUFFLED_AT_ONCE:
            return self._block(epoch, 0)[start:stop]
        first = start // BLOCK
        blocks = [self._block(epoch, b) for b in range(first, -(-stop // BLOCK))]
        joined = blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.int64), *blocks])
        return joined[start - first * BLOCK : stop - first * BLOCK]

    def _block(self, epoch: int, block: int) -> np.ndarray:
        found = self._kept.get((epoch, block))
        if found is None:
            found = self._made(epoch, block)
            if len(self._kept) >= 2:  # a step may lie on the edge of two
                self._kept.clear()
            self._kept[epoch, block] = found  # another thread may clear it at once: it is not read back
        return found

    def _made(self, epoch: int, block: int) -> np.ndarray:
        if self.size > SHUFFLED_AT_ONCE:
            last = min((block + 1) * BLOCK, self.chosen)
            return Order(self.size, self.chosen, self.seed).shard(epoch, block * BLOCK, last)
        if self.groups is not None:
            chosen = by_molecule(self.groups, self.seed)[: self.chosen]
        else:
            chosen = self._whole()[: self.chosen]
            if epoch == 0:
                return chosen
        return np.random.default_rng([self.seed, STREAM, epoch]).permutation(chosen)

    def _whole(self) -> np.ndarray:
        return np.random.default_rng([self.seed, STREAM]).permutation(self.size)


def by_molecule(groups: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """Structures, molecule after molecule in the seed's order of molecules; each one's in the order of the set.

    Molecules are told apart by where they first appear, so that hashes of names and numbers of names agree.
    """
    _, first, which = np.unique(groups, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.argsort(np.random.default_rng([seed, STREAM]).permutation(len(first)))
    return np.argsort(place[which], kind="stable")
