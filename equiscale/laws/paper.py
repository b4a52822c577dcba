"""The scaling paper's own laws, to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass

from equiscale.laws.plain import Plain
from equiscale.laws.uncertainty import Estimate


@dataclass(frozen=True)
class PaperLaw(Plain):
    architecture: str  # "mpnn" | "egnn" | "gemnet_oc" | "esen"
    label: str
    frontier: dict[str, Estimate]  # gamma, F_c (per PFLOP), eq. 4
    surface: dict[str, Estimate]  # log10_A, log10_B, alpha, beta (table 7); gamma, F_c (table 1, eq. 7)
    kappa: float  # implied by tables 1 and 7


PAPER: dict[str, PaperLaw] = {}


def paper_crossings(first: str, second: str) -> dict[str, float]:
    """Compute in FLOP at which the paper's laws of two architectures cross: keys "frontier", "surface"."""
    raise NotImplementedError
