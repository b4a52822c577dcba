"""Which elements of a group an average is taken over: random ones, designs of rotations, or all.

A design is a set of rotations d_j with weights w_j, Σ w_j = 1, that is exact up to degree L where Σ_j w_j D^l(d_j) = 0
for the Wigner matrices of all 1 ≤ l ≤ L: it then averages every function on SO(3) without higher degrees as Haar's
measure does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from equiscale.errors import InputError
from equiscale.symmetry.elements import Elements, identity
from equiscale.symmetry.groups import O3, SO3, Group

DEGREES = {"D2": 1, "T": 2, "O": 3, "I": 5}  # point groups of 4, 12, 24 and 60 rotations
LEBEDEV = (*range(3, 33, 2), *range(35, 132, 6))  # degrees of the rules on the sphere that SciPy has


def design(name: str) -> tuple[Elements, Float[np.ndarray, "m"]]:
    """The rotations of a design and their weights.

    "D2", "T", "O", "I"     the point groups; equal weights
    "lebedev:L"             Lebedev's rule for the direction of the z axis × L + 1 angles about it
    "superfibonacci:N"      N rotations on a spiral (Alexa, CVPR 2022); equal weights, exact for no degree
    """
    kind, number = _parsed(name)
    if kind == "superfibonacci":
        matrix = _spiral(number)
    elif kind == "lebedev":
        return _lebedev(number)
    else:
        from scipy.spatial.transform import Rotation

        matrix = Rotation.create_group(kind).as_matrix()  # type: ignore[arg-type]  # "D2" is a "Dn"
    return Elements(matrix), _equal(len(matrix))


def degree(name: str) -> int:
    """The largest L such that the design is exact for all 1 ≤ l ≤ L; 0 for a spiral, which is close only."""
    kind, number = _parsed(name)
    return number if kind == "lebedev" else DEGREES.get(kind, 0)


def _parsed(name: str) -> tuple[str, int]:
    if name in DEGREES:
        return name, 0
    kind, _, number = name.partition(":")
    if kind not in ("lebedev", "superfibonacci") or not number.isdecimal() or int(number) < 1:
        raise InputError(f"no design {name!r}: there are D2, T, O, I, lebedev:L and superfibonacci:N.")
    if kind == "lebedev" and int(number) not in LEBEDEV:
        raise InputError(f"no Lebedev rule of degree {number}: there are {', '.join(map(str, LEBEDEV))}.")
    return kind, int(number)


def _equal(m: int) -> Float[np.ndarray, "m"]:
    return np.full(m, 1 / m)


def _spiral(n: int) -> Float[np.ndarray, "n 3 3"]:
    """Super-Fibonacci spiral: φ = √2 and ψ the root of ψ⁴ = ψ + 4."""
    from scipy.spatial.transform import Rotation

    s = np.arange(n) + 0.5
    a, b = 2 * np.pi * s / math.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    r, q = np.sqrt(s / n), np.sqrt(1 - s / n)
    return Rotation.from_quat(
        np.stack([r * np.sin(a), r * np.cos(a), q * np.sin(b), q * np.cos(b)], axis=1)
    ).as_matrix()


def _lebedev(l: int) -> tuple[Elements, Float[np.ndarray, "m"]]:
    """F(u) R_z(2πk / (L+1)), F any rotation that takes z to u.

    The angles leave of D^l(R_z) the component m = 0 alone for l ≤ L; D^l(F) applied to that is Y_l(u), which the rule
    on the sphere integrates.
    """
    try:
        from scipy.integrate import lebedev_rule
    except ImportError:
        raise InputError("Lebedev's rules are in SciPy 1.15 and later: `pip install -U scipy`.") from None
    from scipy.spatial.transform import Rotation

    points, weights = lebedev_rule(l)
    x, y, z = points
    frames = Rotation.from_euler("ZY", np.stack([np.arctan2(y, x), np.arccos(np.clip(z, -1, 1))], axis=1)).as_matrix()
    turns = Rotation.from_euler("z", 2 * np.pi / (l + 1) * np.arange(l + 1)[:, None]).as_matrix()
    matrix = (frames[:, None] @ turns).reshape(-1, 3, 3)
    # The tables' weights have ten digits: their sum is made one.
    return Elements(matrix), np.repeat(weights / weights.sum() / (l + 1), l + 1)


@dataclass(frozen=True, eq=False)
class Draws:
    """The elements that each sample is averaged over; weights sum to one.

    Of a "pair" the first and the second half of the axis M are independent cosets, each of weight one half.
    """

    elements: Elements  # [samples, M]
    weights: Float[np.ndarray, "m"]
    kind: Literal["random", "coset", "pair", "full", "quadrature"]


@runtime_checkable
class Sampler(Protocol):
    """How many and which elements of a group; InputError where it does not fit the group."""

    def draw(self, group: Group, rng: np.random.Generator, samples: int) -> Draws: ...


@dataclass(frozen=True)
class Random:
    """Independent uniform elements: of any group, and unbiased for every estimator that says so."""

    rotations: int = 2

    def __post_init__(self) -> None:
        if self.rotations < 1:
            raise InputError(f"random elements are one or more per sample, not {self.rotations}.")

    def draw(self, group: Group, rng: np.random.Generator, samples: int) -> Draws:
        return Draws(group.sample(rng, samples, self.rotations), _equal(self.rotations), "random")


@dataclass(frozen=True)
class Coset:
    """A design moved by two independent Haar elements per sample, one on each side: g_j = h d_j k.

    Each g_j is uniform by itself, so Σ_j w_j Z(g_j) is an unbiased estimate of the twirl ∫ Z of every
    Z(g) = ρ(g)⁻¹ f(ρ(g) x). As Σ_j w_j D^l(h d_j k) = D^l(h) (Σ_j w_j D^l(d_j)) D^l(k) = 0, it is the twirl itself, for
    every h and k, where Z has no degree above the design's. One side would be enough for both, but has a blind spot:
    d_j k turns by the design in the axes of the model, and a model on a grid, which commutes with O already, would
    give M equal values; h d_j does so for a structure that itself has the design's symmetry in the design's axes
    (methane with its bonds along the diagonals, a cubic crystal).

    ``pair``: two independent cosets one after the other, whose means are an unbiased pair. For O(3) each coset is
    doubled by the inversion, M = 2 |design|, and is exact there, too.
    """

    name: str = "O"
    pair: bool = False

    def __post_init__(self) -> None:
        _parsed(self.name)

    def draw(self, group: Group, rng: np.random.Generator, samples: int) -> Draws:
        elements, weights = _design_of(group, self.name)
        cosets = 2 if self.pair else 1
        moved = SO3().sample(rng, samples, cosets, 1) @ elements @ SO3().sample(rng, samples, cosets, 1)
        matrix = moved.matrix.reshape(samples, cosets * len(weights), 3, 3)
        return Draws(Elements(matrix), np.tile(weights, cosets) / cosets, "pair" if self.pair else "coset")


@dataclass(frozen=True)
class FullGroup:
    """All elements of a finite group: the twirl itself, without randomness."""

    def draw(self, group: Group, rng: np.random.Generator, samples: int) -> Draws:
        elements = group.all()
        return Draws(_repeated(elements, samples), _equal(len(elements)), "full")


@dataclass(frozen=True)
class Quadrature:
    """A design as it is, the same for each sample: no randomness, and biased by the degrees above the design's."""

    name: str = "lebedev:7"

    def __post_init__(self) -> None:
        _parsed(self.name)

    def draw(self, group: Group, rng: np.random.Generator, samples: int) -> Draws:
        elements, weights = _design_of(group, self.name)
        return Draws(_repeated(elements, samples), weights, "quadrature")


def _repeated(g: Elements, samples: int) -> Elements:
    return identity(samples, 1) @ g


def _design_of(group: Group, name: str) -> tuple[Elements, Float[np.ndarray, "m"]]:
    """A design for SO(3); for O(3) with the inversion of each element after all of them."""
    elements, weights = design(name)
    if isinstance(group, SO3):
        return elements, weights
    if isinstance(group, O3):
        return Elements(np.concatenate([elements.matrix, -elements.matrix])), np.tile(weights, 2) / 2
    other = "full or random" if group.finite else "random"
    raise InputError(f"{name} is a design of rotations, for SO3() and O3() alone: for {group!r} take {other} elements.")


def sampler(text: str) -> Sampler:
    """The sampler that a command line names.

    "random:10", "random" (two), "D2", "T", "O", "I" (a coset), "T*2" (two cosets), "lebedev:7", "superfibonacci:200"
    (as they are), "full".
    """
    kind, colon, number = text.partition(":")
    if text == "full":
        return FullGroup()
    if text == "random":
        return Random()
    if kind == "random" and number.isdecimal() and int(number) > 0:
        return Random(int(number))
    if text.removesuffix("*2") in DEGREES:
        return Coset(text.removesuffix("*2"), pair=text.endswith("*2"))
    if kind in ("lebedev", "superfibonacci") and colon:
        return Quadrature(text)
    raise InputError(
        f"no sampler {text!r}: there are random:M, D2, T, O, I (with *2: a pair of cosets), lebedev:L, "
        "superfibonacci:N and full."
    )
