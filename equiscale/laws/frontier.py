"""The least loss at a given cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equiscale.laws.fit import Fit
from equiscale.laws.plain import Plain
from equiscale.laws.uncertainty import Estimate


@dataclass(frozen=True)
class Frontier(Plain):
    """`fit` is None where the method gives no exponent; `reason` then says why."""

    cost: str  # "C" (FLOP, published formulation) | "C_executed" (FLOP) | "H_train" (hours)
    selector: str  # "hull" | "running_minimum" | "log_bins"
    x: np.ndarray  # [points] cost, ascending
    loss: np.ndarray  # [points]
    width: np.ndarray  # [points] int, the rung that owns the point
    dropped: (
        np.ndarray
    )  # [points] bool: owned by the smallest/largest rung or outside the hand-overs; draw grey
    handovers: np.ndarray  # [handovers] cost at which the owner changes
    range: tuple[float, float] | None  # first to last hand-over
    fit: Fit | None  # L = F x^-gamma (+ L_inf) in the cost's own unit
    estimates: dict[str, Estimate]  # gamma, F (for FLOP costs F_c per PFLOP; for hours per hour)
    reason: str
    text: str  # one sentence: "local exponent 0.15 [..] over [C1, C2]" or the reason
