"""Interaction and output blocks of GemNet-OC (Gasteiger et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equiscale.graph import AtomGraph, sum_by
from equiscale.models.gemnet_oc import BASIS, TRIPLET, GemNetOCConfig
from equiscale.models.gemnet_oc.geometry import Angles
from equiscale.models.gemnet_oc.layers import (
    HALF,
    Residual,
    Scale,
    activate,
    dense,
    dense_pair,
    matrix,
    residuals,
    split_matrix,
)
from equiscale.models.gemnet_oc.quadruplets import QuadrupletRadials, Quadruplets


@dataclass(frozen=True, eq=False)
class Batch:
    """What every block sees of a batch."""

    graph: AtomGraph
    fused: bool  # nobody differentiates twice
    angles: Angles
    angular: Float[Tensor, "edges basis degrees"]  # of the edge that hears
    triplet_radial: Float[Tensor, "edges basis"]  # of the edge that is heard
    atom_radial: Float[Tensor, "edges basis"]
    output_radial: Float[Tensor, "edges basis"]
    quadruplets: QuadrupletRadials | None


class EdgeEmbedding(nn.Module):
    """silu(W [h_sender, h_receiver, e])/0.6, the part in h computed per atom and gathered."""

    def __init__(self, width: int, edge: int):
        super().__init__()
        self.sender, self.receiver, self.edge = split_matrix((width, width, edge), width)

    def forward(self, h: Tensor, at_edge: Float[Tensor, "edges w"], batch_graph: AtomGraph, fused: bool) -> Tensor:
        """``at_edge``: the edge's part of the product, which may be overwritten."""
        s = self.sender(h).index_select(0, batch_graph.sender)
        r = self.receiver(h).index_select(0, batch_graph.receiver)
        return activate(at_edge + s + r, fused=fused)


class AtomSum(nn.Module):
    """Σ_e m_e ⊙ W rad_e over the edges that arrive, times a fitted scale; residual layers; (h + that)/√2."""

    def __init__(self, width: int):
        super().__init__()
        self.radial = matrix(BASIS, width)
        self.scale = Scale()
        self.residuals = nn.ModuleList(Residual(width) for _ in range(3))

    def forward(self, m: Tensor, radial: Tensor, h: Tensor, batch: Batch) -> Float[Tensor, "atoms w"]:
        a = sum_by(batch.graph.receiver, m * self.radial(radial), len(batch.graph.numbers))
        if self.scale.fitting:
            self.scale.fit(m, a)
        return residuals(a * self.scale.factor, self.residuals, h, fused=batch.fused)


class Triplets(nn.Module):
    """What an edge c -> a hears of the other edges b -> a: Σ_b over angles, then a bilinear map with its own length.

    The result goes to the edge and, by a second projection, to its counter edge (√2 times the published sum).
    """

    def __init__(self, width: int):
        super().__init__()
        self.message = matrix(width, width)
        self.radial = matrix(BASIS, width)
        self.scale_radial = Scale()
        self.down = matrix(width, TRIPLET)
        self.bilinear = matrix(BASIS * TRIPLET, TRIPLET)
        self.scale_sum = Scale()
        self.forth, self.back = matrix(TRIPLET, width), matrix(TRIPLET, width)

    def forward(self, message: Float[Tensor, "edges w"], batch: Batch) -> Float[Tensor, "edges w"]:
        """``message``: the dense layer of that name, already applied."""
        graph = batch.graph
        x = message * self.radial(batch.triplet_radial)
        if self.scale_radial.fitting:
            self.scale_radial.fit(message, x)
        (x,) = dense(x, self.down.weight * self.scale_radial.factor, fused=batch.fused)
        if self.scale_sum.fitting:  # the published reference lists a message once for every triplet it is in
            y = batch.angles.bilinear(x, batch.angular, self.bilinear.weight, fused=batch.fused)
            self.scale_sum.fit(x, y, graph.degree.index_select(0, graph.receiver) - 1)
        weight = self.bilinear.weight * self.scale_sum.factor
        y = batch.angles.bilinear(x, batch.angular, weight, fused=batch.fused)
        return dense_pair(y, self.forth.weight, self.back.weight, graph.reverse, fused=batch.fused)


class Block(nn.Module):
    """(h, m) -> (h, m): edges hear edges, atoms hear edges, edges hear their atoms."""

    def __init__(self, config: GemNetOCConfig):
        super().__init__()
        w = config.width
        self.skip = matrix(w, w)
        self.triplets = Triplets(w)
        self.quadruplets = Quadruplets(w) if config.quadruplets else None
        self.before = nn.ModuleList(Residual(w) for _ in range(2))
        self.after = nn.ModuleList(Residual(w) for _ in range(2))
        self.atoms = AtomSum(w)
        self.concat = EdgeEmbedding(w, w)
        self.concat_residuals = nn.ModuleList([Residual(w)])

    def forward(self, h: Tensor, m: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        fused = batch.fused
        weights = [self.skip.weight, self.triplets.message.weight]
        if self.quadruplets is None or batch.quadruplets is None:
            skip, message = dense(m, *weights, fused=fused)
            heard, summands = self.triplets(message, batch), 2
        else:
            skip, message, chained = dense(m, *weights, self.quadruplets.message.weight, fused=fused)
            heard = self.triplets(message, batch) + self.quadruplets(chained, batch.quadruplets, fused)
            summands = 3
        # A sum of n equals is over √n, that of an edge and its counter edge over √2.
        x = torch.add(skip, heard, alpha=HALF) * summands**-0.5
        m = residuals(x, self.before, m, fused=fused)
        m = residuals(m, self.after, fused=fused)
        h = self.atoms(m, batch.atom_radial, h, batch)
        new = self.concat(h, self.concat.edge(m), batch.graph, fused)
        return h, residuals(new, self.concat_residuals, m, fused=fused)


class Output(nn.Module):
    """What one depth contributes: a vector per atom for its energy, one per edge for the force along it."""

    def __init__(self, width: int, direct: bool):
        super().__init__()
        self.atoms = AtomSum(width)
        self.energy = nn.ModuleList(Residual(width) for _ in range(3))
        self.force = nn.ModuleList(Residual(width) for _ in range(3)) if direct else None
        self.force_radial = matrix(BASIS, width) if direct else None
        self.force_scale = Scale() if direct else None

    def forward(self, h: Tensor, m: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The edge's vector comes without its scale: the head that reads it multiplies its weights by that."""
        a = residuals(self.atoms(m, batch.output_radial, h, batch), self.energy, fused=batch.fused)
        if self.force is None or self.force_radial is None or self.force_scale is None:
            return a, None
        f = residuals(m, self.force, fused=batch.fused)
        out = f * self.force_radial(batch.output_radial)
        if self.force_scale.fitting:
            self.force_scale.fit(f, out)
        return a, out
