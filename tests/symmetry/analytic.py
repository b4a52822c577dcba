"""Maps whose averages over rotations are known: what estimators and powers per degree are tested against."""

from __future__ import annotations

import numpy as np
import torch

from equiscale.so3 import degree_slice, spherical_harmonics


def cloud(sizes, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of structures of these sizes [atoms, 3], and where each begins and ends [structures + 1]."""
    return np.random.default_rng(seed).normal(size=(sum(sizes), 3)), np.cumsum([0, *sizes])


def anisotropic(a: np.ndarray, r: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Forces f(x) = A x, twisted: Rᵀ A R x, for r [..., atoms, 3, 3]; of degrees 0 (tr A), 1 and 2 (its two others).

    μ = tr(A) x / 3 and E |Z - μ|² = ‖A - tr(A)/3‖² |x|² / 3.
    """
    return np.einsum("...kji,jl,...klm,...km->...ki", r, a, r, np.broadcast_to(x, r.shape[:-1]), optimize=True)


def anisotropic_parts(a: np.ndarray, x: np.ndarray, y: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, ...]:
    """L, L_mean, L_equiv of each structure, per force component."""
    off = np.square(a - np.trace(a) / 3 * np.eye(3)).sum() / 3
    mean = np.square(np.trace(a) / 3 * x - y).sum(1)
    equiv = off * np.square(x).sum(1)
    n = 3 * np.diff(offsets)
    mean, equiv = (np.add.reduceat(v, offsets[:-1]) / n for v in (mean, equiv))
    return mean + equiv, mean, equiv


def harmonic(l: int, r: np.ndarray, x: np.ndarray, seed: int = 0) -> np.ndarray:
    """Forces f(x)_a = x_a times a real harmonic of degree l of x_a's direction: twisted, purely of degree l."""
    moved = torch.from_numpy(np.einsum("...ij,...j->...i", r, np.broadcast_to(x, r.shape[:-1])))
    unit = moved / moved.norm(dim=-1, keepdim=True)
    c = np.random.default_rng([seed, l]).normal(size=2 * l + 1)
    return (spherical_harmonics(unit, l)[..., degree_slice(l)].numpy() @ c)[..., None] * x


def per_atom(g: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """[M, structures, 3, 3] -> [M, atoms, 3, 3]."""
    return np.repeat(g, np.diff(offsets), axis=1)
