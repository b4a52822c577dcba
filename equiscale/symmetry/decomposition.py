"""The parts of a loss over many structures, with errors: sums and ratios of sums, resampled over molecules."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student

from equiscale.errors import InputError
from equiscale.symmetry.estimate import Samples


@dataclass(frozen=True)
class Figure:
    """A number and its standard error over structures (jackknife over molecules, where these are known)."""

    value: float
    error: float | None  # None: one group only (or one that is not zero), which tells nothing of the spread

    def __str__(self) -> str:
        return f"{self.value:.4g}" + ("" if self.error is None else f" ± {self.error:.2g}")


@dataclass(frozen=True)
class Decomposition:
    """L = L_mean + L_equiv. ``percent`` is a ratio of sums, with its jackknife interval; ``relative`` is L_equiv over
    the mean square of the predictions, which unlike the percentage knows neither a floor of L nor its scale.
    """

    total: Figure
    mean: Figure
    equiv: Figure
    percent: Figure
    percent_low: float | None  # of 95 %
    percent_high: float | None
    relative: Figure
    structures: int
    groups: int
    rotations: int
    forward_passes: int  # of single structures: the cost
    estimator: str
    residual: float  # of L = L_mean + L_equiv, the largest over structures, relative

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def decomposition(
    samples: Samples,
    *,
    rotations: int,
    estimator: str,
    groups: Int[np.ndarray, " structures"] | None = None,
    level: float = 0.95,
) -> Decomposition:
    """Mean over structures of each part. ``groups``: each one's molecule, whose conformers are not independent."""
    if not len(samples):
        raise InputError("there is no structure to decompose the loss of.")
    where = _groups(len(samples), groups)

    def ratio(above: Float[np.ndarray, " structures"], below: Float[np.ndarray, " structures"]) -> Figure:
        return ratio_of_sums(above, below, where)

    each, count = np.ones(len(samples)), int(where.max()) + 1
    percent = ratio(100 * samples.equiv, samples.total)
    spread = None if percent.error is None else float(student.ppf(0.5 + level / 2, count - 1)) * percent.error
    return Decomposition(
        total=ratio(samples.total, each),
        mean=ratio(samples.mean, each),
        equiv=ratio(samples.equiv, each),
        percent=percent,
        percent_low=None if spread is None else percent.value - spread,
        percent_high=None if spread is None else percent.value + spread,
        relative=ratio(samples.equiv, samples.size),
        structures=len(samples),
        groups=count,
        rotations=rotations,
        forward_passes=len(samples) * rotations,
        estimator=estimator,
        residual=samples.residual,
    )


def ratio_of_sums(
    above: Float[np.ndarray, " structures"],
    below: Float[np.ndarray, " structures"],
    groups: Int[np.ndarray, " structures"] | None = None,
) -> Figure:
    """Σ a / Σ b with the jackknife's standard error: each molecule is left out once, with all its conformers."""
    where = _groups(len(above), groups)
    above, below = np.bincount(where, above), np.bincount(where, below)
    a, b = float(above.sum()), float(below.sum())
    value = a / b if b else float("nan")
    count = len(above)
    if count < 2:
        return Figure(value, None)
    with np.errstate(all="ignore"):
        without = (a - above) / (b - below)
    error = float(np.sqrt((count - 1) / count * np.square(without - without.mean()).sum()))
    return Figure(value, error if np.isfinite(error) else None)


def _groups(structures: int, groups: Int[np.ndarray, " structures"] | None) -> Int[np.ndarray, " structures"]:
    """Numbered 0, 1, ..."""
    return np.arange(structures) if groups is None else np.unique(groups, return_inverse=True)[1]
