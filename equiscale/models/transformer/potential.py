"""A pre-norm transformer encoder over all atoms of a structure; no symmetry but that of relabelling atoms."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from equiscale.graph import AtomGraph, sum_by
from equiscale.models.base import AtomicOutput, ChargeSpinEmbedding, ElementEmbedding, Potential
from equiscale.models.transformer import TransformerConfig


class Layer(nn.Module):
    """h <- h + attention(LN h); h <- h + MLP(LN h)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        w = config.width
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(w)
        self.qkv = nn.Linear(w, 3 * w)
        self.out = nn.Linear(w, w)
        self.mlp_norm = nn.LayerNorm(w)
        self.mlp = nn.Sequential(nn.Linear(w, 4 * w), nn.GELU(), nn.Linear(4 * w, w))

    def forward(self, h, place: Int[Tensor, " atoms"], real: Bool[Tensor, "structures longest"]):
        """h (atoms, w); ``place``: an atom's row in the padded layout."""
        structures, longest = real.shape
        qkv = self.qkv(self.attention_norm(h))
        qkv = qkv.new_zeros(structures * longest, qkv.shape[1]).index_copy(0, place, qkv)
        q, k, v = qkv.view(structures, longest, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Written out: the fused attention of torch has no second derivative.
        score = (q @ k.mT) / sqrt(q.shape[-1])  # (structures, heads, longest, longest)
        weight = score.masked_fill(~real[:, None, None, :], -torch.inf).softmax(-1)
        mixed = (weight.to(v.dtype) @ v).transpose(1, 2).reshape(structures * longest, -1)
        h = h + self.out(mixed.index_select(0, place))
        return h + self.mlp(self.mlp_norm(h))


class Transformer(Potential):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        w = config.width
        self.config = config
        self.embed = ElementEmbedding(config.elements, w)
        self.state = ChargeSpinEmbedding(w) if config.charge_spin else None
        # One linear map of [embedding | coordinates], held as two: their fan-ins grow differently with the width.
        self.element = nn.Linear(w, w, bias=False)
        self.place = nn.Linear(3, w)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(w)
        self.energy = nn.Sequential(nn.Linear(w, w), nn.GELU(), nn.Linear(w, 1))
        direct = config.forces == "direct"
        self.force = nn.Sequential(nn.Linear(w, w), nn.GELU(), nn.Linear(w, 3)) if direct else None

    def input_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.embed.parameters()
        if self.state is not None:
            yield from self.state.parameters()

    def forward(self, graph: AtomGraph) -> AtomicOutput:
        x, size = graph.positions, graph.size
        if self.config.centered:
            centroid = sum_by(graph.structure, x, graph.num_structures) / size.to(x.dtype)[:, None]
            x = x - centroid.index_select(0, graph.structure)
        longest = int(size.max())
        first = size.cumsum(0) - size
        slot = torch.arange(len(x), device=x.device) - first.index_select(0, graph.structure)
        place = graph.structure * longest + slot
        real = torch.arange(longest, device=x.device) < size[:, None]  # (structures, longest)
        h = self.embed(graph.numbers)  # (atoms, w)
        h = h if self.state is None else h + self.state(graph)
        h = self.element(h) + self.place(x)
        for layer in self.layers:
            h = layer(h, place, real)
        h = self.norm(h)
        return AtomicOutput(self.energy(h).squeeze(-1), None if self.force is None else self.force(h))
