"""Intervals and how they were made."""

from __future__ import annotations

from dataclasses import dataclass

from equiscale.laws.plain import Plain


@dataclass(frozen=True)
class Interval(Plain):
    low: float
    high: float
    level: float  # 0.95
    method: str


@dataclass(frozen=True)
class Estimate(Plain):
    """A number with its interval; str() gives `0.152 [0.139, 0.171]`."""

    value: float
    interval: Interval | None = None

    def __str__(self) -> str:
        text = f"{self.value:.3g}"
        return (
            text if self.interval is None else f"{text} [{self.interval.low:.3g}, {self.interval.high:.3g}]"
        )
