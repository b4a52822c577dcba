"""Principal-axes frames: any potential made equivariant by what orientation it is shown a structure in.

The axes are the eigenvectors v of Σ_i (x_i - c)(x_i - c)ᵀ about the centroid, unweighted, largest eigenvalue first
(frame averaging: Puny et al. 2022). Signs are free: of the eight choices four are rotations.

    average     f averaged over the four right-handed frames: equivariant under rotations
    average8    over all eight: under reflections, too
    canonical   one of the four. Of the third moments m_k = Σ_i Z_i (v_k · (x_i - c))³ the two largest (over Σ_i Z_i
                |v_k · (x_i - c)|³) are made positive, the other axis follows by right-handedness. Of equally large ones
                the earlier axis counts. Where fewer than two are nonzero, eigh's own sign stands for the missing ones.

**Only as good as the axes.** Two equal eigenvalues (an atom, linear molecules, symmetric tops, CH4) leave the axes in
their space to eigh: what comes out is finite, and not equivariant, but for one atom and linear molecules under an
average, where the signs cancel what was chosen. ``Frames.degenerate`` says which structures these are; of "canonical"
also those whose signs nothing decides, such as water: about a C2 axis the two choices look the same, so that energies
agree, and forces do not. No choice of frames can avoid all this: none is continuous (Dym et al. 2024), and predictions
jump where eigenvalues cross, or third moments change their sign or rank.

Frames are detached: no gradient runs through them. Direct forces need none. Conservative forces are the gradients in
each frame, averaged: not exactly the gradient of the averaged energy, which changes with the axes, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Bool

from equiscale.errors import InputError
from equiscale.graph import AtomGraph, Prediction
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.graphs import twisted_predictions

Kind = Literal["canonical", "average", "average8"]

TOLERANCE = 1e-4
"""Gap of eigenvalues over their sum, and third moment over its largest possible value, below which axes or signs are
undecided: rounding of float32 positions turns an axis by 1e-7 over the gap."""

SIGNS = np.array([[a, b, c] for c in (1, -1) for a in (1, -1) for b in (1, -1)], float)
SIGNS[:, 2] *= SIGNS[:, 0] * SIGNS[:, 1]  # the determinant is c: the four rotations first


@dataclass(frozen=True, eq=False)
class Frames:
    """``into`` [frames, structures]: into the frame, the centroid at the origin."""

    into: Elements
    degenerate: Bool[np.ndarray, " structures"]


def principal(graph: AtomGraph, kind: Kind, tolerance: float = TOLERANCE) -> Frames:
    """Frames of every structure, in float64. InputError for periodic structures."""
    if graph.shift is not None and bool(graph.shift.any()):
        raise InputError("a periodic structure has no principal axes: frames are of molecules only.")
    x = graph.positions.detach().double().cpu().numpy()
    z = graph.numbers.cpu().numpy().astype(float)
    owner, size = graph.structure.cpu().numpy(), graph.size.cpu().numpy()
    total = partial(np.add.reduceat, indices=np.cumsum(size) - size)  # over each structure's atoms
    centre = total(x) / size[:, None]
    x = x - centre[owner]
    values, vectors = np.linalg.eigh(total(x[:, :, None] * x[:, None, :]))  # ascending, in columns
    values, axes = values[:, ::-1], vectors[:, :, ::-1].swapaxes(1, 2)  # rows: the axes, the longest first
    axes[:, 2] *= np.sign(np.linalg.det(axes))[:, None]  # right-handed
    gap = np.minimum(values[:, 0] - values[:, 1], values[:, 1] - values[:, 2])
    degenerate = ~(gap > tolerance * values.sum(1))
    if kind == "canonical":
        along = np.einsum("aij,aj->ai", axes[owner], x)
        third, most = total(z[:, None] * along**3), total(z[:, None] * np.abs(along) ** 3)
        # An axis along which all atoms are at the centroid has no sign: 0 of at most 0.
        skew = np.where(most > 1e-9 * most.max(1, keepdims=True), third / np.where(most > 0, most, 1.0), 0.0)
        skew = np.where(np.abs(skew) > tolerance, skew, 0.0)
        degenerate |= (skew != 0).sum(1) < 2
        sign = np.where(skew < 0, -1.0, 1.0)
        # Rounded, so that mirror images and turned copies agree on which of two equal ones is the smaller.
        last = 2 - np.argmin(np.abs(skew).round(9)[:, ::-1], axis=1)
        rows = np.arange(len(size))
        sign[rows, last] = 1.0
        sign[rows, last] = sign.prod(1)
        matrix = (sign[:, :, None] * axes)[None]
    else:
        matrix = SIGNS[: {"average": 4, "average8": 8}[kind], None, :, None] * axes
    return Frames(Elements(matrix, np.tile(-centre, (len(matrix), 1, 1))), degenerate)


def framed(f: Callable[[AtomGraph], Prediction], graph: AtomGraph, kind: Kind) -> Prediction:
    """f of the structures in their frames, turned back and averaged; one forward pass of all frames."""
    dtype = graph.positions.dtype  # of turning back, whatever precision ``f`` answers in
    out = twisted_predictions(lambda g: f(g).to(dtype=dtype), graph, principal(graph, kind).into)
    return Prediction(out.energy.mean(0), out.forces.mean(0))
