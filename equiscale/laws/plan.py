"""What to train with a budget."""

from __future__ import annotations

from dataclasses import dataclass

from equiscale.laws.plain import Plain
from equiscale.laws.uncertainty import Estimate


@dataclass(frozen=True)
class Choice(Plain):
    """One architecture under the budget."""

    architecture: str
    N: Estimate
    width: int  # nearest width that the ladder's N(width) gives
    D: Estimate  # atoms
    structures: Estimate
    flops: float
    hours: float
    loss: Estimate
    decades: float  # log10 of the budget over the largest compute in the records (negative inside)
    probability_best: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Plan(Plain):
    budget: float
    unit: str  # "FLOP" | "hours"
    best: str
    choices: tuple[Choice, ...]  # best first
    crossings: dict[str, float]  # "mpnn x egnn" -> probability that the frontiers cross before the budget
    warnings: tuple[str, ...]

    def text(self) -> str:
        raise NotImplementedError
