"""L = L_mean + L_equiv of twisted forces, differentiable: what landscapes and training's own tracking take."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from equiscale.errors import InputError
from equiscale.graph import sum_by


class Parts(NamedTuple):
    """The squared force error per component, and what of it is the averaged prediction's and what broken symmetry's.

    ``total`` is ``mean + equiv`` to rounding, whatever was drawn.
    """

    total: Float[Tensor, ""]
    mean: Float[Tensor, ""]
    equiv: Float[Tensor, ""]


def parts(
    z: Float[Tensor, "M atoms 3"],
    y: Float[Tensor, "atoms 3"],
    structure: Int[Tensor, " atoms"],
    sizes: Int[Tensor, " structures"],
    unbiased: bool,
    weights: Float[Tensor, " M"] | None = None,
) -> Parts:
    """Losses of twisted forces z_i = R_iᵀ f(R_i x) and labels y: means over structures of per-structure means.

    With V = Σ_i |z_i - z̄|² / 3n, for M independent rotations (``unbiased``)

        L_equiv = V / (M - 1),    L_mean = |z̄ - y|² / 3n - L_equiv / M = Σ_{i≠j} <z_i - y, z_j - y> / (3n M (M - 1)),

    whose expectations are the true ones. For the elements of a coset or a quadrature, which average exactly what they
    are made for, the plain V / M and |z̄ - y|² / 3n; ``weights``: of a quadrature, summing to one.
    """
    m = len(z)
    if unbiased and m < 2:
        raise InputError("one rotation cannot tell a broken symmetry from an error: take at least two.")
    if unbiased and weights is not None:
        raise InputError("independent rotations have equal weights: only a quadrature's are given.")
    if weights is None:
        centre = z.mean(0)
        spread = (z - centre).square().sum((0, 2)) / m
    else:
        w = weights.to(z.dtype)[:, None, None]
        centre = (w * z).sum(0)
        spread = (w * (z - centre).square()).sum((0, 2))
    components = 3 * sizes.to(z.dtype)

    def average(atoms: Float[Tensor, " atoms"]) -> Float[Tensor, ""]:
        return (sum_by(structure, atoms, len(sizes)) / components).mean()

    equiv, mean = average(spread), average((centre - y).square().sum(1))
    if unbiased:
        equiv = equiv * (m / (m - 1))
        mean = mean - equiv / m
    return Parts(mean + equiv, mean, equiv)
