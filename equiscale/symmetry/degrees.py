"""Which angular degrees an equivariance error is made of.

As a function of the rotation, Z(R) = ρ(R)⁻¹ f(ρ(R) x) is a sum of parts of degree l = 0, 1, 2, ...; that of l = 0 is
its mean μ, and the others are orthogonal: with the characters χ_l(ω) = sin((2l + 1) ω / 2) / sin(ω / 2),

    P_l = (2l + 1) E_{R,R'} [<Z(R), Z(R')> χ_l(angle(Rᵀ R'))],    Σ_{l >= 1} P_l = E ‖Z - μ‖² = L_equiv.

No Wigner matrix is needed. Noise grows as 2l + 1: with random rotations keep to l <= 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from equiscale.errors import InputError
from equiscale.symmetry.decomposition import Figure, ratio_of_sums
from equiscale.symmetry.designs import LEBEDEV
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.estimate import Kind, estimate
from equiscale.symmetry.losses import Loss, Outputs


@dataclass(frozen=True, eq=False)
class Powers:
    """P_l of each structure for l = 1, 2, ..., in the unit of the loss, and L_equiv by the estimator of its own."""

    degree: Float[np.ndarray, "structures lmax"]  # column l - 1; may be negative: unbiased, not clipped
    equiv: Float[np.ndarray, " structures"]

    def __len__(self) -> int:
        return len(self.equiv)

    @staticmethod
    def joined(parts: Iterable[Powers]) -> Powers:
        """One after another."""
        parts = list(parts)
        return Powers(np.concatenate([p.degree for p in parts]), np.concatenate([p.equiv for p in parts]))


@dataclass(frozen=True)
class Degrees:
    """Shares of L_equiv: ratios of sums over structures, with jackknife errors over molecules."""

    share: tuple[Figure, ...]  # of l = 1, 2, ...
    beyond: Figure  # of all higher degrees: what is left
    equiv: Figure
    roughness: Figure  # Σ l(l + 1) P_l / L_equiv of the degrees that were looked at; noisy: ``lie`` has it at once

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, shares by degree."""
        figure = lambda f: {"value": f.value, "error": f.error}  # noqa: E731
        return {
            "share": {str(l): figure(f) for l, f in enumerate(self.share, start=1)},
            "beyond": figure(self.beyond),
            "equiv": figure(self.equiv),
            "roughness": figure(self.roughness),
        }


def degrees(p: Powers, groups: Int[np.ndarray, " structures"] | None = None) -> Degrees:
    """Summed over structures. ``groups``: each one's molecule."""
    l = np.arange(1, p.degree.shape[1] + 1)
    return Degrees(
        share=tuple(ratio_of_sums(column, p.equiv, groups) for column in p.degree.T),
        beyond=ratio_of_sums(p.equiv - p.degree.sum(1), p.equiv, groups),
        equiv=ratio_of_sums(p.equiv, np.ones(len(p)), groups),
        roughness=ratio_of_sums(p.degree @ (l * (l + 1)), p.equiv, groups),
    )


def powers(
    z: Outputs,
    g: Elements,
    offsets: Int[np.ndarray, " structures_1"],
    loss: Loss,
    kind: Kind = "random",
    weights: Float[np.ndarray, " m"] | None = None,
    lmax: int = 4,
) -> Powers:
    """z: twisted outputs by the rotations ``g`` [M, structures]: energy [M, structures], forces [M, atoms, 3].

    Labels do not enter: a constant has degree 0. It would add noise, so each product is one of deviations:

    * random rotations: of Z_i and Z_j, i ≠ j, from the mean of the M - 2 others, which knows neither; unbiased.
    * a pair of cosets: between the two; unbiased up to the design's own degree, and refused above.
    * a coset, a quadrature: all products, with their weights; exact where the design is of degree l + L or more, with L
      the highest degree of Z. Lower designs mistake degrees for each other (T finds 3.4 times all of L_equiv in l = 3),
      so that 2 lmax + 1 is asked for.
    """
    if not loss.squared:
        raise InputError(f"degrees are parts of a squared error, the {loss.name} loss is none.")
    if (g.sign < 0).any():
        raise InputError("degrees are of rotations: with reflections, draw from SO(3).")
    m = len(g)
    weight = np.full(m, 1 / m) if weights is None else np.asarray(weights, float)
    z = {name: np.asarray(z[name], np.float64) for name in loss.outputs}
    for values in z.values():
        if g.shape != (len(values), len(offsets) - 1):
            raise InputError(
                f"elements of shape {g.shape} are not of {len(values)} rotations of {len(offsets) - 1} structures."
            )
    if len(offsets) > 1:
        refuse_coarse(g[:, 0], kind, weight, lmax)
    zero = {name: np.zeros_like(values[0]) for name, values in z.items()}
    equiv = estimate(z, zero, offsets, loss, kind, weights).equiv
    off = {name: values - np.tensordot(weight, values, 1) for name, values in z.items()}
    products, pairs = _products(off, offsets, loss), _pairs(kind, weight)
    if kind == "random":
        square = np.einsum("iis->is", products)
        both = square[:, None] + square[None] + 2 * products  # ‖δ_i + δ_j‖²; the others' mean is -(δ_i + δ_j)/(M - 2)
        products = products + both * (m - 1) / (m - 2) ** 2
    turned = np.einsum("isab,jsab->ijs", g.matrix, g.matrix, optimize=True)  # traces of R_iᵀ R_j
    found = [
        (2 * l + 1) * np.einsum("ij,ijs,ijs->s", pairs, products, chi, optimize=True)
        for l, chi in enumerate(characters((turned - 1) / 2, lmax))
    ]
    return Powers(np.stack(found[1:], axis=1), equiv)


def characters(cosine: Float[np.ndarray, "*n"], lmax: int) -> list[Float[np.ndarray, "*n"]]:
    """χ_0 ... χ_lmax of rotations by the cosine of their angle: polynomials in it, so that no angle is special.

    χ_{l+1} = 2 cos(ω) χ_l - χ_{l-1}; 2l + 1 at ω = 0, (-1)^l at π.
    """
    chi = [np.ones_like(cosine), 2 * cosine + 1]
    while len(chi) <= lmax:
        chi.append(2 * cosine * chi[-1] - chi[-2])
    return chi[: lmax + 1]


def _products(off: dict[str, np.ndarray], offsets: np.ndarray, loss: Loss) -> Float[np.ndarray, "m m structures"]:
    """<δ_i, δ_j> in the loss's own weights: (l(δ_i, -δ_j) - l(δ_i, δ_j)) / 4."""
    minus = {name: -values for name, values in off.items()}
    each = ({name: values[i] for name, values in off.items()} for i in range(len(next(iter(off.values())))))
    return np.stack([(loss(minus, one, offsets) - loss(off, one, offsets)) / 4 for one in each])


def refuse_coarse(g: Elements, kind: Kind, weight: Float[np.ndarray, " m"], lmax: int) -> None:
    """InputError where a structure's elements [M] are too few to tell degrees up to lmax apart.

    A design's degree shows in its elements: Σ_ij w_i w_j χ_l(R_iᵀ R_j) = ‖Σ w D^l‖² is zero up to it.
    """
    if kind == "random":
        if len(g) < 3:
            raise InputError(f"powers per degree take three random rotations or more per structure, not {len(g)}.")
        return
    g = g[: len(g) // 2] if kind == "pair" else g
    needed = lmax if kind == "pair" else 2 * lmax + 1
    cosine = (np.einsum("iab,jab->ij", g.matrix, g.matrix) - 1) / 2
    w = weight[: len(g)] / weight[: len(g)].sum()
    has = next((l - 1 for l, chi in enumerate(characters(cosine, needed)) if l and w @ chi @ w > 1e-8), needed)
    if has < needed:
        rule = next(degree for degree in LEBEDEV if degree > 2 * lmax)
        instead = f"random rotations or lebedev:{rule}"
        raise InputError(
            f"powers up to degree {lmax} need a design of degree {needed}, this one is of degree {has}: take {instead}."
        )


def _pairs(kind: Kind, weight: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m m"]:
    """The weight of each product; they sum to one."""
    m = len(weight)
    if kind == "random":
        return (1 - np.eye(m)) / (m * (m - 1))
    if kind == "pair":
        first = np.arange(m) < m // 2
        return np.where(first[:, None] != first, 2 / m**2, 0.0)
    return np.outer(weight, weight)
