"""Two architectures side by side: where their frontiers cross, what one costs more, and whether the exponents differ
under every way to ask."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from equiscale.laws.allocation import (
    Crossing,
    Multiplier,
    cost_to_reach,
    crossing,
    optimum,
)
from equiscale.laws.fit import Coordinates, prepare
from equiscale.laws.forms import sum_power
from equiscale.laws.frontier import PFLOP, frontier
from equiscale.laws.law import Law
from equiscale.laws.paper import paper_crossings
from equiscale.laws.plateau import plateau
from equiscale.laws.results import Architecture, Pair, Specification, Surface
from equiscale.laws.search import seeds
from equiscale.laws.solve import descend
from equiscale.laws.surfaces import CUTOFFS, gamma_of
from equiscale.laws.table import Rows, costs, other_cost, rows_of
from equiscale.laws.uncertainty import Estimate, Interval, percentile

PARTS = ("loss", "energy_loss", "force_loss")
VALIDATIONS = ("molecules", "conformers")
USED = ("N", "D", "C", "width", "step")  # columns that a specification's gamma follows from, beside the loss
CLAIM = 0.95  # share of the specifications that must agree in sign
Key = tuple[float, str, str, str, str, str]  # window, floor, objective, part, validation, method


def gammas(table: Mapping[str, np.ndarray], architecture: str, d_max: float) -> dict[Key, float]:
    """gamma under every specification. Surfaces are fitted all at once; "lad" is Huber's loss at a hundredth of the
    noise; frontiers are taken with the default selector, floor zero and Huber's loss."""
    sets: dict[tuple[str, str], Rows] = {}
    for part in PARTS:
        for validation in VALIDATIONS:
            name = f"{part}_{validation}"
            if name in table:
                sets[part, validation] = rows_of(table, architecture, name)
    digest = hashlib.sha256(repr((d_max, list(sets))).encode())
    for rows in sets.values():
        for column in (np.asarray(rows[name], float) for name in (*USED, rows.loss)):
            digest.update(repr(column.shape).encode())
            digest.update(np.ascontiguousarray(column).tobytes())
    return dict(_gammas(_Asked(digest.digest(), sets, d_max)))


@dataclass(frozen=True)
class _Asked:
    """The rows of every specification, known by their digest."""

    digest: bytes
    sets: Mapping[tuple[str, str], Rows] = field(compare=False)
    d_max: float = field(compare=False)


@lru_cache(maxsize=64)  # a study's second validation set asks for the same numbers as its first
def _gammas(asked: _Asked) -> dict[Key, float]:
    out: dict[Key, float] = {}
    sets, d_max = asked.sets, asked.d_max
    for law, method in ((sum_power(), "surface"), (sum_power(floor="free"), "surface"), (plateau(), "plateau")):
        for (part, validation), rows in sets.items():
            out.update(_surface_gammas(rows, d_max, law, method, part, validation))
    for (part, validation), rows in sets.items():
        for window in CUTOFFS:
            r = rows.above(window * d_max)
            if not len(r):
                continue
            f = frontier(r["C"], r.y, r["width"], r["step"], profile=False)
            if f.fit is not None:
                out[window, "zero", "huber", part, validation, "frontier"] = f.fit.values["gamma"]
    return out


def _surface_gammas(rows: Rows, d_max: float, law: Law, method: str, part: str, validation: str) -> dict[Key, float]:
    try:
        problem, y, coordinates = prepare(law, rows.x, rows.y)
    except ValueError:
        return {}
    windows = {w: (rows["D"] >= w * d_max * (1 - 1e-9)).astype(float) for w in CUTOFFS}
    windows = {w: m for w, m in windows.items() if m.sum() > 2 * len(law.names)}
    windows = {w: m for w, m in windows.items() if len(np.unique(rows["D"][m > 0])) >= 3}
    if not windows:
        return {}
    starts = seeds(law, problem.z, y, windows.get(0.03, next(iter(windows.values()))), keep=3)
    if not len(starts):
        return {}
    masks = np.stack(list(windows.values()))
    weights = np.repeat(masks, len(starts), 0)
    rough, _ = descend(problem, y, weights, np.inf, np.tile(starts, (len(masks), 1)), iterations=30, tolerance=1e-5)
    residual = np.abs(problem.curve(rough, False)[0] - y)
    noise = np.array([1.4826 * np.median(r[w > 0]) for r, w in zip(residual, weights)])
    noise = np.maximum(noise.reshape(len(masks), -1).min(1).repeat(len(starts)), 1e-7)
    out: dict[Key, float] = {}
    params = rough
    for objective, zone in (("huber", 1.345), ("lad", 0.01)):
        params, value = descend(problem, y, weights, zone * noise, params, iterations=80, tolerance=1e-7)
        own = Coordinates(law, coordinates.centre).own(params)
        gamma = gamma_of(dict(zip(law.names, own.T, strict=True)))
        best = value.reshape(len(masks), -1).argmin(1) + np.arange(len(masks)) * len(starts)
        for window, i in zip(windows, best, strict=True):
            if np.isfinite(gamma[i]):
                out[window, law.floor, objective, part, validation, method] = float(gamma[i])
    return out


def pair(
    first: Architecture,
    second: Architecture,
    first_gammas: Mapping[Key, float],
    second_gammas: Mapping[Key, float],
    floor: float | None = None,
) -> Pair:
    """floor: the noise floor of a difference of their ln L (`noise_floor`)."""
    names = (first.name, second.name)
    shared = [key for key in first_gammas if key in second_gammas]
    specifications = tuple(
        Specification(*key, first_gammas[key], second_gammas[key], second_gammas[key] - first_gammas[key])
        for key in shared
    )
    delta, off = _delta(first.surface, second.surface), _delta_plateau(first, second)
    span = (max(first.C_range[0], second.C_range[0]), min(first.C_range[1], second.C_range[1]))
    best = {a.name: min(r.loss for r in a.rungs) for a in (first, second)}
    difference = float(np.log(best[second.name] / best[first.name]))
    share = _share(specifications)
    return Pair(
        first=first.name,
        second=second.name,
        crossings=_crossings(first, second),
        multipliers=_multipliers(first, second, max(best.values())),
        delta_gamma=delta,
        delta_gamma_plateau=off,
        specifications=specifications,
        sign_share=share,
        claim=_claim(names, specifications, share, delta, off, span),
        best_losses=best,
        difference=difference,
        noise_floors=abs(difference) / floor if floor else None,
        paper_crossings=paper_crossings(*names),
    )


def limited(*architectures: Architecture) -> bool:
    """Without a β nothing that follows from one is said."""
    return any(a.freshness.verdict == "molecule-limited" for a in architectures)


def _share(specifications: tuple[Specification, ...]) -> float | None:
    if not specifications:
        return None
    above = float(np.mean([s.delta > 0 for s in specifications]))
    return max(above, 1 - above)


def _delta(one: Surface | None, two: Surface | None) -> Estimate | None:
    if one is None or two is None or "gamma" not in one.estimates or "gamma" not in two.estimates:
        return None
    first, second = gamma_of(one.draws), gamma_of(two.draws)
    count = min(len(first), len(second))
    value = two.estimates["gamma"].value - one.estimates["gamma"].value
    return Estimate(value, percentile(second[:count] - first[:count], method=one.interval_method))


def _delta_plateau(first: Architecture, second: Architecture) -> Estimate | None:
    """With the plateau in the law of whichever lies on one; None where neither does."""
    if first.surface_plateau is None and second.surface_plateau is None:
        return None
    return _delta(first.surface_plateau or first.surface, second.surface_plateau or second.surface)


def _turned(estimate: Estimate) -> Estimate:
    """Of the difference the other way round."""
    i = estimate.interval
    return Estimate(-estimate.value, None if i is None else Interval(-i.high, -i.low, i.level, i.method))


def _claim(
    names: tuple[str, str],
    specifications: tuple[Specification, ...],
    share: float | None,
    delta: Estimate | None,
    off: Estimate | None,
    span: tuple[float, float],
) -> str:
    """off: the difference with a plateau in the law, which a claim must survive too."""
    if share is None or delta is None:
        return f"{names[0]} and {names[1]}: no exponents to compare."
    where = f"over [{span[0]:.2g}, {span[1]:.2g}] FLOP"
    share_text = f"{share:.0%} of {len(specifications)} specifications agree in sign"
    positive = float(np.mean([s.delta > 0 for s in specifications])) > 0.5
    certain = all(_signed(e, positive) for e in (delta, off) if e is not None)
    if share < CLAIM or not certain:
        also = "" if off is None else f", and {_turned(off) if off.value < 0 else off} with the plateau in the law"
        size = _turned(delta) if delta.value < 0 else delta
        pair = f"{names[0]} and {names[1]}"
        return f"no difference of the local exponents of {pair} is claimed {where}: it is {size}{also}; {share_text}."
    steeper, other = (names[1], names[0]) if positive else (names[0], names[1])
    size = delta if positive else _turned(delta)
    also = "" if off is None else f" ({off if positive else _turned(off)} with the plateau in the law)"
    return f"{steeper}'s local exponent is larger than {other}'s by {size}{also} {where}; {share_text}."


def _signed(estimate: Estimate, positive: bool) -> bool:
    """Whether the whole interval has that sign."""
    i = estimate.interval
    return i is not None and (i.low > 0 if positive else i.high < 0)


def _crossings(first: Architecture, second: Architecture) -> dict[str, Crossing]:
    low = max(first.C_range[0], second.C_range[0])
    high = 10 * min(first.C_range[1], second.C_range[1])
    names = (first.name, second.name)
    out: dict[str, Crossing] = {}
    if not low < high or limited(first, second):
        return out
    budget = np.geomspace(low, high, 60)
    if first.believed is not None and second.believed is not None:
        point, many = [], []
        for a, s in ((first, first.believed), (second, second.believed)):
            cost = costs(a.rungs)[0]
            point.append(optimum(s.fit.values, budget, cost)[2])
            many.append(optimum(s.draws, budget, cost)[2])
        out["surface"] = crossing(budget, *point, *many, method="surface", names=names)
    one, two = first.frontiers.get("C"), second.frontiers.get("C")
    if one is not None and two is not None and one.fit is not None and two.fit is not None:
        lines = [f.fit(C=budget) for f in (one, two) if f.fit is not None]
        draws = [
            f.draws["F"][:, None] * (budget / PFLOP) ** -f.draws["gamma"][:, None]
            if f.draws
            else np.empty((0, len(budget)))
            for f in (one, two)
        ]
        out["frontier"] = crossing(budget, *lines, *draws, method="frontier", names=names)
    return out


def _multipliers(first: Architecture, second: Architecture, reached: float) -> tuple[Multiplier, ...]:
    """At the loss that both have reached and at two larger ones, each in its own optimal design."""
    one, two = first.believed, second.believed
    if one is None or two is None or limited(first, second):
        return ()
    out = []
    # A draw may never reach a loss, or reach it at once: its ratio is infinite or undefined, and so is its quantile.
    with np.errstate(all="ignore"):
        for loss in (reached, 1.25 * reached, 1.5 * reached):
            out.append(_multiplier(first, second, one, two, loss))
    return tuple(out)


def _multiplier(first: Architecture, second: Architecture, one: Surface, two: Surface, loss: float) -> Multiplier:
    ratios: dict[str, float | None] = {}
    flops = [cost_to_reach(loss, s.fit.values, costs(a.rungs)[0]) for a, s in ((first, one), (second, two))]
    ceiling = [10 * a.C_range[1] for a in (first, second)]
    inside = all(float(f[0][0]) <= c for f, c in zip(flops, ceiling))
    ratios["flops"] = float(flops[1][0][0] / flops[0][0][0]) if inside else None
    ratios["structures"] = float(flops[1][1][0] / flops[0][1][0]) if inside else None
    for name, column in (("executed", "executed_per_atom"), ("hours", "hours_per_atom")):
        by = [other_cost(a.rungs, column) for a in (first, second)]
        ratios[name] = None
        if inside and by[0] is not None and by[1] is not None:
            cost = [cost_to_reach(loss, s.fit.values, c)[0][0] for s, c in ((one, by[0]), (two, by[1]))]
            ratios[name] = float(cost[1] / cost[0])
    many = [cost_to_reach(loss, s.draws, costs(a.rungs)[0])[0] for a, s in ((first, one), (second, two))]
    count = min(len(m) for m in many)
    interval = percentile(many[1][:count] / many[0][:count], method=one.interval_method) if inside else None
    return Multiplier(loss, ratios["flops"], interval, ratios["executed"], ratios["hours"], ratios["structures"])
