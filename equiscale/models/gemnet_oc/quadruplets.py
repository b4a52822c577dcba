"""Sums over chains d -> b -> a <- c by two angles and a dihedral, with no row, and no number, for a quadruplet.

The published function of the dihedral θ is a Legendre polynomial of cos θ, a sum over cos mθ; and with azimuths φ
around the middle edge cos m(φ_c - φ_d) = cos mφ_c cos mφ_d + sin mφ_c sin mφ_d. So what d brings is summed once per
middle edge, and what c makes of it once per (edge, middle edge): with 8 middle edges an atom linear in edges. The
chains with c = d, which the sum must not hold, are subtracted: there θ = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from equiscale.graph import AtomGraph
from equiscale.models.gemnet_oc import BASIS, DEGREES, QUADRUPLET, SPHERICAL, GemNetOCConfig
from equiscale.models.gemnet_oc.geometry import cut, legendre
from equiscale.models.gemnet_oc.layers import Scale, dense, dense_pair, matrix
from equiscale.radial import RadialBasis, envelope

ANGLES = DEGREES * DEGREES

IN_LINE = 1e-5
"""Sine of an angle below which three atoms are in line and a dihedral is π/2, as published where |p × q| < 1e-9; this
large because a linear molecule in float32 is in line up to 1e-7, and must stay equivariant."""

PIECE = 192
"""Edges whose intermediates, some 4,000 numbers each, are made at a time."""


def fourier() -> Float[Tensor, "degrees degrees"]:
    """a_lm of Y_l0(cos θ) = Σ_m a_lm cos mθ: P_l(cos θ) = Σ_k g_k g_(l-k) cos (l-2k)θ, g_k = C(2k, k)/4^k."""
    g = [math.comb(2 * k, k) / 4**k for k in range(DEGREES)]
    a = torch.zeros(DEGREES, DEGREES, dtype=torch.float64)
    for l in range(DEGREES):
        for k in range(l + 1):
            a[l, abs(l - 2 * k)] += math.sqrt((2 * l + 1) / (4 * math.pi)) * g[k] * g[l - k]
    return a


def azimuths(v: Float[Tensor, "*n 3"], e1: Tensor, e2: Tensor) -> tuple[Float[Tensor, "*n degrees 2"], Tensor]:
    """cos mφ and sin mφ, m = 0 ... 6, zero where v is in line with the axis; and whether it is not."""
    x, y = (v * e1).sum(-1), (v * e2).sum(-1)
    square = x.square() + y.square()
    regular = square > IN_LINE**2
    scale = torch.where(regular, torch.where(regular, square, 1.0).rsqrt(), 0.0)
    x, y = x * scale, y * scale
    cos, sin = [regular.to(v.dtype)], [torch.zeros_like(x)]
    for _ in range(1, DEGREES):
        c, s = cos[-1], sin[-1]
        cos.append(x * c - y * s)
        sin.append(x * s + y * c)
    return torch.stack([torch.stack(cos, -1), torch.stack(sin, -1)], -1), regular


def frame(u: Float[Tensor, "*n 3"]) -> tuple[Tensor, Tensor]:
    """Two unit vectors across u, from the coordinate axis it is least along; the sums do not depend on which."""
    axis = torch.zeros_like(u).scatter_(-1, u.detach().abs().argmin(-1, keepdim=True), 1.0)
    across = torch.linalg.cross(axis, u)
    square = across.square().sum(-1, keepdim=True)
    some = square > 0
    e1 = across * torch.where(some, torch.where(some, square, 1.0).rsqrt(), 0.0)
    return e1, torch.linalg.cross(u, e1)


@dataclass(frozen=True, eq=False)
class InLine:
    """What atoms in line with a middle edge add, where the dihedral is π/2: for every m, cos(mπ/2) times one sum."""

    here: Float[Tensor, "atoms slots degrees q"]  # the edge that hears is in line: all it hears counts
    there: Float[Tensor, "atoms slots degrees q"]  # it is not: of those heard the ones in line count
    straight: Float[Tensor, "atoms q slots"]  # those
    excluded: Float[Tensor, "atoms slots degrees q"]


@dataclass(frozen=True, eq=False)
class Chains:
    """Geometry of all chains of a batch. Middle edges b -> a lie in rows (atom a, j), j < q."""

    graph: AtomGraph
    middle: Int[Tensor, "atoms q"]  # edge b -> a
    heard: Bool[Tensor, "atoms q slots"]  # d -> b -> a is a chain
    hears: Bool[Tensor, "atoms q slots"]  # b -> a <- c is one
    polar: Float[Tensor, "atoms q slots degrees"]  # Y_l0 of the angle at b, for each d
    around: Float[Tensor, "atoms q m slots"]  # cos mφ_d, sin mφ_d
    kernel: Float[Tensor, "atoms degrees slots degrees q 2"]  # m; for each c: Y_l0 of the angle at a, times cos, sin mφ
    same: Int[Tensor, "atoms slots q"]  # row (a, j, d) of the chain whose d is c, for each c
    met: Bool[Tensor, "atoms slots q"]  # whether there is such
    excluded: Float[Tensor, "atoms slots degrees q"]  # minus that with which it has been counted
    in_line: InLine | None  # None: no atoms are
    pair: Int[Tensor, "atoms slots"]  # an edge's place among those without their counter edges

    @staticmethod
    def of(
        graph: AtomGraph, unit: Tensor, distance: Tensor, neighbors: int | None, cutoff: float, pair: Tensor
    ) -> Chains:
        """``pair``: place of every edge, one for an edge and its counter edge."""
        atoms, slots = len(graph.numbers), graph.max_degree
        q = slots if neighbors is None else min(neighbors, slots)
        first = graph.degree.cumsum(0) - graph.degree
        far = distance.new_full((atoms * slots,), torch.inf).index_copy(0, graph.place, distance.detach())
        far, nearest = far.view(atoms, slots).sort(dim=1, stable=True)  # ties: in the order of the edges
        exists = (far[:, :q] < cutoff)[:, :, None]
        middle = torch.where(exists[:, :, 0], first[:, None] + nearest[:, :q], 0)
        real = torch.arange(slots, device=unit.device) < graph.degree[:, None]
        b, u, at = graph.sender[middle], unit[middle], graph.pad(unit)
        e1, e2 = (e[:, :, None] for e in frame(u))
        # d -> b -> a, d not a: all that arrives at b but the middle edge's counter edge.
        heard = (real[b] & exists).scatter(2, graph.slot[graph.reverse[middle]][:, :, None], False)
        v = at[b]
        polar = torch.stack(legendre((v * u[:, :, None]).sum(-1)), -1)
        around, regular_d = azimuths(v, e1, e2)
        around = (around * heard[..., None, None]).permute(0, 1, 3, 4, 2).reshape(atoms, q, 2 * DEGREES, slots)
        # c -> a, c not b.
        hears = (real[:, None] & exists).scatter(2, graph.slot[middle][:, :, None], False)
        v = at[:, None].expand(-1, q, -1, -1)
        cone = torch.stack(legendre((v * u[:, :, None]).sum(-1)), -1) * hears[..., None]
        cone = cone.permute(0, 2, 3, 1).contiguous()  # [atoms, slots, 7, q]
        turn, regular_c = azimuths(v, e1, e2)
        kernel = (cone[:, None, ..., None] * turn.permute(0, 3, 2, 1, 4)[:, :, :, None]).contiguous()
        same, met = meeting(graph, middle, hears, heard)
        excluded, in_line = -cone * met[:, :, None], None
        if bool((heard & ~regular_d).any() | (hears & ~regular_c).any()):
            straight = (~regular_c).permute(0, 2, 1)
            either = straight | ~regular_d.flatten()[same]
            in_line = InLine(
                cone * straight[:, :, None],
                cone * ~straight[:, :, None],
                (heard & ~regular_d).to(cone.dtype),
                excluded * either[:, :, None],
            )
            excluded = excluded * ~either[:, :, None]
        rows = torch.zeros(atoms * slots, dtype=torch.long, device=unit.device).index_copy(0, graph.place, pair)
        return Chains(
            graph, middle, heard, hears, polar, around, kernel, same, met, excluded, in_line, rows.view(atoms, slots)
        )

    def chained(self, x: Float[Tensor, "edges k"], g: Float[Tensor, "middle degrees k"]) -> tuple[Tensor, Tensor]:
        """x_db and x_db ⊙ Σ_l Y_l0 g_l for every chain d -> b -> a, [atoms, q, slots, k]."""
        x = self.graph.pad(x)[self.graph.sender[self.middle]]
        return x, x * (self.polar.flatten(0, 1) @ g).view_as(x)

    def times_heard(self) -> Int[Tensor, "atoms q slots"]:
        """How many quadruplets a chain d -> b -> a is in."""
        count = self.hears.sum(2, keepdim=True).expand_as(self.heard).flatten()
        return (count - torch.bincount(self.same[self.met], minlength=len(count))).view_as(self.heard)

    def bilinear(self, x: Tensor, g: Tensor, radial: Tensor, weight: Tensor, *, fused: bool) -> Tensor:
        """W (R_e B_e) with B_e the sums over chains [49, k] and R_e = ``radial``[pair of e] [i, 49]."""
        if not len(x):
            return x
        if fused:
            return _Bilinear.apply(self, x, g, radial, weight)
        graph = self.graph
        piece = Piece(slice(0, len(graph.numbers)), slice(0, len(x)), graph.max_degree)
        heard = graph.pad(x)[graph.sender[self.middle]].flatten(0, 1)
        return self.sums(piece, heard, g, radial.index_select(0, self.pair.flatten()), weight)

    def sums(self, piece: Piece, heard: Tensor, g: Tensor, radial: Tensor, weight: Tensor) -> Float[Tensor, "edges o"]:
        """``bilinear`` of a piece's edges; ``heard`` [middle edges, slots, k], ``radial`` [atoms * slots, i, 49]."""
        a, e, slots = piece.atoms, piece.edges, piece.slots
        polar, around, kernel = self.polar[a], self.around[a], self.kernel[a, :, :slots]
        n, q, k = polar.shape[0], polar.shape[1], heard.shape[2]
        x = heard * torch.bmm(polar.flatten(0, 1), g)
        moments = torch.bmm(around.flatten(0, 1), x).view(n, q, DEGREES, 2, k).transpose(1, 2)
        found = torch.bmm(kernel.view(n * DEGREES, slots * DEGREES, 2 * q), moments.reshape(n * DEGREES, 2 * q, k))
        same = (self.same[a, :slots] - a.start * q * x.shape[1]).flatten()
        own = x.flatten(0, 1).index_select(0, same).view(n * slots, q, k)
        less = torch.bmm(self.excluded[a, :slots].flatten(0, 1), own).view(n, slots, 1, DEGREES, k)
        sums = found.view(n, DEGREES, slots, DEGREES, k).transpose(1, 2).contiguous().add_(less)  # [a, c, m, l, k]
        if self.in_line is not None:
            line = self.in_line
            every = (x.view(n, q, -1, k) * self.heard[a, :, :, None]).sum(2)
            some = (x.view(n, q, -1, k) * line.straight[a, :, :, None]).sum(2)
            more = line.here[a, :slots].flatten(1, 2) @ every + line.there[a, :slots].flatten(1, 2) @ some
            more = more.view(n * slots, DEGREES, k) + torch.bmm(line.excluded[a, :slots].flatten(0, 1), own)
            sign = torch.tensor([1.0, 0, -1, 0, 1, 0, -1], dtype=x.dtype, device=x.device)  # cos(mπ/2)
            sums = sums + sign[:, None, None] * more.view(n, slots, 1, DEGREES, k)
        y = linear(torch.bmm(radial, sums.view(n * slots, ANGLES, k)).flatten(1), weight)
        return y.index_select(0, (self.graph.receiver[e] - a.start) * slots + self.graph.slot[e])


@dataclass(frozen=True, eq=False)
class Piece:
    """Consecutive atoms, the edges that arrive at them, and the largest degree among them."""

    atoms: slice
    edges: slice
    slots: int


def pieces(graph: AtomGraph) -> list[Piece]:
    ends = cut(graph, PIECE)
    if len(ends) == 1:
        return [Piece(slice(*ends[0][:2]), slice(*ends[0][2:]), graph.max_degree)]
    degree = graph.degree.tolist()
    return [Piece(slice(a0, a1), slice(e0, e1), max(degree[a0:a1])) for a0, a1, e0, e1 in ends]


def meeting(graph: AtomGraph, middle: Tensor, hears: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
    """For b -> a <- c the row (a, j, d) of d -> b -> a with d = c, the same image; and whether there is one."""
    atoms, slots, q = len(graph.numbers), graph.max_degree, middle.shape[1]
    key = graph.receiver * atoms + graph.sender
    order = key.argsort(stable=True)
    key = key[order]
    at = torch.arange(slots, device=key.device)
    first = graph.degree.cumsum(0) - graph.degree
    c = (first[:, None] + at).clamp(max=len(key) - 1)[:, :, None]  # [atoms, slots, 1], an edge c -> a
    b = middle[:, None]  # [atoms, 1, q]
    lowest = torch.searchsorted(key, graph.sender[b] * atoms + graph.sender[c])
    vectors = graph.vectors.detach()
    wanted = vectors[c] - vectors[b]  # from b to c
    edge = torch.full((atoms, slots, q), -1, device=key.device)
    # Several images of c may be neighbours of b: as many as edges share a receiver and a sender.
    images = 1 if graph.shift is None else int(torch.unique_consecutive(key, return_counts=True)[1].max())
    for i in range(images):
        candidate = order[(lowest + i).clamp(max=len(key) - 1)]
        fits = (graph.receiver[candidate] == graph.sender[b]) & (graph.sender[candidate] == graph.sender[c])
        if graph.shift is not None:
            fits &= (vectors[candidate] - wanted).square().sum(-1) < 1e-4
        edge = torch.where(fits, candidate, edge)
    row = torch.arange(atoms * q, device=key.device).view(atoms, 1, q) * slots
    same = torch.where(edge >= 0, row + graph.slot[edge], row)  # a row of the same atom's in any case
    return same, (edge >= 0) & hears.transpose(1, 2) & heard.flatten()[same]


class _Bilinear(torch.autograd.Function):
    """Piece by piece, and each piece again in the backward pass: some 4,000 numbers an edge are not kept."""

    @staticmethod
    def forward(ctx, chains, x, g, radial, weight):
        ctx.chains = chains
        ctx.save_for_backward(x, g, radial, weight)
        out = x.new_empty(len(x), len(weight))
        for piece, inputs in _Bilinear.inputs(chains, x, g, radial):
            out[piece.edges] = chains.sums(piece, *inputs, weight)
        return out

    @staticmethod
    def inputs(chains, x, g, radial):
        padded, sender = chains.graph.pad(x), chains.graph.sender[chains.middle]
        q = chains.middle.shape[1]
        for piece in pieces(chains.graph):
            a = piece.atoms
            heard = padded.index_select(0, sender[a].flatten())
            rows = radial.index_select(0, chains.pair[a, : piece.slots].flatten())
            yield piece, (heard, g[a.start * q : a.stop * q], rows)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        chains, (x, g, radial, weight) = ctx.chains, ctx.saved_tensors
        graph, q = chains.graph, chains.middle.shape[1]
        sender = graph.sender[chains.middle]
        to_padded = x.new_zeros(len(graph.numbers), graph.max_degree, x.shape[1])
        to_g, to_radial, to_weight = torch.empty_like(g), torch.zeros_like(radial), torch.zeros_like(weight)
        for piece, inputs in _Bilinear.inputs(chains, x, g, radial):
            a = piece.atoms
            leaves = [t.detach().requires_grad_() for t in (*inputs, weight)]
            with torch.enable_grad():
                y = chains.sums(piece, *leaves)
            heard, to_g[a.start * q : a.stop * q], rows, w = torch.autograd.grad(y, leaves, grad[piece.edges])
            to_padded.index_add_(0, sender[a].flatten(), heard)
            to_radial.index_add_(0, chains.pair[a, : piece.slots].flatten(), rows)
            to_weight += w
        to_x = to_padded.flatten(0, 1).index_select(0, graph.place)
        return None, to_x, to_g, to_radial, to_weight


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
            often = chains.times_heard()
            self.scale_sum.fit(chains.chained(x, g)[1][chains.heard], y, often[chains.heard])
        weight = self.bilinear.weight * self.scale_sum.factor
        y = chains.bilinear(x, g, radials.spherical, weight, fused=fused)
        return dense_pair(y, self.forth.weight, self.back.weight, chains.graph.reverse, fused=fused)


@dataclass(frozen=True, eq=False)
class QuadrupletRadials:
    """The chains of a batch, and the functions of distances that all blocks share."""

    chains: Chains
    heard: Float[Tensor, "edges basis"]  # of d -> b
    middle: Float[Tensor, "middle degrees basis"]  # of b -> a
    spherical: Float[Tensor, "pairs i angles"]  # of c -> a: angles (m, l)


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

    def forward(self, graph: AtomGraph, unit: Tensor, d: Tensor, rbf: Tensor) -> QuadrupletRadials:
        config = self.config
        edges = torch.arange(len(d), device=d.device)
        one = edges <= graph.reverse  # of an edge and its counter edge: their distance is the same
        pair = one.cumsum(0) - 1
        pair = torch.where(one, pair, pair[graph.reverse])
        chains = Chains.of(graph, unit, d, config.quadruplet_neighbors, config.middle_cutoff, pair)
        reach = d[chains.middle.flatten()] if len(d) else d
        smooth = envelope(config.envelope, reach, config.middle_cutoff)
        middle = self.basis(reach) if smooth is None else self.basis(reach) * smooth[:, None]
        middle = self.middle(middle).view(-1, BASIS, DEGREES).mT
        n = self.config.num_radial
        turn = fourier().to(d)
        weight = self.spherical.weight.view(SPHERICAL, DEGREES, DEGREES, n)
        weight = torch.einsum("iabn,bm->iman", weight, turn).reshape(-1, n)
        spherical = linear(rbf[one], weight).view(-1, SPHERICAL, ANGLES)
        return QuadrupletRadials(chains, self.heard(rbf), middle, spherical)
