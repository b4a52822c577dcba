"""The parts of a loss over many structures, with errors: sums and ratios of sums, resampled over molecules."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student

from equiscale.symmetry.estimate import Samples


@dataclass(frozen=True)
class Figure:
    """A number and its standard error over structures (jackknife over molecules, where these are known)."""

    value: float
    error: float | None  # None: one group only, which tells nothing of the spread

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
    where = np.arange(len(samples)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(where.max()) + 1 if len(samples) else 0
    sums = {
        name: np.bincount(where, getattr(samples, name), minlength=count) for name in ("total", "mean", "equiv", "size")
    }
    n = np.bincount(where, minlength=count).astype(float)

    def ratio(above: Float[np.ndarray, " groups"], below: Float[np.ndarray, " groups"], factor: float = 1.0) -> Figure:
        return _ratio(factor * above, below)

    percent = ratio(sums["equiv"], sums["total"], 100.0)
    spread = None if percent.error is None else float(student.ppf(0.5 + level / 2, count - 1)) * percent.error
    return Decomposition(
        total=ratio(sums["total"], n),
        mean=ratio(sums["mean"], n),
        equiv=ratio(sums["equiv"], n),
        percent=percent,
        percent_low=None if spread is None else percent.value - spread,
        percent_high=None if spread is None else percent.value + spread,
        relative=ratio(sums["equiv"], sums["size"]),
        structures=len(samples),
        groups=count,
        rotations=rotations,
        forward_passes=len(samples) * rotations,
        estimator=estimator,
        residual=samples.residual,
    )


def _ratio(above: Float[np.ndarray, " groups"], below: Float[np.ndarray, " groups"]) -> Figure:
    """Σ a / Σ b with the jackknife's standard error."""
    a, b = float(above.sum()), float(below.sum())
    value = a / b if b else float("nan")
    count = len(above)
    if count < 2:
        return Figure(value, None)
    with np.errstate(all="ignore"):
        without = (a - above) / (b - below)
    error = np.sqrt((count - 1) / count * np.square(without - without.mean()).sum())
    return Figure(value, float(error))
