"""Elements of the groups that act on structures: a rotation or reflection, a shift, and an order of the atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from equiscale.errors import InputError


@dataclass(frozen=True, eq=False)
class Elements:
    """Any number of elements of (O(3) ⋉ R³) × S_n, which act on points as (g x)_k = R x_{order[k]} + t.

    The leading axes ``shape`` are those of the collection; indexing, composing and inverting act on each element.
    None: no shift, no permutation.
    """

    matrix: Float[np.ndarray, "*shape 3 3"]
    shift: Float[np.ndarray, "*shape 3"] | None = None
    order: Int[np.ndarray, "*shape n"] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.matrix.shape[:-2]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: Any) -> Elements:
        """Elements at ``where`` of the collection's axes: what numpy takes there, such as ``g[:, None]``."""
        where = where if isinstance(where, tuple) else (where,)
        if not any(w is ... for w in where):
            where = (*where, ...)
        return Elements(
            self.matrix[(*where, slice(None), slice(None))],
            None if self.shift is None else self.shift[(*where, slice(None))],
            None if self.order is None else self.order[(*where, slice(None))],
        )

    @property
    def transposed(self) -> Elements:
        """The first two axes swapped: [samples, M] as drawn are [M, samples] where predictions are asked for."""
        swap = lambda values: None if values is None else np.swapaxes(values, 0, 1)  # noqa: E731
        return Elements(np.swapaxes(self.matrix, 0, 1), swap(self.shift), swap(self.order))

    def __matmul__(self, other: Elements) -> Elements:
        """The product that acts with ``other`` first; shapes broadcast."""
        matrix = self.matrix @ other.matrix
        if self.shift is None and other.shift is None:
            shift = None
        else:
            mine = np.zeros(3) if self.shift is None else self.shift
            theirs = np.zeros(3) if other.shift is None else other.shift
            shift = np.einsum("...ij,...j->...i", self.matrix, theirs) + mine
            shift = np.broadcast_to(shift, matrix.shape[:-1])
        if self.order is None or other.order is None:
            order = self.order if other.order is None else other.order
            if order is not None:
                order = np.broadcast_to(order, (*matrix.shape[:-2], order.shape[-1]))
        else:
            first, second = np.broadcast_arrays(other.order, self.order)
            order = np.take_along_axis(first, second, axis=-1)
        return Elements(matrix, shift, order)

    def inverse(self) -> Elements:
        back = np.swapaxes(self.matrix, -1, -2)
        return Elements(
            back,
            None if self.shift is None else -np.einsum("...ij,...j->...i", back, self.shift),
            None if self.order is None else np.argsort(self.order, axis=-1),
        )

    @property
    def sign(self) -> Float[np.ndarray, "*shape"]:
        """The determinant: +1 for rotations, -1 where a reflection is in it."""
        return np.asarray(np.sign(np.linalg.det(self.matrix)))


def rotations(matrix: Float[np.ndarray, "*shape 3 3"], tolerance: float = 1e-6) -> Elements:
    """Elements that turn (or reflect) only; InputError where a matrix is not orthogonal."""
    matrix = np.asarray(matrix, float)
    off = np.abs(matrix @ np.swapaxes(matrix, -1, -2) - np.eye(3)).max() if matrix.size else 0.0
    if not off < tolerance:
        raise InputError(f"a rotation is an orthogonal matrix; R Rᵀ of one of these is {off:.1g} off the identity.")
    return Elements(matrix)


def identity(*shape: int) -> Elements:
    """The identity, ``shape`` times."""
    return Elements(np.broadcast_to(np.eye(3), (*shape, 3, 3)))
