"""How to spend a budget."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from equiscale.laws.plain import Plain
from equiscale.laws.uncertainty import Interval


@dataclass(frozen=True)
class AllocationCurve(Plain):
    """N*(C), D*(C) and L*(C) over a range of budgets, with pointwise bands from the surface's draws."""

    method: str  # "closed form" (kappa flat within 10 %) | "numerical" (measured FLOP per atom)
    C: np.ndarray  # [points] FLOP, from C_min to 10 C_max
    N: np.ndarray
    N_low: np.ndarray
    N_high: np.ndarray
    D: np.ndarray
    D_low: np.ndarray
    D_high: np.ndarray
    loss: np.ndarray
    loss_low: np.ndarray
    loss_high: np.ndarray
    inside: np.ndarray  # [points] bool: C within the records
    draws: dict[str, np.ndarray] = field(default_factory=dict, metadata={"json": False}, repr=False)


@dataclass(frozen=True)
class Crossing(Plain):
    """Where two frontiers cross. `probability` is that of a crossing within [C_min, 10 C_max]."""

    method: str  # "surface" | "frontier"
    range: tuple[float, float]  # [C_min, 10 C_max], FLOP
    probability: float
    point: float | None  # of the point fits, FLOP; None where they do not cross in the range
    median: float | None  # of the draws that cross in the range
    interval: Interval | None
    text: str


@dataclass(frozen=True)
class Multiplier(Plain):
    """How much more `second` costs than `first` to reach `loss`: C_second / C_first, and so on; None = not reached."""

    loss: float
    flops: float | None
    flops_interval: Interval | None
    executed: float | None
    hours: float | None
    structures: float | None
