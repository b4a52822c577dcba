"""A law with numbers: variable projection for starts, a polish on log residuals, and what is to be distrusted.

The objective is sum_i w_i rho(ln L_i - ln law_i), rho Huber's, the absolute value or the square. It is optimised
scale-free: an optimiser's tolerance means something only for f / (n delta^2) (a mean in place of a sum makes L-BFGS
report success far from the optimum of Hoffmann et al.'s data). No optimiser's `success` is believed: the gradient
at the end, the other minima and the profiles are what the fit states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from equiscale.laws.forms import Law
from equiscale.laws.plain import Plain
from equiscale.laws.solve import EXPONENTS, FLOOR_SPAN, Problem, descend, huber, least_absolute, seeds

OBJECTIVES = ("huber", "lad", "least_squares")


@dataclass(frozen=True)
class Fit(Plain):
    law: Law
    values: dict[str, float]  # the law's own names: A, B, alpha, beta, L_inf / F, gamma, L_inf (0 when dropped)
    objective: str  # "huber" | "lad" | "least_squares"
    objective_value: float  # plain sum over rows of the loss of ln L residuals
    delta: float  # Huber's, in ln L
    status: str  # "good" | "doubtful"
    warnings: tuple[str, ...]
    rows: int
    minima: int  # distinct minima found
    gap: float  # relative gap from the best to the second-best distinct minimum (inf if only one)
    linear_fraction: float  # share of residuals beyond delta
    residual_rms: float  # of ln L
    gradient_norm: float  # of the scale-free objective

    def __call__(self, **x: np.ndarray | float) -> np.ndarray:
        """The law's loss: fit(N=..., D=...) or fit(C=...)."""
        return self.law.loss({name: np.asarray(value, float) for name, value in x.items()}, self.values)


@dataclass(frozen=True)
class Coordinates:
    """Between a law's own parameters and the solver's centred, logarithmic ones."""

    law: Law
    centre: np.ndarray  # [terms] mean of ln x

    def own(self, params: np.ndarray) -> np.ndarray:
        """[fits, p] -> [fits, p] in the order of law.parameters."""
        k = len(self.centre)
        out = params.copy()
        out[:, :k] = np.exp(params[:, :k] + params[:, k : 2 * k] * self.centre)
        out[:, 2 * k :] = np.exp(params[:, 2 * k :])
        return out

    def centred(self, values: Mapping[str, float]) -> np.ndarray:
        own = np.array([values[name] for name in self.law.parameters])
        k = len(self.centre)
        out = own.copy()
        out[:k] = np.log(own[:k]) - own[k : 2 * k] * self.centre
        out[2 * k :] = np.log(np.maximum(own[2 * k :], 1e-300))
        return out


def prepare(law: Law, x: Mapping[str, np.ndarray], loss: np.ndarray) -> tuple[Problem, np.ndarray, Coordinates]:
    """Checks a user's columns; returns the solver's problem, ln loss and the coordinates between."""
    y = np.asarray(loss, float).ravel()
    columns = []
    for name in law.variables:
        if name not in x:
            raise ValueError(f"the law {law.formula} needs a column {name!r}, the table has {sorted(x)}.")
        columns.append(np.asarray(x[name], float).ravel())
    for name, column in [*zip(law.variables, columns, strict=True), ("loss", y)]:
        if len(column) != len(y):
            raise ValueError(f"column {name!r} has {len(column)} rows and the loss {len(y)}: they must agree.")
        bad = ~np.isfinite(column) | (column <= 0)
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise ValueError(f"column {name!r} holds {column[at]} in row {at}: a law needs finite positive values.")
    if len(y) < len(law.parameters) + 1:
        raise ValueError(
            f"{len(y)} rows are too few for the {len(law.parameters)} parameters of {law.formula}: give more rows."
        )
    for name, column in zip(law.variables, columns, strict=True):
        distinct = len(np.unique(column))
        if distinct < 3:
            raise ValueError(f"{name} takes {distinct} distinct values: an exponent of {name} needs at least three.")
    logs = np.log(np.stack(columns))
    centre = logs.mean(1)
    return Problem(logs - centre[:, None], law.floor == "free"), np.log(y), Coordinates(law, centre)


def fit(
    law: Law,
    x: Mapping[str, np.ndarray],
    loss: np.ndarray,
    *,
    objective: str = "huber",
    delta: float | None = None,
    weights: np.ndarray | None = None,
    profile: bool = True,
) -> Fit:
    """The law's best values. delta None: 1.345 robust standard deviations of the residuals (95 % efficient if
    normal)."""
    if objective not in OBJECTIVES:
        raise ValueError(f"objective {objective!r} is not known: it is one of {', '.join(OBJECTIVES)}.")
    if delta is not None and not delta > 0:
        raise ValueError(f"delta is {delta}: Huber's delta must be positive.")
    problem, y, coordinates = prepare(law, x, loss)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, float)
    if w.shape != y.shape or not (w >= 0).all() or not w.sum() > 0:
        raise ValueError("weights must be one non-negative number per row, not all zero.")

    starts = seeds(problem, y, w)
    if not len(starts):
        raise ValueError(f"no non-negative coefficients fit {law.formula} to these rows.")
    rough, value = descend(problem, y, w, np.inf, starts, iterations=40, tolerance=1e-6)
    residual = problem.curve(rough[[value.argmin()]], False)[0][0] - y
    width = delta or max(1.345 * 1.4826 * float(np.median(np.abs(residual - np.median(residual)))), 1e-7)
    if objective == "least_squares":
        width = np.inf
    params, value = descend(problem, y, w, width, rough)
    order = np.argsort(value)
    params, value = params[order], value[order]
    params[0], value[0], gradient = _polish(problem, y, w, width, params[0])
    if objective == "lad":
        best = least_absolute(problem, y, w, params[0])
        gradient = 0.0  # not smooth: the linear programme's own optimality is the certificate
    else:
        best = params[0]

    residual = problem.curve(best[None], False)[0][0] - y
    total = float((w * (np.abs(residual) if objective == "lad" else huber(residual, width))).sum())
    seen = params.copy()
    if problem.floor:  # floors that are nowhere felt are one floor
        seen[:, -1] = np.maximum(seen[:, -1], y.min() - 6)
    minima, gap = _distinct(seen, value)
    warnings = _distrust(law, problem, y, best, gradient, minima, gap)
    if profile:
        warnings += _flat(law, problem, y, w, width, best)
    values = dict(zip(law.parameters, coordinates.own(best[None])[0].tolist(), strict=True))
    return Fit(
        law=law,
        values={"L_inf": 0.0, **values},
        objective=objective,
        objective_value=total,
        delta=float(width),
        status="doubtful" if warnings else "good",
        warnings=tuple(warnings),
        rows=len(y),
        minima=minima,
        gap=gap,
        linear_fraction=float(np.mean(np.abs(residual) > width)),
        residual_rms=float(np.sqrt(np.mean(residual**2))),
        gradient_norm=gradient,
    )


def _polish(
    problem: Problem, y: np.ndarray, w: np.ndarray, delta: float, start: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """BFGS with the analytic gradient on the scale-free objective; never worse than its start."""
    robust = np.isfinite(delta)
    residual = problem.curve(start[None], False)[0][0] - y
    unit = len(y) * (delta**2 if robust else max(float(np.mean(residual**2)), 1e-30))

    def both(params: np.ndarray) -> tuple[float, np.ndarray]:
        curve, jacobian = problem.curve(params[None])
        r = curve[0] - y
        psi = w * (np.clip(r, -delta, delta) if robust else r)
        return float((w * huber(r, delta)).sum() / unit), jacobian[0] @ psi / unit

    before, slope = both(start)
    found = minimize(both, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 200})
    k = len(problem.z)
    bounded = ((found.x[k : 2 * k] > EXPONENTS[0]) & (found.x[k : 2 * k] < EXPONENTS[1])).all()
    if bounded and found.fun <= before:
        return found.x, float(found.fun * unit), float(np.abs(found.jac).max())
    return start, before * unit, float(np.abs(slope).max())


def _distinct(params: np.ndarray, value: np.ndarray) -> tuple[int, float]:
    """How many of the sorted optima differ, and the relative gap to the second."""
    kept = [0]
    for i in range(1, len(value)):
        apart = [np.abs(params[i] - params[j]).max() > 0.02 for j in kept]
        if all(apart) and value[i] > value[0] * (1 + 1e-6):
            kept.append(i)
    gap = float(value[kept[1]] / value[0] - 1) if len(kept) > 1 and value[0] > 0 else float("inf")
    return len(kept), gap


def _distrust(
    law: Law, problem: Problem, y: np.ndarray, best: np.ndarray, gradient: float, minima: int, gap: float
) -> list[str]:
    out = []
    k = len(problem.z)
    if gradient > 1e-3:
        out.append(f"the optimiser stopped at a slope of {gradient:.1e}: the optimum is not certain.")
    if minima > 1 and gap < 0.01:
        out.append(f"a second minimum lies {100 * gap:.2g} % above the best: the data hardly choose between them.")
    for i, name in enumerate(law.exponents):
        if best[k + i] <= 0.005:
            out.append(f"{name} is {best[k + i]:.2g}: the loss does not fall with {law.variables[i]} in these rows.")
        decades = np.ptp(problem.z[i]) / np.log(10)
        if decades < 0.8:
            out.append(f"{law.variables[i]} spans {decades:.2g} decades only: {name} is a slope over a short range.")
    shares = np.exp(best[:k, None] - best[k : 2 * k, None] * problem.z - y)
    for i, name in enumerate(law.coefficients):
        if shares[i].max() < 0.02:
            out.append(f"the term of {name} is at most {100 * shares[i].max():.1g} % of the loss: not identified.")
    if problem.floor and best[-1] < y.min() - 0.9 * FLOOR_SPAN:
        out.append("L_inf ended at zero: these rows show no floor.")
    return out


def _flat(law: Law, problem: Problem, y: np.ndarray, w: np.ndarray, delta: float, best: np.ndarray) -> list[str]:
    """An exponent whose profile hardly rises when it is halved or grows by half is not told by the data."""
    k = len(problem.z)
    start = np.repeat(best[None], 2 * k + 1, 0)
    fixed = np.zeros(start.shape, bool)
    for i in range(k):
        for j, factor in enumerate((0.5, 1.5)):
            start[1 + 2 * i + j, k + i] *= factor
            fixed[1 + 2 * i + j, k + i] = True
    _, value = descend(problem, y, w, delta, start, iterations=60, tolerance=1e-7, fixed=fixed)
    if value[0] <= 1e-14 * len(y):
        return []
    rise = len(y) * np.log(value[1:] / value[0])
    out = []
    for i, name in enumerate(law.exponents):
        low, high = rise[2 * i] < 3.84, rise[2 * i + 1] < 3.84
        if low or high:
            end = {
                (True, True): "halving or adding half",
                (True, False): "halving",
                (False, True): "adding half to",
            }
            out.append(f"flat profile: {end[(bool(low), bool(high))]} {name} hardly changes the fit.")
    return out
