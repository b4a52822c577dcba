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


def edge_frames(vectors: Float[Tensor, "edges 3"]) -> Float[Tensor, "edges 3 3"]:
    """Rotations that turn each vector onto +z, as rows x', y', z' of a right-handed frame.

    The roll about z is arbitrary: x' is what is left of the axis that the vector has least of, so that the frame is
    smooth but for jumps of the roll alone. A zero vector gets a fixed frame, with zero derivatives.
    """
    square = vectors.square().sum(-1, keepdim=True)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=vectors.dtype, device=vectors.device)
    nonzero = square > 0
    z = torch.where(nonzero, vectors * torch.where(nonzero, square, 1.0).rsqrt(), up)
    axis = torch.nn.functional.one_hot(z.detach().abs().argmin(-1), 3).to(z.dtype)
    x = axis - (axis * z).sum(-1, keepdim=True) * z
    x = x * x.square().sum(-1, keepdim=True).rsqrt()
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-2)


def wigner_rows(frames: Float[Tensor, "edges 3 3"], lmax: int, mmax: int) -> list[Float[Tensor, "edges sign lm"]]:
    """Rows m = 0, ±1, ..., ±mmax of D(frame), for all degrees at once: item m is (edges, 1 or 2, components), +m first.

    Row 0 of degree l is Y_l(z') / √(2l + 1). Turning about the frame's own axis a is, seen from space, turning about
    row a of the frame: G_a D = D Σ_b R_ab G_b, with G the generators. G_x and G_y couple row m to rows m ± 1 only, so
    row m + 1 follows from rows m and m - 1 by one product with constant matrices: no angles, no poles. Zero for l < m.
    """
    generators, step = _generators(lmax, frames.dtype, frames.device)
    edges, size = len(frames), num_components(lmax)
    degrees = [2 * l + 1 for l in range(lmax + 1) for _ in range(2 * l + 1)]
    scale = torch.tensor(degrees, dtype=frames.dtype, device=frames.device).rsqrt()
    cosine = spherical_harmonics(frames[:, 2], lmax) * scale
    rows = [cosine[:, None]]
    for m in range(mmax):
        moved = (cosine @ generators).view(edges, 3, size)
        up_sine, up_cosine = torch.bmm(frames[:, :2], moved).unbind(1)  # turned about x' and about y'
        if m > 0:
            up_cosine = up_cosine - rows[m - 1][:, 0] * step[m - 1]
        if m > 1:
            up_sine = up_sine - rows[m - 1][:, 1] * step[m - 1]
        inverse = torch.where(step[m] > 0, 1 / step[m], 0.0)
        cosine = -up_cosine * inverse
        rows.append(torch.stack([cosine, up_sine * inverse], dim=1))
    return rows


@functools.cache
def _generators(lmax: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """dD/dangle at the identity about x, y, z, side by side [S, 3 S]; and a_m of each component [lmax + 1, S].

    a_m = √(l(l+1) - m(m+1)) / 2, times √2 for m = 0; zero from m = l on. G_z turns (l, ±m) into each other by m.
    """
    size = num_components(lmax)
    x, y, z = torch.zeros(3, size, size, dtype=torch.float64)
    step = torch.zeros(lmax + 1, size, dtype=torch.float64)
    for l in range(lmax + 1):
        zero = l * l + l
        for m in range(l):
            a = math.sqrt(l * (l + 1) - m * (m + 1)) / 2 * (math.sqrt(2) if m == 0 else 1)
            step[m, degree_slice(l)] = a
            y[zero + m, zero + m + 1] = -a  # cosines to cosines
            x[zero + m, zero - m - 1] = a  # cosines to sines
            if m > 0:
                y[zero - m, zero - m - 1] = -a  # sines to sines
                x[zero - m, zero + m + 1] = -a  # sines to cosines
            z[zero - m - 1, zero + m + 1] = m + 1
    generators = torch.cat([g - g.mT for g in (x, y, z)], dim=1)
    return generators.to(device, dtype), step.to(device, dtype)


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
