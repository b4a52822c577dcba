"""Linear maps of many narrow Gaussians of a distance, without the products with those that vanish."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from equiscale.radial import LEAST_EXPONENT, RadialBasis

STEP = 32
"""Gaussians per block of the banded product."""


class Distances:
    """W rbf(d) + b for the edges of a batch, for several W.

    Of 600 Gaussians of standard deviation 2 spacings about 50 differ from zero at one distance. Edges are sorted by
    distance, and those near one block of ``STEP`` centres are multiplied with the columns of W within ``reach`` centres
    of it: 6 standard deviations in float32 and 9 in float64, what is left out is below round-off. An edge and its
    counter edge have the same distance to the bit, so each distance is mapped once, unless gradients must flow back to
    both. On a GPU, where the sizes of blocks would have to be read back, and for few Gaussians, the product is dense.
    """

    def __init__(self, d: Float[Tensor, " edges"], basis: RadialBasis):
        order: Int[Tensor, " edges"] | None = None
        if d.requires_grad:
            order = d.detach().argsort()
            d, self.back = d.index_select(0, order), torch.empty_like(order)
            self.back[order] = torch.arange(len(order), device=d.device)
        else:
            d, self.back = d.unique(return_inverse=True)
        num, sigma, spacing = basis.num, basis.width, basis.cutoff / max(basis.num - 1, 1)
        reach = 1 + int((9 if d.dtype == torch.float64 else 6) * sigma / spacing)
        self.block = STEP + 2 * reach
        self.bins: list[int] | None = None
        if d.is_cuda or 2 * self.block > num:
            self.values = basis(d)  # (distances, num)
            return
        bin_ = (d.detach() / spacing).round().long().clamp(0, num - 1) // STEP
        blocks = (num - 1) // STEP + 1
        self.bins = bin_.bincount(minlength=blocks).tolist()
        self.margin = (reach, blocks * STEP + reach - num)
        # Centres outside of 0 ... num - 1 meet weights that are zero.
        column = bin_[:, None] * STEP - reach + torch.arange(self.block, device=d.device)
        exponent = (d[:, None] - column.to(d.dtype) * spacing).div(sigma).square().mul(-0.5)
        self.values = exponent.clamp(min=LEAST_EXPONENT).exp()  # (distances, block)

    def map(self, weights: nn.Linear) -> Float[Tensor, "distances out"]:
        if self.bins is None:
            return weights(self.values)
        columns = pad(weights.weight, self.margin).unfold(1, self.block, STEP).unbind(1)
        parts = zip(self.values.split(self.bins), columns)
        return torch.cat([linear(rbf, block, weights.bias) for rbf, block in parts if len(rbf)] or [
            linear(self.values, columns[0], weights.bias)
        ])  # fmt: skip

    def to_edges(self, values: Float[Tensor, "distances d"]) -> Float[Tensor, "edges d"]:
        return values.index_select(0, self.back)
