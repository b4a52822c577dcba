"""Losses on a plane through a point of parameter space: their values on a grid, and how far from a quadratic they are.

With all that is random drawn once, a loss near a point is a quadratic to second order. Where rotations are drawn anew
at every grid point, neighbours differ by the estimator's noise, and what is plotted is that noise wherever it is
larger than the loss's own change: ``roughness`` near 2 and ``r2`` near 0 tell it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equiscale.errors import InputError
from equiscale.symmetry.hessian import Losses


@dataclass(frozen=True, eq=False)
class Plane:
    """Values of k losses at θ + a u + b v: axis 1 of ``values`` is a, axis 2 is b."""

    steps: Float[np.ndarray, " points"]  # a and b alike, in units of θ
    values: Float[np.ndarray, "k points points"]

    @cached_property
    def _fit(self) -> tuple[Float[np.ndarray, "k 6"], Float[np.ndarray, " k"]]:
        """Coefficients of 1, a, b, a², ab, b² with a and b scaled to [-1, 1], and 1 - residual / variance of each."""
        x = self.steps / np.abs(self.steps).max()
        a, b = np.meshgrid(x, x, indexing="ij")
        basis = np.stack([np.ones_like(a), a, b, a * a, a * b, b * b], axis=-1).reshape(-1, 6)
        flat = self.values.reshape(len(self.values), -1)
        level = flat.mean(1, keepdims=True)
        fitted = np.linalg.lstsq(basis, (flat - level).T, rcond=None)[0].T
        total = np.square(flat - level).sum(1)
        left = np.square(flat - level - fitted @ basis.T).sum(1)
        fitted[:, 0] += level[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            return fitted, np.where(self._varies, 1 - left / total, np.nan)

    @property
    def _varies(self) -> np.ndarray:
        """Whether a loss changes by more than round-off."""
        flat = self.values.reshape(len(self.values), -1)
        return np.ptp(flat, axis=1) > 1e-12 * np.abs(flat).max(1)

    @property
    def r2(self) -> Float[np.ndarray, " k"]:
        """Of the least-squares quadratic: 1 for a quadratic, about 0 for noise; nan for a constant."""
        return self._fit[1]

    @property
    def curvature(self) -> Float[np.ndarray, "k 2"]:
        """uᵀHu and vᵀHv of that quadratic."""
        return 2 * self._fit[0][:, [3, 5]] / np.square(self.steps).max()

    @property
    def roughness(self) -> Float[np.ndarray, " k"]:
        """Mean squared difference of neighbours over the variance: 2 for white noise, about 0 for smooth; nan for a
        constant.
        """
        v = self.values
        square = [np.square(np.diff(v, axis=i)).reshape(len(v), -1) for i in (1, 2)]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.concatenate(square, axis=1).mean(1) / v.reshape(len(v), -1).var(1)
        return np.where(self._varies, ratio, np.nan)

    def to_dict(self) -> dict[str, Any]:
        return {"steps": self.steps.tolist(), "values": self.values.tolist(), "r2": _plain(self.r2),
                "roughness": _plain(self.roughness), "curvature": self.curvature.tolist()}  # fmt: skip


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def random_axes(n: int, rng: np.random.Generator) -> Float[np.ndarray, "2 n"]:
    """Two random directions of length one, orthogonal to each other."""
    if n < 2:
        raise InputError("a plane needs two parameters or more.")
    return np.linalg.qr(rng.normal(size=(n, 2)))[0].T


def check_grid(step: float, points: int) -> None:
    """InputError where there is no such grid."""
    if points < 3 or points % 2 == 0:
        raise InputError(f"a grid has an odd number of points, 3 or more, not {points}.")
    if not step > 0:
        raise InputError(f"the step of a grid is a positive number, not {step:g}.")


def plane(
    losses: Losses,
    at: Float[Tensor, " n"],
    directions: Float[np.ndarray, "2 n"],
    step: float,
    points: int = 21,
) -> Plane:
    """The losses at points × points parameters around ``at``, ``step`` apart along two directions."""
    check_grid(step, points)
    steps = step * (np.arange(points) - points // 2)
    a, b = np.meshgrid(steps, steps, indexing="ij")
    at = at.detach().double()
    moves = np.stack([a.ravel(), b.ravel()], axis=1) @ directions
    thetas = at + torch.as_tensor(moves).to(at)
    with torch.no_grad():
        values = torch.stack([losses(theta) for theta in thetas])
    return Plane(steps, values.T.cpu().numpy().reshape(-1, points, points))
