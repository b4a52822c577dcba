"""The architectures as published, term by term and slow: what the fast formulations are checked against."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from equiscale.graph import AtomGraph, safe_norm, sum_by
from equiscale.models import EGNNConfig, MPNNConfig
from equiscale.models.base import AtomicOutput, ElementEmbedding, Potential, norm
from equiscale.radial import RadialBasis


def mean_by(index: Tensor, values: Tensor, size: int) -> Tensor:
    """Eq. 8 of the scaling paper."""
    count = torch.bincount(index, minlength=size).clamp(min=1).to(values.dtype)
    return sum_by(index, values, size) / count.view(-1, *[1] * (values.ndim - 1))


class LiteralEGNN(Potential):
    """Eqs. 11, 12 with one cat, one Φ(m) [edges, E_in, E] and absolute vectors X; direct forces, mean aggregation."""

    def __init__(self, config: EGNNConfig):
        super().__init__()
        w, e = config.width, config.channels
        self.config = config
        self.embed = ElementEmbedding(config.elements, w)
        self.basis = RadialBasis(config.radial, config.num_radial, config.cutoff)
        self.edge_mlp, self.node_mlp = nn.ModuleList(), nn.ModuleList()
        self.coord_mlp, self.norms = nn.ModuleList(), nn.ModuleList()
        for i in range(config.depth):
            e_in = 1 if i == 0 else e
            first = nn.Linear(2 * w + e_in + config.num_radial, w)
            self.edge_mlp.append(nn.Sequential(first, nn.SiLU(), nn.Linear(w, w), nn.SiLU()))
            self.node_mlp.append(nn.Sequential(nn.Linear(2 * w, w), nn.SiLU(), nn.Linear(w, w)))
            self.coord_mlp.append(nn.Sequential(nn.Linear(w, w), nn.SiLU(), nn.Linear(w, e_in * e, bias=False)))
            self.norms.append(norm(config.norm, w))
        self.energy = nn.Sequential(nn.Linear(w, w), nn.SiLU(), nn.Linear(w, 1))
        self.force = nn.Linear(e, 1, bias=False)

    def input_parameters(self):
        return iter(())

    def forward(self, graph: AtomGraph) -> AtomicOutput:
        s, r, n, e = graph.sender, graph.receiver, len(graph.numbers), self.config.channels
        h, x0 = self.embed(graph.numbers), graph.positions
        rbf = self.basis(safe_norm(graph.vectors))
        x = x0[:, :, None]  # (atoms, 3, 1)
        for i, (edge, node, coord, norm_) in enumerate(zip(self.edge_mlp, self.node_mlp, self.coord_mlp, self.norms)):
            x_uv = x[s] - x[r]  # (edges, 3, E_in)
            if graph.shift is not None:
                x_uv = x_uv + graph.shift[:, :, None]
            e_in = x.shape[2]
            m = edge(torch.cat([h[r], h[s], x_uv.square().sum(1), rbf], dim=1))
            phi = coord(m).view(-1, e_in, e)
            step = mean_by(r, torch.bmm(x_uv, phi) / e_in, n)
            x = (x.expand(-1, -1, e) if i == 0 else x) + step
            h = norm_(h + node(torch.cat([h, mean_by(r, m, n)], dim=1)), graph)
        return AtomicOutput(self.energy(h).squeeze(-1), self.force(x - x0[:, :, None]).squeeze(-1))

    def load(self, fast: nn.Module) -> LiteralEGNN:
        """Take the weights of the fast formulation, putting the split first edge layer together again."""
        self.embed.load_state_dict(fast.embed.state_dict())
        self.energy.load_state_dict(fast.energy.state_dict())
        self.force.load_state_dict(fast.force.state_dict())
        with torch.no_grad():
            for i, layer in enumerate(fast.layers):
                at_receiver, at_sender = layer.edge_node.weight.chunk(2, dim=0)
                whole = [at_receiver, at_sender, layer.edge_vector.weight, layer.edge_radial.weight]
                self.edge_mlp[i][0].weight.copy_(torch.cat(whole, dim=1))
                self.edge_mlp[i][0].bias.copy_(layer.edge_radial.bias)
                self.edge_mlp[i][2].load_state_dict(layer.edge_out.state_dict())
                self.node_mlp[i].load_state_dict(layer.node.state_dict())
                self.norms[i].load_state_dict(layer.norm.state_dict())
                self.coord_mlp[i][0].load_state_dict(layer.mix_in.state_dict())
                self.coord_mlp[i][2].load_state_dict(layer.mix.state_dict())
        return self


class LiteralMPNN(Potential):
    """FAENet's "simple" message passing on eq. 9's inputs, per edge and unfused, as its public code forms it."""

    def __init__(self, config: MPNNConfig):
        super().__init__()
        w, low = config.width, config.width // 2
        self.config = config
        self.embed = ElementEmbedding(config.elements, w)
        self.basis = RadialBasis(config.radial, config.num_radial, config.cutoff)
        self.lin_r, self.lin_d = nn.Linear(3, low), nn.Linear(config.num_radial, w - low)
        self.norms = nn.ModuleList(norm(config.norm, w) for _ in range(config.depth))
        self.lin1 = nn.ModuleList(nn.Linear(w, w) for _ in range(config.depth))
        self.lin2 = nn.ModuleList(nn.Linear(w, w) for _ in range(config.depth))
        self.energy = nn.Sequential(nn.Linear(w, w), nn.SiLU(), nn.Linear(w, 1))
        self.force = nn.Sequential(nn.Linear(w, w), nn.SiLU(), nn.Linear(w, 3))

    def input_parameters(self):
        return iter(())

    def forward(self, graph: AtomGraph) -> AtomicOutput:
        s, r, n = graph.sender, graph.receiver, len(graph.numbers)
        h = self.embed(graph.numbers)
        vectors = graph.vectors
        e = silu(torch.cat([self.lin_r(vectors), self.lin_d(self.basis(vectors.norm(dim=1)))], dim=1))
        for norm_, lin1, lin2 in zip(self.norms, self.lin1, self.lin2):
            m = mean_by(r, h[s] * e, n)
            h = h + silu(lin2(silu(lin1(silu(norm_(m, graph))))))
        return AtomicOutput(self.energy(h).squeeze(-1), self.force(h))

    def load(self, fast: nn.Module) -> LiteralMPNN:
        for mine, theirs in (
            (self.embed, fast.embed),
            (self.lin_r, fast.edge_vector),
            (self.lin_d, fast.edge_radial),
            (self.energy, fast.energy),
            (self.force, fast.force),
        ):
            mine.load_state_dict(theirs.state_dict())
        for i, layer in enumerate(fast.layers):
            self.norms[i].load_state_dict(layer.norm.state_dict())
            self.lin1[i].load_state_dict(layer.lin1.state_dict())
            self.lin2[i].load_state_dict(layer.lin2.state_dict())
        return self
