"""What a log axis has no place for, shown honestly: step 0 at the left edge, and zero, negative or vanishing estimates
as open markers at the lower one. Unbiased estimates of something small are negative half of the time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equiscale.report.drawing import Key, Line, Mark, Panel, Points
from equiscale.report.style import INK

LEGEND = "open, at an edge: step 0, or no positive estimate"
GAP = 2.5  # from the least value to the edge, as a factor


def edge_key(panels: Iterable[Panel]) -> tuple[Key, ...]:
    """The legend's explanation, where something stands at an edge."""
    there = any(isinstance(m, Points) and not m.filled and len(m.x) for p in panels for m in p.marks)
    return (Key("edge", LEGEND, INK, "point", filled=False, note=True),) if there else ()


@dataclass(frozen=True)
class Edges:
    """Where the two edges of a figure's axes are, the same for all its panels."""

    left: float
    low: float

    @staticmethod
    def of(series: Iterable[tuple[Any, Any, Any]], least: float, least_x: float = 0.0) -> Edges:
        """From (x, y, standard errors or None) of every line; below ``least`` an axis does not go.

        A value within its error of zero pulls no axis down: it is placed by its error."""
        xs, ys = [], []
        for x, y, error in series:
            x, y = np.asarray(x, float), np.asarray(y, float)
            bound = y if error is None else np.fmax(y, np.asarray(error, float))
            there = np.isfinite(x) & np.isfinite(y)
            xs.append(x[there & (x > least_x)])
            ys.append(bound[there & (y > least) & (bound > least)])
        first, lowest = np.concatenate([np.zeros(0), *xs]), np.concatenate([np.zeros(0), *ys])
        left = float(first.min()) / GAP if len(first) else max(least_x, 1.0) / GAP
        low = float(lowest.min()) / GAP if len(lowest) else least
        return Edges(left, low)

    def x(self, values: Any) -> np.ndarray:
        """Values that lie on the axis, others at its left edge."""
        values = np.asarray(values, float)
        return np.where(values > self.left, values, self.left)

    def y(self, values: Any) -> np.ndarray:
        values = np.asarray(values, float)
        return np.where(np.isfinite(values), np.where(values > self.low, values, self.low), np.nan)

    def _off(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return ~(x > self.left) | ~(y > self.low)

    def band(self, x: Any, y: Any, error: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x and the two ends of y ± error, cut at the lower edge; without the points that are not finite."""
        x, y, error = (np.asarray(v, float) for v in (x, y, error))
        keep = np.isfinite(x) & np.isfinite(y) & np.isfinite(error)
        return self.x(x[keep]), self.y(y[keep] - error[keep]), self.y(y[keep] + error[keep])

    def points(
        self, x: Any, y: Any, colour: str, key: str, texts: Sequence[str], symbol: str = "circle", size: float = 5.0
    ) -> list[Mark]:
        """Markers: filled where both values lie on the axes, open at the edge otherwise."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        finite = np.isfinite(x) & np.isfinite(y)
        marks: list[Mark] = []
        for filled, where in ((True, finite & ~self._off(x, y)), (False, finite & self._off(x, y))):
            rows = np.flatnonzero(where)
            if len(rows):
                at = self.x(x[rows]), self.y(y[rows])
                own = size if filled else size + 0.5
                marks.append(Points(*at, colour, key, symbol, own, filled, hover=[texts[int(i)] for i in rows]))
        return marks

    def curve(
        self, x: Any, y: Any, colour: str, key: str, texts: Sequence[str], dash: str, symbol: str, size: float
    ) -> list[Mark]:
        """A line through what lies on the axes, dotted to step 0, broken where an estimate has no place."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        finite = np.isfinite(x) & np.isfinite(y)
        x, y, texts = x[finite], y[finite], [texts[int(i)] for i in np.flatnonzero(finite)]
        on = x > self.left
        broken = np.where(y > self.low, y, np.nan)
        marks: list[Mark] = [Line(x[on], broken[on], colour, key, dash, 1.4)]
        if len(x) > 1 and not on[0] and on[1] and np.isfinite(broken[:2]).all():
            marks.append(Line(self.x(x[:2]), y[:2], colour, key, "dot", 1.2))
        return marks + self.points(x, y, colour, key, texts, symbol, size)
