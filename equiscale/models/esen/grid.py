"""The pointwise network on a grid over the sphere: coefficients -> values -> network -> coefficients."""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from equiscale.models.esen import ESENConfig
from equiscale.so3 import spherical_harmonics


class GridNetwork(nn.Module):
    """C -> h -> h -> C without biases at each grid point, SiLU between; projected back onto the harmonics.

    Harmonics are orthonormal here (∫ Y² = 1). The projection is exact for products of degrees that the grid resolves;
    SiLU makes all degrees, so that the layer is equivariant up to what aliases: more points, less error.
    """

    def __init__(self, config: ESENConfig):
        super().__init__()
        c, h = config.width, config.hidden
        self.into, self.hidden, self.out = (nn.Linear(i, o, bias=False) for i, o in ((c, h), (h, h), (h, c)))
        self.lmax, self.points = config.lmax, config.points

    def forward(self, x: Tensor) -> Tensor:
        """x (atoms, components, C)."""
        values, coefficients = grid(self.lmax, *self.points, x.dtype, x.device)
        atoms, size, c = x.shape
        # One product with all atoms side by side: (points, atoms · C).
        points = (values @ x.transpose(0, 1).reshape(size, atoms * c)).view(-1, c)
        points = self.out(silu(self.hidden(silu(self.into(points)))))
        return (coefficients @ points.view(len(values), atoms * c)).view(size, atoms, c).transpose(0, 1)


@functools.cache
def grid(
    lmax: int, polar: int, azimuthal: int, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "points lm"], Float[Tensor, "lm points"]]:
    """Values of the orthonormal harmonics on the grid, and the quadrature back to coefficients.

    Polar angles π (j + ½) / polar with Fejér's weights, azimuths equally spaced: exact for a product of two harmonics
    if ``polar`` > 2 lmax and ``azimuthal`` > 2 lmax.
    """
    j = torch.arange(polar, dtype=torch.float64)
    beta = math.pi * (j + 0.5) / polar
    alpha = 2 * math.pi * torch.arange(azimuthal, dtype=torch.float64) / azimuthal
    k = torch.arange(1, polar // 2 + 1, dtype=torch.float64)
    fejer = (2 / polar) * (1 - 2 * ((2 * k * beta[:, None]).cos() / (4 * k * k - 1)).sum(1))
    weight = (2 * math.pi / azimuthal) * fejer
    b, a = torch.meshgrid(beta, alpha, indexing="ij")
    points = torch.stack([b.sin() * a.cos(), b.sin() * a.sin(), b.cos()], dim=-1).view(-1, 3)
    values = spherical_harmonics(points, lmax) / math.sqrt(4 * math.pi)
    coefficients = (values * weight.repeat_interleave(azimuthal)[:, None]).mT.contiguous()
    return values.to(device, dtype), coefficients.to(device, dtype)
