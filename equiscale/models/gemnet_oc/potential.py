"""GemNet-OC in a faster, mathematically equal formulation.

Exact in real arithmetic (a literal version stands in the tests):

* Σ over triplets is one matrix per atom applied to the messages that arrive (``geometry.Angles``); no tensor of
  triplets and channels exists, and beyond 49 neighbours none of triplets at all.
* First edge layers act on (h_sender, h_receiver, edge): the atoms' parts are computed per atom and gathered.
* All projections of the radial basis are one product; the basis has no derivative unless forces are one.
* Scale factors and the constants 1/0.6, 1/√2 ride on weights; heads read the outputs of all depths without
  concatenating them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from equiscale.graph import AtomGraph, safe_norm, sum_by
from equiscale.models.base import AtomicOutput, ChargeSpinEmbedding, ElementEmbedding, Potential
from equiscale.models.gemnet_oc import BASIS, DEGREES, GemNetOCConfig
from equiscale.models.gemnet_oc.blocks import Batch, Block, EdgeEmbedding, Output
from equiscale.models.gemnet_oc.geometry import Angles, directions
from equiscale.models.gemnet_oc.layers import Residual, Scale, dense_over, matrix, residuals
from equiscale.models.gemnet_oc.quadruplets import QuadrupletBasis
from equiscale.radial import RadialBasis, envelope

ROWS = 83
"""Elements with an embedding row: hydrogen to bismuth."""


class Head(nn.Module):
    """The outputs of all depths to one number: dense from their concatenation, two residual layers, a linear map."""

    def __init__(self, depths: int, width: int):
        super().__init__()
        self.join = matrix(depths * width, width)
        self.residuals = nn.ModuleList(Residual(width) for _ in range(2))
        self.out = matrix(width, 1)

    def forward(self, parts: list[Tensor], scales: list[Scale], fused: bool) -> Tensor:
        """``scales``: one for each part, or none."""
        weight = self.join.weight
        if scales:
            factors = torch.stack([s.factor for s in scales])
            weight = weight * factors.repeat_interleave(weight.shape[1] // len(scales))
        x = residuals(dense_over(parts, weight, fused=fused), self.residuals, fused=fused)
        with torch.autocast(x.device.type, enabled=False):  # the last product as published: never of halves
            return self.out(x.to(self.out.weight.dtype))


class GemNetOC(Potential):
    def __init__(self, config: GemNetOCConfig):
        super().__init__()
        w, n, direct = config.width, config.num_radial, config.forces == "direct"
        self.config = config
        self.embed = ElementEmbedding(config.elements, w, ROWS)
        nn.init.uniform_(self.embed.table.weight, -math.sqrt(3), math.sqrt(3))
        self.state = ChargeSpinEmbedding(w) if config.charge_spin else None
        self.basis = RadialBasis(config.radial, n, config.cutoff)
        self.embed_edge = EdgeEmbedding(w, n)
        self.triplet_radial, self.atom_radial, self.output_radial = (matrix(n, BASIS) for _ in range(3))
        self.angular = matrix(n, BASIS * DEGREES)  # rows i·7 + l
        with torch.no_grad():
            self.angular.weight.div_(math.sqrt(DEGREES))  # its fan-in: radial functions × angular functions
        self.quadruplets = QuadrupletBasis(config) if config.quadruplets else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.outputs = nn.ModuleList(Output(w, direct) for _ in range(config.depth + 1))
        self.energy = Head(config.depth + 1, w)
        self.force = Head(config.depth + 1, w) if direct else None

    def input_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.embed.parameters()
        if self.state is not None:
            yield from self.state.parameters()
        for made in (self.embed_edge.edge, self.triplet_radial, self.atom_radial, self.output_radial, self.angular):
            yield from made.parameters()
        if self.quadruplets is not None:
            yield from self.quadruplets.parameters()

    def prepare(self, graph: AtomGraph) -> None:
        """Fit every scale factor, in the order of their use, in one pass: each sees the outputs of fitted ones."""
        scales = [m for m in self.modules() if isinstance(m, Scale)]
        for scale in scales:
            scale.factor.fill_(1.0)
            scale.fitting = True
        try:
            with torch.no_grad():
                self(graph)
        finally:
            for scale in scales:
                scale.fitting = False

    def forward(self, graph: AtomGraph) -> AtomicOutput:
        r = graph.vectors
        d = safe_norm(r)
        unit = directions(r, d)
        rbf = self.basis(d)
        smooth = envelope(self.config.envelope, d, self.config.cutoff)
        rbf = rbf if smooth is None else rbf * smooth[:, None]
        fused = not (graph.positions.requires_grad or torch.is_autocast_enabled(r.device.type))
        maps = (self.embed_edge.edge, self.triplet_radial, self.atom_radial, self.output_radial, self.angular)
        weight = torch.cat([m.weight for m in maps])
        at_edge, heard, atom, output, angular = linear(rbf, weight).split([m.out_features for m in maps], dim=1)
        angular = angular.reshape(-1, BASIS, DEGREES)
        with torch.autocast(r.device.type, enabled=False):  # angles have no weights and need their digits
            angles = Angles.of(graph, unit)
            chains = None if self.quadruplets is None else self.quadruplets(graph, unit, d, rbf, fused)
        batch = Batch(graph, fused, angles, angular, heard, atom, output, chains)

        h = self.embed(graph.numbers)
        h = h if self.state is None else h + self.state(graph)
        m = self.embed_edge(h, at_edge, graph, fused)
        atoms, edges = [], []
        for i, output_ in enumerate(self.outputs):
            if i:
                h, m = self.blocks[i - 1](h, m, batch)
            a, e = output_(h, m, batch)
            atoms.append(a)
            edges.append(e)
        energy = self.energy(atoms, [], fused).squeeze(-1)
        if self.force is None:
            return AtomicOutput(energy)
        along = self.force(edges, [o.force_scale for o in self.outputs], fused)
        # Published along sender -> receiver: minus the direction of ``vectors``.
        return AtomicOutput(energy, sum_by(graph.receiver, along * -unit, len(h)))
