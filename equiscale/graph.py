"""Batches of structures as one directed graph: neighbour lists, batching, and the scatter primitive.

Units are Å and eV. Edges run sender -> receiver, sorted by receiver. Cells are rows of lattice vectors, as in ASE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from equiscale.data.store import Store
from equiscale.data.structure import Structure
from equiscale.errors import InputError

ALL_PAIRS_UP_TO = 200
"""Structures with more atoms than this, and periodic ones, go through vesin's cell list; smaller ones through one
padded all-pairs product (measured: faster up to about 150 atoms on a CPU, and it runs where the batch lies)."""


@dataclass(frozen=True)
class Counts:
    """What an architecture's compute depends on, summed over a batch."""

    atoms: int
    edges: int
    edge_pairs: int = 0  # Σ degree² over atoms: ordered pairs of edges that meet at a receiver
    atom_pairs: int = 0  # Σ size² over structures


@dataclass(frozen=True, eq=False)
class AtomGraph:
    """A batch of structures as one disconnected graph; edges run sender -> receiver, sorted by receiver."""

    numbers: Int[Tensor, " atoms"]
    positions: Float[Tensor, "atoms 3"]
    structure: Int[Tensor, " atoms"]  # which structure an atom belongs to
    size: Int[Tensor, " structures"]  # atoms per structure
    receiver: Int[Tensor, " edges"]
    sender: Int[Tensor, " edges"]
    shift: Float[Tensor, "edges 3"] | None  # the sender's periodic image less its home position; None: no cell
    degree: Int[Tensor, " atoms"]  # edges that arrive at an atom
    slot: Int[Tensor, " edges"]  # an edge's place among those of its receiver: 0 ... degree - 1
    max_degree: int
    charge: Int[Tensor, " structures"]
    spin: Int[Tensor, " structures"]  # multiplicity

    @property
    def num_structures(self) -> int:
        return len(self.size)

    @property
    def vectors(self) -> Float[Tensor, "edges 3"]:
        """From receiver to sender, Å; differentiable with respect to ``positions``."""
        r = self.positions.index_select(0, self.sender) - self.positions.index_select(0, self.receiver)
        return r if self.shift is None else r + self.shift

    @cached_property
    def counts(self) -> Counts:
        pairs = int(self.degree.square().sum()), int(self.size.square().sum())
        return Counts(len(self.numbers), len(self.receiver), *pairs)

    @cached_property
    def reverse(self) -> Int[Tensor, " edges"]:
        """For every edge the one that runs back; defined where the graph is symmetric (``build_graph``)."""
        atoms = len(self.numbers)
        there = [self.receiver * atoms + self.sender]
        back = [self.sender * atoms + self.receiver]
        if self.shift is not None:  # several images of one pair: told apart by the shift, which changes its sign
            grid = (self.shift * 1e3).round().long()
            there += list(grid.unbind(1))
            back += list((-grid).unbind(1))
        reverse = torch.empty_like(self.receiver)
        reverse[_lexsort(back)] = _lexsort(there)
        return reverse

    @cached_property
    def symmetric(self) -> bool:
        """Every edge has its counter edge: always without a neighbour cap, and where the cap does not bind."""
        back = self.reverse
        same = torch.equal(self.receiver[back], self.sender) and torch.equal(self.sender[back], self.receiver)
        return same and (self.shift is None or torch.equal(self.shift[back], -self.shift))

    @cached_property
    def leaving(self) -> tuple[Int[Tensor, " edges"], int]:
        """Row of an edge in a layout of one block per *sender*, and the slots of a block."""
        atoms = len(self.numbers)
        count = torch.bincount(self.sender, minlength=atoms)
        slots = int(count.max()) if atoms else 0
        order = self.sender.argsort(stable=True)
        first = (count.cumsum(0) - count).index_select(0, self.sender)
        rank = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device))
        return self.sender * slots + rank - first, slots

    @cached_property
    def place(self) -> Int[Tensor, " edges"]:
        """Row of an edge in the padded layout of ``pad``."""
        return self.receiver * self.max_degree + self.slot

    def pad(self, values: Float[Tensor, "edges d"]) -> Float[Tensor, "atoms slots d"]:
        """Edge values as one block per receiver, zero where there is no edge: what a batched product needs."""
        rows = len(self.numbers) * self.max_degree
        padded = values.new_zeros(rows, values.shape[1]).index_copy(0, self.place, values)
        return padded.view(len(self.numbers), self.max_degree, values.shape[1])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> AtomGraph:
        return _to(self, device, dtype)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Energies per structure and forces per atom: what a potential returns, and what a data set labels.

    Leading axes, where there are any, are those of turned copies.
    """

    energy: Float[Tensor, "*copies structures"]
    forces: Float[Tensor, "*copies atoms 3"]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Prediction:
        return _to(self, device, dtype)


def sum_by(index: Int[Tensor, " n"], values: Float[Tensor, "n *d"], size: int) -> Float[Tensor, "size *d"]:
    """Sum ``values`` that share an ``index``; the one scatter primitive of the package."""
    return values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)


def safe_norm(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
    """Length with finite (zero) first and second derivatives at a zero vector: coincident atoms give no NaN."""
    square = vectors.square().sum(-1)
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def build_graph(
    structures: Store | Sequence[Structure],
    cutoff: float | None,
    max_neighbors: int | None = None,
    *,
    symmetric: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> AtomGraph:
    """Connect every pair of atoms closer than ``cutoff`` (Å), in all structures at once.

    Where an atom has more than ``max_neighbors`` neighbours the nearest stay; of equally near ones those with the
    lower atom index, then the lower image index. The cap makes the graph neither symmetric nor smooth;
    ``symmetric`` adds the counter edge of every edge that is kept, so that a degree may exceed the cap. Without a
    cutoff there are no edges: for architectures that look at all atoms of a structure at once.
    """
    if isinstance(structures, Store):
        sizes, numbers, positions = structures.sizes, structures.numbers, structures.positions
        charge, spin = structures.charge, structures.spin
        cells = structures.cell
    else:
        sizes = np.array([len(s) for s in structures], dtype=np.int64)
        numbers = np.concatenate([s.numbers for s in structures])
        positions = np.concatenate([s.positions for s in structures])
        charge = np.array([s.charge for s in structures])
        spin = np.array([s.spin for s in structures])
        periodic = any(s.cell is not None for s in structures)
        cells = np.stack([np.zeros((3, 3)) if s.cell is None else s.cell for s in structures]) if periodic else None
    size = torch.from_numpy(np.asarray(sizes, dtype=np.int64)).to(device)
    x = torch.from_numpy(np.asarray(positions)).to(device, dtype)
    if cutoff is None:
        if cells is not None and cells.any():
            raise InputError("an architecture without a cutoff sees no periodic images: it takes molecules only.")
        receiver = sender = torch.empty(0, dtype=torch.long, device=device)
        shift = None
    elif cells is None and len(sizes) and sizes.max() <= ALL_PAIRS_UP_TO:
        receiver, sender = _all_pairs(x, size, int(sizes.max()), cutoff, max_neighbors, symmetric)
        shift = None
    else:
        x64 = np.asarray(positions, dtype=np.float64)
        r, s, t = _cell_lists(x64, sizes, cells, cutoff, max_neighbors, symmetric)
        receiver, sender = torch.from_numpy(r).to(device), torch.from_numpy(s).to(device)
        shift = None if cells is None else torch.from_numpy(t).to(device, dtype)
    atoms = len(x)
    degree = torch.bincount(receiver, minlength=atoms)
    first = degree.cumsum(0) - degree
    return AtomGraph(
        numbers=torch.from_numpy(np.asarray(numbers, dtype=np.int64)).to(device),
        positions=x,
        structure=torch.repeat_interleave(torch.arange(len(size), device=x.device), size, output_size=atoms),
        size=size,
        receiver=receiver,
        sender=sender,
        shift=shift,
        degree=degree,
        slot=torch.arange(len(receiver), device=x.device) - first.index_select(0, receiver),
        max_degree=int(degree.max()) if atoms else 0,
        charge=torch.from_numpy(np.asarray(charge, dtype=np.int64)).to(device),
        spin=torch.from_numpy(np.asarray(spin, dtype=np.int64)).to(device),
    )


def labels(store: Store, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Prediction:
    """The labels of a (normalised) store as a Prediction."""
    return Prediction(
        torch.from_numpy(np.asarray(store.energy)).to(device, dtype),
        torch.from_numpy(np.asarray(store.forces)).to(device, dtype),
    )


def _all_pairs(
    x: Tensor, size: Tensor, longest: int, cutoff: float, cap: int | None, symmetric: bool
) -> tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]]:
    """Receivers and senders from one padded all-pairs distance product, on the device of ``x``."""
    start = size.cumsum(0) - size
    place = torch.arange(longest, device=x.device)
    real = place < size[:, None]  # [structures, longest]
    row = torch.where(real, start[:, None] + place, 0)
    p = x.index_select(0, row.view(-1)).view(len(size), longest, 3)
    square = (p[:, :, None] - p[:, None, :]).square().sum(-1)  # [structures, receiver, sender]
    near = (square < cutoff * cutoff) & real[:, :, None] & real[:, None, :]
    near.diagonal(dim1=1, dim2=2).fill_(False)
    if cap is not None and longest > cap + 1:
        # A stable sort keeps equally near atoms in index order: the tie rule.
        order = torch.where(near, square, torch.inf).argsort(dim=-1, stable=True)
        rank = torch.empty_like(order).scatter_(-1, order, place.expand_as(order))
        near &= rank < cap
        if symmetric:
            near |= near.mT.clone()
    s, i, j = near.nonzero(as_tuple=True)
    first = start.index_select(0, s)
    return first + i, first + j


def _cell_lists(
    positions: np.ndarray,
    sizes: np.ndarray,
    cells: np.ndarray | None,
    cutoff: float,
    cap: int | None,
    symmetric: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Receivers, senders and image shifts by vesin, one structure at a time, in float64."""
    from vesin import NeighborList

    neighbors = NeighborList(cutoff=cutoff, full_list=True)
    receivers, senders, shifts, offset = [], [], [], 0
    for s, n in enumerate(sizes):
        box = np.zeros((3, 3)) if cells is None else cells[s]
        i, j, image, d = neighbors.compute(
            points=positions[offset : offset + n], box=box, periodic=bool(box.any()), quantities="ijSd"
        )
        i, j = i.astype(np.int64), j.astype(np.int64)
        # Sorted by receiver, then nearest first, then by sender and image: the same tie rule as all pairs.
        order = np.lexsort((image[:, 2], image[:, 1], image[:, 0], j, d, i))
        i, j, image = i[order], j[order], image[order]
        if cap is not None:
            count = np.bincount(i, minlength=n)
            slot = np.arange(len(i)) - (np.cumsum(count) - count)[i]
            keep = slot < cap
            i, j, image = i[keep], j[keep], image[keep]
            if symmetric:
                there, back = np.column_stack([i, j, image]), np.column_stack([j, i, -image])
                union = np.unique(np.concatenate([there, back]), axis=0)
                i, j, image = union[:, 0], union[:, 1], union[:, 2:]
        receivers.append(i + offset)
        senders.append(j + offset)
        shifts.append(image @ box)
        offset += n
    return np.concatenate(receivers), np.concatenate(senders), np.concatenate(shifts)


def _lexsort(columns: list[Tensor]) -> Tensor:
    """Order by the first column, ties by the next ones."""
    order = torch.arange(len(columns[0]), device=columns[0].device)
    for column in reversed(columns):
        order = order[column[order].argsort(stable=True)]
    return order


T = TypeVar("T", AtomGraph, Prediction)


def _to(value: T, device: torch.device | str | None, dtype: torch.dtype | None) -> T:
    """Move every tensor; change the dtype of those that hold real numbers, not of indices."""
    tensors: dict[str, Any] = {f.name: v for f in fields(value) if isinstance(v := getattr(value, f.name), Tensor)}
    return replace(value, **{k: v.to(device, dtype if v.is_floating_point() else None) for k, v in tensors.items()})
