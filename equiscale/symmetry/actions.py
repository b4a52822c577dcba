"""How elements act on arrays of NumPy or torch: scalars, vectors, points, tensors, grids, and mappings of them.

An action owns the last axes of an array: components, before them an atom axis where ``per_atom``, or the three axes of
a grid. The elements' shape broadcasts against all axes before those, as NumPy broadcasts. One structure of positions
[n, 3] under g [M] is ``Point()(g, x)`` [M, n, 3]; a batch [B, n, 3] with an element each, g [B], stays [B, n, 3]; the
batch under all M is ``Point()(g[:, None], x)`` [M, B, n, 3]. So input and output of a map may have different axes of
their own, such as positions and a dipole. Rows that each have an element (g [n] on [n, 3]) are no atoms of one
structure: ``per_atom=False``.

Every action is a homomorphism, ``action(g @ h, x) == action(g, action(h, x))``, and of x's type, precision and device.
The order of the atoms acts on what is ``per_atom``, the shift on points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from equiscale.errors import InputError
from equiscale.symmetry.elements import Elements

Array = Any  # np.ndarray or torch.Tensor
Action = Callable[[Elements, Any], Any]


@dataclass(frozen=True)
class Scalar:
    """What no rotation changes: an energy, a time; one number each of the atoms [..., n] where ``per_atom``.

    What is not per atom is returned as it is, without axes for the elements.
    """

    per_atom: bool = False

    def __call__(self, g: Elements, x: Array) -> Array:
        return _reordered(g, x, components=0) if self.per_atom else x


@dataclass(frozen=True)
class Vector:
    """Polar vectors R v: forces, velocities [..., n, 3]; a dipole [..., 3] where not ``per_atom``."""

    per_atom: bool = True

    def __call__(self, g: Elements, x: Array) -> Array:
        return Tensor(1, self.per_atom)(g, x)


@dataclass(frozen=True)
class Axial:
    """Axial vectors det(R) R v, which an inversion leaves as they are: magnetic moments, angular momenta."""

    per_atom: bool = True

    def __call__(self, g: Elements, x: Array) -> Array:
        return Tensor(1, self.per_atom)(Elements(g.matrix * g.sign[..., None, None], order=g.order), x)


@dataclass(frozen=True)
class Point:
    """Positions R x + t in Å."""

    per_atom: bool = True

    def __call__(self, g: Elements, x: Array) -> Array:
        moved = Tensor(1, self.per_atom)(g, x)
        if g.shift is None:
            return moved
        return moved + _like(g.shift[..., None, :] if self.per_atom else g.shift, moved)


@dataclass(frozen=True)
class Tensor:
    """Cartesian tensors, R on each of the last ``rank`` axes: stress and polarisability have rank 2."""

    rank: int
    per_atom: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"a Cartesian tensor has a rank of one or more, not {self.rank}: take Scalar().")

    def __call__(self, g: Elements, x: Array) -> Array:
        own = self.rank + self.per_atom
        if x.ndim < own or tuple(x.shape[x.ndim - self.rank :]) != (3,) * self.rank:
            after = "the atoms and then " if self.per_atom else ""
            raise InputError(
                f"this action needs {after}{self.rank} axes of three components at the end, not {tuple(x.shape)}."
            )
        if self.per_atom:
            x = _reordered(g, x, self.rank)
        alone = own == 1
        x = x[..., None, :] if alone else x  # a product needs two axes
        between = (1,) * max(own - 2, 0)
        back = _like(np.swapaxes(g.matrix, -1, -2).reshape(*g.shape, *between, 3, 3), x)
        for axis in range(-1, -1 - self.rank, -1):
            x = (x.swapaxes(-1, axis) @ back).swapaxes(-1, axis)
        return x[..., 0, :] if alone else x


@dataclass(frozen=True)
class Grid:
    """Values on a cube of grid points about its centre: octahedral elements transpose and flip ``axes`` (x, y, z).

    (g u)(r) = u(R⁻¹ r), exact for grids of odd and of even size, whose centre lies between points. Axes that follow the
    grid's are carried along; axes of ``channels`` before it are the grid's own, so that g [B] fits [B, C, x, y, z]
    with ``channels=1``. Elements that do not map the axes onto each other, or that shift, are refused.
    """

    axes: tuple[int, int, int] = (-3, -2, -1)
    channels: int = 0

    def __post_init__(self) -> None:
        if len(set(self.axes)) != 3 or max(self.axes) >= 0:
            raise InputError(f"the axes of a grid are three, counted from the end as -3, -2, -1, not {self.axes}.")

    def __call__(self, g: Elements, x: Array) -> Array:
        own = -min(self.axes) + self.channels
        if x.ndim < own or len({x.shape[axis] for axis in self.axes}) > 1:
            raise InputError(f"a grid that is turned has as many points along each axis, not {tuple(x.shape)}.")
        signed = np.rint(g.matrix)
        if np.abs(g.matrix - signed).max(initial=0) > 1e-6:
            raise InputError("a grid is turned by the octahedral group only: these elements do not keep its axes.")
        if g.shift is not None and np.any(g.shift):
            raise InputError("a grid is turned and reflected about its centre only: these elements shift.")
        batch = np.broadcast_shapes(g.shape, tuple(x.shape[: x.ndim - own]))
        x = _broadcast(x, (*batch, *x.shape[x.ndim - own :]))
        while signed.ndim > 2 and signed.shape[-3] == 1:  # axes along which all have one element go in one piece
            signed, batch = signed[..., 0, :, :], batch[:-1]
        signed = np.broadcast_to(signed, (*batch, 3, 3)) if signed.ndim > 2 else signed
        batch = signed.shape[:-2]
        out = x.new_empty(x.shape) if _torch(x) else np.empty_like(x)
        for where in np.ndindex(batch):
            out[where] = self._turned(signed[where], x[where])
        return out

    def _turned(self, signed: Float[np.ndarray, "3 3"], x: Array) -> Array:
        """Axis i of the outcome is axis j of the grid where R_ij = ±1, flipped where it is -1."""
        to, source = [axis + x.ndim for axis in self.axes], np.abs(signed).argmax(axis=1)
        order = list(range(x.ndim))
        for i, axis in enumerate(to):
            order[axis] = to[source[i]]
        flipped = [axis for i, axis in enumerate(to) if signed[i, source[i]] < 0]
        return x.permute(order).flip(flipped) if _torch(x) else np.flip(x.transpose(order), tuple(flipped))


@dataclass(frozen=True)
class Joint:
    """One element on all entries of a mapping, each by its own action: ``Joint({"x": Point(), "t": Scalar()})``."""

    actions: Mapping[str, Action]

    def __call__(self, g: Elements, x: Mapping[str, Any]) -> dict[str, Any]:
        if set(x) != set(self.actions):
            odd = ", ".join(sorted(set(x) ^ set(self.actions)))
            raise InputError(f"a joint action and what it acts on have the same names; only one of them has {odd}.")
        return {name: self.actions[name](g, value) for name, value in x.items()}


def _torch(x: Array) -> bool:
    return hasattr(x, "new_tensor")


def _like(values: Float[np.ndarray, "..."], x: Array) -> Array:
    """Values of an element as an array of x's kind, precision and device; of double precision for integers."""
    if not _torch(x):
        return values.astype(x.dtype) if np.issubdtype(x.dtype, np.inexact) else values
    if not (x.is_floating_point() or x.is_complex()):
        raise InputError("rotations act on floating-point numbers, not on integers.")
    return x.new_tensor(np.array(values))


def _broadcast(x: Array, shape: tuple[int, ...]) -> Array:
    return x.broadcast_to(shape) if _torch(x) else np.broadcast_to(x, shape)


def _reordered(g: Elements, x: Array, components: int) -> Array:
    """x_{order[k]} along the atom axis, which ``components`` axes follow."""
    if g.order is None:
        return x
    axis = -1 - components
    n = g.order.shape[-1]
    if x.ndim <= components or x.shape[axis] != n:
        raise InputError(f"a permutation of {n} atoms needs an axis of {n} atoms, not {tuple(x.shape)}.")
    order: Int[np.ndarray, "..."] = g.order.reshape(*g.order.shape, *[1] * components)
    order = order.reshape(*[1] * (x.ndim - order.ndim), *order.shape)
    x = x.reshape(*[1] * (order.ndim - x.ndim), *x.shape)
    if _torch(x):
        return x.take_along_dim(x.new_tensor(order).long(), axis)
    return np.take_along_axis(x, order, axis)
