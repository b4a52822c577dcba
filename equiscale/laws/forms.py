"""Laws as values."""

from __future__ import annotations

from dataclasses import dataclass

from equiscale.laws.plain import Plain


@dataclass(frozen=True)
class Law(Plain):
    name: str  # "power" | "sum_power"
    formula: str  # for people: "L = A N^-alpha + B D^-beta"
    variables: tuple[str, ...]  # ("C",) | ("N", "D")
    coefficients: tuple[str, ...]  # ("F",) | ("A", "B")
    exponents: tuple[str, ...]  # ("gamma",) | ("alpha", "beta")
    floor: str  # "zero" (the term is dropped) | "free"
