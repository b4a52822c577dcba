"""Many small robust fits at once: damped Gauss-Newton on log residuals, batched over starts or resamples.

A problem is ln L = logsumexp_k(c_k - p_k z_k) with z_k the centred logarithm of term k's variable; a floor is one more
term with p = 0. Parameters [fits, p] are ordered c_1..c_K, p_1..p_K, then the floor's logarithm. Centring makes
coefficients and exponents nearly independent; the logarithm keeps losses over decades on one footing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

EXPONENTS = (-1.0, 6.0)  # where a polish may wander
FLOOR_SPAN = 12.0  # a floor e^12 below the least loss is zero for every purpose


@dataclass(frozen=True)
class Problem:
    z: np.ndarray  # [terms, rows]
    floor: bool

    @property
    def size(self) -> int:
        return 2 * len(self.z) + int(self.floor)

    def curve(self, params: np.ndarray, jacobian: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """ln L [fits, rows] and its derivative [fits, p, rows]."""
        k = len(self.z)
        theta = params[:, :k, None] - params[:, k : 2 * k, None] * self.z
        if self.floor:
            theta = np.concatenate(
                [theta, np.broadcast_to(params[:, 2 * k :, None], (len(params), 1, self.z.shape[1]))], 1
            )
        top = theta.max(1, keepdims=True)
        share = np.exp(theta - top)
        total = share.sum(1, keepdims=True)
        curve = (top + np.log(total))[:, 0]
        if not jacobian:
            return curve, np.empty(0)
        share /= total
        parts = [share[:, :k], -share[:, :k] * self.z] + ([share[:, k:]] if self.floor else [])
        return curve, np.concatenate(parts, 1)


def huber(residual: np.ndarray, delta: float | np.ndarray) -> np.ndarray:
    size = np.abs(residual)
    inner = np.minimum(size, delta)
    return inner * (size - 0.5 * inner)


def seeds(problem: Problem, y: np.ndarray, weights: np.ndarray, per_axis: int = 14, keep: int = 16) -> np.ndarray:
    """Variable projection: on a grid of exponents, coefficients by non-negative least squares on relative residuals.

    The least squares are exact (every active set of two or three coefficients is tried) and batched over the grid.
    """
    k = len(problem.z)
    axis = np.geomspace(0.02, 2.5, per_axis if k > 1 else 4 * per_axis)
    grid = np.stack(np.meshgrid(*[axis] * k, indexing="ij"), -1).reshape(-1, k)
    design = np.exp(-grid[:, :, None] * problem.z - y)
    if problem.floor:
        design = np.concatenate([design, np.broadcast_to(np.exp(-y), (len(grid), 1, len(y)))], 1)
    weighted = design * weights
    gram, target = weighted @ design.transpose(0, 2, 1), weighted.sum(-1)
    m = design.shape[1]
    best = np.full(len(grid), np.inf)
    coefficients = np.zeros((len(grid), m))
    for code in range(1, 2**m):
        active = [i for i in range(m) if code >> i & 1]
        sub = gram[np.ix_(range(len(grid)), active, active)]
        sub = sub + 1e-13 * np.trace(sub, axis1=1, axis2=2)[:, None, None] * np.eye(len(active))
        solution = np.linalg.solve(sub, target[:, active, None])[..., 0]
        value = weights.sum() - (solution * target[:, active]).sum(-1)
        better = (solution > 0).all(-1) & (value < best)
        best[better] = value[better]
        coefficients[better] = 0.0
        coefficients[np.ix_(better, active)] = solution[better]
    chosen = _spread(best, per_axis if k > 1 else len(grid), k)[:keep]
    level = np.exp(np.average(y, weights=weights))
    c = np.log(np.maximum(coefficients[chosen], 1e-4 * level))
    parts = [c[:, :k], grid[chosen]] + ([c[:, k:]] if problem.floor else [])
    return np.concatenate(parts, 1)


def _spread(value: np.ndarray, per_axis: int, k: int) -> np.ndarray:
    """The best grid points, but of neighbours only the better one: starts in different basins."""
    shape = (per_axis,) * k
    taken: list[int] = []
    blocked = np.zeros(shape, bool)
    for flat in np.argsort(value):
        if not np.isfinite(value[flat]):
            break
        at = np.unravel_index(flat, shape)
        if not blocked[at]:
            taken.append(int(flat))
            blocked[tuple(slice(max(0, i - 1), i + 2) for i in at)] = True
    return np.array(taken, int)


def descend(
    problem: Problem,
    y: np.ndarray,
    weights: np.ndarray,
    delta: float | np.ndarray,
    start: np.ndarray,
    *,
    iterations: int = 200,
    tolerance: float = 1e-12,
    fixed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Damped iteratively reweighted Gauss-Newton; returns parameters [fits, p] and objectives [fits].

    y and weights are [rows] or [fits, rows], delta a number or [fits]; fixed [fits, p] marks parameters that stay.
    """
    params = start.copy()
    fits, p = params.shape
    y = np.broadcast_to(y, (fits, y.shape[-1]))
    weights = np.broadcast_to(weights, (fits, weights.shape[-1]))
    zone = np.broadcast_to(np.asarray(delta, float).reshape(-1, 1), (fits, 1))
    free = np.ones((fits, p)) if fixed is None else (~fixed).astype(float)
    k = len(problem.z)
    low = np.full(p, -np.inf)
    high = np.full(p, np.inf)
    low[k : 2 * k], high[k : 2 * k] = EXPONENTS
    if problem.floor:
        low[-1], high[-1] = y.min() - FLOOR_SPAN, y.max()
    value = (weights * huber(problem.curve(params, False)[0] - y, zone)).sum(-1)
    damping = np.full(fits, 1e-3)
    stalled = np.zeros(fits, int)
    active = np.arange(fits)
    for _ in range(iterations):
        here, w, f = params[active], weights[active], free[active]
        curve, jacobian = problem.curve(here)
        residual = curve - y[active]
        pull = w * np.minimum(1.0, zone[active] / np.maximum(np.abs(residual), 1e-300))
        jacobian = jacobian * f[:, :, None]
        weighted = jacobian * pull[:, None]
        matrix = weighted @ jacobian.transpose(0, 2, 1)
        gradient = (weighted @ residual[..., None])[..., 0]
        diagonal = np.einsum("fii->fi", matrix)
        ridge = damping[active, None] * diagonal + 1e-12 * diagonal.max(1, keepdims=True) + 1e-300
        matrix = matrix + (ridge + (1 - f))[:, :, None] * np.eye(p)
        step = -np.linalg.solve(matrix, gradient[..., None])[..., 0]
        trial = np.clip(here + np.clip(step, -1.5, 1.5), low, high)
        new = (w * huber(problem.curve(trial, False)[0] - y[active], zone[active])).sum(-1)
        old = value[active]
        better = new < old
        params[active[better]] = trial[better]
        value[active[better]] = new[better]
        damping[active] = np.where(better, damping[active] / 6, np.maximum(damping[active], 1e-8) * 8)
        small = ~better | (old - new <= tolerance * old)
        stalled[active] = np.where(small, stalled[active] + 1, 0)
        active = active[(stalled[active] < 6) & (damping[active] < 1e12)]
        if not len(active):
            break
    return params, value


def least_absolute(
    problem: Problem, y: np.ndarray, weights: np.ndarray, start: np.ndarray, iterations: int = 40
) -> np.ndarray:
    """The exact least-absolute-deviation optimum near `start` [p]: linear programmes in a shrinking trust region."""
    params, radius = start.copy(), 0.1
    rows, p = len(y), len(start)
    curve, jacobian = problem.curve(params[None])
    best = float((weights * np.abs(curve[0] - y)).sum())
    for _ in range(iterations):
        j, r = jacobian[0].T, curve[0] - y
        # Variables: the step d, then positive and negative parts of r + J d.
        equal = np.concatenate([j, -np.eye(rows), np.eye(rows)], 1)
        result = linprog(
            np.concatenate([np.zeros(p), weights, weights]),
            A_eq=equal,
            b_eq=-r,
            bounds=[(-radius, radius)] * p + [(0, None)] * (2 * rows),
            method="highs",
        )
        if result.x is None:
            break
        trial = params + result.x[:p]
        new_curve, new_jacobian = problem.curve(trial[None])
        new = float((weights * np.abs(new_curve[0] - y)).sum())
        if new < best:
            done = best - new <= 1e-13 * best
            params, curve, jacobian, best = trial, new_curve, new_jacobian, new
            radius *= 2
            if done:
                break
        else:
            radius /= 8
            if radius < 1e-10:
                break
    return params
