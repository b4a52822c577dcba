"""Σ_u h_u ⊙ e_uv, by blocks of edges: a layer costs memory traffic, and no message of all edges is ever made."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from equiscale.graph import AtomGraph, sum_by

BLOCK_BYTES = 1 << 19
"""What one block of messages takes on a CPU: it stays in a core's second-level cache. A GPU takes all at once."""


def gather_multiply_sum(h: Tensor, edge: Tensor, graph: AtomGraph) -> Tensor:
    """h (atoms, w), edge (edges, w) -> the sum over each atom's edges of h_sender ⊙ edge, (atoms, w)."""
    # What is differentiated twice, or in mixed precision, takes autograd's own way.
    plain = graph.positions.requires_grad or torch.is_autocast_enabled(h.device.type) or h.dtype != edge.dtype
    if plain or not len(edge):
        return sum_by(graph.receiver, h.index_select(0, graph.sender) * edge, len(h))
    return _Blocks.apply(h, edge, graph.sender, graph.receiver)


def _size(edge: Tensor) -> int:
    if edge.device.type != "cpu":
        return len(edge)
    return min(len(edge), max(16, BLOCK_BYTES // (edge.element_size() * edge.shape[1])))


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, edge, sender, receiver):
        size = _size(edge)
        buffer, out = edge.new_empty(size, edge.shape[1]), torch.zeros_like(h)
        for e, s, r in zip(edge.split(size), sender.split(size), receiver.split(size)):
            message = torch.index_select(h, 0, s, out=buffer[: len(s)])
            out.index_add_(0, r, message.mul_(e))
        ctx.save_for_backward(h, edge, sender, receiver)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        h, edge, sender, receiver = ctx.saved_tensors
        size = _size(edge)
        one, two = edge.new_empty(2, size, edge.shape[1]).unbind(0)
        d_h, d_edge = torch.zeros_like(h), torch.empty_like(edge)
        grad = grad.contiguous()
        for e, s, r, d in zip(edge.split(size), sender.split(size), receiver.split(size), d_edge.split(size)):
            arriving = torch.index_select(grad, 0, r, out=one[: len(s)])
            torch.mul(arriving, torch.index_select(h, 0, s, out=two[: len(s)]), out=d)
            d_h.index_add_(0, s, arriving.mul_(e))
        return d_h, d_edge, None, None
