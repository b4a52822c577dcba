"""How elements act on batches of structures: graphs and predictions in torch, stores in numpy.

A rotation acts about each structure's centroid, so that it never tests translations too: x -> R (x - c) + c + t.
Cells turn with their atoms. A graph that is turned keeps its edges: distances do not change, and where a neighbour cap
or the cutoff cuts is not left to round-off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equiscale.data.store import Store
from equiscale.errors import InputError
from equiscale.graph import AtomGraph, Prediction, sum_by
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.twist import twisted

Predict = Callable[[AtomGraph], Prediction]


def turn(g: Elements, graph: AtomGraph) -> AtomGraph:
    """Each structure by its own element: ``g`` has one per structure. Differentiable in the positions."""
    _refuse_order(g)
    x = graph.positions
    matrix = _tensor(g.matrix, x).index_select(0, graph.structure)
    size = graph.size.to(x.dtype)[:, None]
    centre = (sum_by(graph.structure, x, graph.num_structures) / size).index_select(0, graph.structure)
    moved = _apply(matrix, x - centre) + centre
    if g.shift is not None:
        moved = moved + _tensor(g.shift, x).index_select(0, graph.structure)
    shift = graph.shift
    if shift is not None:
        shift = _apply(matrix.index_select(0, graph.receiver), shift)
    return replace(graph, positions=moved, shift=shift)


def turn_prediction(g: Elements, prediction: Prediction, structure: Tensor) -> Prediction:
    """Energies are invariant, forces are vectors. ``structure`` [atoms]: whose atom."""
    matrix = _tensor(g.matrix, prediction.forces).index_select(0, structure)
    return Prediction(prediction.energy, _apply(matrix, prediction.forces))


def copies(graph: AtomGraph, count: int) -> AtomGraph:
    """The batch ``count`` times as one batch, copy after copy: one forward pass instead of many."""
    atoms, structures = len(graph.numbers), graph.num_structures

    def again(values: Tensor, step: int) -> Tensor:
        offset = step * torch.arange(count, device=values.device).repeat_interleave(len(values))
        return values.repeat(count) + offset

    return AtomGraph(
        numbers=graph.numbers.repeat(count),
        positions=graph.positions.repeat(count, 1),
        structure=again(graph.structure, structures),
        size=graph.size.repeat(count),
        receiver=again(graph.receiver, atoms),
        sender=again(graph.sender, atoms),
        shift=None if graph.shift is None else graph.shift.repeat(count, 1),
        degree=graph.degree.repeat(count),
        slot=graph.slot.repeat(count),
        max_degree=graph.max_degree,
        charge=graph.charge.repeat(count),
        spin=graph.spin.repeat(count),
    )


def twisted_predictions(f: Predict, graph: AtomGraph, g: Elements) -> Prediction:
    """ρ(g)⁻¹ f(ρ(g) x) for elements ``g`` [M, structures]: energy [M, structures], forces [M, atoms, 3].

    One forward pass of a batch of M copies; differentiable in what ``f`` is differentiable in.
    """
    count = g.shape[0]
    many = copies(graph, count)
    flat = Elements(g.matrix.reshape(-1, 3, 3), None if g.shift is None else g.shift.reshape(-1, 3), g.order)
    out = twisted(f, turn, partial(turn_prediction, structure=many.structure))(flat, many)
    return Prediction(out.energy.view(count, -1), out.forces.view(count, -1, 3))


def turn_store(g: Elements, store: Store, *, labels: bool = True, about: str = "centroid") -> Store:
    """Structures, their cells and (``labels``) forces turned, each by its own element; positions in float64.

    ``about``: the centroid, or the origin. A permutation, where there is one, is of structures of one size.
    """
    each = g.matrix[np.repeat(np.arange(len(store)), store.sizes)]
    x = store.positions.astype(np.float64)
    if about == "centroid":
        centre = np.repeat(np.add.reduceat(x, store.offsets[:-1]) / store.sizes[:, None], store.sizes, axis=0)
        x = np.einsum("aij,aj->ai", each, x - centre) + centre
    else:
        x = np.einsum("aij,aj->ai", each, x)
    if g.shift is not None:
        x = x + np.repeat(g.shift, store.sizes, axis=0)
    forces = np.einsum("aij,aj->ai", each, store.forces) if labels else store.forces
    cell = None if store.cell is None else np.einsum("sij,skj->ski", g.matrix, store.cell)
    moved = replace(store, positions=x, forces=forces, cell=cell)
    if g.order is None:
        return moved
    rows = (store.offsets[:-1, None] + _of_one_size(g, store)).reshape(-1)
    return replace(moved, numbers=moved.numbers[rows], positions=x[rows], forces=forces[rows])


def _of_one_size(g: Elements, store: Store) -> np.ndarray:
    assert g.order is not None
    sizes = set(store.sizes.tolist())
    if sizes != {g.order.shape[-1]}:
        raise InputError(
            f"a permutation of {g.order.shape[-1]} atoms cannot act on structures of {sorted(sizes)} atoms: choose "
            "structures of that size."
        )
    return g.order


def _refuse_order(g: Elements) -> None:
    if g.order is not None:
        raise InputError("a graph's atoms are not permuted: permute the structures, and build their graph.")


def _tensor(values: Float[np.ndarray, "..."], like: Tensor) -> Tensor:
    # A copy: elements of a broadcast collection share one read-only array.
    return torch.as_tensor(np.array(values, order="C"), dtype=like.dtype, device=like.device)


def _apply(matrix: Float[Tensor, "n 3 3"], vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    # Not a matrix product: those lose digits under tf32 and autocast, and these are positions.
    return (matrix * vectors[:, None, :]).sum(-1)
