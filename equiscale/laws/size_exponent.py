"""Eq. 24 of the scaling paper: L - L_D = A N^-alpha over sizes at one D, for a loss and for its average over rotations.

L_D is the loss of a potential of any size on that much data, and alpha hangs on it: what is taken off the small losses
of large potentials bends the line in log-log. The paper takes L_D = .223 as given, where its own table 7 has
B D^-beta = .255. So alpha is shown with L_D given, with L_D fitted, and as a function of L_D over what the rungs allow:

    profile      sum (ln L - ln law)^2 at its least for each L_D; allowed is where it stays below the F quantile of one
                 parameter, with as many degrees of freedom as rungs beyond three
    intervals    both losses refitted to the same simulated rungs (`paired`): of 100 studies each, 5 to 8 rungs, 95 %
                 intervals of the difference held in 93 to 99 %, with L_D given or fitted

One L_D for both losses, as the paper has it, is an assumption: averaging may lower it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import f as fisher

from equiscale.laws.fit import prepare
from equiscale.laws.forms import sum_of_powers
from equiscale.laws.intervals import LEVEL, Estimate, Interval
from equiscale.laws.law import Law
from equiscale.laws.paired import Changes, ExponentChange, exponent_change, signed
from equiscale.laws.plain import Plain
from equiscale.laws.solve import descend

FLAT = 1.5  # of the largest to the smallest alpha that the rungs allow: more, and alpha is not identified
NEAR = 0.995  # of the least loss: how far L_D is followed
POINTS = 81
SOURCE = "scaling paper, eq. 24"


def size_law() -> Law:
    """L = L_D + A N^-alpha at one D."""
    said = {"A": "model term", "alpha": "exponent of model size"}
    return sum_of_powers("size", [("A", "N", "alpha")], floor_name="L_D", source=SOURCE, meanings=said)


@dataclass(frozen=True)
class FloorProfile(Plain):
    """alpha and A along L_D, for one loss."""

    floor: np.ndarray  # [points] L_D, ascending
    alpha: np.ndarray  # [points]
    A: np.ndarray  # [points]
    objective: np.ndarray  # [points] sum of squared residuals of ln L
    best: float  # L_D of the least
    allowed: tuple[float, float]  # L_D that the rungs do not exclude
    alphas: tuple[float, float]  # least and largest alpha there
    open: tuple[str, ...]  # "low" (zero is allowed), "high" (the least loss is)
    identified: bool

    def at(self, floor: float) -> float:
        """alpha at one L_D."""
        return float(np.interp(floor, self.floor, self.alpha))


@dataclass(frozen=True)
class AtFloor(Plain):
    """Both losses fitted with L_D given (the same, or one for each) or fitted."""

    floors: tuple[float, float]
    given: bool
    alpha: ExponentChange
    shift: Estimate  # A N^-alpha averaged over baseline, at the middle size: how far the line moves down
    changes: Changes = field(metadata={"json": False}, repr=False)


@dataclass(frozen=True)
class SizeExponent(Plain):
    names: tuple[str, str]
    N: np.ndarray
    loss: np.ndarray
    averaged: np.ndarray
    given: tuple[AtFloor, ...]
    fitted: AtFloor | None
    profiles: tuple[FloorProfile, FloorProfile]
    spread: tuple[float, float]  # of the difference of alpha at equal L_D, over L_D that both allow
    warnings: tuple[str, ...]
    text: str  # the verdict

    def table(self) -> str:
        """A line an L_D, then what the rungs allow, then the verdict."""
        head = ("L_D", f"alpha, {self.names[0]}", f"alpha, {self.names[1]}", "change", "A N^-alpha, ratio")
        lines = [head]
        for one in (*self.given, *([self.fitted] if self.fitted else [])):
            same = one.floors[0] == one.floors[1]
            floors = f"{one.floors[0]:.3g}" if same else f"{one.floors[0]:.3g}, {one.floors[1]:.3g}"
            a = one.alpha
            lines.append(
                (f"{floors} {'given' if one.given else 'fitted'}", f"{a.first}", f"{a.second}", signed(a.difference),
                 f"{one.shift}")
            )  # fmt: skip
        widths = [max(len(line[i]) for line in lines) for i in range(5)]
        out = [
            "  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        for name, p in zip(self.names, self.profiles, strict=True):
            low, high = p.allowed
            out.append(
                f"  {name}: L_D in [{low:.3g}, {high:.3g}] is allowed, best {p.best:.3g}; alpha there from "
                f"{p.alphas[0]:.3g} to {p.alphas[1]:.3g}" + ("" if p.identified else ": not identified")
            )
        out += [f"  - {warning}" for warning in self.warnings]
        return "\n".join([*out, f"  {self.text}"])


def floor_profile(n: np.ndarray, loss: np.ndarray, *, level: float = LEVEL, points: int = POINTS) -> FloorProfile:
    """alpha along L_D from zero to nearly the least loss."""
    law = size_law()
    problem, y, coordinates = prepare(law, {"N": n}, loss, held=1)
    least = NEAR * float(np.exp(y.min()))
    # Close to the least loss alpha runs away: points are denser there.
    grid = least * (1 - (1 - np.linspace(0, 1, points)) ** 1.5)
    alpha, amplitude, value = _along(problem, y, coordinates, grid)
    best = float(grid[value.argmin()])
    for _ in range(3):  # nearer to the least
        i = int(np.clip(np.searchsorted(grid, best), 1, len(grid) - 2))
        finer = np.linspace(grid[i - 1], grid[i + 1], 11)
        more = _along(problem, y, coordinates, finer)
        grid, alpha, amplitude, value = (
            np.concatenate(pair) for pair in zip((grid, alpha, amplitude, value), (finer, *more), strict=True)
        )
        grid, order = np.unique(grid, return_index=True)
        alpha, amplitude, value = alpha[order], amplitude[order], value[order]
        best = float(grid[value.argmin()])
    free = len(y) - 3
    ratio = np.inf if free < 1 else 1 + float(fisher.ppf(level, 1, free)) / free
    inside = value <= max(float(value.min()) * ratio, 1e-24)
    ends, sides = _ends(grid, value, inside, float(value.min()) * ratio)
    reached = np.append(alpha[inside], np.interp(ends, grid, alpha))
    low, high = float(reached.min()), float(reached.max())
    told = bool(low > 0 and high / low < FLAT)
    return FloorProfile(grid, alpha, amplitude, value, best, ends, (low, high), sides, told)


def _along(problem, y, coordinates, grid):  # type: ignore[no-untyped-def]
    """alpha, A and the least sum of squares at each L_D."""
    z = problem.z[0]
    rest = np.log(np.exp(y) - grid[:, None])
    slope = ((rest - rest.mean(1, keepdims=True)) @ (z - z.mean())) / ((z - z.mean()) ** 2).sum()
    start = np.stack([rest.mean(1) - slope * z.mean(), -slope, grid], 1)
    held = np.array([False, False, True])
    params, value = descend(problem, y, np.ones(len(y)), np.inf, start, iterations=100, tolerance=1e-14, fixed=held)
    own = coordinates.own(params)
    return own[:, 1], own[:, 0], 2 * value


def _ends(
    grid: np.ndarray, value: np.ndarray, inside: np.ndarray, level: float
) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Where the profile crosses the level, between points; at an end of the grid it is open."""
    first, last = np.flatnonzero(inside)[[0, -1]]
    out, sides = [], []
    for i, step, side in ((first, -1, "low"), (last, 1, "high")):
        j = i + step
        if not 0 <= j < len(grid):
            out.append(float(grid[i]))
            sides.append(side)
            continue
        part = (level - value[i]) / max(value[j] - value[i], 1e-300)
        out.append(float(grid[i] + (grid[j] - grid[i]) * np.clip(part, 0, 1)))
    return (out[0], out[1]), tuple(sides)


def size_exponent(
    n: np.ndarray,
    loss: np.ndarray,
    averaged: np.ndarray,
    *,
    floors: Sequence[float | tuple[float, float]] = (),
    clusters: np.ndarray | None = None,
    names: tuple[str, str] = ("the baseline", "the average"),
    resamples: int = 999,
    level: float = LEVEL,
    seed: int = 0,
) -> SizeExponent:
    """n, loss, averaged [rungs] at one D. floors: L_D to take as given, one for both losses or a pair.

    clusters: which rung a row belongs to, where rungs have several rows. ValueError in one sentence where an L_D lies
    above a loss, or rungs are too few: three sizes with L_D given, four with L_D fitted.
    """
    n, y, z = (np.asarray(v, float).ravel() for v in (n, loss, averaged))
    rungs = np.arange(len(n)) if clusters is None else np.asarray(clusters)
    options = {"resamples": resamples, "level": level, "seed": seed, "names": names}
    middle = float(np.exp(np.log(n).mean()))
    quantities = {
        "alpha": lambda v: np.asarray(v["alpha"], float),
        "term": lambda v: np.log(np.asarray(v["A"], float)) - np.asarray(v["alpha"], float) * np.log(middle),
    }

    def both(fixed: tuple[dict[str, float], dict[str, float]]) -> AtFloor:
        found = exponent_change(
            size_law(), {"N": n}, y, z, rungs,
            quantities=quantities, fixed=fixed, objective="l2", profile=False, **options,  # type: ignore[arg-type]
        )  # fmt: skip
        term = found.changes["term"].difference
        i = term.interval
        span = None if i is None else Interval(float(np.exp(i.low)), float(np.exp(i.high)), i.level, i.method)
        used = (found.first.values["L_D"], found.second.values["L_D"])
        shift = Estimate(float(np.exp(term.value)), span)
        return AtFloor(used, bool(fixed[0]), found.changes["alpha"], shift, found)

    given = []
    for floor in floors:
        pair = floor if isinstance(floor, tuple) else (floor, floor)
        for value, least, name in zip(pair, (y.min(), z.min()), names, strict=True):
            if not value >= 0:
                raise ValueError(f"L_D = {value:g} is no loss: it is zero or more.")
            if value >= least:
                raise ValueError(f"L_D = {value:g} is not below the least loss of {name}, {least:.4g}.")
        given.append(both(({"L_D": float(pair[0])}, {"L_D": float(pair[1])})))
    warnings: list[str] = []
    fitted = None
    if len(np.unique(n)) >= 4:
        fitted = both(({}, {}))
        warnings += fitted.changes.warnings[:1] if not given else []
    else:
        warnings.append(f"{len(np.unique(n))} sizes: L_D is not fitted to fewer than four.")
    profiles = (floor_profile(n, y, level=level), floor_profile(n, z, level=level))
    spread = _spread(*profiles)
    if given and not any(profiles[0].allowed[0] <= g.floors[0] <= profiles[0].allowed[1] for g in given):
        ends = profiles[0].allowed
        warnings.append(
            f"the rungs of {names[0]} ask for L_D in [{ends[0]:.3g}, {ends[1]:.3g}]: none given lies there."
        )
    text = _verdict(given[0] if given else fitted, profiles, spread, names)
    return SizeExponent(names, n, y, z, tuple(given), fitted, profiles, spread, tuple(dict.fromkeys(warnings)), text)


def _spread(first: FloorProfile, second: FloorProfile) -> tuple[float, float]:
    """Difference of alpha at equal L_D where both allow it; NaN where no L_D is both's."""
    low, high = max(first.allowed[0], second.allowed[0]), min(first.allowed[1], second.allowed[1])
    if low > high:
        return float("nan"), float("nan")
    grid = np.linspace(low, high, 101)
    gap = np.interp(grid, second.floor, second.alpha) - np.interp(grid, first.floor, first.alpha)
    return float(gap.min()), float(gap.max())


def _verdict(
    main: AtFloor | None,
    profiles: tuple[FloorProfile, FloorProfile],
    spread: tuple[float, float],
    names: tuple[str, str],
) -> str:
    out = []
    if main is not None:
        change, span = main.alpha.difference.value, main.alpha.difference.interval
        how = f"L_D = {main.floors[0]:.3g} given" if main.given else "L_D fitted to each"
        if main.given and main.floors[0] != main.floors[1]:
            how = f"L_D = {main.floors[0]:.3g} and {main.floors[1]:.3g} given"
        if span is None:
            out.append(f"With {how} the exponent changes by {change:+.2g}, without an interval.")
        else:
            told = main.alpha.distinguishable
            verdict = ("steeper" if change > 0 else "flatter") if told else "not distinguishable"
            if told and main.given and spread[0] < 0 < spread[1]:
                verdict += " there, but the sign hangs on L_D, which the rungs leave open: no change is shown"
            out.append(
                f"With {how} the exponent changes by {change:+.2g} [{span.low:+.2g}, {span.high:+.2g}]: {verdict}."
            )
    for name, p in zip(names, profiles, strict=True):
        if not p.identified:
            low, high = p.alphas
            ends = f"{p.allowed[0]:.3g} to {p.allowed[1]:.3g}"
            out.append(
                f"alpha of {name} is not identified: L_D from {ends} is allowed, and alpha with it "
                f"{low:.2g} to {high:.2g}."
            )
    if np.isfinite(spread).all() and spread[1] - spread[0] > 1e-3:
        out.append(f"At equal L_D that both allow, the difference runs from {spread[0]:+.2g} to {spread[1]:+.2g}.")
    return " ".join(out)
