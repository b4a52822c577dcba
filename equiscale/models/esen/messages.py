"""From turned features to messages: scale by radial weights, convolve, gate, convolve again.

Two implementations of one function. `_plain` is autograd's and can be differentiated any number of times. `_Fused` is
for training on direct forces, where positions need no gradient: it works on blocks of edges that fit a processor's
cache, writes into buffers, keeps only the first convolution's output and forms everything else again in the backward
pass (elementwise products and a small matrix product), so that a layer moves and keeps a fraction of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

BLOCK_BYTES = 4 << 20
"""What one block's buffers may take on a CPU; from 2 to 16 MiB measured alike. A GPU takes all edges at once."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the rows in the edge frame."""

    lmax: int
    orders: tuple[int, ...]  # degrees per order m = 0 ... mmax
    channels: int
    hidden: int

    def signs(self, m: int) -> int:
        return 2 if m else 1

    def slices(self, width: int) -> list[slice]:
        """Each order's part of a row of ``width`` numbers per (sign, degree)."""
        out, start = [], 0
        for m, k in enumerate(self.orders):
            stop = start + self.signs(m) * k * width
            out.append(slice(start, stop))
            start = stop
        return out

    def radial(self) -> list[slice]:
        """Each order's part of the radial weights: (side, degree, channel), sender first."""
        out, start = [], 0
        for k in self.orders:
            out.append(slice(start, start + 2 * k * self.channels))
            start = out[-1].stop
        return out


def messages(
    shape: Shape,
    turned: tuple[Tensor, Tensor],
    places: tuple[Tensor, Tensor],
    empty: tuple[Tensor, Tensor],
    hidden: Tensor,
    radial: Tensor,
    first: list[Tensor],
    second: list[Tensor],
    space: Workspace | None,
) -> Tensor:
    """Messages in the receivers' slots, (slots, rows · C); zero where a slot holds no edge.

    turned: senders' and receivers' features in the edges' frames, by slot (slots, rows · C); places: each edge's slot
    (edges,) among these; empty: the slots that hold none. hidden: the radial network's last hidden layer and a 1,
    (edges, C + 1); radial: its last layer, (2 C Σ degrees, C + 1). first, second: the convolutions' matrices, one per
    order. space: what the fused implementation works in; None: the plain one.
    """
    if space is not None:
        return _Fused.apply(shape, space, places, empty, *turned, hidden, radial, *first, *second)
    return _plain(shape, turned, places, hidden, radial, first, second)


def _plain(shape, turned, places, hidden, radial, first, second) -> Tensor:
    edges, c, h, lmax = len(hidden), shape.channels, shape.hidden, shape.lmax
    sides = [t.index_select(0, place) for t, place in zip(turned, places)]
    rho = hidden @ radial.mT
    ones = hidden.new_ones(edges, 1)
    out, gates = [], ones
    for m, (k, rows, part) in enumerate(zip(shape.orders, shape.slices(c), shape.radial())):
        signs = shape.signs(m)
        both = torch.stack([side[:, rows].view(edges, signs, k * c) for side in sides], dim=2)
        x = (both * rho[:, part].view(edges, 1, 2, k * c)).view(edges, signs * 2 * k * c)
        if m == 0:
            y = torch.cat([x, ones], dim=1) @ first[0].mT
            gates, scalar, rest = y.split([lmax * h, h, lmax * h], dim=1)
            gates = gates.sigmoid()
            g = torch.cat([silu(scalar), rest * gates, ones.to(y.dtype)], dim=1)
        else:
            y = x @ first[m].mT
            g = (y.view(edges, 2, k * h) * gates[:, None, (m - 1) * h :]).view(edges, 2 * k * h)
        out.append(g @ second[m].mT)
    made = torch.cat(out, dim=1)
    return made.new_zeros(len(turned[1]), made.shape[1]).index_copy(0, places[1], made)


class Workspace:
    """Buffers of one block of edges and the views that the steps need of them; shared by all layers of a batch."""

    def __init__(self, shape: Shape, edges: int, like: Tensor):
        c, h, lmax = shape.channels, shape.hidden, shape.lmax
        radial, rows = shape.radial()[-1].stop, shape.slices(c)[-1].stop
        packed = [shape.signs(m) * 2 * k * c for m, k in enumerate(shape.orders)]
        gated = [shape.signs(m) * k * h for m, k in enumerate(shape.orders)]
        size = edges
        if like.device.type == "cpu":
            floats = 2 * radial + 6 * rows + sum(packed) + 2 * sum(gated) + 2 * lmax * h
            size = max(16, min(edges, BLOCK_BYTES // (4 * floats)))
        self.size = size

        def new(width: int) -> Tensor:
            return like.new_empty(size, width)

        self.buffers = {
            "rho": new(radial),
            "d_rho": new(radial),
            **{f"side{i}": new(rows) for i in range(2)},
            **{f"d_side{i}": new(rows) for i in range(2)},
            "message": new(rows),
            **{f"packed{m}": new(w + (m == 0)) for m, w in enumerate(packed)},
            **{f"gated{m}": new(w + (m == 0)) for m, w in enumerate(gated)},
            "gates": new(lmax * h),
            "d_zero": new(2 * lmax * h + h),
            "scalar": new(h),
        }
        for name in ("packed0", "gated0"):
            self.buffers[name][:, -1] = 1  # for the bias, the last column of the matrix
        self.shape = shape
        self.views: dict[int, _Views] = {}

    def of(self, n: int) -> _Views:
        if n not in self.views:
            self.views[n] = _Views(self.shape, {name: b[:n] for name, b in self.buffers.items()}, n)
        return self.views[n]


class _Views:
    """The buffers' first ``n`` rows, cut as the steps read and write them: views cost time, so they are made once."""

    def __init__(self, shape: Shape, b: dict[str, Tensor], n: int):
        c, h, lmax, orders = shape.channels, shape.hidden, shape.lmax, range(len(shape.orders))
        rows, cuts = shape.slices(c), shape.radial()
        self.rho, self.d_rho, self.message, self.gates = b["rho"], b["d_rho"], b["message"], b["gates"]
        self.sides, self.d_sides = [b["side0"], b["side1"]], [b["d_side0"], b["d_side1"]]
        self.packed, self.gated = [b[f"packed{m}"] for m in orders], [b[f"gated{m}"] for m in orders]
        self.messages = [b["message"][:, r] for r in rows]
        self.scalar_gate, self.d_zero = b["scalar"], b["d_zero"]
        self.gated_scalar, self.gated_rest = b["gated0"][:, :h], b["gated0"][:, h:-1]
        self.d_gates, self.d_scalar, self.d_rest = b["d_zero"].split([lmax * h, h, lmax * h], dim=1)
        self.linear = [b["packed0"][:, :-1], b["gated0"][:, :-1]]  # order 0 without its last 1
        # Per order m >= 1: gated rows by sign, and their gates.
        self.pairs = []
        for m in orders[1:]:
            gated, own = b[f"gated{m}"].view(n, 2, -1), slice((m - 1) * h, lmax * h)
            self.pairs.append((gated, gated[:, 0], gated[:, 1], b["gates"][:, None, own], b["d_zero"][:, own]))
        # Per order and side: x, rho, packed, the gradient of x; and by sign what the gradient of rho is a sum of.
        self.pack, self.weigh = [], []
        for m, k in enumerate(shape.orders):
            signs = shape.signs(m)
            packed = b[f"packed{m}"][:, : signs * 2 * k * c].unflatten(1, (signs, 2, k * c))
            rho, d_rho = (b[name][:, cuts[m]].view(n, 1, 2, k * c) for name in ("rho", "d_rho"))
            for i in range(2):
                x, d_x = (b[f"{name}{i}"][:, rows[m]].unflatten(1, (signs, k * c)) for name in ("side", "d_side"))
                self.pack.append((x, rho[:, :, i], packed[:, :, i], d_x))
                p, q = packed[:, :, i].unbind(1), x.unbind(1)
                self.weigh.append((d_rho[:, 0, i], p[0], q[0], *((p[1], q[1]) if m else (None, None))))


class _Kept:
    """The first convolution's output, one tensor per order, cut into blocks."""

    def __init__(self, shape: Shape, tensors: list[Tensor], size: int):
        h, lmax = shape.hidden, shape.lmax
        edges = len(tensors[0])
        self.whole = [t.split(size) for t in tensors]
        self.gates, self.scalar, self.rest = (
            part.split(size) for part in tensors[0].split([lmax * h, h, lmax * h], dim=1)
        )
        pairs = [t.view(edges, 2, t.shape[1] // 2) for t in tensors[1:]]
        self.pairs = [tuple(part.split(size) for part in (p, p[:, 0], p[:, 1])) for p in pairs]


def _pack(v: _Views, turned, places, hidden: Tensor, radial: Tensor) -> None:
    """Features of both ends, times the radial weights: what the first convolution takes."""
    torch.mm(hidden, radial, out=v.rho)
    for values, place, into in zip(turned, places, v.sides):
        torch.index_select(values, 0, place, out=into)
    for x, rho, packed, _ in v.pack:
        torch.mul(x, rho, out=packed)


def _gate(v: _Views, kept: _Kept, i: int) -> None:
    torch.sigmoid(kept.gates[i], out=v.gates)
    torch.sigmoid(kept.scalar[i], out=v.scalar_gate)
    torch.mul(kept.scalar[i], v.scalar_gate, out=v.gated_scalar)
    torch.mul(kept.rest[i], v.gates, out=v.gated_rest)
    for (gated, _, _, gates, _), (y, _, _) in zip(v.pairs, kept.pairs):
        torch.mul(y[i], gates, out=gated)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, shape: Shape, space: Workspace, places, empty, sender, receiver, hidden, radial, *matrices):
        count, edges, size = len(shape.orders), len(hidden), max(space.size, 1)
        kept_ = [hidden.new_empty(edges, f.shape[0]) for f in matrices[:count]]
        kept = _Kept(shape, kept_, size)
        first, second = [f.mT for f in matrices[:count]], [s.mT for s in matrices[count:]]
        blocks = zip(places[0].split(size), places[1].split(size), hidden.split(size))
        out, last = torch.empty_like(receiver).index_fill_(0, empty[1], 0), radial.mT
        for i, (*place, rows) in enumerate(blocks if edges else ()):
            v = space.of(len(rows))
            _pack(v, (sender, receiver), place, rows, last)
            for x, f, y in zip(v.packed, first, kept.whole):
                torch.mm(x, f, out=y[i])
            _gate(v, kept, i)
            for g, s, into in zip(v.gated, second, v.messages):
                torch.mm(g, s, out=into)
            out.index_copy_(0, place[1], v.message)
        ctx.shape, ctx.space, ctx.places, ctx.empty = shape, space, places, empty
        ctx.save_for_backward(sender, receiver, hidden, radial, *kept_, *matrices)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        shape, space, places = ctx.shape, ctx.space, ctx.places
        count, size = len(shape.orders), max(space.size, 1)
        sender, receiver, hidden, radial, *rest = ctx.saved_tensors
        kept = _Kept(shape, rest[:count], size)
        matrices = rest[count:]
        d_first, d_second = ([torch.zeros_like(x) for x in part] for part in (matrices[:count], matrices[count:]))
        # The biases, last columns of order 0, lead nowhere further back.
        first, second = ([part[0][:, :-1], *part[1:]] for part in (matrices[:count], matrices[count:]))
        d_turned = [torch.empty_like(t).index_fill_(0, e, 0) for t, e in zip((sender, receiver), ctx.empty)]
        d_hidden, d_radial, last = torch.empty_like(hidden), torch.zeros_like(radial), radial.mT
        grad = grad.contiguous()
        blocks = zip(places[0].split(size), places[1].split(size), hidden.split(size), d_hidden.split(size))
        for i, (*place, rows, d_rows) in enumerate(blocks if len(hidden) else ()):
            v = space.of(len(rows))
            _pack(v, (sender, receiver), place, rows, last)
            _gate(v, kept, i)
            torch.index_select(grad, 0, place[1], out=v.message)
            # What was gated or packed is needed no longer after its product: its buffer takes the gradient.
            for d, s, g, d_s, into in zip(v.messages, second, v.gated, d_second, (v.linear[1], *v.gated[1:])):
                torch.addmm(d_s, d.mT, g, out=d_s)  # not addmm_: torch counts no FLOPs of that
                torch.mm(d, s, out=into)
            _gate_backward(v, kept, i)
            for d, f, x, d_f, into in zip(
                (v.d_zero, *v.gated[1:]), first, v.packed, d_first, (v.linear[0], *v.packed[1:])
            ):
                torch.addmm(d_f, d.mT, x, out=d_f)
                torch.mm(d, f, out=into)
            for d_rho, d0, x0, d1, x1 in v.weigh:
                torch.mul(d0, x0, out=d_rho)
                if d1 is not None:
                    d_rho.addcmul_(d1, x1)
            for _, rho, d, d_x in v.pack:
                torch.mul(d, rho, out=d_x)
            for d, place_, d_side in zip(d_turned, place, v.d_sides):
                d.index_copy_(0, place_, d_side)
            torch.mm(v.d_rho, radial, out=d_rows)
            torch.addmm(d_radial, v.d_rho.mT, rows, out=d_radial)
        return None, None, None, None, *d_turned, d_hidden, d_radial, *d_first, *d_second


def _gate_backward(v: _Views, kept: _Kept, i: int) -> None:
    """From the gradient of what was gated, in its buffers, to that of the first convolution's output."""
    torch.mul(v.gated_rest, kept.rest[i], out=v.d_gates)
    torch.mul(v.gated_rest, v.gates, out=v.d_rest)
    # SiLU' = s + x s (1 - s)
    s, x = v.scalar_gate, kept.scalar[i]
    torch.addcmul(s, x * s, 1 - s, out=v.d_scalar)
    v.d_scalar.mul_(v.gated_scalar)
    for (d, d0, d1, gates, own), (_, y0, y1) in zip(v.pairs, kept.pairs):
        own.addcmul_(d0, y0[i]).addcmul_(d1, y1[i])
        d.mul_(gates)
    v.d_gates.mul_(v.gates).addcmul_(v.d_gates, v.gates, value=-1)
