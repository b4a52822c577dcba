"""GemNet-OC as published, one row for every triplet and quadruplet: what the fast formulation is checked against."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from equiscale.graph import AtomGraph, safe_norm, sum_by
from equiscale.models.base import AtomicOutput, ElementEmbedding, Potential
from equiscale.models.gemnet_oc import BASIS, DEGREES, QUADRUPLET, SPHERICAL, TRIPLET, GemNetOCConfig
from equiscale.radial import RadialBasis, envelope

ROOT = math.sqrt(0.5)


def plain(i: int, o: int) -> nn.Linear:
    return nn.Linear(i, o, bias=False)


class Dense(nn.Module):
    def __init__(self, i: int, o: int):
        super().__init__()
        self.linear = plain(i, o)

    def forward(self, x: Tensor) -> Tensor:
        return silu(self.linear(x)) / 0.6


class Residual(nn.Module):
    def __init__(self, w: int):
        super().__init__()
        self.first, self.second = Dense(w, w), Dense(w, w)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.second(self.first(x))) * ROOT


def stack(w: int, n: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(w) for _ in range(n)))


def angular(z: Tensor) -> Tensor:
    """Y_l0 of cosines, [n, 7], by explicit Legendre polynomials."""
    p = [
        torch.ones_like(z), z, (3 * z**2 - 1) / 2, (5 * z**3 - 3 * z) / 2, (35 * z**4 - 30 * z**2 + 3) / 8,
        (63 * z**5 - 70 * z**3 + 15 * z) / 8, (231 * z**6 - 315 * z**4 + 105 * z**2 - 5) / 16,
    ]  # fmt: skip
    return torch.stack([math.sqrt((2 * l + 1) / (4 * math.pi)) * p[l] for l in range(DEGREES)], dim=1)


def triplets(graph: AtomGraph) -> tuple[Tensor, Tensor]:
    """Pairs (b -> a, c -> a) of different edges with one receiver."""
    same = graph.receiver[:, None] == graph.receiver[None]
    return (same & ~torch.eye(len(same), dtype=torch.bool)).nonzero(as_tuple=True)


class AtomSum(nn.Module):
    def __init__(self, w: int):
        super().__init__()
        self.radial, self.residuals, self.scale = plain(BASIS, w), stack(w, 3), 1.0

    def forward(self, m: Tensor, radial: Tensor, graph: AtomGraph) -> Tensor:
        return self.residuals(sum_by(graph.receiver, m * self.radial(radial), len(graph.numbers)) * self.scale)


class Triplets(nn.Module):
    def __init__(self, w: int):
        super().__init__()
        self.message, self.radial, self.down = Dense(w, w), plain(BASIS, w), Dense(w, TRIPLET)
        self.bilinear = plain(BASIS * TRIPLET, TRIPLET)
        self.forth, self.back = Dense(TRIPLET, w), Dense(TRIPLET, w)
        self.scale_radial = self.scale_sum = 1.0

    def forward(self, m: Tensor, radial: Tensor, rad_w: Tensor, cos: Tensor, pairs, graph: AtomGraph) -> Tensor:
        ba, ca = pairs
        x = self.down(self.message(m) * self.radial(radial) * self.scale_radial)
        each = torch.bmm(angular(cos)[:, :, None], x[ba][:, None, :])  # (triplets, 7, 32)
        q = torch.bmm(rad_w, sum_by(ca, each, len(m)))
        y = self.bilinear(q.view(len(m), -1)) * self.scale_sum
        return (self.forth(y) + self.back(y)[graph.reverse]) * ROOT


class Quadruplets(nn.Module):
    def __init__(self, w: int):
        super().__init__()
        self.message, self.radial, self.down = Dense(w, w), plain(BASIS, w), Dense(w, QUADRUPLET)
        self.angular = plain(BASIS, QUADRUPLET)
        self.bilinear = plain(SPHERICAL * QUADRUPLET, QUADRUPLET)
        self.forth, self.back = Dense(QUADRUPLET, w), Dense(QUADRUPLET, w)
        self.scale_radial = self.scale_angular = self.scale_sum = 1.0

    def forward(self, m: Tensor, radial: Tensor, chains: Chains, graph: AtomGraph) -> Tensor:
        x = self.down(self.message(m) * self.radial(radial) * self.scale_radial)
        x = x[chains.heard] * self.angular(chains.circular) * self.scale_angular  # (triplets d -> b -> a, 32)
        each = torch.bmm(chains.both[:, :, None], x[chains.triplet][:, None, :])  # (quadruplets, 49, 32)
        q = torch.bmm(chains.rad_w, sum_by(chains.out, each, len(m)))
        y = self.bilinear(q.view(len(m), -1)) * self.scale_sum
        return (self.forth(y) + self.back(y)[graph.reverse]) * ROOT


class Chains:
    """Every d -> b -> a <- c: b among the nearest of a; neither c = b, d = a nor c = d, images told apart."""

    def __init__(self, graph: AtomGraph, config: GemNetOCConfig, rbf: Tensor, maps):
        r, s, t = graph.receiver, graph.sender, graph.vectors
        d = safe_norm(t)
        edges = torch.arange(len(r))
        middle = []
        for a in range(len(graph.numbers)):
            mine = edges[(r == a) & (d < config.middle_cutoff)]
            middle.append(mine[d[mine].argsort(stable=True)][: config.quadruplet_neighbors])
        middle = torch.cat(middle)
        # d -> b -> a: edges that arrive at b, the middle edge's sender, but its own counter edge.
        k, heard = ((s[middle][:, None] == r[None]) & (graph.reverse[middle][:, None] != edges[None])).nonzero(
            as_tuple=True
        )
        self.heard, ba = heard, middle[k]
        unit = -t / d[:, None]  # published: from sender to receiver
        smooth = envelope(config.envelope, d[middle], config.middle_cutoff)
        own = RadialBasis(config.radial, config.num_radial, config.middle_cutoff).to(d.dtype)(d[middle])
        own = own if smooth is None else own * smooth[:, None]
        rad_w = maps["middle"](own).view(-1, BASIS, DEGREES)[k]
        z = (unit[ba] * unit[heard]).sum(1).clamp(-1, 1)
        self.circular = torch.bmm(rad_w, angular(z)[:, :, None]).squeeze(2)
        # (d -> b -> a) with every c -> a, c ≠ b, whose c is not d: b -> a -> ... displacements add up to nothing.
        triplet, out = ((r[ba][:, None] == r[None]) & (ba[:, None] != edges[None])).nonzero(as_tuple=True)
        meet = (t[ba] + t[heard])[triplet] - t[out]  # from c to d, seen from a
        apart = (s[heard][triplet] != s[out]) | (meet.norm(dim=1) > 1e-6)
        self.triplet, self.out = triplet[apart], out[apart]
        v_ba, v_db, v_ca = unit[ba][self.triplet], unit[heard][self.triplet], unit[self.out]
        p, q = torch.linalg.cross(v_ca, v_ba), torch.linalg.cross(v_db, v_ba)
        theta = torch.atan2(torch.linalg.cross(p, q).norm(dim=1).clamp(min=1e-9), (p * q).sum(1))
        first, second = angular((v_ca * v_ba).sum(1).clamp(-1, 1)), angular(theta.cos())
        self.both = (first[:, :, None] * second[:, None, :]).flatten(1)
        self.rad_w = maps["spherical"](rbf).view(-1, SPHERICAL, DEGREES**2)


class Output(nn.Module):
    def __init__(self, w: int):
        super().__init__()
        self.atoms, self.energy, self.force = AtomSum(w), stack(w, 3), stack(w, 3)
        self.force_radial, self.force_scale = plain(BASIS, w), 1.0

    def forward(self, h: Tensor, m: Tensor, radial: Tensor, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        a = self.energy((self.atoms(m, radial, graph) + h) * ROOT)
        return a, self.force(m) * self.force_radial(radial) * self.force_scale


class Block(nn.Module):
    def __init__(self, config: GemNetOCConfig):
        super().__init__()
        w = config.width
        self.skip, self.triplets = Dense(w, w), Triplets(w)
        self.quadruplets = Quadruplets(w) if config.quadruplets else None
        self.before, self.after, self.atoms = stack(w, 2), stack(w, 2), AtomSum(w)
        self.concat, self.concat_residuals = Dense(3 * w, w), stack(w, 1)


class LiteralGemNetOC(Potential):
    def __init__(self, config: GemNetOCConfig):
        super().__init__()
        w, n = config.width, config.num_radial
        self.config = config
        self.embed = ElementEmbedding(config.elements, w, 83)
        self.basis = RadialBasis(config.radial, n, config.cutoff)
        self.embed_edge = Dense(2 * w + n, w)
        self.triplet_radial, self.atom_radial, self.output_radial = (plain(n, BASIS) for _ in range(3))
        self.angular = plain(n, BASIS * DEGREES)
        if config.quadruplets:
            self.quadruplet_radial, self.middle = plain(n, BASIS), plain(n, BASIS * DEGREES)
            self.spherical = plain(n, SPHERICAL * DEGREES**2)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.outputs = nn.ModuleList(Output(w) for _ in range(config.depth + 1))
        for name in ("energy", "force"):
            setattr(self, name, nn.Sequential(Dense((config.depth + 1) * w, w), stack(w, 2), plain(w, 1)))

    def input_parameters(self):
        return iter(())

    def forward(self, graph: AtomGraph) -> AtomicOutput:
        r, s = graph.receiver, graph.sender
        d = safe_norm(graph.vectors)
        unit = -graph.vectors / d[:, None]
        smooth = envelope(self.config.envelope, d, self.config.cutoff)
        rbf = self.basis(d) if smooth is None else self.basis(d) * smooth[:, None]
        heard, atom, output = self.triplet_radial(rbf), self.atom_radial(rbf), self.output_radial(rbf)
        rad_w = self.angular(rbf).view(-1, BASIS, DEGREES)
        pairs = triplets(graph)
        cos = (unit[pairs[0]] * unit[pairs[1]]).sum(1).clamp(-1, 1)
        if self.config.quadruplets:
            chains = Chains(graph, self.config, rbf, {"middle": self.middle, "spherical": self.spherical})
            quad = self.quadruplet_radial(rbf)
        h = self.embed(graph.numbers)
        m = self.embed_edge(torch.cat([h[s], h[r], rbf], dim=1))
        found = [self.outputs[0](h, m, output, graph)]
        for block, out in zip(self.blocks, self.outputs[1:]):
            x = block.skip(m) + block.triplets(m, heard, rad_w, cos, pairs, graph)
            if block.quadruplets is None:
                x = x * ROOT
            else:
                x = (x + block.quadruplets(m, quad, chains, graph)) / math.sqrt(3)
            m = (m + block.before(x)) * ROOT
            m = block.after(m)
            h = (h + block.atoms(m, atom, graph)) * ROOT
            new = block.concat(torch.cat([h[s], h[r], m], dim=1))
            m = (m + block.concat_residuals(new)) * ROOT
            found.append(out(h, m, output, graph))
        energy = self.energy(torch.cat([a for a, _ in found], dim=1)).squeeze(1)
        along = self.force(torch.cat([f for _, f in found], dim=1))
        return AtomicOutput(energy, sum_by(r, along * unit, len(h)))

    def load(self, fast: nn.Module) -> LiteralGemNetOC:
        """Take the weights and scale factors of the fast formulation, putting split matrices together again."""
        theirs = {**dict(fast.named_parameters()), **dict(fast.named_buffers())}
        own = dict(self.named_parameters())
        with torch.no_grad():
            for name, p in own.items():
                p.copy_(self.of(name, theirs))
        for name, module in self.named_modules():
            for scale in [k for k in vars(module) if f"{name}.{k}.factor" in theirs]:
                setattr(module, scale, theirs[f"{name}.{scale}.factor"])
        return self

    @staticmethod
    def of(name: str, theirs: dict[str, Tensor]) -> Tensor:
        """The parameter (or gradient) called ``name`` here, out of the fast formulation's."""
        name = name.replace(".linear.", ".")
        for whole in ("embed_edge", "concat"):
            if name.endswith(f"{whole}.weight"):
                parts = [name.replace(".weight", f".{part}.weight") for part in ("sender", "receiver", "edge")]
                return torch.cat([theirs[p] for p in parts], dim=1)
        shared = {"quadruplet_radial": "heard", "middle": "middle", "spherical": "spherical"}
        if (first := name.split(".")[0]) in shared:
            return theirs[f"quadruplets.{shared[first]}.weight"]
        for head in ("energy", "force"):
            for here, there in (("0.weight", "join.weight"), ("2.weight", "out.weight")):
                if name == f"{head}.{here}":
                    return theirs[f"{head}.{there}"]
            if name.startswith(f"{head}.1."):
                return theirs[name.replace(".1.", ".residuals.", 1)]
        return theirs[name]
