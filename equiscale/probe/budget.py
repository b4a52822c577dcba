"""Memory as a function of the batch, from a few measured points, and the largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from equiscale.probe.figures import Found, Point


def memory_at(points: Sequence[Point], work: float) -> float:
    """Bytes at this work: straight lines between the points, and the last one beyond them; never less with more."""
    x = np.array([p.work for p in points])
    y = np.maximum.accumulate(np.array([p.memory for p in points], float))
    if work <= x[-1] or len(x) < 2 or x[-1] <= x[0]:
        # One point alone: activations are proportional to work at most.
        return float(np.interp(work, x, y)) if work <= x[-1] else float(y[-1] * work / x[-1])
    slope = (y[-1] - y[0]) / (x[-1] - x[0])
    return float(y[-1] + slope * (work - x[-1]))


def need(found: Found, work: float | None = None) -> int | None:
    """Bytes of the whole process at its worst: training (at this work, by default the largest batch's) or a look."""
    if not found.points:
        return None
    largest = found.budgets[-1][1] if found.budgets else found.points[-1].work
    train = memory_at(found.points, largest if work is None else work) + found.kept
    return round(found.base + max(train, look_need(found)))


def look_need(found: Found) -> int:
    """Bytes beyond the base of a look with the graphs of all validation structures, as at a run's end."""
    return 0 if found.look_memory is None else found.look_memory + max(0, found.kept_final - found.kept)


def largest_that(fits: Callable[[int], bool], budgets: Sequence[int]) -> int | None:
    """The largest of these ascending budgets that fits, by bisection; None where the smallest does not."""
    if not budgets or not fits(budgets[0]):
        return None
    low, high = 0, len(budgets)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(budgets[middle]) else (low, middle)
    return budgets[low]
