"""A head that multiplies unit vectors by learned numbers per axis, in closed form: EScAIP's force head.

The force on atom a is f_k = Σ_e e_k (w_k · h_e), with unit vectors e, invariant features h of its edges and one row w_k
of W for each axis. With S_a = Σ_e e ⊗ h_e and r_k the rows of R, twisting and averaging over all rotations give

    z(R) = Rᵀ f(Rx) = Σ_k r_k r_kᵀ S w_k,   μ = S w̄,   L_equiv = (1/9) Σ_k d_kᵀ G d_k,   L_mean = <|S w̄ - y|²> / 3,

where w̄ = mean_k w_k, d_k = w_k - w̄ and G = <SᵀS>. So the averaged prediction is the head with W_E = 1 ⊗ w̄, the error
knows W_⊥ = (d_k) alone, and both losses are exactly quadratic with Hessians (2/9) G on their own subspaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

AVERAGE = np.full((3, 3), 1 / 3)  # projects the three rows on their mean


@dataclass(frozen=True, eq=False)
class HeadForm:
    """The losses of such a head as functions of W; per component, in the square of the labels' unit."""

    weight: Float[np.ndarray, "3 w"]  # W
    gram: Float[np.ndarray, "w w"]  # G
    cross: Float[np.ndarray, " w"] | None = None  # <Sᵀy>; None: no labels
    square: float | None = None  # <|y|²>

    @property
    def row(self) -> Float[np.ndarray, " w"]:
        """w̄, the one row of the equivariant head that is nearest."""
        return self.weight.mean(0)

    @property
    def off(self) -> Float[np.ndarray, "3 w"]:
        """W_⊥: the rows d_k = w_k - w̄."""
        return self.weight - self.row

    @property
    def norms(self) -> tuple[float, float]:
        """‖W_E‖ and ‖W_⊥‖ (Frobenius); their squares add up to ‖W‖²."""
        return float(np.sqrt(3) * np.linalg.norm(self.row)), float(np.linalg.norm(self.off))

    @property
    def equiv(self) -> float:
        """L_equiv = (1/9) Σ_k d_kᵀ G d_k."""
        return float(np.einsum("kw,wv,kv->", self.off, self.gram, self.off)) / 9

    @property
    def mean(self) -> float | None:
        """L_mean = <|S w̄ - y|²> / 3; None without labels."""
        if self.cross is None or self.square is None:
            return None
        return float(self.row @ self.gram @ self.row - 2 * self.row @ self.cross + self.square) / 3

    @property
    def total(self) -> float | None:
        return None if self.mean is None else self.mean + self.equiv

    @cached_property
    def eigenvalues(self) -> Float[np.ndarray, " w"]:
        """Of the quadratic form on W_⊥, eig(G)/9, ascending: λ_min ‖W_⊥‖² <= L_equiv <= λ_max ‖W_⊥‖², and all of the
        Hessians' other than zero are twice these: once each for L_mean, two times each for L_equiv.
        """
        return np.linalg.eigvalsh(self.gram) / 9

    @property
    def bounds(self) -> tuple[float, float]:
        """λ_min ‖W_⊥‖² and λ_max ‖W_⊥‖², between which L_equiv lies; the first is zero where features are dead."""
        square = self.norms[1] ** 2
        return max(float(self.eigenvalues[0]), 0.0) * square, float(self.eigenvalues[-1]) * square

    def gradients(self) -> tuple[Float[np.ndarray, "3 w"] | None, Float[np.ndarray, "3 w"]]:
        """Of L_mean (None without labels) and L_equiv by W: orthogonal, as rows are equal in one and add up to 0 in
        the other.
        """
        equiv = 2 / 9 * self.off @ self.gram
        if self.cross is None:
            return None, equiv
        return np.tile(2 / 9 * (self.gram @ self.row - self.cross), (3, 1)), equiv

    def hessians(self) -> tuple[Float[np.ndarray, "3w 3w"], Float[np.ndarray, "3w 3w"]]:
        """Of L_mean and L_equiv by W, row after row: (2/9) A ⊗ G and (2/9) (1 - A) ⊗ G with A the mean over rows."""
        return 2 / 9 * np.kron(AVERAGE, self.gram), 2 / 9 * np.kron(np.eye(3) - AVERAGE, self.gram)


def closed_form(
    unit: Float[np.ndarray, "edges 3"],
    features: Float[np.ndarray, "edges w"],
    receiver: Int[np.ndarray, " edges"],
    weight: Float[np.ndarray, "3 w"],
    per_atom: Float[np.ndarray, " atoms"],
    labels: Float[np.ndarray, "atoms 3"] | None = None,
) -> HeadForm:
    """The form of a head on a batch. ``per_atom`` sums to one: 1 / (structures × atoms of its own) for a mean over
    structures of per-structure means.
    """
    s = np.zeros((len(per_atom), 3, features.shape[1]))
    np.add.at(s, receiver, unit[:, :, None] * features[:, None, :])
    scaled = s * per_atom[:, None, None]
    gram = np.einsum("akw,akv->wv", scaled, s, optimize=True)
    form = HeadForm(np.asarray(weight, float), (gram + gram.T) / 2)
    if labels is None:
        return form
    cross, square = np.einsum("akw,ak->w", scaled, labels), float(per_atom @ np.square(labels).sum(1))
    return HeadForm(form.weight, form.gram, cross, square)
