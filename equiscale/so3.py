"""Real spherical harmonics, Wigner D matrices and edge frames of SO(3): recurrences, no tables, no Euler angles.

Conventions, used everywhere in the package:

* components of degree l are ordered m = -l, ..., l, so that l = 1 is (y, z, x); the polar axis is z;
* 'component' normalisation: the mean of Y_lm² over the sphere is 1, Σ_m Y_lm² = 2l + 1;
* rotations act as Y(R r) = D(R) Y(r).
"""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor


def num_components(lmax: int) -> int:
    """Number of (l, m) pairs with l ≤ lmax."""
    return (lmax + 1) ** 2


def degree_slice(l: int) -> slice:
    """Where degree l lies among the components."""
    return slice(l**2, (l + 1) ** 2)


def spherical_harmonics(unit: Float[Tensor, "*n 3"], lmax: int) -> Float[Tensor, "*n lm"]:
    """All real spherical harmonics up to degree ``lmax`` of unit vectors; polynomials, smooth everywhere."""
    x, y, z = unit.unbind(-1)
    # cos(m phi) and sin(m phi), times rho**m: polynomials in x and y.
    cos, sin = [torch.ones_like(x)], [torch.zeros_like(x)]
    for _ in range(lmax):
        c, s = cos[-1], sin[-1]
        cos.append(x * c - y * s)
        sin.append(x * s + y * c)
    # Associated Legendre polynomials over rho**m, by the three-term recurrence.
    legendre: dict[tuple[int, int], Tensor] = {}
    for m in range(lmax + 1):
        legendre[m, m] = torch.full_like(x, math.prod(range(1, 2 * m, 2)))
        for l in range(m + 1, lmax + 1):
            p = (2 * l - 1) * z * legendre[l - 1, m]
            if l > m + 1:
                p = p - (l + m - 1) * legendre[l - 2, m]
            legendre[l, m] = p / (l - m)
    columns = []
    for l in range(lmax + 1):
        for m in range(-l, l + 1):
            k = abs(m)
            azimuth = sin[k] if m < 0 else cos[k]
            columns.append(_norm(l, k) * legendre[l, k] * azimuth)
    return torch.stack(columns, dim=-1)


def wigner_d(rotation: Float[Tensor, "*n 3 3"], l: int) -> Float[Tensor, "*n m m"]:
    """Wigner D matrix of degree ``l``: the action of a rotation (or of an improper one) on spherical harmonics.

    Evaluates Y_l on rotated reference points and undoes the reference evaluation by a fixed pseudo-inverse: polynomial
    in the rotation's entries, with no poles.
    """
    points, inverse = _reference(l, rotation.dtype, rotation.device)
    rotated = points @ rotation.mT
    return (inverse @ spherical_harmonics(rotated, l)[..., degree_slice(l)]).mT


def _norm(l: int, m: int) -> float:
    ratio = math.factorial(l - m) / math.factorial(l + m)
    return math.sqrt((2 * l + 1) * ratio * (1 if m == 0 else 2))


@functools.cache
def _reference(l: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Points on a spherical Fibonacci lattice, and the pseudo-inverse of Y_l there."""
    n = 4 * l + 2
    i = torch.arange(n, dtype=torch.float64) + 0.5
    z, phi = 1 - 2 * i / n, i * math.pi * (3 - math.sqrt(5))
    rho = (1 - z**2).sqrt()
    points = torch.stack([rho * phi.cos(), rho * phi.sin(), z], dim=-1)
    inverse = torch.linalg.pinv(spherical_harmonics(points, l)[:, degree_slice(l)])
    return points.to(device, dtype), inverse.to(device, dtype)
