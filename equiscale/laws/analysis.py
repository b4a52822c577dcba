"""From a study's table to its laws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from equiscale.laws.results import Analysis, Prediction, Score

Table = Mapping[str, np.ndarray]


def analyse(
    table: Table,
    facts: Mapping[str, Any] | None = None,
    *,
    validation: str = "molecules",
    exclude_below: float = 0.03,
    floor: str = "zero",
    objective: str = "huber",
    resamples: int = 200,
    seed: int = 0,
    losses: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Analysis:
    raise NotImplementedError


def predict_largest(
    table: Table,
    architecture: str,
    *,
    width: int,
    N: float,
    D: float,
    validation: str = "molecules",
    seed: int = 0,
) -> Prediction:
    raise NotImplementedError


def score(prediction: Prediction, measured: float) -> Score:
    raise NotImplementedError


_ = Sequence
