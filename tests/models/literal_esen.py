"""eSEN as published, edge by edge and dense: what the fast formulation is checked against."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from equiscale.graph import AtomGraph, safe_norm, sum_by
from equiscale.models import ESENConfig
from equiscale.models.base import AtomicOutput, ElementEmbedding, Potential
from equiscale.models.esen.grid import grid
from equiscale.radial import RadialBasis, envelope
from equiscale.so3 import degree_slice, edge_frames, num_components, wigner_d

RADIAL = {"0": "distance", "1": "norms.0", "3": "hidden", "4": "norms.1", "6": "out"}
RENAMED = {
    "norm_1.": "norms.0.",
    "norm_2.": "norms.1.",
    "conv_1.": "first.",
    "conv_2.": "second.",
    "fc_m0.": "zero.",
    ".fc.": ".orders.",
    "grid.0.": "grid.into.",
    "grid.2.": "grid.hidden.",
    "grid.4.": "grid.out.",
}
"""Names of ours and of the fast formulation."""


def reduced(lmax: int, mmax: int) -> Tensor:
    """(l, m) of the components that the edge frame keeps, |m| ≤ mmax, degree by degree: (rows, 2)."""
    return torch.tensor([(l, m) for l in range(lmax + 1) for m in range(-min(l, mmax), min(l, mmax) + 1)])


def order_major(lmax: int, mmax: int) -> Tensor:
    """The permutation matrix from degree by degree to order by order: m = 0, +1, -1, +2, -2, ..."""
    lm = reduced(lmax, mmax).tolist()
    orders = [0] + [sign * m for m in range(1, mmax + 1) for sign in (1, -1)]
    there = [[l, m] for m in orders for l in range(abs(m), lmax + 1)]
    return torch.tensor([[float(a == b) for b in lm] for a in there])


def radial_mlp(inputs: int, width: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.LayerNorm(width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.LayerNorm(width),
        nn.SiLU(),
        nn.Linear(width, out),
    )


class Norm(nn.Module):
    def __init__(self, lmax: int, width: int):
        super().__init__()
        self.lmax, self.weight, self.bias = (
            lmax,
            nn.Parameter(torch.ones(lmax + 1, width)),
            nn.Parameter(torch.zeros(width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, degree_slice(l)] for l in range(self.lmax + 1)]
        parts[0] = parts[0] - parts[0].mean(2, keepdim=True)
        mean = sum(p.square().mean(2).sum(1) / p.shape[1] for p in parts) / len(parts)
        parts = [p / (mean + 1e-5).sqrt()[:, None, None] * w for p, w in zip(parts, self.weight)]
        return torch.cat([parts[0] + self.bias, *parts[1:]], dim=1)


class Convolution(nn.Module):
    """(edges, rows, channels) degree by degree, in and out; the radial weights and the extra scalars are optional."""

    def __init__(self, config: ESENConfig, into: int, out: int, extra: int = 0):
        super().__init__()
        self.config, self.out, self.extra = config, out, extra
        first, *orders = config.orders
        self.fc_m0 = nn.Linear(first * into, extra + first * out)
        self.fc = nn.ModuleList(nn.Linear(k * into, 2 * k * out, bias=False) for k in orders)

    def forward(self, x: Tensor, rho: Tensor | None, to_m: Tensor) -> tuple[Tensor, Tensor]:
        edges, cin = len(x), x.shape[2]
        x = torch.einsum("nm,emc->enc", to_m, x)
        scale = None if rho is None else rho.split([k * cin for k in self.config.orders], dim=1)
        zero, *rest = x.split([self.config.orders[0], *(2 * k for k in self.config.orders[1:])], dim=1)
        zero = zero.reshape(edges, -1) if scale is None else zero.reshape(edges, -1) * scale[0]
        extra, zero = self.fc_m0(zero).split([self.extra, self.config.orders[0] * self.out], dim=1)
        found = [zero.view(edges, -1, self.out)]
        for m, (fc, both) in enumerate(zip(self.fc, rest), start=1):
            plus, minus = (side.reshape(edges, -1) for side in both.chunk(2, dim=1))
            if scale is not None:
                plus, minus = plus * scale[m], minus * scale[m]
            one, two = fc.weight.chunk(2, dim=0)
            plus, minus = plus @ one.mT - minus @ two.mT, plus @ two.mT + minus @ one.mT
            found += [plus.view(edges, -1, self.out), minus.view(edges, -1, self.out)]
        return torch.einsum("nm,enc->emc", to_m, torch.cat(found, dim=1)), extra


class Layer(nn.Module):
    def __init__(self, config: ESENConfig, inputs: int):
        super().__init__()
        c, h = config.width, config.hidden
        self.norm_1, self.norm_2 = Norm(config.lmax, c), Norm(config.lmax, c)
        self.radial = radial_mlp(inputs, c, 2 * c * sum(config.orders))
        self.conv_1 = Convolution(config, 2 * c, h, extra=config.lmax * h)
        self.conv_2 = Convolution(config, h, c)
        self.grid = nn.Sequential(
            nn.Linear(c, h, bias=False), nn.SiLU(), nn.Linear(h, h, bias=False), nn.SiLU(), nn.Linear(h, c, bias=False)
        )


class LiteralESEN(Potential):
    def __init__(self, config: ESENConfig, roll: int = 0):
        super().__init__()
        c = config.width
        self.config, self.roll = config, roll
        self.embed, self.source, self.target = (ElementEmbedding(config.elements, c) for _ in range(3))
        self.basis = RadialBasis(config.radial, config.num_radial, config.cutoff, spread=2.0)
        inputs = config.num_radial + 2 * c + (3 if config.absolute_directions else 0)
        self.degree = radial_mlp(inputs, c, (config.lmax + 1) * c)
        self.layers = nn.ModuleList(Layer(config, inputs) for _ in range(config.depth))
        self.norm = Norm(config.lmax, c)
        self.energy, self.force, self.unread = nn.Linear(c, 1), nn.Linear(c, 1, bias=False), nn.Linear(c, 1)

    def input_parameters(self):
        return iter(())

    def rotations(self, graph: AtomGraph) -> Tensor:
        """Rows |m| ≤ mmax of every edge's dense Wigner matrix, the roll about the edge drawn anew."""
        lmax, frames = self.config.lmax, edge_frames(graph.vectors)
        generator = torch.Generator().manual_seed(self.roll)
        a = 2 * math.pi * torch.rand(len(frames), dtype=frames.dtype, generator=generator)
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        turn = torch.stack([a.cos(), -a.sin(), zero, a.sin(), a.cos(), zero, zero, zero, one], dim=1)
        frames = turn.view(-1, 3, 3) @ frames
        full = frames.new_zeros(len(frames), num_components(lmax), num_components(lmax))
        for l in range(lmax + 1):
            full[:, degree_slice(l), degree_slice(l)] = wigner_d(frames, l)
        l, m = reduced(lmax, self.config.mmax).unbind(1)
        return full[:, l * l + l + m]

    def forward(self, graph: AtomGraph) -> AtomicOutput:
        config, c, h = self.config, self.config.width, self.config.hidden
        s, r, atoms = graph.sender, graph.receiver, len(graph.numbers)
        d = safe_norm(graph.vectors)
        parts = [self.basis(d), self.source(graph.numbers)[s], self.target(graph.numbers)[r]]
        if config.absolute_directions:
            parts.append(graph.vectors / d[:, None])
        edge = torch.cat(parts, dim=1)
        wigner = self.rotations(graph)
        smooth = envelope(config.envelope, d, config.cutoff)
        smooth = torch.ones_like(d)[:, None, None] if smooth is None else smooth[:, None, None]
        lm, to_m = reduced(config.lmax, config.mmax), order_major(config.lmax, config.mmax).to(d)
        values, back = grid(config.lmax, *config.points, d.dtype, d.device)

        scalars = self.embed(graph.numbers)[:, None]
        x = torch.cat([scalars, scalars.new_zeros(atoms, num_components(config.lmax) - 1, c)], dim=1)
        q = self.degree(edge).view(-1, config.lmax + 1, c)
        q = torch.cat([q, q.new_zeros(len(q), len(lm) - config.lmax - 1, c)], dim=1)
        q = torch.einsum("nm,enc->emc", to_m, q)
        x = x + sum_by(r, torch.bmm(wigner.mT, q) * smooth, atoms) / 5.0
        for layer in self.layers:
            z = layer.norm_1(x)
            z = torch.bmm(wigner, torch.cat([z[s], z[r]], dim=2))
            y, gates = layer.conv_1(z, layer.radial(edge), to_m)
            gates = gates.sigmoid().view(-1, config.lmax, h)
            y = torch.cat([silu(y[:, :1]), y[:, 1:] * gates[:, lm[1:, 0] - 1]], dim=1)
            y, _ = layer.conv_2(y, None, to_m)
            x = x + sum_by(r, torch.bmm(wigner.mT, y) * smooth, atoms)
            points = layer.grid(torch.einsum("pi,nic->npc", values, layer.norm_2(x)))
            x = x + torch.einsum("ip,npc->nic", back, points)
        x = self.norm(x)
        energy, force = self.energy(x[:, 0]).squeeze(1), self.force(x[:, [3, 1, 2]]).squeeze(2)
        return AtomicOutput(energy, None if config.forces == "conservative" else force)

    def load(self, fast: nn.Module) -> LiteralESEN:
        """Take the weights of the fast formulation, putting split matrices together again."""
        theirs = dict(fast.named_parameters())
        with torch.no_grad():
            for name, p in self.named_parameters():
                if self.config.forces == "direct" or name.split(".")[0] not in ("force", "unread"):
                    p.copy_(self.of(name, theirs))
        return self

    def of(self, name: str, theirs: dict[str, Tensor]) -> Tensor:
        """The parameter (or gradient) called ``name`` here, out of the fast formulation's."""
        c, orders = self.config.width, self.config.orders

        def sides(k: int, columns: Tensor) -> Tensor:
            """Columns (side, degree, channel) there, (degree, side, channel) here."""
            return columns.unflatten(1, (2, k, c)).transpose(1, 2).flatten(1)

        if name.startswith(("source.", "target.")):
            there = "sender" if name.startswith("source.") else "receiver"
            return theirs[f"radial.{there}.table.weight"]
        if name.startswith("degree.") or ".radial." in name:
            at, kind = name.split(".")[-2:]
            net = "radial.nets.0" if name.startswith("degree.") else f"radial.nets.{int(name.split('.')[1]) + 1}"
            if at == "0" and kind == "weight":
                parts = ["distance", "sender", "receiver"] + ["direction"] * self.config.absolute_directions
                return torch.cat([theirs[f"{net}.{part}.weight"] for part in parts], dim=1)
            made = theirs[f"{net}.{RADIAL[at]}.{kind}"]
            if at != "6" or net.endswith(".0"):
                return made
            blocks = made.reshape(len(made), -1).mT.split([2 * k * c for k in orders], dim=1)
            return torch.cat([sides(k, b) for k, b in zip(orders, blocks)], dim=1).mT.reshape(made.shape)
        for here, there in RENAMED.items():
            name = name.replace(here, there)
        made = theirs[name]
        if ".first.zero.weight" in name:
            return sides(orders[0], made)
        if ".first.orders." in name:
            return sides(orders[int(name.split(".")[-2]) + 1], made)
        return made.view(-1, c) if "norm" in name and name.endswith("weight") else made
