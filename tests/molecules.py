"""Structures for tests: no physics, only shapes that a graph can be built of."""

import numpy as np

from equiscale.data.structure import Structure


def random_molecules(count: int, low: int, high: int, seed: int, labelled: bool = False) -> list[Structure]:
    """Globular clusters of H, C, N, O with no two atoms nearer than 0.9 Å."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        n = int(rng.integers(low, high + 1))
        positions = np.zeros((0, 3))
        spread = 0.8 * n ** (1 / 3)
        while len(positions) < n:
            x = rng.normal(0, spread, 3)
            if not len(positions) or np.linalg.norm(positions - x, axis=1).min() > 0.9:
                positions = np.vstack([positions, x])
        numbers = rng.choice([1, 6, 7, 8], n)
        energy = float(rng.normal()) - 10.0 * numbers.sum() if labelled else None
        forces = rng.normal(size=(n, 3)) if labelled else None
        made.append(Structure(numbers, positions, energy, forces, group=f"m{k}"))
    return made


def crystal(n: int, seed: int, edge: float = 5.0) -> Structure:
    """A skewed cell with atoms across its faces."""
    rng = np.random.default_rng(seed)
    cell = edge * (np.eye(3) + 0.15 * rng.normal(size=(3, 3)))
    return Structure(rng.choice([1, 6, 8], n), rng.uniform(-0.5, 1.5, (n, 3)) @ cell, cell=cell)
