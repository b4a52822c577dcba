"""A form with numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equiscale.laws.forms import Law
from equiscale.laws.plain import Plain


@dataclass(frozen=True)
class Fit(Plain):
    law: Law
    values: dict[
        str, float
    ]  # the law's own names: A, B, alpha, beta, L_inf / F, gamma, L_inf (0 when dropped)
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
    gradient_norm: float

    def __call__(self, **x: np.ndarray | float) -> np.ndarray:
        """The law's loss: fit(N=..., D=...) or fit(C=...)."""
        raise NotImplementedError
