"""EScAIP term by term and slow: every linear map on its whole concatenated input, one atom's attention at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from equiscale.graph import AtomGraph, safe_norm, sum_by
from equiscale.models.base import AtomicOutput, ElementEmbedding
from equiscale.models.escaip import LMAX, EScAIPConfig
from equiscale.models.escaip.potential import EPS, ROUND, EScAIP
from equiscale.radial import RadialBasis, envelope
from equiscale.so3 import degree_slice, spherical_harmonics


def dense(out: int, into: int, **options) -> nn.Linear:
    return nn.Linear(into, out, **options)


def mlp(w: int, times: int = 2) -> nn.Sequential:
    return nn.Sequential(dense(times * w, w), nn.GELU(), dense(w, times * w))


class LiteralLayer(nn.Module):
    """Weights of one layer, or of the input (``first``)."""

    def __init__(self, config: EScAIPConfig, first: bool):
        super().__init__()
        w, (d, b, a) = config.width, config.pieces
        edges = config.forces == "direct"
        self.distance, self.attributes = dense(d, config.num_radial), dense(w, d + 2 * b + 2 * a)
        self.order_s, self.order_r = dense(b, LMAX + 1), dense(b, LMAX + 1)
        self.element_s, self.element_r = ElementEmbedding(config.elements, a), ElementEmbedding(config.elements, a)
        if first:
            self.norm, self.ffn = nn.RMSNorm(w, eps=EPS), mlp(w, times=1)
        else:
            self.norm, self.ends, self.message = nn.RMSNorm(w, eps=EPS), dense(w, 2 * w), dense(w, 2 * w)
            self.qkv, self.out = dense(3 * w, w), dense(w, w)
            self.angle = nn.Parameter(torch.ones(config.heads))
            self.node_norm, self.node_ffn = nn.RMSNorm(w, eps=EPS), mlp(w)
            self.edge_norm, self.edge_ffn = (nn.RMSNorm(w, eps=EPS), mlp(w)) if edges else (None, None)


class LiteralEScAIP(nn.Module):
    def __init__(self, config: EScAIPConfig):
        super().__init__()
        w, n, direct = config.width, config.depth, config.forces == "direct"
        self.config = config
        self.basis = RadialBasis("gaussian", config.num_radial, config.cutoff, spread=2.0)
        self.layers = nn.ModuleList(LiteralLayer(config, first=i == 0) for i in range(n + 1))
        kinds = ("node", "edge") if direct else ("node",)
        self.input_norm = nn.ModuleDict({k: nn.RMSNorm(w, eps=EPS) for k in kinds})
        self.read_norm = nn.ModuleDict({k: nn.ModuleList(nn.RMSNorm(w, eps=EPS) for _ in range(n + 1)) for k in kinds})
        self.read = nn.ModuleDict({k: nn.ModuleList(mlp(w) for _ in range(n + 1)) for k in kinds})
        self.norm_in = nn.ModuleDict({k: nn.RMSNorm((n + 1) * w, eps=EPS) for k in kinds})
        self.project = nn.ModuleDict({k: dense(w, (n + 1) * w) for k in kinds})
        self.norm_out = nn.ModuleDict({k: nn.RMSNorm(w, eps=EPS) for k in kinds})
        columns = {"energy": 1}
        columns |= {"magnitude": 1, "direction": 3 if config.force_head == "free" else 1} if direct else {}
        self.head = nn.ModuleDict({k: mlp(w) for k in columns})
        self.last = nn.ModuleDict({k: dense(c, w, bias=False) for k, c in columns.items()})

    def forward(self, graph: AtomGraph) -> AtomicOutput:
        s, r, n, config = graph.sender, graph.receiver, len(graph.numbers), self.config
        d = safe_norm(graph.vectors)
        unit = graph.vectors / torch.where(d > 0, d, 1.0)[:, None]
        env = envelope(config.envelope, d, config.cutoff)
        env = torch.ones_like(d) if env is None else env
        mine = [(r == i).nonzero()[:, 0] for i in range(n)]  # the edges that arrive at an atom
        cosine = [unit[e] @ unit[e].mT for e in mine]

        def gather(x: Tensor) -> Tensor:
            total = sum_by(r, x * env[:, None], n)
            return total / graph.degree.clamp(min=1)[:, None] if config.aggregation == "mean" else total

        y = gather(spherical_harmonics(unit, LMAX))
        q = torch.stack([(y[:, degree_slice(l)].square().sum(1) + ROUND**2).sqrt() for l in range(LMAX + 1)], dim=1)
        rbf = self.basis(d)
        readouts: dict[str, list[Tensor]] = {k: [] for k in self.read}
        x: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            order_s, order_r = gelu(layer.order_s(q)), gelu(layer.order_r(q))
            element_s, element_r = layer.element_s(graph.numbers), layer.element_r(graph.numbers)
            parts = [gelu(layer.distance(rbf)), order_s[s], element_s[s], order_r[r], element_r[r]]
            a = gelu(layer.attributes(torch.cat(parts, dim=1)))
            if i == 0:
                edge = a + layer.ffn(layer.norm(a))
                x = {k: self.input_norm[k](v) for k, v in (("node", gather(edge)), ("edge", edge)) if k in self.read}
            else:
                h = layer.norm(x["node"])
                message = gelu(layer.message(torch.cat([a, gelu(layer.ends(torch.cat([h[s], h[r]], dim=1)))], dim=1)))
                mixed = torch.zeros_like(message)
                for e, cos in zip(mine, cosine):
                    if not len(e):
                        continue
                    q_, k, v = layer.qkv(message[e]).view(len(e), 3, config.heads, -1).permute(1, 2, 0, 3)
                    score = q_ @ k.mT / q_.shape[-1] ** 0.5 + layer.angle[:, None, None] * cos + env[e].log()
                    mixed[e] = layer.out((score.softmax(-1) @ v).transpose(0, 1).reshape(len(e), -1))
                node = x["node"] + gather(mixed)
                x["node"] = node + layer.node_ffn(layer.node_norm(node))
                if "edge" in x:
                    edge = x["edge"] + mixed
                    x["edge"] = edge + layer.edge_ffn(layer.edge_norm(edge))
            for kind, value in x.items():
                readouts[kind].append(value + self.read[kind][i](self.read_norm[kind][i](value)))
        final = {
            k: self.norm_out[k](gelu(self.project[k](self.norm_in[k](torch.cat(v, dim=1)))))
            for k, v in readouts.items()
        }
        energy = self._head("energy", final["node"]).squeeze(-1)
        if "edge" not in final:
            return AtomicOutput(energy)
        force = unit * self._head("direction", final["edge"]) * env[:, None]
        return AtomicOutput(energy, self._head("magnitude", final["node"]) * sum_by(r, force, n))

    def _head(self, name: str, x: Tensor) -> Tensor:
        return self.last[name](x + self.head[name](x))

    def load(self, fast: EScAIP) -> LiteralEScAIP:
        """Take the weights of the fast formulation, putting split maps together again."""
        pairs: list[tuple[nn.Module, nn.Module]] = [(self.input_norm["node"], fast.node_norm)]
        kinds = {"node": (fast.node_readouts, fast.node_projection)}
        heads = {"energy": fast.energy}
        if fast.direction is not None:
            pairs.append((self.input_norm["edge"], fast.edge_norm))
            kinds["edge"] = (fast.edge_readouts, fast.edge_projection)
            heads |= {"magnitude": fast.magnitude, "direction": fast.direction}
        for k, (readouts, projection) in kinds.items():
            for i, readout in enumerate(readouts):
                pairs += [(self.read_norm[k][i], readout.norm), *feed_forward(self.read[k][i], readout.ffn)]
            pairs += [(self.norm_in[k], projection.norm_in), (self.project[k], projection.lin)]
            pairs.append((self.norm_out[k], projection.norm_out))
        for k, head in heads.items():
            pairs += [*feed_forward(self.head[k], head.ffn), (self.last[k], head.out)]
        first = self.layers[0]
        pairs += [(first.norm, fast.input.norm), *feed_forward(first.ffn, fast.input.ffn)]
        for mine, theirs in zip(self.layers[1:], fast.layers):
            pairs += [(mine.norm, theirs.norm), (mine.message, theirs.message), (mine.qkv, theirs.qkv)]
            pairs += [(mine.out, theirs.out), (mine.node_norm, theirs.node_ffn.norm)]
            pairs += feed_forward(mine.node_ffn, theirs.node_ffn.ffn)
            if theirs.edge_ffn is not None:
                pairs.append((mine.edge_norm, theirs.edge_ffn.norm))
                pairs += feed_forward(mine.edge_ffn, theirs.edge_ffn.ffn)
            with torch.no_grad():
                mine.ends.weight.copy_(torch.cat(theirs.ends.weight.chunk(2), dim=1))
                mine.ends.bias.copy_(theirs.ends_bias)
                mine.angle.copy_(theirs.angle)
        for mine, theirs in zip(self.layers, [fast.attributes, *(layer.attributes for layer in fast.layers)]):
            pairs += [(mine.distance, theirs.distance), (mine.order_s, theirs.sender.order)]
            pairs += [(mine.order_r, theirs.receiver.order), (mine.element_s, theirs.sender.element)]
            pairs.append((mine.element_r, theirs.receiver.element))
            whole = [theirs.out.weight, theirs.sender.out.weight, theirs.receiver.out.weight]
            with torch.no_grad():
                mine.attributes.weight.copy_(torch.cat(whole, dim=1))
                mine.attributes.bias.copy_(theirs.out.bias)
        for mine, theirs in pairs:
            mine.load_state_dict(theirs.state_dict())
        return self


def feed_forward(mine: nn.Sequential, theirs: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    return [(mine[0], theirs.lin1), (mine[2], theirs.lin2)]
