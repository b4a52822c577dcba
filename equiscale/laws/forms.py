"""Laws as values: sums of power terms, each the product of a coefficient and a variable to a negative exponent.

    POWER       L = F C^-gamma                       Hoffmann et al. 2022, approach 1; eq. 4 of the scaling paper
    SUM_POWER   L = A N^-alpha + B D^-beta           approach 3; eq. 5

Each with L_inf = 0, where the term is dropped and not merely small, or with L_inf >= 0 free:
`power("C", floor="free")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from equiscale.laws.plain import Plain


@dataclass(frozen=True)
class Law(Plain):
    """Term k is coefficients[k] * variables[k] ** -exponents[k]."""

    name: str  # "power" | "sum_power"
    formula: str  # for people: "L = A N^-alpha + B D^-beta"
    variables: tuple[str, ...]  # ("C",) | ("N", "D")
    coefficients: tuple[str, ...]  # ("F",) | ("A", "B")
    exponents: tuple[str, ...]  # ("gamma",) | ("alpha", "beta")
    floor: str  # "zero" (the term is dropped) | "free"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names in the order of the solver's vector."""
        return self.coefficients + self.exponents + (("L_inf",) if self.floor == "free" else ())

    def basis(self, x: Mapping[str, np.ndarray], values: Mapping[str, float]) -> np.ndarray:
        """[rows, terms], the functions that the coefficients multiply; a free floor's column of ones comes last."""
        columns = [
            np.asarray(x[name], float) ** -values[exponent]
            for name, exponent in zip(self.variables, self.exponents, strict=True)
        ]
        if self.floor == "free":
            columns.append(np.ones_like(columns[0]))
        return np.stack(np.broadcast_arrays(*columns), -1)

    def loss(self, x: Mapping[str, np.ndarray], values: Mapping[str, float]) -> np.ndarray:
        names = self.coefficients + (("L_inf",) if self.floor == "free" else ())
        return self.basis(x, values) @ np.array([values[name] for name in names])


def _check(floor: str) -> None:
    if floor not in ("zero", "free"):
        raise ValueError(f"floor {floor!r} is not known: it is 'zero' (the term is dropped) or 'free'.")


def power(variable: str = "C", *, floor: str = "zero") -> Law:
    _check(floor)
    formula = f"L = {'L_inf + ' if floor == 'free' else ''}F {variable}^-gamma"
    return Law("power", formula, (variable,), ("F",), ("gamma",), floor)


def sum_power(*, floor: str = "zero") -> Law:
    _check(floor)
    formula = f"L = {'L_inf + ' if floor == 'free' else ''}A N^-alpha + B D^-beta"
    return Law("sum_power", formula, ("N", "D"), ("A", "B"), ("alpha", "beta"), floor)


POWER = power()
SUM_POWER = sum_power()
