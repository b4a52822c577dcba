"""Second derivatives of a few losses by one vector of parameters, and what their spectra say, in float64.

A loss here is any twice differentiable function of that vector alone: whatever is drawn at random (rotations, noise)
is drawn before, once, and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equiscale.errors import InputError

Losses = Callable[[Float[Tensor, " n"]], Float[Tensor, " k"]]
"""Parameters to k losses at once, as they share most of their computation."""

DENSE_UP_TO = 4096
"""Parameters up to which a Hessian is held whole: 134 MB, and a minute for its eigenvalues on one core."""
AT_ONCE = 8  # products H v in one backward pass


def hessians(losses: Losses, at: Float[Tensor, " n"]) -> Float[np.ndarray, "k n n"]:
    """All second derivatives at a point, by differentiating the gradients; symmetrised.

    Row after row, as many at once as the operations of the losses allow.
    """
    if len(at) > DENSE_UP_TO:
        raise InputError(
            f"{len(at)} parameters are too many for a whole Hessian (at most {DENSE_UP_TO}): choose fewer parameters, "
            "or ask for its extreme eigenvalues alone (Lanczos)."
        )
    theta = at.detach().double().requires_grad_()
    result = []
    for gradient in _gradients(losses, theta):
        rows = _products(gradient, theta, torch.eye(len(theta)).to(theta))
        result.append(((rows + rows.T) / 2).cpu().numpy())
    return np.stack(result)


def _gradients(losses: Losses, theta: Tensor) -> list[Tensor]:
    with torch.enable_grad():
        values = losses(theta)
        if not values.requires_grad:
            raise InputError("these parameters change none of the losses: choose others.")
        return [torch.autograd.grad(v, theta, create_graph=True)[0] for v in values.unbind()]


def _products(gradient: Tensor, theta: Tensor, vectors: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """H v of every row v of ``vectors``; zero where the gradient does not depend on the parameters."""
    if not gradient.requires_grad:
        return torch.zeros_like(vectors)

    def product(v: Tensor, batched: bool) -> Tensor:
        kept: dict[str, Any] = {"retain_graph": True, "materialize_grads": True, "is_grads_batched": batched}
        return torch.autograd.grad(gradient, theta, v, **kept)[0]

    if len(vectors) > 1:
        try:
            return torch.cat([product(part, True) for part in vectors.split(AT_ONCE)])
        except RuntimeError:  # an operation without a rule for batches of gradients
            pass
    return torch.stack([product(v, False) for v in vectors])


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The eigenvalues of one symmetric matrix, and the figures by which losses are compared.

    Values of magnitude below ``cutoff`` = n ε |λ|_max, which is the round-off of the matrix, count as zero.
    """

    eigenvalues: Float[np.ndarray, " m"]  # ascending: all of them, or the extremes that were found
    size: int  # n
    trace: float  # an estimate where not all are known
    naive_single: float | None = None  # ``naive_ratio`` of the matrix rounded to float32, found in float32

    @property
    def complete(self) -> bool:
        return len(self.eigenvalues) == self.size

    @property
    def largest(self) -> float:
        return float(self.eigenvalues[-1])

    @property
    def cutoff(self) -> float:
        return self.size * float(np.finfo(np.float64).eps) * float(np.abs(self.eigenvalues).max(initial=0.0))

    @property
    def range(self) -> Float[np.ndarray, " r"]:
        """The eigenvalues above the cut-off in magnitude."""
        return self.eigenvalues[np.abs(self.eigenvalues) > self.cutoff]

    @property
    def rank(self) -> int | None:
        """How many there are; None where not all were sought."""
        return len(self.range) if self.complete else None

    @property
    def smallest(self) -> float | None:
        """The smallest positive eigenvalue above the cut-off; None where there is none, or not all were sought."""
        positive = self.range[self.range > 0]
        return float(positive[0]) if self.complete and len(positive) else None

    @property
    def condition(self) -> float | None:
        """max |λ| / min |λ| on the range."""
        size = np.abs(self.range)
        return float(size.max() / size.min()) if self.complete and len(size) else None

    @property
    def effective_rank(self) -> float | None:
        """tr H / λ_max: how many directions are about as steep as the steepest; None where the trace is negative."""
        return self.trace / self.largest if self.largest > 0 and self.trace > 0 else None

    @property
    def quantile_ratio(self) -> float | None:
        """The 90 % quantile over the 10 % quantile of the positive eigenvalues on the range."""
        positive = self.range[self.range > 0]
        if not (self.complete and len(positive)):
            return None
        low, high = np.quantile(positive, [0.1, 0.9])
        return float(high / low)

    @property
    def negative_mass(self) -> float | None:
        """Σ |λ < 0| / Σ |λ| on the range: 0 for a convex loss."""
        total = np.abs(self.range).sum()
        return float(np.abs(self.range[self.range < 0]).sum() / total) if self.complete and total else None

    @property
    def naive_ratio(self) -> float | None:
        """The largest over the smallest positive eigenvalue, whatever its size (Shen et al. 2025, section 3.4).

        Where the matrix has a null space, the smallest is the round-off of a zero: a number about the arithmetic, not
        about the loss. Given for comparison with theirs only.
        """
        return naive_ratio(self.eigenvalues) if self.complete else None

    def to_dict(self, values: bool = True) -> dict[str, Any]:
        names = ("size", "complete", "largest", "smallest", "trace", "cutoff", "rank", "condition", "effective_rank",
                 "quantile_ratio", "negative_mass", "naive_ratio", "naive_single")  # fmt: skip
        return {name: getattr(self, name) for name in names} | (
            {"eigenvalues": self.eigenvalues.tolist()} if values else {}
        )


def naive_ratio(eigenvalues: Float[np.ndarray, " m"]) -> float | None:
    positive = eigenvalues[eigenvalues > 0]
    return float(positive.max() / positive.min()) if len(positive) else None


def spectrum(matrix: Float[np.ndarray, "n n"]) -> Spectrum:
    """All eigenvalues of a symmetric matrix."""
    values = np.linalg.eigvalsh(matrix)
    rounded = np.linalg.eigvalsh(matrix.astype(np.float32)).astype(np.float64)
    return Spectrum(values, len(matrix), float(np.trace(matrix)), naive_ratio(rounded))


def axes(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "2 n"]:
    """The eigenvectors of the largest and of the smallest positive eigenvalue above the cut-off."""
    values, vectors = np.linalg.eigh(matrix)
    floor = len(values) * np.finfo(np.float64).eps * np.abs(values).max()
    above = np.flatnonzero(values > floor)
    if len(above) < 2:
        raise InputError("the Hessian has fewer than two directions along which the loss rises: there is no plane.")
    return vectors[:, [above[-1], above[0]]].T


def extremes(
    losses: Losses, at: Float[Tensor, " n"], count: int = 6, *, probes: int = 24, seed: int = 0
) -> list[tuple[Spectrum, Float[np.ndarray, "2 n"]]]:
    """The ``count`` smallest and largest eigenvalues of each loss by Lanczos' method on products H v, and the
    eigenvectors of the largest and of the smallest of all.

    The trace is Hutchinson's estimate from ``probes`` random signs. What lies between is not known: no rank, and no
    condition number, for which the smallest positive eigenvalue would be needed.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    theta = at.detach().double().requires_grad_()
    n, rng, result = len(theta), np.random.default_rng(seed), []
    if n < 4 * count:
        raise InputError(f"Lanczos' method is for many parameters, not for {n}: take the whole Hessian.")
    for gradient in _gradients(losses, theta):

        def product(vectors: np.ndarray, gradient: Tensor = gradient) -> np.ndarray:
            v = torch.as_tensor(np.array(vectors, np.float64).reshape(n, -1).T.copy()).to(theta)
            return _products(gradient, theta, v).T.cpu().numpy().reshape(vectors.shape)

        signs = rng.choice([-1.0, 1.0], size=(n, probes))
        trace = float((signs * product(signs)).sum(0).mean())
        operator = LinearOperator((n, n), matvec=product, matmat=product, dtype=np.float64)
        try:
            high, top = eigsh(operator, count, which="LA", v0=rng.normal(size=n))
            low, bottom = eigsh(operator, count, which="SA", v0=rng.normal(size=n))
        except ArpackError as error:
            raise InputError(
                f"Lanczos' method finds no eigenvalues of a loss by these {n} parameters ({str(error).rstrip('.')}): "
                "choose others, or few enough for the whole Hessian."
            ) from None
        ends = np.stack([top[:, high.argmax()], bottom[:, low.argmin()]])
        result.append((Spectrum(np.sort(np.concatenate([low, high])), n, trace), ends))
    return result
