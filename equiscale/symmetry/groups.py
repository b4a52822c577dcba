"""Groups that act on structures, and uniform draws from them: rotations, permutations, shifts, their products."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from equiscale.data.orientation import haar
from equiscale.errors import InputError
from equiscale.symmetry.elements import Elements, identity

LARGEST_N = 7  # 7! = 5040 permutations are listed; 8! are more than one wants to average over


@runtime_checkable
class Group(Protocol):
    """What is drawn from, uniformly over the group: by its Haar measure, unless the group says otherwise."""

    @property
    def part(self) -> str:
        """Which part of an element the group acts by: "matrix", "shift" or "order"; of a product: "product"."""

    @property
    def finite(self) -> bool: ...

    def sample(self, rng: np.random.Generator, *shape: int) -> Elements: ...

    def all(self) -> Elements:
        """All elements [M] of a finite group, the identity first; InputError where they cannot be listed."""


@dataclass(frozen=True)
class SO3:
    """Rotations."""

    part: ClassVar[str] = "matrix"
    finite: ClassVar[bool] = False

    def sample(self, rng: np.random.Generator, *shape: int) -> Elements:
        return Elements(haar(rng, math.prod(shape)).reshape(*shape, 3, 3))

    def all(self) -> Elements:
        raise InputError("SO(3) has infinitely many elements: take a design such as O, or random rotations.")


@dataclass(frozen=True)
class O3:
    """Rotations and reflections: ±R, each sign with probability one half."""

    part: ClassVar[str] = "matrix"
    finite: ClassVar[bool] = False

    def sample(self, rng: np.random.Generator, *shape: int) -> Elements:
        sign = rng.choice([-1.0, 1.0], size=(*shape, 1, 1))
        return Elements(sign * SO3().sample(rng, *shape).matrix)

    def all(self) -> Elements:
        raise InputError("O(3) has infinitely many elements: take a design such as O, or random elements.")


@dataclass(frozen=True)
class Octahedral:
    """The 24 rotations that map the coordinate axes onto each other; with ``reflections``, also their negatives."""

    reflections: bool = False
    part: ClassVar[str] = "matrix"
    finite: ClassVar[bool] = True

    def sample(self, rng: np.random.Generator, *shape: int) -> Elements:
        return self.all()[rng.integers(len(self.all()), size=shape)]

    def all(self) -> Elements:
        """Signed permutation matrices, without rounding: the rotations first, then the negatives in the same order."""
        orders, signs = itertools.permutations(range(3)), list(itertools.product([1.0, -1.0], repeat=3))
        signed = np.array([np.diag(s) @ np.eye(3)[list(order)] for order in orders for s in signs])
        turns = signed[np.linalg.det(signed) > 0] + 0.0  # + 0.0: no negative zeros
        return Elements(np.concatenate([turns, 0.0 - turns]) if self.reflections else turns)


@dataclass(frozen=True)
class Permutations:
    """The n! orders of ``n`` atoms."""

    n: int
    part: ClassVar[str] = "order"
    finite: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"permutations are of one atom or more, not of {self.n}.")

    def sample(self, rng: np.random.Generator, *shape: int) -> Elements:
        order = np.broadcast_to(np.arange(self.n), (*shape, self.n))
        return Elements(identity(*shape).matrix, order=rng.permuted(order, axis=-1))

    def all(self) -> Elements:
        if self.n > LARGEST_N:
            raise InputError(
                f"{self.n} atoms have {math.factorial(self.n)} permutations: "
                f"above {LARGEST_N} atoms, draw them at random."
            )
        order = np.array(list(itertools.permutations(range(self.n))))
        return Elements(identity(len(order)).matrix, order=order)


@dataclass(frozen=True)
class Translations:
    """Shifts in Å. There is no uniform probability over all of them: they are drawn from a normal distribution

    of standard deviation ``scale`` along each axis. This is a proposal that results depend on: state it with them.
    """

    scale: float
    part: ClassVar[str] = "shift"
    finite: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise InputError(f"the scale of translations is a positive number of Å, not {self.scale:g}.")

    def sample(self, rng: np.random.Generator, *shape: int) -> Elements:
        return Elements(identity(*shape).matrix, shift=self.scale * rng.normal(size=(*shape, 3)))

    def all(self) -> Elements:
        raise InputError("there are infinitely many translations: draw them at random.")


@dataclass(frozen=True, init=False)
class Product:
    """Factors that act each by its own part: ``Product(SO3(), Translations(1.0), Permutations(5))``.

    An element is x_k -> R x_{order[k]} + t, with R, t and order drawn independently.
    """

    factors: tuple[Group, ...]
    part: ClassVar[str] = "product"

    def __init__(self, *factors: Group) -> None:
        parts = [factor.part for factor in factors]
        if not factors or "product" in parts or len(set(parts)) < len(parts):
            raise InputError(
                "a product is of factors that are none of them products, and of which at most one turns, one shifts "
                "and one permutes."
            )
        object.__setattr__(self, "factors", factors)

    @property
    def finite(self) -> bool:
        return all(factor.finite for factor in self.factors)

    def sample(self, rng: np.random.Generator, *shape: int) -> Elements:
        return self._joined([factor.sample(rng, *shape) for factor in self.factors], shape)

    def all(self) -> Elements:
        each = [factor.all() for factor in self.factors]
        where = np.indices([len(g) for g in each]).reshape(len(each), -1)
        return self._joined([g[i] for g, i in zip(each, where)], where.shape[1:])

    def _joined(self, each: list[Elements], shape: tuple[int, ...]) -> Elements:
        own = {factor.part: getattr(g, factor.part) for factor, g in zip(self.factors, each)}
        return Elements(own.get("matrix", identity(*shape).matrix), own.get("shift"), own.get("order"))
