"""EScAIP (version 1) in a faster, mathematically equal formulation; a literal version stands in the tests.

* Linear maps of [edge | sender | receiver] are split: the atoms' parts are computed per atom and gathered.
* Features of edges are [edges, w] without padding; only attention is padded to one block of slots per atom.
* The 600 Gaussians are multiplied where they differ from zero (``distance``).
* A norm before a linear map only scales rows, and is applied to the map's output; the readouts are never concatenated.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from equiscale.graph import AtomGraph, safe_norm, sum_by
from equiscale.models.base import AtomicOutput, ChargeSpinEmbedding, ElementEmbedding, Potential
from equiscale.models.escaip import LMAX, EScAIPConfig
from equiscale.models.escaip.distance import Distances
from equiscale.radial import RadialBasis, envelope
from equiscale.so3 import degree_slice, spherical_harmonics

EPS = 1e-6  # of the norms
ROUND = 1e-3  # q_l is √(|q̄_l|² + ROUND²): twice differentiable where a neighbourhood's order vanishes by symmetry
HIDDEN = -1e4  # added to the score of a slot that holds no edge: its weight is exactly zero


class RowSquare(torch.autograd.Function):
    """Σ_c x_c² of every row in one pass each way: a third of what torch's norms cost on a CPU; differentiable twice."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return torch.linalg.vector_norm(x, dim=1).square()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return x * (2 * grad)[:, None]

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return 2 * (x * tangent).sum(1)


class Norm(nn.Module):
    """RMSNorm: x g / √(mean x² + ε), with one learned g per channel."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
        return x * self.scale(x) * self.weight

    def into(self, map_: nn.Linear, x: Float[Tensor, "n w"]) -> Float[Tensor, "n out"]:
        """``map_(self(x))``, with g multiplied into the matrix and not into every row."""
        return linear(x * self.scale(x), map_.weight * self.weight, map_.bias)

    def scale(self, *parts: Float[Tensor, "n _"]) -> Float[Tensor, "n 1"]:
        """1 / √(mean x² + ε) of rows that are given in parts."""
        square = sum(RowSquare.apply(x) for x in parts)
        return (square / len(self.weight) + EPS).rsqrt()[:, None]


class FeedForward(nn.Module):
    """x -> W₂ gelu(W₁ x); ``times`` the width in between. A ``norm`` acts on x first."""

    def __init__(self, width: int, times: int = 2):
        super().__init__()
        self.lin1 = nn.Linear(width, times * width)
        self.lin2 = nn.Linear(times * width, width)

    def forward(self, x: Float[Tensor, "n w"], norm: Norm | None = None) -> Float[Tensor, "n w"]:
        return self.lin2(gelu(self.lin1(x) if norm is None else norm.into(self.lin1, x)))


class Normed(nn.Module):
    """x + FFN(RMSNorm(x)): a residual feed-forward layer of atoms or of edges."""

    def __init__(self, width: int, times: int = 2):
        super().__init__()
        self.norm = Norm(width)
        self.ffn = FeedForward(width, times)

    def forward(self, x: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
        return x + self.ffn(x, self.norm)


class End(nn.Module):
    """What the atom at one end of an edge adds to the edge's attributes: W [gelu(W_b q) | element]."""

    def __init__(self, config: EScAIPConfig):
        super().__init__()
        _, b, a = config.pieces
        self.order = nn.Linear(LMAX + 1, b)
        self.element = ElementEmbedding(config.elements, a)
        self.out = nn.Linear(b + a, config.width, bias=False)

    def forward(self, order: Float[Tensor, "atoms l"], graph: AtomGraph) -> Float[Tensor, "atoms w"]:
        return self.out(torch.cat([gelu(self.order(order)), self.element(graph.numbers)], dim=1))


class Attributes(nn.Module):
    """gelu(W [gelu(W_d rbf(d)) | sender | receiver] + b) of every edge; each layer has its own."""

    def __init__(self, config: EScAIPConfig):
        super().__init__()
        self.distance = nn.Linear(config.num_radial, config.pieces[0])
        self.out = nn.Linear(config.pieces[0], config.width)
        self.sender, self.receiver = End(config), End(config)

    def forward(self, distances: Distances, order, graph: AtomGraph) -> Float[Tensor, "edges w"]:
        # In place: a sum's gradient needs none of its terms.
        a = distances.to_edges(self.out(gelu(distances.map(self.distance))))
        a.add_(self.sender(order, graph).index_select(0, graph.sender))
        return gelu(a.add_(self.receiver(order, graph).index_select(0, graph.receiver)))


class Neighbourhoods:
    """What all layers share: unit vectors, how to sum over neighbours, and the padded bias of attention."""

    def __init__(self, config: EScAIPConfig, graph: AtomGraph):
        r = graph.vectors
        self.d = safe_norm(r)
        self.unit = r / torch.where(self.d > 0, self.d, 1.0)[:, None]  # zero where two atoms coincide
        smooth = envelope(config.envelope, self.d, config.cutoff)
        # Rounding makes it slightly negative at the cutoff.
        self.smooth = None if smooth is None else smooth.clamp(min=0.0)[:, None]
        mean = config.aggregation == "mean"
        self.per_edge = graph.degree.clamp(min=1).to(r.dtype).reciprocal()[:, None] if mean else None
        self.graph = graph
        unit = graph.pad(self.unit)
        self.cosine = (unit @ unit.mT)[:, None]  # (atoms, 1, slots, slots)
        # An envelope multiplies a key's weight: its logarithm is added to the score.
        open_ = torch.zeros_like(self.d) if self.smooth is None else self.smooth.clamp(min=1e-12).log()[:, 0]
        self.bias = graph.pad(open_[:, None] - HIDDEN)[:, None, :, :].mT + HIDDEN  # (atoms, 1, 1, slots)

    def gather(self, x: Float[Tensor, "edges d"]) -> Float[Tensor, "atoms d"]:
        """Mean (or sum) over the edges that arrive at an atom, each times its envelope; zero without any."""
        x = x if self.smooth is None else x * self.smooth
        total = sum_by(self.graph.receiver, x, len(self.graph.numbers))
        return total if self.per_edge is None else total * self.per_edge

    def order(self) -> Float[Tensor, "atoms l"]:
        """Bond-orientational order: q_l = |mean over neighbours of Y_l(e)|, in 'component' normalisation."""
        square = self.gather(spherical_harmonics(self.unit, LMAX)).square()
        q = torch.stack([square[:, degree_slice(l)].sum(1) for l in range(LMAX + 1)], dim=1)
        return (q + ROUND**2).sqrt()


class Layer(nn.Module):
    """Attention among the edges that arrive at an atom, then one feed-forward layer for atoms and one for edges."""

    def __init__(self, config: EScAIPConfig):
        super().__init__()
        w = config.width
        self.heads = config.heads
        self.attributes = Attributes(config)
        self.norm = Norm(w)
        self.ends = nn.Linear(w, 2 * w, bias=False)  # rows: sender's part, receiver's part
        self.ends_bias = nn.Parameter(torch.zeros(w))
        self.message = nn.Linear(2 * w, w)
        self.qkv = nn.Linear(w, 3 * w)
        self.out = nn.Linear(w, w)
        self.angle = nn.Parameter(torch.ones(self.heads))
        self.node_ffn = Normed(w)
        self.edge_ffn = Normed(w) if config.forces == "direct" else None

    def forward(self, node, edge, distances: Distances, order, near: Neighbourhoods):
        """node (atoms, w), edge (edges, w) or None where forces are a gradient: nothing then reads edges again."""
        graph = near.graph
        at_sender, at_receiver = self.norm.into(self.ends, node).chunk(2, dim=1)
        both = at_sender.index_select(0, graph.sender)
        both.add_((at_receiver + self.ends_bias).index_select(0, graph.receiver))
        attributes = self.attributes(distances, order, graph)
        of_attributes, of_both = self.message.weight.chunk(2, dim=1)  # no concatenated copy of the edges' features
        message = torch.addmm(linear(attributes, of_attributes, self.message.bias), gelu(both), of_both.mT)
        mixed = self.out(self.attend(gelu(message), near))
        node = self.node_ffn(node + near.gather(mixed))
        return node, None if self.edge_ffn is None else self.edge_ffn(edge + mixed)

    def attend(self, message: Float[Tensor, "edges w"], near: Neighbourhoods) -> Float[Tensor, "edges w"]:
        """softmax(qkᵀ/√d + s cos ∠ + bias) v over the slots of each atom; s is one learned number per head."""
        graph, w = near.graph, message.shape[1]
        atoms, slots = len(graph.numbers), graph.max_degree
        qkv = graph.pad(self.qkv(message)).view(atoms, slots, 3, self.heads, w // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        # Written out: the fused attention of torch has no second derivative.
        score = (q @ k.mT) / sqrt(w // self.heads) + near.cosine * self.angle[:, None, None] + near.bias
        mixed = (score.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(atoms * slots, w)
        return mixed.index_select(0, graph.place)


class Projection(nn.Module):
    """RMSNorm(gelu(W RMSNorm([x₀ | ... | x_L]) + b)): the readouts of all layers as one feature."""

    def __init__(self, config: EScAIPConfig):
        super().__init__()
        w, n = config.width, config.depth + 1
        self.norm_in = Norm(n * w)
        self.lin = nn.Linear(n * w, w)
        self.norm_out = Norm(w)

    def forward(self, readouts: list[Tensor]) -> Float[Tensor, "n w"]:
        # The norm only scales rows: it may follow the matrix, and so the readouts need not lie side by side.
        matrix = (self.lin.weight * self.norm_in.weight).chunk(len(readouts), dim=1)
        total = linear(readouts[0], matrix[0])
        for x, part in zip(readouts[1:], matrix[1:]):
            total = torch.addmm(total, x, part.mT)
        return self.norm_out(gelu(total * self.norm_in.scale(*readouts) + self.lin.bias))


class Head(nn.Module):
    """x + FFN(x): the features that a head's last, linear map without bias reads."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.ffn = FeedForward(width)
        self.out = nn.Linear(width, out, bias=False)

    def features(self, x: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
        return x + self.ffn(x)

    def forward(self, x: Float[Tensor, "n w"]) -> Float[Tensor, "n out"]:
        return self.out(self.features(x))


class EScAIP(Potential):
    def __init__(self, config: EScAIPConfig):
        super().__init__()
        w, n, direct = config.width, config.depth, config.forces == "direct"
        self.config = config
        self.basis = RadialBasis("gaussian", config.num_radial, config.cutoff, spread=2.0)
        self.state = ChargeSpinEmbedding(w) if config.charge_spin else None
        self.attributes = Attributes(config)
        self.input = Normed(w, times=1)
        self.node_norm = Norm(w)
        self.layers = nn.ModuleList(Layer(config) for _ in range(n))
        self.node_readouts = nn.ModuleList(Normed(w) for _ in range(n + 1))
        self.node_projection = Projection(config)
        self.energy = Head(w, 1)
        self.edge_norm = Norm(w) if direct else None
        self.edge_readouts = nn.ModuleList(Normed(w) for _ in range((n + 1) * direct))
        self.edge_projection = Projection(config) if direct else None
        self.magnitude = Head(w, 1) if direct else None
        self.direction = Head(w, 3 if config.force_head == "free" else 1) if direct else None

    def input_parameters(self) -> Iterator[nn.Parameter]:
        if self.state is not None:
            yield from self.state.parameters()
        for name, p in self.named_parameters():
            if ".element." in name or ".distance." in name:
                yield p

    def _readouts(self, graph: AtomGraph):
        """Final features of atoms (atoms, w) and of edges (edges, w; None where forces are a gradient)."""
        near = Neighbourhoods(self.config, graph)
        distances, order = Distances(near.d, self.basis), near.order()
        edge = self.input(self.attributes(distances, order, graph))
        node = near.gather(edge)
        node = node if self.state is None else node + self.state(graph)
        node = self.node_norm(node)
        edge = None if self.edge_norm is None else self.edge_norm(edge)
        nodes, edges = [self.node_readouts[0](node)], []
        if edge is not None:
            edges.append(self.edge_readouts[0](edge))
        for i, layer in enumerate(self.layers, 1):
            node, edge = layer(node, edge, distances, order, near)
            nodes.append(self.node_readouts[i](node))
            if edge is not None:
                edges.append(self.edge_readouts[i](edge))
        return near, self.node_projection(nodes), None if self.edge_projection is None else self.edge_projection(edges)

    def _features(self, near: Neighbourhoods, node: Tensor, edge: Tensor) -> Float[Tensor, "edges w"]:
        assert self.direction is not None
        assert self.magnitude is not None
        h = self.direction.features(edge) * self.magnitude(node).index_select(0, near.graph.receiver)
        return h if near.smooth is None else h * near.smooth

    def head_features(self, graph: AtomGraph) -> tuple[Float[Tensor, "edges 3"], Float[Tensor, "edges w"]]:
        """Unit vectors e, from receiver to sender, and invariant features h, scaled by the receiver's magnitude m.

        The force on i is Σ_e e ⊙ W h(e) with W = ``direction.out.weight``. With S_i = Σ_e e ⊗ h(e) and d_k = w_k - w̄
        the loss from broken symmetry is, per component, L_equiv = (1/9) Σ_k d_kᵀ G d_k, G = mean_i S_iᵀ S_i.
        """
        near, node, edge = self._readouts(graph)
        return near.unit, self._features(near, node, edge)

    def head_deviation(self) -> Float[Tensor, ""] | None:
        """Σ_k ‖w_k - w̄‖² over the rows of a free head's W: zero if and only if the forces are equivariant."""
        if self.direction is None or self.config.force_head != "free":
            return None
        weight = self.direction.out.weight.detach()
        return (weight - weight.mean(0)).square().sum()

    def forward(self, graph: AtomGraph) -> AtomicOutput:
        near, node, edge = self._readouts(graph)
        energy = self.energy(node).squeeze(-1)
        if self.direction is None or edge is None:
            return AtomicOutput(energy)
        v = self.direction.out(self._features(near, node, edge))  # (edges, 3), or one column for all three
        return AtomicOutput(energy, sum_by(graph.receiver, near.unit * v, len(graph.numbers)))
