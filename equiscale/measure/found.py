"""What a measurement found, and how single structures' figures become means with errors."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from equiscale.symmetry.decomposition import Figure, decomposition, ratio_of_sums
from equiscale.symmetry.estimate import Samples


@dataclass(frozen=True)
class Part:
    """The parts of the loss over some structures, or over the atoms of one element; None: it needs labels."""

    count: int  # structures, or atoms
    equiv: Figure
    relative: Figure  # L_equiv over the mean square of the predictions
    total: Figure | None = None
    mean: Figure | None = None
    percent: Figure | None = None
    percent_low: float | None = None  # of 95 %
    percent_high: float | None = None


@dataclass(frozen=True)
class Extremes:
    """Over structures (and rotations)."""

    mean: float
    max: float


@dataclass(frozen=True)
class Average:
    """The loss of an average over M rotations."""

    rotations: int
    measured: Figure
    predicted: Figure  # L_mean + L_equiv / M, of other rotations
    deviation: Figure  # measured - predicted, structure by structure
    exact: bool  # the law is: of squared errors


@dataclass(frozen=True)
class Found:
    """How symmetric a model is on some structures."""

    model: str
    data: str
    structures: int
    atoms: int
    groups: int  # molecules, which the errors are taken over
    left: int  # structures without labels that the others have
    isolated: int  # single atoms of a file, which are references and no structures of it
    labelled: bool
    loss: str
    unit: str
    moves: str
    sampler: str
    rotations: int
    estimator: str
    seed: int
    whole: Part
    residual: float | None  # of L = L_mean + L_equiv, relative, the largest over structures
    by_element: dict[str, Part]
    by_size: dict[str, Part]
    energy_spread_meV: Extremes | None  # standard deviation over rotations
    energy_spread_meV_per_atom: Extremes | None
    torque: Extremes | None  # |Σ r × f| about the centroid, eV; of molecules of two atoms and more
    torque_of_labels: Extremes | None
    net_force: Extremes  # |Σ f|, eV/Å
    net_force_of_labels: Extremes | None
    averages: tuple[Average, ...]
    degrees: dict[str, Any] | None
    lie: dict[str, Any] | None
    repeated: float  # eV/Å: the largest difference between two evaluations of the same structures
    forward_passes: int  # of single structures
    seconds: float
    about: dict[str, Any] = field(default_factory=dict)  # of the model: architecture, width, weights, …

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; what is not a number is null."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def part_of(samples: Samples, groups: Int[np.ndarray, " n"], labelled: bool) -> Part:
    """Means over samples, with errors over groups."""
    d = decomposition(samples, rotations=0, estimator="", groups=groups)
    if not labelled:
        return Part(len(samples), d.equiv, d.relative)
    return Part(len(samples), d.equiv, d.relative, d.total, d.mean, d.percent, d.percent_low, d.percent_high)


def figure(values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]) -> Figure:
    """The mean, with its jackknife error over groups."""
    return ratio_of_sums(values, np.ones(len(values)), groups)


def extremes(values: Float[np.ndarray, "*m n"]) -> Extremes | None:
    """None where there is none."""
    return Extremes(float(values.mean()), float(values.max())) if values.size else None
