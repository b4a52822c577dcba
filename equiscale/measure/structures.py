"""Which structures a model is measured on: a subset spread over the data, with the labels that there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from equiscale.data.checks import check
from equiscale.data.packed import Packed
from equiscale.data.sources import stream_extxyz
from equiscale.data.store import Store
from equiscale.data.structure import SYMBOLS, Structure
from equiscale.errors import InputError
from equiscale.evaluate import read
from equiscale.evaluate.source import FromFile


@dataclass(frozen=True, eq=False)
class Chosen:
    """Rows of a store. ``labels``: those that all of them have; what is not labelled is zero in the store."""

    data: Store | Packed
    rows: Int[np.ndarray, " n"]
    places: Int[np.ndarray, " n"]  # in the data as it was given, for a sentence
    labels: frozenset[str]
    left: int  # structures without the labels that the others have
    where: str
    isolated: int = 0  # single atoms of a file, left out: they are references

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, atoms: int, alike: bool = False) -> Iterator[Int[np.ndarray, " n"]]:
        """Which of the rows go together: at most so many atoms, and at least one. ``alike``: of one size only."""
        sizes = self.data.sizes_at(self.rows)
        order = np.argsort(sizes, kind="stable") if alike else np.arange(len(sizes))
        held: list[int] = []
        room = 0
        for i in order:
            if held and (sizes[i] > room or (alike and sizes[i] != sizes[held[-1]])):
                yield np.array(held)
                held = []
            if not held:
                room = atoms
            held.append(int(i))
            room -= int(sizes[i])
        if held:
            yield np.array(held)

    def named(self, i: int) -> str:
        """One of them in words."""
        store = self.data.take(self.rows[i : i + 1])
        kinds, count = np.unique(store.numbers, return_counts=True)
        formula = "".join(f"{SYMBOLS[z]}{n if n > 1 else ''}" for z, n in zip(kinds[::-1], count[::-1]))
        return f"structure {self.places[i]} of {self.where} ({formula})"


def choose(
    data: str | Store | Packed | Iterable[Structure],
    count: int | None = 256,
    *,
    needed: tuple[str, ...] = ("forces",),
    part: str | None = None,
    where: str = "the data",
    **keys: object,
) -> Chosen:
    """``count`` structures (None: all), evenly spaced over the data. Where some have the labels ``needed`` only these
    are taken; where none has, those without. ``part`` and ``keys``: of ``evaluate.read``, where ``data`` is a name.
    """
    if count is not None and count < 1:
        raise InputError(f"at least one structure is measured, not {count}.")
    if isinstance(data, str):
        where = data
        data = read(data, part, **keys)
    if isinstance(data, FromFile):
        return _from_file(data, count, needed)
    if isinstance(data, Store | Packed):
        rows = np.arange(len(data)) if count is None else _spaced(len(data), count)
        if not len(rows):
            raise InputError(f"{where} is empty: there are no structures.")
        return Chosen(data, rows, rows, frozenset({"energy", "forces"}), 0, where)
    return _from_structures(data, count, needed, where)


def _spaced(have: int, count: int) -> Int[np.ndarray, " n"]:
    return np.unique(np.linspace(0, have - 1, min(count, have)).round().astype(np.int64))


class _Spread:
    """Every k-th of a stream, with k doubled whenever twice as many are held as are wanted."""

    def __init__(self, count: int | None):
        self.count, self.every, self.seen = count, 1, 0
        self.held: list[tuple[int, Structure]] = []

    def add(self, place: int, structure: Structure) -> None:
        if self.seen % self.every == 0:
            self.held.append((place, structure))
            if self.count is not None and len(self.held) >= 2 * self.count:
                self.held, self.every = self.held[::2], 2 * self.every
        self.seen += 1

    def chosen(self) -> list[tuple[int, Structure]]:
        rows = range(len(self.held)) if self.count is None else _spaced(len(self.held), self.count)
        return [self.held[i] for i in rows]


def _from_structures(structures: Iterable[Structure], count: int | None, needed: tuple[str, ...], where: str) -> Chosen:
    """In one pass that holds no more than twice the structures wanted."""
    with_labels, without = _Spread(count), _Spread(count)
    for place, s in enumerate(structures):
        has = all(getattr(s, name) is not None for name in needed)
        (with_labels if has else without).add(place, s)
    held = (with_labels if with_labels.seen else without).chosen()
    if not held:
        raise InputError(f"{where} is empty: there are no structures.")
    labels = frozenset(name for name in ("energy", "forces") if all(getattr(s, name) is not None for _, s in held))
    whole = [
        replace(
            s,
            energy=0.0 if s.energy is None else s.energy,
            forces=np.zeros((len(s), 3)) if s.forces is None else s.forces,
        )
        for _, s in held
    ]
    store = check(Store.from_structures(whole), where)
    left = without.seen if with_labels.seen else 0
    return Chosen(store, np.arange(len(store)), np.array([p for p, _ in held]), labels, left, where)


def _from_file(file: FromFile, count: int | None, needed: tuple[str, ...]) -> Chosen:
    """Unlike an evaluation a measurement needs no label; a key that was asked for is there, though."""
    found = {"energy": 0, "forces": 0}
    total = isolated = 0

    def structures() -> Iterator[Structure]:
        nonlocal total, isolated
        for frame in stream_extxyz(file.path, optional=True, **file.keys):
            if frame.isolated:
                isolated += 1
                continue
            total += 1
            for name in found:
                found[name] += getattr(frame.structure, name) is not None
            yield frame.structure
        if isolated and not total:
            raise InputError(f"{file.path} holds isolated atoms only: there is nothing to measure.")

    chosen = _from_structures(structures(), count, needed, file.path)
    for name, n in found.items():
        if f"{name}_key" in file.keys and not n:
            raise InputError(
                f"{file.path}: found {name} ({file.keys[f'{name}_key']!r}) in 0/{total} structures: name the right "
                f"{name}_key, or none to measure without labels."
            )
    return replace(chosen, isolated=isolated)
