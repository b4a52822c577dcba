"""Where the share of the loss that comes from broken symmetry is least along a run, and whether it rises afterwards.

Plain arrays in: one run's steps, percentages and their standard errors. The least of K noisy points is low by their
noise as well as by the run, so a rise is only called one beyond the error at which none of K points would be so low:
one-sided 2.5 % over all K (Bonferroni). Errors of two looks are taken as independent; the same structures are behind
both, so the error of a difference is, if anything, too large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import norm

NOTHING = 1e-6
"""Percent: below it is the rounding of single precision, which every exactly equivariant potential has."""

Verdict = Literal["rises", "within errors", "falls to the end", "no broken symmetry", "too few points"]

WORDS: dict[Verdict, str] = {
    "rises": "rises after its dip",
    "within errors": "its rise after the dip is within errors",
    "falls to the end": "falls to the end, so there is no dip",
    "no broken symmetry": "no broken symmetry beyond rounding and errors",
    "too few points": "too few points to tell",
}


@dataclass(frozen=True)
class Dip:
    """Percentages, each with its standard error; nan where there is no such point."""

    start: float  # at step 0
    start_error: float
    step: float  # of the least percentage after step 0
    least: float
    least_error: float
    last_step: float
    last: float
    last_error: float
    points: int  # finite ones after step 0
    verdict: Verdict

    @property
    def rise(self) -> float:
        return self.last - self.least

    @property
    def rise_error(self) -> float:
        return math.hypot(self.least_error, self.last_error)

    @property
    def text(self) -> str:
        return WORDS[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        values = {**asdict(self), "rise": self.rise, "rise_error": self.rise_error}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def dip(step: Any, percent: Any, error: Any) -> Dip:
    """The dip of one run. Points that are not finite are left out; an unbiased estimate may be negative."""
    step, percent, error = (np.asarray(v, float).ravel() for v in (step, percent, error))
    if not len(step) == len(percent) == len(error):
        raise ValueError(f"a dip needs as many percentages and errors as steps, not {len(percent)}, {len(error)}.")
    keep = np.isfinite(step) & np.isfinite(percent)
    keep &= step >= 0
    order = np.argsort(step[keep], kind="stable")
    step, percent, error = step[keep][order], percent[keep][order], error[keep][order]
    first = (float(percent[0]), float(error[0])) if len(step) and step[0] == 0 else (math.nan, math.nan)
    step, percent, error = step[step > 0], percent[step > 0], error[step > 0]
    if not len(step):
        nothing = math.nan
        return Dip(*first, nothing, nothing, nothing, nothing, nothing, nothing, 0, "too few points")
    at = int(np.argmin(percent))
    found = Dip(
        *first,
        step=float(step[at]),
        least=float(percent[at]),
        least_error=float(error[at]),
        last_step=float(step[-1]),
        last=float(percent[-1]),
        last_error=float(error[-1]),
        points=len(step),
        verdict="too few points",
    )
    return replace(found, verdict=_verdict(found, percent, error))


def _verdict(found: Dip, percent: np.ndarray, error: np.ndarray) -> Verdict:
    if found.points < 3:
        return "too few points"
    sure = float(norm.isf(0.025 / found.points))
    everything = np.append(percent - sure * np.nan_to_num(error), found.start - sure * np.nan_to_num(found.start_error))
    if np.nanmax(everything) <= NOTHING:
        return "no broken symmetry"
    if found.step == found.last_step:
        return "falls to the end"
    return "rises" if found.rise > sure * found.rise_error else "within errors"  # an unknown error is no evidence


def dips(runs: Mapping[str, tuple[Any, Any, Any]]) -> dict[str, Dip]:
    """The dip of every run: (steps, percentages, standard errors) by the run's name."""
    return {name: dip(*arrays) for name, arrays in runs.items()}
