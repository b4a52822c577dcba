"""The scaling paper's own laws, to stand beside ours; never to be agreed with by a small study.

Numbers of tables 1 and 7 of "Scaling Laws and Symmetry, Evidence from Neural Force Fields": OMol25 (DFT), neutral
structures, compute in PFLOP, D in atoms, 95 % bootstrap intervals. `kappa` is what the two tables imply together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from equiscale.laws.allocation import compute_law
from equiscale.laws.plain import Plain
from equiscale.laws.uncertainty import Estimate, Interval

PFLOP = 1e15


@dataclass(frozen=True)
class PaperLaw(Plain):
    architecture: str  # "mpnn" | "egnn" | "gemnet_oc" | "esen"
    label: str
    frontier: dict[str, Estimate]  # gamma, F_c (per PFLOP), eq. 4
    surface: dict[str, Estimate]  # log10_A, log10_B, alpha, beta (table 7); gamma, F_c (table 1, eq. 7)
    kappa: float  # implied by tables 1 and 7


def _e(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, Interval(low, high, 0.95, "1000 bootstraps, as printed"))


def _law(architecture: str, label: str, frontier: tuple[Estimate, ...], surface: tuple[Estimate, ...]) -> PaperLaw:
    named = dict(zip(("F_c", "gamma", "log10_A", "log10_B", "alpha", "beta"), surface, strict=True))
    values = {
        "A": 10 ** named["log10_A"].value,
        "B": 10 ** named["log10_B"].value,
        "alpha": named["alpha"].value,
        "beta": named["beta"].value,
    }
    unit = compute_law(values, 1.0)
    kappa = float((named["F_c"].value / unit["F_c"]) ** (1 / unit["gamma"]))
    return PaperLaw(architecture, label, {"F_c": frontier[0], "gamma": frontier[1]}, named, kappa)


PAPER: dict[str, PaperLaw] = {
    law.architecture: law
    for law in (
        _law(
            "mpnn",
            "Unconstrained MPNN",
            (_e(0.928, 0.925, 0.930), _e(0.142, 0.141, 0.143)),
            (
                _e(0.934, 0.863, 0.952),
                _e(0.146, 0.142, 0.159),
                _e(1.356, 1.307, 1.371),
                _e(2.194, 2.147, 2.608),
                _e(0.276, 0.266, 0.278),
                _e(0.311, 0.301, 0.368),
            ),
        ),
        _law(
            "egnn",
            "MC-EGNN",
            (_e(0.775, 0.761, 0.792), _e(0.173, 0.169, 0.178)),
            (
                _e(0.811, 0.784, 0.832),
                _e(0.195, 0.188, 0.204),
                _e(1.582, 1.494, 1.692),
                _e(2.750, 2.660, 2.863),
                _e(0.387, 0.370, 0.408),
                _e(0.394, 0.382, 0.401),
            ),
        ),
        _law(
            "gemnet_oc",
            "GemNet-OC",
            (_e(0.488, 0.485, 0.491), _e(0.255, 0.252, 0.257)),
            (
                _e(0.479, 0.424, 0.542),
                _e(0.256, 0.232, 0.282),
                _e(2.109, 1.901, 2.422),
                _e(3.261, 2.842, 3.607),
                _e(0.524, 0.484, 0.584),
                _e(0.499, 0.444, 0.544),
            ),
        ),
        _law(
            "esen",
            "eSEN",
            (_e(0.703, 0.696, 0.712), _e(0.403, 0.401, 0.406)),
            (
                _e(0.669, 0.575, 0.729),
                _e(0.392, 0.342, 0.451),
                _e(3.760, 3.119, 4.333),
                _e(5.129, 4.348, 6.224),
                _e(0.817, 0.706, 0.918),
                _e(0.753, 0.662, 0.888),
            ),
        ),
    )
}


def paper_crossings(first: str, second: str) -> dict[str, float]:
    """Compute in FLOP at which the paper's laws of two architectures cross: keys "frontier" (eq. 4) and
    "surface" (eq. 7 as printed in table 1). Empty for an architecture that the paper does not have."""
    if first not in PAPER or second not in PAPER or first == second:
        return {}
    out = {}
    for name in ("frontier", "surface"):
        one, two = getattr(PAPER[first], name), getattr(PAPER[second], name)
        slope = one["gamma"].value - two["gamma"].value
        out[name] = PFLOP * math.exp(math.log(one["F_c"].value / two["F_c"].value) / slope)
    return out
