"""Correlation of two positive quantities along runs, in logarithms, with intervals that know that a run's points hang
together: the jackknife leaves out whole runs, or where there are few, whole stretches of each.

A pair always is of one run and one look: x of one run against y of another correlates by their common clock alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr, t

RUNS = 4  # fewer cannot be left out in turn
STRETCHES = 5  # of each run, then
LEAST = 4  # points


@dataclass(frozen=True)
class Correlation:
    """Of ln x and ln y, with 95 % intervals; `method` says what was left out in turn, "" where there is no interval."""

    pearson: float
    spearman: float
    pearson_interval: tuple[float, float] | None
    spearman_interval: tuple[float, float] | None
    points: int
    left_out: int  # pairs that have no logarithm: zero, negative or not finite
    runs: int
    method: str
    per_run: Mapping[str, tuple[float, float, int]]  # Pearson, Spearman, points

    def to_dict(self) -> dict[str, Any]:
        def plain(value: Any) -> Any:
            if isinstance(value, float):
                return value if math.isfinite(value) else None
            if isinstance(value, Mapping):
                return {k: plain(v) for k, v in value.items()}
            return [plain(v) for v in value] if isinstance(value, tuple | list) else value

        return plain(asdict(self))


def log_correlation(x: Any, y: Any, run: Any) -> Correlation:
    """x, y and the run that each pair belongs to, in the order of training."""
    x, y, run = np.asarray(x, float).ravel(), np.asarray(y, float).ravel(), np.asarray(run).astype(str).ravel()
    if not len(x) == len(y) == len(run):
        raise ValueError(f"a correlation needs pairs of one run, not {len(x)}, {len(y)} and {len(run)} values.")
    keep = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    left_out = int(np.sum(~keep))
    u, v, run = np.log(x[keep]), np.log(y[keep]), run[keep]
    names = list(dict.fromkeys(run.tolist()))
    per_run = {name: (*_both(u[run == name], v[run == name]), int(np.sum(run == name))) for name in names}
    pearson, spearman = _both(u, v)
    blocks, method = _blocks(run, names)
    first = _jackknife(u, v, blocks, 0, pearson) if method else None
    second = _jackknife(u, v, blocks, 1, spearman) if method else None
    used = method if first is not None or second is not None else ""
    return Correlation(pearson, spearman, first, second, len(u), left_out, len(names), used, per_run)


def _both(u: np.ndarray, v: np.ndarray) -> tuple[float, float]:
    """Pearson's and Spearman's; nan for too few points or a constant."""
    if len(u) < LEAST or np.ptp(u) < 1e-12 or np.ptp(v) < 1e-12:
        return math.nan, math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nearly constant input: nan says it
        return float(pearsonr(u, v).statistic), float(spearmanr(u, v).statistic)


def _blocks(run: np.ndarray, names: list[str]) -> tuple[np.ndarray, str]:
    """The block of each point, and what a block is."""
    if len(names) >= RUNS:
        return run, f"jackknife over {len(names)} runs"
    parts = np.empty(len(run), dtype="<U64")
    for name in names:
        rows = np.flatnonzero(run == name)
        if len(rows) < 2 * STRETCHES:
            return parts, ""
        for i, stretch in enumerate(np.array_split(rows, STRETCHES)):
            parts[stretch] = f"{names.index(name)} {i}"
    return parts, f"jackknife over {STRETCHES} stretches of {'each run' if len(names) > 1 else 'the run'}"


def _jackknife(
    u: np.ndarray, v: np.ndarray, blocks: np.ndarray, which: int, whole: float
) -> tuple[float, float] | None:
    """On Fisher's z, where an interval is nearly symmetric and stays within ±1."""
    names = np.unique(blocks)
    parts = np.array([_both(u[blocks != b], v[blocks != b])[which] for b in names])
    if not np.isfinite(parts).all() or not math.isfinite(whole):
        return None
    most = 1 - 1 / len(u) ** 2  # finer than this so many points do not tell
    z = np.arctanh(np.clip(parts, -most, most))
    n = len(names)
    spread = math.sqrt((n - 1) / n * float(((z - z.mean()) ** 2).sum())) * float(t.ppf(0.975, n - 1))
    middle = math.atanh(min(max(whole, -most), most))
    return min(math.tanh(middle - spread), whole), max(math.tanh(middle + spread), whole)
