"""Which structure trains and which validates: by molecule, from hashes of names, so that nothing depends on
an order.

A molecule's rank is the SHA-256 of its name; the first go to validation "molecules", the next to "test", the
next stay in training but give some of their structures to validation "conformers" (method.md, Fresh data).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from equiscale.data.store import PARTS, Store
from equiscale.errors import InputError

TRAIN, MOLECULES, CONFORMERS, TEST = range(len(PARTS))


def digest(*words: object) -> int:
    """SHA-256 of the words as an integer: the one source of every seed and every order in the data
    chapter.
    """
    return int.from_bytes(hashlib.sha256("|".join(map(str, words)).encode()).digest(), "big")


def hash_order(names: Sequence[str], salt: object = "") -> Int[np.ndarray, " n"]:
    """Indices that sort ``names`` by the hash of salt and name: a shuffle that adding a name does not
    reshuffle.
    """
    return np.array(sorted(range(len(names)), key=lambda i: (digest(salt, names[i]), i)), dtype=np.int64)


def roles(
    names: Sequence[str],
    eligible: Bool[np.ndarray, " groups"],
    *,
    molecules: int,
    test: int,
    conformers: int,
    salt: object = "split",
) -> Int[np.ndarray, " groups"]:
    """A part per group: the first ``molecules`` in hash order, then ``test``, then ``conformers``; the rest
    trains.

    A group of the role "conformers" still trains: only some of its structures are held out. Groups that are
    not ``eligible`` (an element that hardly any other has, say) train always.
    """
    order = [g for g in hash_order(names, salt) if eligible[g]]
    role = np.full(len(names), TRAIN, dtype=np.int8)
    role[order[:molecules]] = MOLECULES
    role[order[molecules : molecules + test]] = TEST
    role[order[molecules + test : molecules + test + conformers]] = CONFORMERS
    return role


def common_elements(elements: Sequence[frozenset[int]], at_least: int) -> Bool[np.ndarray, " groups"]:
    """Which groups hold only elements found in ``at_least`` groups: holding out another would leave training
    without.
    """
    count: dict[int, int] = {}
    for group in elements:
        for z in group:
            count[z] = count.get(z, 0) + 1
    return np.array([all(count[z] >= at_least for z in group) for group in elements], dtype=bool)


def by_group(
    store: Store,
    *,
    molecules: float = 0.08,
    test: float = 0.08,
    conformers: float = 0.04,
    seed: int = 0,
) -> Store:
    """``store`` with parts: whole groups for "molecules" and "test", late structures of training groups for
    "conformers".

    Fractions are of groups for the first two and of structures for the third, which takes the last third of a
    group's structures in the order of the file (neighbours in a trajectory are alike; a random third would be
    seen in training). Groups of fewer than three structures give none. At least one group is left to train.
    """
    present, group = np.unique(store.group, return_inverse=True)
    count = len(present)
    if count < 3:
        raise InputError(
            f"a split by molecule needs at least 3 groups and there {_are(count)}: "
            "name the key that tells molecules apart (group_key), or cut the file into runs (blocks=20)."
        )
    names = [store.group_names[g] if store.group_names else str(g) for g in present]
    owner = np.repeat(group, store.sizes)
    elements = [frozenset(np.unique(z).tolist()) for z in _grouped(store.numbers, owner, count)]
    held = [max(1, round(fraction * count)) if fraction else 0 for fraction in (molecules, test)]
    held = [min(h, (count - 1) // 2) for h in held]
    # Elements found in too few groups stay in training, unless that would leave nothing to hold out.
    eligible = common_elements(elements, at_least=3)
    if eligible.sum() < sum(held):
        eligible[:] = True
    role = roles(names, eligible, molecules=held[0], test=held[1], conformers=0, salt=("split", seed))
    part = role[group]
    wanted, taken = conformers * len(store), 0
    for g in hash_order(names, ("conformers", seed)):
        members = np.flatnonzero(group == g)
        if taken >= wanted:
            break
        if role[g] == TRAIN and len(members) >= 3:
            late = members[-(len(members) // 3) :]
            part[late] = CONFORMERS
            taken += len(late)
    return replace(store, part=part.astype(np.int8))


def nested(store: Store, structures: int, *, seed: int = 0, part: str = "train") -> Int[np.ndarray, " structures"]:
    """Indices of the first ``structures`` of a part in hash order: a smaller subset is always inside a larger
    one.
    """
    indices = store.where(part)
    if not 0 < structures <= len(indices):
        raise InputError(f"{structures} structures were asked of part {part!r}, which has {len(indices)}.")
    # Name by molecule and place within it, so that a subset does not depend on where in the store a molecule
    # lies.
    seen: dict[int, int] = {}
    names = []
    for s in indices:
        g = int(store.group[s])
        seen[g] = seen.get(g, -1) + 1
        names.append(f"{store.group_names[g] if store.group_names else g}|{seen[g]}")
    return indices[hash_order(names, ("subset", seed))[:structures]]


def _grouped(values: np.ndarray, owner: np.ndarray, count: int) -> list[np.ndarray]:
    """Values of each owner, 0 … count - 1."""
    order = np.argsort(owner, kind="stable")
    return np.split(values[order], np.searchsorted(owner[order], np.arange(1, count)))


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
