"""Radial bases and envelopes: functions of a distance only."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Radial = Literal["gaussian", "bessel"]
Envelope = Literal["none", "polynomial"]


class RadialBasis(nn.Module):
    """``num`` fixed functions of d on [0, cutoff]; no parameters.

    gaussian: exp(-(d - mu_k)^2 / (2 delta^2)), mu_k equally spaced from 0 to the cutoff, delta their spacing (FAENet).
    bessel: sqrt(2 / c) sin(k pi d / c) / d (DimeNet), finite at d = 0.
    """

    centers: Tensor

    def __init__(self, kind: Radial, num: int, cutoff: float):
        super().__init__()
        self.kind, self.cutoff = kind, cutoff
        self.spacing = cutoff / (num - 1) if num > 1 else cutoff
        values = torch.linspace(0, cutoff, num) if kind == "gaussian" else torch.arange(1, num + 1) * (math.pi / cutoff)
        self.register_buffer("centers", values, persistent=False)

    def forward(self, d: Float[Tensor, " edges"]) -> Float[Tensor, "edges num"]:
        if self.kind == "gaussian":
            return (d[:, None] - self.centers).div(self.spacing).square().mul(-0.5).exp()
        # sin(a d) / d -> a where two atoms coincide. Not torch.sinc: its double backward is NaN at zero.
        apart = (d > 0)[:, None]
        safe = torch.where(apart, d[:, None], 1.0)
        return math.sqrt(2 / self.cutoff) * torch.where(apart, (safe * self.centers).sin() / safe, self.centers)


def envelope(kind: Envelope, d: Float[Tensor, " edges"], cutoff: float) -> Float[Tensor, " edges"] | None:
    """Polynomial of order p = 5 (DimeNet, eq. 8): 1 at d = 0; zero with two zero derivatives at the cutoff."""
    if kind == "none":
        return None
    x = (d / cutoff).clamp(max=1.0)
    return 1 - 21 * x**5 + 35 * x**6 - 15 * x**7
