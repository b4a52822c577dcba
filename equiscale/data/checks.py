"""What cannot be trained on (an error), what looks wrong (a sentence), and what is there twice."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from equiscale.data.store import Store
from equiscale.errors import InputError

SAME_PLACE = 0.05  # Å; the shortest bond, H2 compressed at 1000 K, is above 0.5
TOO_CLOSE = 0.5  # Å
LARGE_FORCE = 30.0  # eV/Å
ROWS = 2_000_000  # pairs held in memory at once


def check(store: Store, where: str = "the set", first: int = 0) -> Store:
    """``store`` again, or InputError: nothing there, NaN or infinities, an unknown element, two atoms at one
    place. ``first``: which structure of ``where`` the store begins with.
    """
    if len(store) == 0:
        raise InputError(f"{where} is empty: there are no structures.")
    owner = np.repeat(np.arange(len(store)), store.sizes)
    if (store.sizes < 1).any():
        raise InputError(f"structure {first + int(np.argmin(store.sizes))} of {where} has no atoms: remove it.")
    for name, values in (("positions", store.positions), ("forces", store.forces)):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise InputError(_named(where, first + owner[bad], f"NaN or infinite {name}"))
    if not np.isfinite(store.energy).all():
        raise InputError(_named(where, first + np.flatnonzero(~np.isfinite(store.energy)), "NaN or infinite energy"))
    unknown = (store.numbers < 1) | (store.numbers > 118)
    if unknown.any():
        z = int(store.numbers[unknown][0])
        raise InputError(_named(where, first + owner[unknown], f"atomic number {z}, which is no element"))
    same = np.flatnonzero(shortest_distances(store) < SAME_PLACE)
    if len(same):
        raise InputError(_named(where, first + same, "two atoms at one place"))
    return store


def _named(where: str, structures: np.ndarray, what: str) -> str:
    found = np.unique(structures)
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"structure {int(found[0])} of {where}{others} has {what}: correct it or remove it."


def shortest_distances(store: Store) -> Float[np.ndarray, " structures"]:
    """Å between the two nearest atoms of each structure (images included); infinite for one atom without a
    cell.
    """
    shortest = np.full(len(store), np.inf)
    periodic = np.zeros(len(store), bool) if store.cell is None else store.cell.any(axis=(1, 2))
    for n in np.unique(store.sizes):
        if n > 500:
            continue
        group = np.flatnonzero((store.sizes == n) & ~periodic)
        upper = np.triu_indices(n, 1)
        if n < 2:
            continue
        step = max(1, ROWS // len(upper[0]))
        for a in range(0, len(group), step):
            x = _stacked(store, group[a : a + step])
            d2 = ((x[:, upper[0]] - x[:, upper[1]]) ** 2).sum(-1)  # structures, pairs
            shortest[group[a : a + step]] = np.sqrt(d2.min(axis=1))
    for s in np.flatnonzero(periodic | (store.sizes > 500)):
        shortest[s] = _nearest(store, int(s))
    return shortest


def _nearest(store: Store, s: int) -> float:
    """One large or periodic structure, with a tree over the atoms and, where periodic, their 26 nearest
    images.
    """
    from scipy.spatial import cKDTree

    x = store.positions[store.offsets[s] : store.offsets[s + 1]].astype(np.float64)
    images = x
    if store.cell is not None and store.cell[s].any():
        cell = store.cell[s]
        fractional = x @ np.linalg.inv(cell)
        x = (fractional - np.floor(fractional)) @ cell
        shifts = np.array([[i, j, k] for i in (0, -1, 1) for j in (0, -1, 1) for k in (0, -1, 1)]) @ cell
        images = (x[None] + shifts[:, None]).reshape(-1, 3)
    if len(images) < 2:
        return np.inf
    distances, _ = cKDTree(images).query(x, k=2)
    return float(np.asarray(distances)[:, 1].min())


def _stacked(store: Store, structures: np.ndarray) -> np.ndarray:
    """Positions of structures of one size, [structures, atoms, 3]."""
    rows = store.offsets[structures][:, None] + np.arange(store.sizes[structures[0]])
    return store.positions[rows].astype(np.float64)


def suspicious(store: Store) -> list[str]:
    """Sentences about values that are possible and seldom right."""
    said = []
    owner = np.repeat(np.arange(len(store)), store.sizes)
    length = np.linalg.norm(store.forces.astype(np.float64), axis=1)
    if (length > LARGE_FORCE).any():
        count = len(np.unique(owner[length > LARGE_FORCE]))
        said.append(f"{count} structures have a force above {LARGE_FORCE:g} eV/Å (largest {length.max():.1f})")
    close = shortest_distances(store) < TOO_CLOSE
    if close.any():
        said.append(f"{close.sum()} structures have atoms nearer than {TOO_CLOSE} Å")
    if len(store) and (length == 0).all():
        said.append("every force is zero: are the forces labels, or a placeholder?")
    net = np.zeros((len(store), 3))
    np.add.at(net, owner, store.forces.astype(np.float64))
    # Forces stored with three digits sum to about 1e-3 per root atom; what is far beyond was not computed
    # without a field.
    far = np.linalg.norm(net, axis=1) > 0.05 * np.sqrt(np.maximum(store.sizes, 1))
    if far.any():
        said.append(f"{far.sum()} structures have forces that do not sum to zero: labels of a part, or a field?")
    electrons = np.bincount(owner, weights=store.numbers.astype(np.float64), minlength=len(store)) - store.charge
    odd = (electrons.astype(np.int64) + store.spin.astype(np.int64)) % 2 == 0
    if odd.any():
        said.append(f"{odd.sum()} structures have a multiplicity that their electrons do not allow: charge or spin?")
    median = np.median(store.energy / np.maximum(store.sizes, 1)) if len(store) else 0.0
    if len(store) and abs(median) > 1e5:
        said.append(f"energies are about {median:.3g} eV per atom: is the unit right?")
    return said


def duplicates(store: Store, tolerance: float = 5e-3) -> Int[np.ndarray, "pairs 2"]:
    """Pairs of structures that are one another up to a motion or a mirror: same composition and distances
    (Å).

    Candidates agree in three moments of the atoms' distances to the centre; the sorted lists of all distances
    decide. Periodic structures count only where they were not moved. At most 64 candidates are looked at per
    structure.
    """
    if len(store) < 2:
        return np.zeros((0, 2), np.int64)
    owner = np.repeat(np.arange(len(store)), store.sizes)
    n = np.maximum(store.sizes, 1)
    x = store.positions.astype(np.float64)
    centre = np.stack([np.bincount(owner, x[:, k], len(store)) for k in range(3)], 1) / n[:, None]
    radius = np.linalg.norm(x - centre[owner], axis=1)
    moments = np.stack([(np.bincount(owner, radius**p, len(store)) / n) ** (1 / p) for p in (1, 2, 4)], 1)
    composition = np.zeros((len(store), 119), np.int32)
    np.add.at(composition, (owner, np.clip(store.numbers, 0, 118)), 1)
    kind = np.unique(composition, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((moments[:, 1], kind))
    pairs = []
    for shift in range(1, min(65, len(store))):
        a, b = order[:-shift], order[shift:]
        near = (kind[a] == kind[b]) & (np.abs(moments[a, 1] - moments[b, 1]) < tolerance)
        if not near.any():
            break
        near &= (np.abs(moments[a] - moments[b]) < tolerance).all(axis=1)
        pairs += [(i, j) for i, j in zip(a[near].tolist(), b[near].tolist()) if _same(store, i, j, tolerance)]
    return np.sort(np.array(pairs, dtype=np.int64).reshape(-1, 2), axis=1)


def _same(store: Store, i: int, j: int, tolerance: float) -> bool:
    if store.sizes[i] > 500:  # all distances would not fit: compare atom by atom
        return bool(np.abs(_centred(store, i) - _centred(store, j)).max() < tolerance)
    lists = []
    for s in (i, j):
        x = _centred(store, s)
        upper = np.triu_indices(len(x), 1)
        lists.append(np.sort(np.linalg.norm(x[upper[0]] - x[upper[1]], axis=1)))
    return len(lists[0]) == 0 or bool(np.abs(lists[0] - lists[1]).max() < 2 * tolerance)


def _centred(store: Store, s: int) -> np.ndarray:
    x = store.positions[store.offsets[s] : store.offsets[s + 1]].astype(np.float64)
    return x - x.mean(axis=0)
