"""The network on edges, by blocks of edges that stay in a core's cache: for training on direct forces.

It keeps three pre-activations per edge and forms everything else again in the backward pass. Potentials that are
differentiated twice take `_plain`, autograd's own way.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu

from equiscale.graph import AtomGraph, sum_by

BLOCK_BYTES = 1 << 19
"""What one block's activations take on a CPU, about a quarter of a core's second-level cache. A GPU takes all edges."""


class Weights(NamedTuple):
    """Of the first layer's edge parts (vectors, radial functions), the second layer and Φ's first layer."""

    vector: Tensor
    radial: Tensor
    radial_bias: Tensor
    out: Tensor
    out_bias: Tensor
    mix: Tensor
    mix_bias: Tensor


def edge_network(
    at_receiver: Tensor, at_sender: Tensor, square: Tensor, rbf: Tensor, smooth: Tensor | None, w: Weights, g: AtomGraph
) -> tuple[Tensor, Tensor]:
    """Σ_u m_uv per atom (atoms, w), and silu(W₃ m_uv) in the receivers' slots (atoms, slots, w).

    at_receiver, at_sender (atoms, w): the node parts of the first layer; square (edges, E_in): |X_uv|².
    """
    plain = g.positions.requires_grad or torch.is_autocast_enabled(rbf.device.type) or not len(rbf)
    if plain:
        return _plain(at_receiver, at_sender, square, rbf, smooth, w, g)
    total, hidden = _Blocks.apply(g, smooth, at_receiver, at_sender, square, rbf, *w)
    return total, hidden.view(len(at_receiver), g.max_degree, -1)


def _plain(at_receiver, at_sender, square, rbf, smooth, w: Weights, g: AtomGraph) -> tuple[Tensor, Tensor]:
    m = linear(rbf, w.radial, w.radial_bias) + linear(square, w.vector)
    m = m + at_receiver.index_select(0, g.receiver) + at_sender.index_select(0, g.sender)
    m = silu(linear(silu(m), w.out, w.out_bias))
    m = m if smooth is None else m * smooth
    return sum_by(g.receiver, m, len(at_receiver)), g.pad(silu(linear(m, w.mix, w.mix_bias)))


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g: AtomGraph, smooth, at_receiver, at_sender, square, rbf, *weights):
        w = Weights(*weights)
        edges, width = len(rbf), at_receiver.shape[1]
        ctx.size = size = _size(rbf, width)
        kept = [rbf.new_empty(edges, width) for _ in range(3)]
        one, two = rbf.new_empty(2, size, width).unbind(0)
        total = torch.zeros_like(at_receiver)
        hidden = rbf.new_zeros(len(at_receiver) * g.max_degree, width)
        for start in range(0, edges, size):
            block = slice(start, min(start + size, edges))
            n = block.stop - start
            a, b = one[:n], two[:n]
            first, second, third = (k[block] for k in kept)
            torch.addmm(w.radial_bias, rbf[block], w.radial.mT, out=first)
            torch.addmm(first, square[block], w.vector.mT, out=first)
            first.add_(torch.index_select(at_receiver, 0, g.receiver[block], out=a))
            first.add_(torch.index_select(at_sender, 0, g.sender[block], out=a))
            torch.addmm(w.out_bias, _silu(first, a), w.out.mT, out=second)
            m = _silu(second, b)
            m = m if smooth is None else m.mul_(smooth[block])
            total.index_add_(0, g.receiver[block], m)
            torch.addmm(w.mix_bias, m, w.mix.mT, out=third)
            hidden.index_copy_(0, g.place[block], _silu(third, a))
        ctx.graph, ctx.smooth = g, smooth
        ctx.save_for_backward(square, rbf, *kept, *weights)
        return total, hidden

    @staticmethod
    @once_differentiable
    def backward(ctx, d_total, d_hidden):
        g, smooth, size = ctx.graph, ctx.smooth, ctx.size
        square, rbf, *saved = ctx.saved_tensors
        kept, w = saved[:3], Weights(*saved[3:])
        edges, width = kept[0].shape
        a_, b_, c_ = rbf.new_empty(3, size, width).unbind(0)
        d_receiver, d_sender = torch.zeros_like(d_total), torch.zeros_like(d_total)
        d_square, d = torch.empty_like(square), Weights(*(torch.zeros_like(x) for x in w))
        d_total, d_hidden = d_total.contiguous(), d_hidden.contiguous()
        for start in range(0, edges, size):
            block = slice(start, min(start + size, edges))
            n = block.stop - start
            a, b, c = a_[:n], b_[:n], c_[:n]
            first, second, third = (k[block] for k in kept)
            scale = None if smooth is None else smooth[block]
            d_third = _silu_backward(torch.index_select(d_hidden, 0, g.place[block], out=a), third, a)
            m = _silu(second, b)
            m = m if scale is None else m.mul_(scale)
            _collect(d.mix, d.mix_bias, d_third, m)
            d_m = torch.mm(d_third, w.mix, out=b).add_(torch.index_select(d_total, 0, g.receiver[block], out=c))
            d_second = _silu_backward(d_m if scale is None else d_m.mul_(scale), second, b)
            _collect(d.out, d.out_bias, d_second, _silu(first, a))
            d_first = _silu_backward(torch.mm(d_second, w.out, out=a), first, a)
            _collect(d.radial, d.radial_bias, d_first, rbf[block])
            torch.addmm(d.vector, d_first.mT, square[block], out=d.vector)
            torch.mm(d_first, w.vector, out=d_square[block])
            d_receiver.index_add_(0, g.receiver[block], d_first)
            d_sender.index_add_(0, g.sender[block], d_first)
        return None, None, d_receiver, d_sender, d_square, None, *d


def _size(rbf: Tensor, width: int) -> int:
    if rbf.device.type != "cpu":
        return len(rbf)
    return min(len(rbf), max(32, BLOCK_BYTES // (rbf.element_size() * width)))


def _silu(x: Tensor, out: Tensor) -> Tensor:
    return torch.ops.aten.silu.out(x, out=out)


def _silu_backward(grad: Tensor, x: Tensor, out: Tensor) -> Tensor:
    return torch.ops.aten.silu_backward.grad_input(grad, x, grad_input=out)


def _collect(weight: Tensor, bias: Tensor, grad: Tensor, x: Tensor) -> None:
    """Add a block's part to a linear layer's gradients (out= and not in place: torch counts no FLOPs of addmm_)."""
    torch.addmm(weight, grad.mT, x, out=weight)
    bias.add_(grad.sum(0))
