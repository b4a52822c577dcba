"""Sums over chains d -> b -> a <- c by two angles and a dihedral, with no row, and no number, for a quadruplet.

The published function of the dihedral θ is a Legendre polynomial of cos θ, a sum over cos mθ; and with azimuths φ
around the middle edge cos m(φ_c - φ_d) = cos mφ_c cos mφ_d + sin mφ_c sin mφ_d. So what d brings is summed once per
middle edge, and what c makes of it once per (edge, middle edge): with 8 middle edges an atom linear in edges. The
chains with c = d, which the sum must not hold, are subtracted: there θ = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from equiscale.graph import AtomGraph
from equiscale.models.gemnet_oc import DEGREES
from equiscale.models.gemnet_oc.geometry import cut, legendre

ANGLES = DEGREES * DEGREES

IN_LINE = 1e-5
"""Sine of an angle below which three atoms are in line and a dihedral is π/2, as published where |p × q| < 1e-9; this
large because a linear molecule in float32 is in line up to 1e-7, and must stay equivariant."""

PIECE = 192
"""Edges whose intermediates, some 4,000 numbers each, are made at a time."""


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

    here: Float[Tensor, "atoms slotsdegrees q"]  # the edge that hears is in line: all it hears counts
    there: Float[Tensor, "atoms slotsdegrees q"]  # it is not: of those heard the ones in line count
    every: Float[Tensor, "middle 1 reach"]  # what is heard
    straight: Float[Tensor, "middle 1 reach"]  # those in line
    excluded: Float[Tensor, "rows degrees q"]

    def __call__(self, x: Float[Tensor, "middle reach k"], own: Tensor) -> Float[Tensor, "rows angles k"]:
        atoms, q, k = len(self.here), self.here.shape[2], x.shape[2]
        every, some = (torch.bmm(mask, x).view(atoms, q, k) for mask in (self.every, self.straight))
        more = torch.bmm(self.here, every) + torch.bmm(self.there, some)
        more = more.view(-1, DEGREES, k) + torch.bmm(self.excluded, own)
        sign = torch.tensor([1.0, 0, -1, 0, 1, 0, -1], dtype=x.dtype, device=x.device)  # cos(mπ/2)
        return (sign[:, None, None] * more[:, None]).flatten(1, 2)


@dataclass(frozen=True, eq=False)
class Piece:
    """Consecutive atoms with their middle edges and the edges that arrive at them. Rows are (atom, slot)."""

    atoms: int
    middle: slice  # rows (atom, j) of all middle edges
    edges: slice
    place: Int[Tensor, " edges"]  # an edge's row
    sender: Int[Tensor, " middle"]  # b of every middle edge b -> a
    pair: Int[Tensor, " rows"]  # place of an edge among those without their counter edges
    polar: Float[Tensor, "middle reach degrees"]  # Y_l0 of the angle at b, for each d
    around: Float[Tensor, "middle m reach"]  # cos mφ_d, sin mφ_d, zero where d -> b -> a is no chain
    kernel: Float[
        Tensor, "atomsdegrees slotsdegrees twice"
    ]  # per m; for each c: Y_l0 of the angle at a, times cos, sin mφ_c
    same: Int[Tensor, " own"]  # for each c and middle edge the chain d -> b -> a with d = c
    excluded: Float[Tensor, "rows degrees q"]  # minus that with which it has been counted
    in_line: InLine | None  # None: no atoms of the batch are

    def sums(self, heard: Tensor, g: Tensor, radial: Tensor, weight: Tensor) -> Float[Tensor, "edges o"]:
        """W (R_e B_e) of the edges; ``heard`` [middle, reach, k], ``g`` [middle, 7, k], ``radial`` [rows, 49, i]."""
        x = heard * torch.bmm(self.polar, g)
        sums, own = self.gathered(x)
        if self.in_line is not None:
            sums = sums + self.in_line(x, own)
        return linear(torch.bmm(radial.mT, sums).flatten(1), weight).index_select(0, self.place)

    def gathered(self, x: Float[Tensor, "middle reach k"]) -> tuple[Tensor, Tensor]:
        """Sums over chains [rows, 49 (m, l), k], and the chains that they are without [rows, q, k]."""
        n, k, q = self.atoms, x.shape[2], self.excluded.shape[2]
        moments = torch.bmm(self.around, x).view(n, q, DEGREES, 2 * k).transpose(1, 2)
        found = torch.bmm(self.kernel, moments.reshape(n * DEGREES, 2 * q, k))
        own = x.flatten(0, 1).index_select(0, self.same).view(-1, q, k)
        sums = found.view(n, DEGREES, -1, DEGREES, k).transpose(1, 2).contiguous()
        sums.add_(torch.bmm(self.excluded, own).view(n, -1, 1, DEGREES, k))
        return sums.view(-1, ANGLES, k), own

    def spread(self, sums: Float[Tensor, "rows angles k"]) -> Float[Tensor, "middle reach k"]:
        """The transpose of ``gathered``."""
        n, k, q = self.atoms, sums.shape[2], self.excluded.shape[2]
        own = torch.bmm(self.excluded.mT, sums.view(-1, DEGREES, DEGREES, k).sum(1))
        found = sums.view(n, -1, DEGREES, DEGREES, k).transpose(1, 2).reshape(n * DEGREES, -1, k)
        moments = torch.bmm(self.kernel.mT, found).view(n, DEGREES, q, 2 * k).transpose(1, 2)
        x = torch.bmm(self.around.mT, moments.reshape(n * q, 2 * DEGREES, k))
        x.view(-1, k).index_add_(0, self.same, own.view(-1, k))
        return x

    def gradients(self, heard, g, radial, weight, grad, to_weight) -> tuple[Tensor, Tensor, Tensor]:
        """Of ``sums`` by heard, g and radial; ``to_weight`` is added to."""
        if self.in_line is not None:
            leaves = [t.detach().requires_grad_() for t in (heard, g, radial, weight)]
            with torch.enable_grad():
                y = self.sums(*leaves)
            to_heard, to_g, to_radial, more = torch.autograd.grad(y, leaves, grad)
            to_weight += more
            return to_heard, to_g, to_radial
        turn = torch.bmm(self.polar, g)
        sums, _ = self.gathered(heard * turn)
        at_row = grad.new_zeros(len(radial), grad.shape[1]).index_copy_(0, self.place, grad)
        to_weight.addmm_(at_row.t(), torch.bmm(radial.mT, sums).flatten(1))
        to_q = (at_row @ weight).view(len(radial), radial.shape[2], heard.shape[2])
        to_radial = torch.bmm(sums, to_q.mT)
        to_x = self.spread(torch.bmm(radial, to_q, out=sums))
        return to_x * turn, torch.bmm(self.polar.mT, to_x.mul_(heard)), to_radial


@dataclass(frozen=True, eq=False)
class Chains:
    """Geometry of all chains of a batch. Middle edges b -> a lie in rows (atom a, j), j < q."""

    graph: AtomGraph
    middle: Int[Tensor, "atoms q"]  # edge b -> a
    heard: Bool[Tensor, "atoms q slots"]  # d -> b -> a is a chain
    times: Int[Tensor, "atoms q slots"]  # quadruplets that it is in
    polar: Float[Tensor, "atoms q slots degrees"]
    pieces: list[Piece]

    @staticmethod
    def of(
        graph: AtomGraph,
        unit: Float[Tensor, "edges 3"],
        distance: Float[Tensor, " edges"],
        neighbors: int | None,
        cutoff: float,
        pair: Int[Tensor, " edges"],
        *,
        fused: bool,
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
        turn = turn.permute(0, 3, 2, 1, 4).flatten(3)  # [atoms, 7, slots, 2q]
        same, met = meeting(graph, middle, hears, heard)
        times = hears.sum(2, keepdim=True).expand_as(heard).flatten()
        times = (times - torch.bincount(same[met], minlength=len(times))).view_as(heard)
        excluded, line = -cone * met[:, :, None], None
        if bool((heard & ~regular_d).any() | (hears & ~regular_c).any()):
            straight = (~regular_c).permute(0, 2, 1)[:, :, None]
            either = straight | ~regular_d.flatten()[same][:, :, None]
            line = (cone * straight, cone * ~straight, heard.to(cone), (heard & ~regular_d).to(cone), excluded * either)
            excluded = excluded * ~either
        rows = torch.zeros(atoms * slots, dtype=torch.long, device=unit.device).index_copy(0, graph.place, pair)
        rows, made = rows.view(atoms, slots), []
        for a0, a1, e0, e1_ in cut(graph, PIECE) if fused else [(0, atoms, 0, len(unit))]:
            a, most = slice(a0, a1), slots if (a0, a1) == (0, atoms) else int(graph.degree[a0:a1].max())
            kernel = turn[a, :, :most, None] * cone[a, :most].repeat_interleave(2, dim=3)[:, None]
            in_line = None
            if line is not None:
                here, there, every, some, less = line
                in_line = InLine(
                    here[a, :most].flatten(1, 2),
                    there[a, :most].flatten(1, 2),
                    every[a].view(-1, 1, slots),
                    some[a].view(-1, 1, slots),
                    less[a, :most].flatten(0, 1),
                )
            made.append(
                Piece(
                    atoms=a1 - a0,
                    middle=slice(a0 * q, a1 * q),
                    edges=slice(e0, e1_),
                    place=(graph.receiver[e0:e1_] - a0) * most + graph.slot[e0:e1_],
                    sender=b[a].flatten(),
                    pair=rows[a, :most].flatten(),
                    polar=polar[a].flatten(0, 1),
                    around=around[a].flatten(0, 1),
                    kernel=kernel.reshape((a1 - a0) * DEGREES, most * DEGREES, 2 * q),
                    same=(same[a, :most] - a0 * q * slots).flatten(),
                    excluded=excluded[a, :most].flatten(0, 1),
                    in_line=in_line,
                )
            )
        return Chains(graph, middle, heard, times, polar, made)

    def chained(self, x: Float[Tensor, "edges k"], g: Float[Tensor, "middle degrees k"]) -> tuple[Tensor, Tensor]:
        """x_db and x_db ⊙ Σ_l Y_l0 g_l for every chain d -> b -> a, [atoms, q, slots, k]."""
        x = self.graph.pad(x)[self.graph.sender[self.middle]]
        return x, x * (self.polar.flatten(0, 1) @ g).view_as(x)

    def bilinear(self, x: Tensor, g: Tensor, radial: Tensor, weight: Tensor, *, fused: bool) -> Tensor:
        """W (R_e B_e) with B_e the sums over chains [49, k] and R_e = ``radial``[pair of e] [49, i]."""
        if not len(x):
            return x
        if fused:
            return _Bilinear.apply(self, x, g, radial, weight)
        return torch.cat([p.sums(*inputs, weight) for p, inputs in self.inputs(x, g, radial)])

    def inputs(self, x: Tensor, g: Tensor, radial: Tensor):
        padded = self.graph.pad(x)
        for piece in self.pieces:
            heard, rows = padded.index_select(0, piece.sender), radial.index_select(0, piece.pair)
            yield piece, (heard, g[piece.middle], rows)


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
        for piece, inputs in chains.inputs(x, g, radial):
            out[piece.edges] = piece.sums(*inputs, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        chains, (x, g, radial, weight) = ctx.chains, ctx.saved_tensors
        graph = chains.graph
        to_padded = x.new_zeros(len(graph.numbers), graph.max_degree, x.shape[1])
        to_g, to_radial, to_weight = torch.empty_like(g), torch.zeros_like(radial), torch.zeros_like(weight)
        for piece, inputs in chains.inputs(x, g, radial):
            heard, turned, rows = piece.gradients(*inputs, weight, grad[piece.edges], to_weight)
            to_g[piece.middle] = turned
            to_padded.index_add_(0, piece.sender, heard)
            to_radial.index_add_(0, piece.pair, rows)
        to_x = to_padded.flatten(0, 1).index_select(0, graph.place)
        return None, to_x, to_g, to_radial, to_weight
