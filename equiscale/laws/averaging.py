"""Test-time averaging: the loss of a potential whose prediction is the mean over M random rotations of its input.

    L(M) = L_mean + L_equiv / M

Exact for squared error, whatever the potential: the mean of M independent predictions has 1 / M of their variance. For
another convex loss (eq. 1 of the scaling paper) it is the leading order in 1 / M, and how far off it is, is measured.
Two numbers tell the whole curve (fig. 13 left), and where it saturates: of the gain L(1) - L_mean a share s is had at
M = 1 / (1 - s), 90 % at 10 and 99 % at 100 rotations, for every potential.

>>> law = Averaging(mean=0.27, equiv=0.03)
>>> [round(float(loss), 5) for loss in law(np.array([1, 4, 32]))]
[0.3, 0.2775, 0.27094]
>>> round(law.needed(0.9)), round(law.within(0.01), 1)
(10, 11.1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from equiscale.laws.plain import Plain

AGREE = 0.05  # p-value of the largest deviation below which measurement and law differ
SQUARED = "squared"  # the loss for which the law is exact


@dataclass(frozen=True)
class Averaging(Plain):
    """L(M) from its two numbers, with their standard errors; correlation: of the two errors."""

    mean: float  # L_mean, of infinitely many rotations
    equiv: float  # L_equiv, what M rotations leave 1 / M of
    mean_error: float = 0.0
    equiv_error: float = 0.0
    correlation: float = 0.0
    fitted: bool = False  # to the measured L(M), where nobody measured the two

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean) and np.isfinite(self.equiv) and self.mean + self.equiv > 0):
            raise ValueError(f"L_mean {self.mean:g} and L_equiv {self.equiv:g} are no loss: their sum is positive.")

    def __call__(self, rotations: np.ndarray | float) -> np.ndarray:
        return np.asarray(self.mean + self.equiv / np.asarray(rotations, float))

    def error(self, rotations: np.ndarray | float) -> np.ndarray:
        """Standard error of the prediction."""
        part = self.equiv_error / np.asarray(rotations, float)
        square = self.mean_error**2 + part**2 + 2 * self.correlation * self.mean_error * part
        return np.asarray(np.sqrt(np.maximum(square, 0.0)))

    @property
    def share(self) -> float:
        """Of the loss without averaging: what averaging can take out."""
        return self.equiv / (self.mean + self.equiv)

    def needed(self, share: float) -> float:
        """Rotations at which that share of the gain L(1) - L_mean is had."""
        if not 0 <= share < 1:
            raise ValueError(f"a share of the gain lies from 0 to below 1, not at {share:g}: all of it needs all M.")
        return 1.0 / (1.0 - share)

    def within(self, excess: float) -> float:
        """Rotations at which the loss is that fraction above L_mean; 1 where it never is more."""
        if not excess > 0:
            raise ValueError(f"an excess over L_mean is positive, not {excess:g}.")
        return max(1.0, self.equiv / (excess * self.mean)) if self.mean > 0 else float("inf")


def averaging_of(rotations: np.ndarray, loss: np.ndarray, error: np.ndarray | None = None) -> Averaging:
    """The two numbers from a measured curve: least squares, linear in 1 / M. Without errors they come from the
    scatter about the line."""
    m, y = np.asarray(rotations, float), np.asarray(loss, float)
    _check_rows(m, y)
    if len(np.unique(m)) < 2:
        raise ValueError("one number of rotations tells no law of averaging: measure at two or more.")
    w = np.ones(len(y)) if error is None else 1 / np.asarray(error, float)
    x = np.stack([np.ones(len(m)), 1 / m], 1) * w[:, None]
    covariance = np.linalg.inv(x.T @ x)
    both = covariance @ (x.T @ (w * y))
    if error is None:
        left = ((x @ both - w * y) ** 2).sum()
        covariance = covariance * left / (len(y) - 2) if len(y) > 2 else covariance * 0.0
    spread = np.sqrt(np.diag(covariance))
    shared = float(covariance[0, 1] / np.prod(spread)) if spread.all() else 0.0
    return Averaging(float(both[0]), float(both[1]), float(spread[0]), float(spread[1]), shared, fitted=True)


@dataclass(frozen=True)
class AveragingCheck(Plain):
    """Measured losses of M rotations against the law; `deviations` are measured / predicted - 1."""

    law: Averaging
    rotations: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    deviations: np.ndarray
    scores: np.ndarray  # deviations in standard errors of measurement and prediction together; NaN without errors
    largest: float  # deviation of the largest size, with its sign
    p_value: float | None  # Bonferroni's, of the largest score: the M share structures, so they are not independent
    exact: bool
    agrees: bool | None  # None: no errors, nothing to judge by
    text: str


def check(
    law: Averaging,
    rotations: np.ndarray,
    loss: np.ndarray,
    error: np.ndarray | None = None,
    *,
    predicted: np.ndarray | None = None,
    deviation_errors: np.ndarray | None = None,
    exact: bool = True,
) -> AveragingCheck:
    """exact: of squared error. predicted: where the measurement predicted on its own structures, in the law's place;
    deviation_errors: of measured - predicted taken structure by structure, better than the two errors together."""
    m, y = np.asarray(rotations, float), np.asarray(loss, float)
    _check_rows(m, y)
    own = law(m) if predicted is None else np.where(np.isfinite(predicted), predicted, law(m))
    off = y / own - 1
    spread = np.full(len(y), np.nan)
    if error is not None:
        # Measured on the structures that gave the two numbers, both err together: an upper bound of the error.
        spread = np.hypot(np.asarray(error, float), law.error(m))
    if deviation_errors is not None:
        spread = np.asarray(deviation_errors, float)
    with np.errstate(all="ignore"):
        scores = np.where(spread > 0, (y - own) / spread, np.nan)
    at = int(np.abs(off).argmax())
    known = scores[np.isfinite(scores)]
    p = None
    if len(known):
        p = float(min(1.0, 2 * len(known) * norm.sf(np.abs(known).max())))
    agrees = None if p is None else p >= AGREE
    where = f"the largest deviation of {len(m)} measured is {off[at]:+.2%}, at M = {m[at]:g}"
    if np.isfinite(scores[at]):
        where += f" ({abs(scores[at]):.1f} standard errors)"
    if law.fitted and predicted is None:
        where += ", of a law fitted to these points"
    if exact:
        verdict = {True: "as it must for squared error", False: "which squared error does not allow", None: ""}[agrees]
        text = f"{where}{', ' + verdict if verdict else ''}."
    else:
        text = f"{where}; of this loss the law is the leading order in 1 / M."
    return AveragingCheck(law, m, y, np.asarray(own, float), off, scores, float(off[at]), p, exact, agrees, text)


def _check_rows(m: np.ndarray, y: np.ndarray) -> None:
    if len(m) != len(y) or not len(m):
        raise ValueError(f"{len(m)} numbers of rotations and {len(y)} losses: give one loss for each.")
    if not (np.isfinite(m).all() and (m >= 1).all()):
        raise ValueError("numbers of rotations are 1 or more.")
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise ValueError("the losses of averaged predictions are finite positive numbers.")


@dataclass(frozen=True)
class AveragedRun(Plain):
    """One run's loss at several numbers of rotations."""

    run: str
    architecture: str
    width: float
    N: float  # NaN where not known
    D: float
    loss: str  # which loss: "squared", "study", …
    exact: bool  # the law is, of this loss
    law: Averaging
    rotations: np.ndarray
    losses: np.ndarray
    errors: np.ndarray | None
    predicted: np.ndarray | None
    deviation_errors: np.ndarray | None = None  # of measured - predicted, structure by structure
    key: str = ""  # of the record, where it is known

    def at(self, rotations: float) -> float:
        """The measured loss of so many rotations; inf: L_mean. NaN where it was not measured."""
        if np.isinf(rotations):
            return self.law.mean
        found = self.losses[np.isclose(self.rotations, rotations)]
        if len(found):
            return float(found[0])
        return float(self.law(1.0)) if rotations == 1 else float("nan")

    def check(self) -> AveragingCheck:
        return check(
            self.law,
            self.rotations,
            self.losses,
            self.errors,
            predicted=self.predicted,
            deviation_errors=self.deviation_errors,
            exact=self.exact,
        )


def averaged_runs(data: Mapping[str, Any]) -> list[AveragedRun]:
    """From JSON of measured averages:

        {"runs": [{"run": key, "architecture": "mpnn", "width": 32, "N": 51234, "D": 8.5e5, "loss": "squared",
                   "mean": .27, "equiv": .03, "mean_error": .004, "equiv_error": .001,
                   "averages": [{"rotations": 1, "loss": .30, "error": .005, "predicted": .30}, ...]}, ...]}

    or one such run alone, or what `equiscale symmetry … --averages 1,2,4 --json FILE` writes: there a number and its
    error are {"value", "error"}, L_mean and L_equiv lie in "whole", key, run, architecture, width, N and D in "about",
    and an average has "measured", "predicted" and their "deviation", structure by structure.

    Needed are `averages` with `rotations` and a loss; whatever else is missing or null is not known. Without L_mean and
    L_equiv the law is fitted to the averages. It is exact for the loss "squared", or where an average says "exact".
    ValueError in one sentence where that is not what is there.
    """
    runs = data.get("runs", [data] if "averages" in data else None) if isinstance(data, Mapping) else None
    if not isinstance(runs, Sequence) or isinstance(runs, str) or not runs:
        raise ValueError('there are no averages: they are {"runs": [{"run": …, "averages": [{"rotations": …}]}]}.')
    return [_run(entry, i) for i, entry in enumerate(runs)]


def _run(entry: Any, place: int) -> AveragedRun:
    name = f"run {place + 1}"
    try:
        about, whole = {**entry, **(entry.get("about") or {})}, {**entry, **(entry.get("whole") or {})}
        name = str(about.get("run") or entry.get("model") or name)
        points = sorted(entry["averages"], key=lambda p: float(p["rotations"]))
        m = np.array([float(p["rotations"]) for p in points])
        y, error = np.array([_figure(p, "measured", "loss") for p in points]).reshape(-1, 2).T
        told, _ = np.array([_figure(p, "predicted") for p in points]).reshape(-1, 2).T
        _, off = np.array([_figure(p, "deviation") for p in points]).reshape(-1, 2).T
        mean, equiv = _figure(whole, "mean"), _figure(whole, "equiv")
        sizes = [_figure(about, key)[0] for key in ("width", "N", "D")]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"the averages of {name} are damaged: each has `rotations` and `loss`, numbers.") from None
    if not len(m):
        raise ValueError(f"no average of {name} was measured: ask for some, as in `--averages 1,2,4,8,16,32`.")
    _check_rows(m, y)
    known = error if (np.isfinite(error) & (error > 0)).all() else None
    if np.isfinite(mean[0]) and np.isfinite(equiv[0]):
        spread = [e if np.isfinite(e) else 0.0 for e in (mean[1], equiv[1])]
        law = Averaging(mean[0], equiv[0], spread[0], spread[1])
    else:
        law = averaging_of(m, y, known)
    loss = str(entry.get("loss") or "unknown")
    return AveragedRun(
        run=name,
        architecture=str(about.get("architecture") or ""),
        width=sizes[0],
        N=sizes[1],
        D=sizes[2],
        loss=loss,
        exact=loss == SQUARED or all(p.get("exact") is True for p in points),
        law=law,
        rotations=m,
        losses=y,
        errors=known,
        predicted=told if np.isfinite(told).any() else None,
        deviation_errors=off if np.isfinite(off).any() else None,
        key=str(about.get("key") or ""),
    )


def _figure(values: Mapping[str, Any], *names: str) -> tuple[float, float]:
    """A number and its error, of {"loss": 1.0, "error": .1}, {"mean": 1.0, "mean_error": .1} or {"mean": {"value": 1.0,
    "error": .1}}; NaN where nothing is said."""
    for name in names:
        found = values.get(name)
        if isinstance(found, Mapping):
            return _number(found.get("value")), _number(found.get("error"))
        if found is not None:
            return float(found), _number(values.get("error" if name == "loss" else f"{name}_error"))
    return float("nan"), float("nan")


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
