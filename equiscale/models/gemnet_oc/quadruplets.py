"""The quadruplet interaction of GemNet-OC: an edge hears chains of three edges, through two angles and a dihedral."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from equiscale.graph import AtomGraph
from equiscale.models.gemnet_oc import BASIS, DEGREES, QUADRUPLET, SPHERICAL, GemNetOCConfig
from equiscale.models.gemnet_oc.chains import ANGLES, Chains
from equiscale.models.gemnet_oc.layers import Scale, dense, dense_pair, matrix
from equiscale.radial import RadialBasis, envelope


def fourier() -> Float[Tensor, "degrees degrees"]:
    """a_lm of Y_l0(cos θ) = Σ_m a_lm cos mθ: P_l(cos θ) = Σ_k g_k g_(l-k) cos (l-2k)θ, g_k = C(2k, k)/4^k."""
    g = [math.comb(2 * k, k) / 4**k for k in range(DEGREES)]
    a = torch.zeros(DEGREES, DEGREES, dtype=torch.float64)
    for l in range(DEGREES):
        for k in range(l + 1):
            a[l, abs(l - 2 * k)] += math.sqrt((2 * l + 1) / (4 * math.pi)) * g[k] * g[l - k]
    return a


class Quadruplets(nn.Module):
    """What an edge c -> a hears of chains d -> b -> a: as ``Triplets``, the chain's angle at b on the way."""

    def __init__(self, width: int):
        super().__init__()
        self.message = matrix(width, width)
        self.radial = matrix(BASIS, width)
        self.scale_radial = Scale()
        self.down = matrix(width, QUADRUPLET)
        self.angular = matrix(BASIS, QUADRUPLET)
        self.scale_angular = Scale()
        self.bilinear = matrix(SPHERICAL * QUADRUPLET, QUADRUPLET)
        self.scale_sum = Scale()
        self.forth, self.back = matrix(QUADRUPLET, width), matrix(QUADRUPLET, width)

    def forward(self, message: Float[Tensor, "edges w"], radials: QuadrupletRadials, fused: bool) -> Tensor:
        """``message``: the dense layer of that name, already applied."""
        chains = radials.chains
        x = message * self.radial(radials.heard)
        if self.scale_radial.fitting:
            self.scale_radial.fit(message, x)
        (x,) = dense(x, self.down.weight * self.scale_radial.factor, fused=fused)
        if self.scale_angular.fitting:
            before, after = chains.chained(x, self.angular(radials.middle))
            self.scale_angular.fit(before[chains.heard], after[chains.heard])
        g = linear(radials.middle, self.angular.weight * self.scale_angular.factor)
        if self.scale_sum.fitting:
            y = chains.bilinear(x, g, radials.spherical, self.bilinear.weight, fused=fused)
            self.scale_sum.fit(chains.chained(x, g)[1][chains.heard], y, chains.times[chains.heard])
        weight = self.bilinear.weight * self.scale_sum.factor
        y = chains.bilinear(x, g, radials.spherical, weight, fused=fused)
        return dense_pair(y, self.forth.weight, self.back.weight, chains.graph.reverse, fused=fused)


@dataclass(frozen=True, eq=False)
class QuadrupletRadials:
    """The chains of a batch, and the functions of distances that all blocks share."""

    chains: Chains
    heard: Float[Tensor, "edges basis"]  # of d -> b
    middle: Float[Tensor, "middle degrees basis"]  # of b -> a
    spherical: Float[Tensor, "pairs angles i"]  # of c -> a: angles (m, l)


class QuadrupletBasis(nn.Module):
    """Projections of the radial basis that quadruplets share: edges that are heard, middle ones, those that hear."""

    def __init__(self, config: GemNetOCConfig):
        super().__init__()
        n = config.num_radial
        self.config = config
        self.basis = RadialBasis(config.radial, n, config.middle_cutoff)
        self.heard = matrix(n, BASIS)
        self.middle = matrix(n, BASIS * DEGREES)  # rows i·7 + l
        self.spherical = matrix(n, SPHERICAL * ANGLES)  # rows i·49 + 7 l + l', of Y_l (angle at a) Y_l' (dihedral)
        with torch.no_grad():
            self.middle.weight.div_(math.sqrt(DEGREES))
            self.spherical.weight.div_(DEGREES)

    def forward(self, graph: AtomGraph, unit: Tensor, d: Tensor, rbf: Tensor, fused: bool) -> QuadrupletRadials:
        config = self.config
        edges = torch.arange(len(d), device=d.device)
        one = edges <= graph.reverse  # of an edge and its counter edge: their distance is the same
        pair = one.cumsum(0) - 1
        pair = torch.where(one, pair, pair[graph.reverse])
        chains = Chains.of(graph, unit, d, config.quadruplet_neighbors, config.middle_cutoff, pair, fused=fused)
        reach = d[chains.middle.flatten()] if len(d) else d
        smooth = envelope(config.envelope, reach, config.middle_cutoff)
        middle = self.basis(reach) if smooth is None else self.basis(reach) * smooth[:, None]
        middle = self.middle(middle).view(-1, BASIS, DEGREES).mT
        n = self.config.num_radial
        turn = fourier().to(d)
        weight = self.spherical.weight.view(SPHERICAL, DEGREES, DEGREES, n)
        weight = torch.einsum("iabn,bm->main", weight, turn).reshape(-1, n)
        spherical = linear(rbf[one], weight).view(-1, ANGLES, SPHERICAL)
        return QuadrupletRadials(chains, self.heard(rbf), middle, spherical)
