"""From twisted predictions to the parts of a loss, structure by structure.

Z_i = ρ(g_i)⁻¹ f(ρ(g_i) x), μ = E Z. L = E l(Z, y), L_mean = E l(μ, y), L_equiv = L - L_mean. Which estimator depends on
how the g_i were drawn and on the loss (unbiasedness is verified by Monte-Carlo in the tests):

* ``u-statistic``, M independent rotations, squared error: L_equiv from Σ ‖Z_i - Z̄‖² / (M - 1), L_mean from the cross
  products of Z_i - y and Z_j - y, i ≠ j. All three unbiased; their sum holds to round-off for every structure.
* ``jackknife``, M independent rotations, any other convex loss: M l(Z̄) - (M - 1) mean l(Z̄ without i), which takes out
  the O(1/M) by which l(Z̄) is too large.
* ``pair``, two independent cosets of a design: the cross product of their two averages; unbiased like the first.
* ``plain``, a coset, a full group or a quadrature, which know μ up to degrees that they do not resolve: l(Z̄), without
  a factor M / (M - 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from equiscale.errors import InputError
from equiscale.symmetry.losses import Loss, Outputs

Kind = Literal["random", "coset", "pair", "full", "quadrature"]
"""How elements were drawn: as ``designs`` says."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The parts for each structure. Single ones may be negative: they are unbiased, not clipped."""

    total: Float[np.ndarray, " structures"]
    mean: Float[np.ndarray, " structures"]  # of the twirled function
    equiv: Float[np.ndarray, " structures"]
    size: Float[np.ndarray, " structures"]  # the loss of the outputs against zero: their mean square for a squared loss
    residual: float  # largest |total - mean - equiv| over total: round-off

    def __len__(self) -> int:
        return len(self.total)

    @staticmethod
    def joined(parts: Iterable[Samples]) -> Samples:
        """One after another."""
        parts = list(parts)
        arrays = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Samples)[:-1]}
        return Samples(**arrays, residual=max(p.residual for p in parts))

    def take(self, where: np.ndarray) -> Samples:
        return replace(self, **{f.name: getattr(self, f.name)[where] for f in fields(self)[:-1]})


def estimator(kind: Kind, loss: Loss) -> str:
    """Which of the four."""
    if kind == "pair":
        if not loss.squared:
            raise InputError(
                f"a pair of cosets is for squared errors, the {loss.name} loss is none: take one coset, or random "
                "rotations."
            )
        return "pair"
    if kind != "random":
        return "plain"
    return "u-statistic" if loss.squared else "jackknife"


def estimate(
    z: Outputs,
    y: Outputs,
    offsets: Int[np.ndarray, " structures_1"],
    loss: Loss,
    kind: Kind = "random",
    weights: Float[np.ndarray, " m"] | None = None,
) -> Samples:
    """z: twisted outputs, energy [M, structures], forces [M, atoms, 3]; y: labels without the first axis.

    ``weights`` of a quadrature add up to one. InputError for one rotation.
    """
    z = {name: np.asarray(z[name], np.float64) for name in loss.outputs}
    y = {name: np.asarray(y[name], np.float64) for name in loss.outputs}
    count = len(z[loss.outputs[0]])
    if count < 2:
        raise InputError("one rotation cannot tell broken symmetry from error: take two or more, or a design.")
    weight = np.full(count, 1 / count) if weights is None else np.asarray(weights, float)
    how = estimator(kind, loss)
    if kind in ("random", "pair") and not np.allclose(weight, 1 / count):
        raise InputError("only a quadrature's elements have weights of their own: random ones and cosets count alike.")
    if kind == "pair" and count % 2:
        raise InputError(f"a pair of cosets has an even number of elements, not {count}.")
    centre = {name: np.tensordot(weight, values, 1) for name, values in z.items()}
    total = weight @ loss(z, y, offsets)
    zero = {name: np.zeros_like(values) for name, values in centre.items()}
    size = weight @ loss(z, zero, offsets)
    if how == "u-statistic":
        # Of squared losses l(z, z̄) is the squared deviation, with the loss's own weights.
        equiv = loss(z, centre, offsets).sum(0) / (count - 1)
        mean = loss(centre, y, offsets) - equiv / count
    elif how == "jackknife":
        without = {name: (count * centre[name] - values) / (count - 1) for name, values in z.items()}
        mean = count * loss(centre, y, offsets) - (count - 1) * loss(without, y, offsets).mean(0)
        equiv = total - mean
    elif how == "pair":
        one, two = ({n: np.tensordot(w, v, 1) for n, v in z.items()} for w in _halves(weight))
        # <a - y, b - y> = ‖(a + b)/2 - y‖² - ‖(a - b)/2‖², where (a + b)/2 is the centre; the rest of the total is
        # written out, as a difference of the two would be no better than the total's own round-off.
        apart = loss(one, two, offsets) / 4
        mean = loss(centre, y, offsets) - apart
        equiv = weight @ loss(z, centre, offsets) + apart
    else:
        equiv = weight @ loss(z, centre, offsets) if loss.squared else None
        mean = loss(centre, y, offsets)
        equiv = total - mean if equiv is None else equiv
    residual = np.abs(total - mean - equiv) / np.maximum(np.abs(total), np.finfo(float).tiny)
    return Samples(total, mean, equiv, size, float(residual.max(initial=0.0)))


def averages(
    z: Outputs, y: Outputs, offsets: np.ndarray, loss: Loss, counts: Iterable[int]
) -> Iterator[tuple[int, Float[np.ndarray, " structures"]]]:
    """The loss of the average over the first M rotations, for each M: what test-time averaging over M reaches.

    Mean over the disjoint groups of M that the rotations hold, so that a small M wastes none of them.
    """
    have = len(z[loss.outputs[0]])
    for count in counts:
        if count > have:
            raise InputError(f"an average over {count} rotations needs as many, there are {have}.")
        groups = have // count
        shaped = {n: z[n][: groups * count].reshape(groups, count, *z[n].shape[1:]).mean(1) for n in loss.outputs}
        yield count, loss(shaped, y, offsets).mean(0)


def _halves(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle = len(weight) // 2
    first = np.arange(len(weight)) < middle
    one, two = np.where(first, weight, 0), np.where(first, 0, weight)
    return one / one.sum(), two / two.sum()
