"""The unconstrained MPNN: translation-invariant, not rotation-equivariant by design."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from equiscale.graph import AtomGraph, safe_norm, sum_by
from equiscale.models.base import AtomicOutput, ChargeSpinEmbedding, ElementEmbedding, Potential, norm
from equiscale.models.mpnn import MPNNConfig
from equiscale.models.mpnn.messages import gather_multiply_sum
from equiscale.radial import RadialBasis, envelope


class Layer(nn.Module):
    """h <- h + f(mean_u h_u ⊙ e_uv), f = norm, SiLU, linear, SiLU, linear, SiLU. No w×w matrix acts on edges."""

    def __init__(self, config: MPNNConfig):
        super().__init__()
        self.norm = norm(config.norm, config.width)
        self.lin1 = nn.Linear(config.width, config.width)
        self.lin2 = nn.Linear(config.width, config.width)

    def forward(self, h, edge, per_edge, graph: AtomGraph):
        m = gather_multiply_sum(h, edge, graph)
        m = m if per_edge is None else m * per_edge
        return h + silu(self.lin2(silu(self.lin1(silu(self.norm(m, graph))))))


class MPNN(Potential):
    def __init__(self, config: MPNNConfig):
        super().__init__()
        w, low = config.width, config.width // 2
        self.config = config
        self.embed = ElementEmbedding(config.elements, w)
        self.state = ChargeSpinEmbedding(w) if config.charge_spin else None
        self.place = nn.Linear(3, w, bias=False) if config.places else None
        self.basis = RadialBasis(config.radial, config.num_radial, config.cutoff)
        self.edge_vector = nn.Linear(3, low)
        self.edge_radial = nn.Linear(config.num_radial, w - low)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.energy = nn.Sequential(nn.Linear(w, w), nn.SiLU(), nn.Linear(w, 1))
        direct = config.forces == "direct"
        # Along edges, one number per edge in place of three per atom.
        outputs = 3 if config.edges == "vectors" else 1
        self.force = nn.Sequential(nn.Linear(w, w), nn.SiLU(), nn.Linear(w, outputs)) if direct else None

    def input_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.embed.parameters()
        if self.state is not None:
            yield from self.state.parameters()
        yield from self.edge_radial.parameters()

    def forward(self, graph: AtomGraph) -> AtomicOutput:
        r = graph.vectors
        d = safe_norm(r)
        if self.config.edges == "vectors":
            raw = r
        else:  # three invariants in place of the vector's components: the same N
            x = d[:, None] / self.config.cutoff
            raw = torch.cat([x, x**2, x**3], dim=1)
        edge = silu(torch.cat([self.edge_vector(raw), self.edge_radial(self.basis(d))], dim=1))  # (edges, w)
        smooth = envelope(self.config.envelope, d, self.config.cutoff)
        edge = edge if smooth is None else edge * smooth[:, None]
        h = self.embed(graph.numbers)  # (atoms, w)
        h = h if self.state is None else h + self.state(graph)
        h = h if self.place is None else h + self.place(self.positions(graph))
        mean = self.config.aggregation == "mean"
        per_edge = graph.degree.clamp(min=1).to(h.dtype).reciprocal()[:, None] if mean else None
        for layer in self.layers:
            h = layer(h, edge, per_edge, graph)
        energy = self.energy(h).squeeze(-1)
        if self.force is None:
            return AtomicOutput(energy)
        if self.config.edges == "vectors":
            return AtomicOutput(energy, self.force(h))
        hidden, out = self.force[:2](h), self.force[2]
        both = hidden.index_select(0, graph.sender) + hidden.index_select(0, graph.receiver)
        pull = out(both * edge) * (r / d.clamp(min=1e-9)[:, None])
        return AtomicOutput(energy, sum_by(graph.receiver, pull, len(h)))

    def positions(self, graph: AtomGraph) -> Tensor:
        """What is embedded (atoms, 3): about the centroid, or as it is."""
        x = graph.positions
        if not self.config.centered:
            return x
        centroid = sum_by(graph.structure, x, graph.num_structures) / graph.size.to(x.dtype)[:, None]
        return x - centroid.index_select(0, graph.structure)
