"""eSEN in a faster, mathematically equal formulation (a literal version stands in the tests).

* Wigner matrices: only the rows |m| ≤ mmax, once per batch, by recurrence; reordering and envelope are part of them.
* Rotations in and out of the edge frame are products per atom (`convolution.Frames`), the sum over neighbours included.
* All layers' radial networks share one first product with the radial basis; their element parts are tables.
* ±m of an order are one product; sender and receiver are never concatenated before they are scaled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, silu

from equiscale.graph import AtomGraph, safe_norm
from equiscale.models.base import AtomicOutput, ChargeSpinEmbedding, ElementEmbedding, Potential
from equiscale.models.esen import ESENConfig
from equiscale.models.esen.convolution import Convolution, Frames
from equiscale.models.esen.grid import GridNetwork
from equiscale.models.esen.messages import Shape, Workspace, messages
from equiscale.radial import RadialBasis, envelope

DEGREE = 5.0
"""The edge-degree embedding is divided by this, the published stand-in for a number of neighbours."""


class Radial(nn.Module):
    """Weights of one radial network [num_radial + 2C, C, C, out], the first layer in parts; run by `RadialNetworks`."""

    def __init__(self, config: ESENConfig, out: int):
        super().__init__()
        c, nb = config.width, config.num_radial
        self.distance = nn.Linear(nb, c)
        self.sender, self.receiver = nn.Linear(c, c, bias=False), nn.Linear(c, c, bias=False)
        self.direction = nn.Linear(3, c, bias=False) if config.absolute_directions else None
        self.norms = nn.ModuleList(nn.LayerNorm(c) for _ in range(2))
        self.hidden, self.out = nn.Linear(c, c), nn.Linear(c, out)
        bound = 1 / math.sqrt(nb + 2 * c)  # of the one layer that the parts are
        with torch.no_grad():
            for part in (self.distance.weight, self.distance.bias, self.sender.weight, self.receiver.weight):
                part.uniform_(-bound, bound)


class RadialNetworks(nn.Module):
    """The radial networks of the embedding and of every layer: hidden layers of all of them at once.

    Their inputs, distances and elements, do not change from layer to layer.
    """

    def __init__(self, config: ESENConfig):
        super().__init__()
        c = config.width
        self.sender, self.receiver = (ElementEmbedding(config.elements, c) for _ in range(2))
        for table in (self.sender, self.receiver):
            nn.init.uniform_(table.table.weight, -1e-3, 1e-3)
        outs = [(config.lmax + 1) * c] + config.depth * [2 * c * sum(config.orders)]
        self.nets = nn.ModuleList(Radial(config, out) for out in outs)
        self.width = c

    def forward(self, rbf: Tensor, directions: Tensor | None, graph: AtomGraph) -> Tensor:
        """The last hidden layer of every network, and a 1: (networks, edges, C + 1)."""
        nets: list[Radial] = list(self.nets)  # type: ignore[arg-type]
        edges, count = len(rbf), len(nets)
        bias = torch.cat([n.distance.bias for n in nets])
        x = linear(rbf, torch.cat([n.distance.weight for n in nets]), bias)  # (edges, networks · C)
        for table, index, parts in (
            (self.sender, graph.sender, [n.sender.weight for n in nets]),
            (self.receiver, graph.receiver, [n.receiver.weight for n in nets]),
        ):
            at_atom = linear(table(graph.numbers), torch.cat(parts))
            x = x + at_atom.index_select(0, index)
        if directions is not None:
            x = x + linear(directions, torch.cat([n.direction.weight for n in nets if n.direction is not None]))
        x = x.view(edges, count, self.width).transpose(0, 1)
        x = self._norm(x, [n.norms[0] for n in nets])
        weight = torch.stack([n.hidden.weight for n in nets])
        x = torch.baddbmm(torch.stack([n.hidden.bias for n in nets])[:, None], x, weight.mT)
        x = self._norm(x, [n.norms[1] for n in nets])
        return torch.cat([x, x.new_ones(count, edges, 1)], dim=2)

    def last(self, i: int) -> Tensor:
        """The last layer of network ``i``, its bias as a last column."""
        net: Radial = self.nets[i]  # type: ignore[assignment]
        return torch.cat([net.out.weight, net.out.bias[:, None]], dim=1)

    def _norm(self, x: Tensor, norms: list) -> Tensor:
        x = layer_norm(x, (self.width,))
        x = x * torch.stack([n.weight for n in norms])[:, None] + torch.stack([n.bias for n in norms])[:, None]
        return silu(x)


class DegreeNorm(nn.Module):
    """RMS over all components, every degree weighing the same, after centring l = 0: (lmax + 2) C parameters."""

    def __init__(self, config: ESENConfig, eps: float = 1e-5):
        super().__init__()
        self.eps, self.width, self.degrees = eps, config.width, config.lmax + 1
        self.weight = nn.Parameter(torch.ones(self.degrees * config.width))
        self.bias = nn.Parameter(torch.zeros(config.width))

    def forward(self, x: Tensor) -> Tensor:
        degree, balance = _degrees(self.degrees, x.dtype, x.device)
        x = torch.cat([x[:, :1] - x[:, :1].mean(2, keepdim=True), x[:, 1:]], dim=1)
        square = x.square().mean(2) @ balance
        x = x * (square + self.eps).rsqrt()[:, None, None] * self.weight.view(-1, self.width).index_select(0, degree)
        return torch.cat([x[:, :1] + self.bias, x[:, 1:]], dim=1)


@functools.cache
def _degrees(degrees: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The degree l of every component, and 1 / ((2l + 1) · degrees)."""
    degree = torch.tensor([l for l in range(degrees) for _ in range(2 * l + 1)])
    return degree.to(device), (1 / ((2 * degree.double() + 1) * degrees)).to(device, dtype)


class Layer(nn.Module):
    """x <- x + edgewise(norm(x)); x <- x + network on the grid(norm(x)); x is (atoms, components, C)."""

    def __init__(self, config: ESENConfig):
        super().__init__()
        self.norms = nn.ModuleList(DegreeNorm(config) for _ in range(2))
        self.first = Convolution(config, 2 * config.width, config.hidden, extra=config.lmax * config.hidden)
        self.second = Convolution(config, config.hidden, config.width)
        self.grid = GridNetwork(config)
        self.shape = Shape(config.lmax, config.orders, config.width, config.hidden)

    def forward(self, x: Tensor, frames: Frames, hidden: Tensor, radial: Tensor, space: Workspace | None) -> Tensor:
        turned = frames.turn(self.norms[0](x))
        first, second = self.first.matrices(frames.signs), self.second.matrices()
        made = messages(self.shape, turned, frames.places, frames.empty, hidden, radial, first, second, space)
        x = x + frames.turn_back(made, x.shape[2])
        return x + self.grid(self.norms[1](x))


class ESEN(Potential):
    def __init__(self, config: ESENConfig):
        super().__init__()
        c = config.width
        self.config = config
        self.embed = ElementEmbedding(config.elements, c)
        self.state = ChargeSpinEmbedding(c) if config.charge_spin else None
        self.basis = RadialBasis(config.radial, config.num_radial, config.cutoff, spread=2.0)
        self.radial = RadialNetworks(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = DegreeNorm(config)
        self.energy = nn.Linear(c, 1)
        direct = config.forces == "direct"
        self.force = nn.Linear(c, 1, bias=False) if direct else None
        # The published head maps l = 0 too, with a bias, and never reads it: kept, so that N is the published one.
        self.unread = nn.Linear(c, 1) if direct else None

    def input_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.embed.parameters()
        if self.state is not None:
            yield from self.state.parameters()
        for name, p in self.radial.named_parameters():
            if ".table." in f".{name}" or ".distance." in name or ".direction." in name:
                yield p

    def forward(self, graph: AtomGraph) -> AtomicOutput:
        config, atoms, c = self.config, len(graph.numbers), self.config.width
        r = graph.vectors
        d = safe_norm(r)
        smooth = envelope(config.envelope, d, config.cutoff)
        frames = Frames.of(graph, r, None if smooth is None else smooth[:, None], config)
        directions = None
        if config.absolute_directions:
            directions = r / d.clamp(min=1e-12)[:, None]
        hidden = self.radial(self.basis(d), directions, graph)
        scalars = self.embed(graph.numbers)
        scalars = scalars if self.state is None else scalars + self.state(graph)
        # The edge-degree embedding has order 0 only: the first rows.
        made = hidden[0] @ self.radial.last(0).mT
        rows = frames.back.shape[1] // max(frames.slots, 1)
        slots = made.new_zeros(atoms * frames.slots, rows * c)
        slots = slots.index_copy(0, graph.place, torch.nn.functional.pad(made, (0, rows * c - made.shape[1])))
        x = frames.turn_back(slots, c) / DEGREE
        x = torch.cat([x[:, :1] + scalars[:, None], x[:, 1:]], dim=1)
        # What is differentiated twice, in mixed precision, or has no edges, takes autograd's own way.
        plain = r.requires_grad or torch.is_autocast_enabled(r.device.type) or not len(r)
        space = None if plain else Workspace(self.layers[0].shape, len(r), hidden)  # type: ignore[arg-type]
        for i, layer in enumerate(self.layers, start=1):
            x = layer(x, frames, hidden[i], self.radial.last(i), space)
        x = self.norm(x)
        energy = self.energy(x[:, 0]).squeeze(-1)
        if self.force is None:
            return AtomicOutput(energy)
        # Degree 1 is (y, z, x).
        return AtomicOutput(energy, self.force(x[:, [3, 1, 2]]).view(atoms, 3))
