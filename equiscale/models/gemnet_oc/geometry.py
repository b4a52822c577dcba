"""What the blocks share in one batch: directions, and sums over the other edges of a receiver by angle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from equiscale.graph import AtomGraph
from equiscale.models.gemnet_oc import DEGREES
from equiscale.so3 import degree_slice, num_components, spherical_harmonics

HARMONICS = num_components(DEGREES - 1)
"""Σ_l (2l + 1), the rank of all Legendre kernels together: beyond this degree harmonics cost less than angles."""

PIECE = 512
"""Edges whose intermediates, 512 numbers each, stay in a core's cache: on a CPU sums run over pieces of about this."""


def directions(r: Float[Tensor, "n 3"], d: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """r/d, zero where two atoms coincide, with finite derivatives there."""
    apart = (d > 0)[:, None]
    return torch.where(apart, r / torch.where(apart, d[:, None], 1.0), 0.0)


def legendre(z: Tensor) -> list[Tensor]:
    """Y_l0 = √((2l+1)/4π) P_l(z), l = 0 ... 6, by the three-term recurrence."""
    p = [torch.ones_like(z), z]
    for l in range(2, DEGREES):
        p.append(((2 * l - 1) * z * p[-1] - (l - 1) * p[-2]) / l)
    return [math.sqrt((2 * l + 1) / (4 * math.pi)) * p[l] for l in range(DEGREES)]


@dataclass(frozen=True, eq=False)
class Angles:
    """Σ_{b≠c} Y_l0(cos ∠cab) x_ba for every edge c -> a, linear in x, without a tensor of triplets and channels.

    One matrix per atom maps the K messages that arrive to K × 7 sums. Its rank is at most Σ_l (2l+1) = 49 (addition
    theorem: P_l(cos ∠cab) ∝ Σ_m Y_lm(c) Y_lm(b)), so beyond 49 neighbours it is used as that product and the own
    term, b = c, is subtracted; below, as it is, with the own term left out. Either way ≤ 7·49 numbers an edge.
    """

    graph: AtomGraph
    kernel: Float[Tensor, "atoms rows inner"]
    harmonics: Float[Tensor, "atoms inner slots"] | None  # None: inner = slots
    own: Float[Tensor, "edges degrees 1"] | None
    pieces: list[tuple[int, int, int, int]]  # first and last atom, first and last edge

    @staticmethod
    def of(graph: AtomGraph, unit: Float[Tensor, "edges 3"]) -> Angles:
        atoms, slots = len(graph.numbers), graph.max_degree
        pieces = cut(graph, PIECE)
        if slots <= HARMONICS:
            u = graph.pad(unit)
            other = 1 - torch.eye(slots, dtype=unit.dtype, device=unit.device)
            kernel = torch.stack(legendre(u @ u.mT), dim=2) * other[:, None, :]  # [atoms, c, l, b]
            return Angles(graph, kernel.view(atoms, slots * DEGREES, slots), None, None, pieces)
        y = spherical_harmonics(unit, DEGREES - 1)
        norm = y.new_zeros(DEGREES, HARMONICS)
        for l in range(DEGREES):
            norm[l, degree_slice(l)] = 1 / math.sqrt(4 * math.pi * (2 * l + 1))
        padded = graph.pad(y)
        kernel = (padded[:, :, None, :] * norm).view(atoms, slots * DEGREES, HARMONICS)
        return Angles(graph, kernel, padded.mT, (y.square() @ norm.T)[:, :, None], pieces)

    def bilinear(
        self, x: Float[Tensor, "edges t"], radial: Float[Tensor, "edges b degrees"], weight: Tensor, *, fused: bool
    ) -> Float[Tensor, "edges o"]:
        """W (R_e S_e) with S_e the sums above [7, t] and R_e = ``radial`` [b, 7]: the published bilinear layer."""
        if fused:
            return _Bilinear.apply(self, x, radial, weight)
        everything = (0, len(self.graph.numbers), 0, len(self.graph.receiver))
        sums = self.sums(self.graph.pad(x), x, everything)
        return linear(torch.bmm(radial, sums).flatten(1), weight)

    def sums(self, padded: Tensor, x: Tensor, piece: tuple[int, int, int, int]) -> Float[Tensor, "edges degrees t"]:
        """For the edges of a piece. ``padded``, ``x``: the piece's messages, by receiver and slot, and by edge."""
        a0, a1, e0, e1 = piece
        inner = padded if self.harmonics is None else torch.bmm(self.harmonics[a0:a1], padded)
        sums = torch.bmm(self.kernel[a0:a1], inner).view(-1, DEGREES * x.shape[1])
        sums = sums.index_select(0, self.graph.place[e0:e1] - a0 * self.graph.max_degree).view(-1, DEGREES, x.shape[1])
        return sums if self.own is None else sums - self.own[e0:e1] * x[:, None, :]

    def spread(self, sums: Float[Tensor, "edges degrees t"], piece: tuple[int, int, int, int]) -> Tensor:
        """The transpose of ``sums`` less its own terms: [piece's atoms * slots, t]."""
        a0, a1, e0, e1 = piece
        slots, t = self.graph.max_degree, sums.shape[2]
        padded = sums.new_zeros((a1 - a0) * slots, DEGREES * t)
        padded.index_copy_(0, self.graph.place[e0:e1] - a0 * slots, sums.flatten(1))
        inner = torch.bmm(self.kernel[a0:a1].mT, padded.view(a1 - a0, slots * DEGREES, t))
        inner = inner if self.harmonics is None else torch.bmm(self.harmonics[a0:a1].mT, inner)
        return inner.view((a1 - a0) * slots, t)


def cut(graph: AtomGraph, size: int) -> list[tuple[int, int, int, int]]:
    """Consecutive atoms with the edges that arrive at them, about ``size`` edges each; on a GPU all at once."""
    atoms, edges = len(graph.numbers), len(graph.receiver)
    if graph.receiver.is_cuda or not edges:
        return [(0, atoms, 0, edges)]
    ends = graph.degree.cumsum(0)
    last = (torch.searchsorted(ends, size * torch.arange(1, edges // size + 1)) + 1).unique()
    stops = [a for a in last.tolist() if a < atoms] + [atoms]
    stop_edges = [0, *ends[torch.tensor(stops) - 1].tolist()]
    return list(zip([0, *stops[:-1]], stops, stop_edges[:-1], stop_edges[1:]))


class _Bilinear(torch.autograd.Function):
    """In pieces, and once more in the backward pass: the 512 numbers of an edge are made in cache, never kept."""

    @staticmethod
    def forward(ctx, angles, x, radial, weight):
        ctx.angles = angles
        ctx.save_for_backward(x, radial, weight)
        padded, out = angles.graph.pad(x), x.new_empty(len(x), len(weight))
        for piece in angles.pieces:
            a0, a1, e0, e1 = piece
            q = torch.bmm(radial[e0:e1], angles.sums(padded[a0:a1], x[e0:e1], piece))
            torch.mm(q.flatten(1), weight.t(), out=out[e0:e1])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        angles = ctx.angles
        x, radial, weight = ctx.saved_tensors
        padded, to_padded = angles.graph.pad(x), []
        to_radial, to_weight = torch.empty_like(radial), torch.zeros_like(weight)
        own = None if angles.own is None else torch.empty_like(x)
        for piece in angles.pieces:
            a0, a1, e0, e1 = piece
            r = radial[e0:e1]
            sums = angles.sums(padded[a0:a1], x[e0:e1], piece)
            to_weight.addmm_(grad[e0:e1].t(), torch.bmm(r, sums).flatten(1))
            to_q = (grad[e0:e1] @ weight).view(len(r), r.shape[1], x.shape[1])
            torch.bmm(to_q, sums.mT, out=to_radial[e0:e1])
            to_sums = torch.bmm(r.mT, to_q)
            to_padded.append(angles.spread(to_sums, piece))
            if own is not None:
                torch.sum(angles.own[e0:e1] * to_sums, dim=1, out=own[e0:e1])
        to_x = torch.cat(to_padded).index_select(0, angles.graph.place)
        return None, to_x if own is None else to_x.sub_(own), to_radial, to_weight
