"""The plain transformer: counts, compute, and padded attention against one structure at a time."""

from dataclasses import replace

import pytest
import torch
from molecules import random_molecules
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.flop_counter import FlopCounterMode

from equiscale.models.base import AtomicOutput, count_parameters, graph_for
from equiscale.models.transformer import TransformerConfig
from equiscale.models.transformer.potential import Transformer


class Literal(nn.Module):
    """One structure and one head at a time, the embedding and the coordinates in one concatenated input."""

    def __init__(self, fast: Transformer):
        super().__init__()
        self.fast = fast

    def forward(self, graph) -> AtomicOutput:
        fast, config = self.fast, self.fast.config
        energies, forces = [], []
        whole = torch.cat([fast.element.weight, fast.place.weight], dim=1)
        for x, z in zip(graph.positions.split(graph.size.tolist()), graph.numbers.split(graph.size.tolist())):
            x = x - x.mean(0) if config.centered else x
            h = nn.functional.linear(torch.cat([fast.embed(z), x], dim=1), whole, fast.place.bias)
            for layer in fast.layers:
                h = h + layer.out(self.attention(layer, layer.attention_norm(h)))
                h = h + layer.mlp[2](gelu(layer.mlp[0](layer.mlp_norm(h))))
            h = fast.norm(h)
            energies.append(fast.energy(h).squeeze(-1))
            forces += [] if fast.force is None else [fast.force(h)]
        return AtomicOutput(torch.cat(energies), torch.cat(forces) if forces else None)

    def attention(self, layer, h: Tensor) -> Tensor:
        mixed = []
        for q, k, v in zip(*(part.chunk(layer.heads, dim=1) for part in layer.qkv(h).chunk(3, dim=1))):
            mixed.append((q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v)
        return torch.cat(mixed, dim=1)


@pytest.mark.parametrize("width", [64, 128, 256, 512])
@pytest.mark.parametrize("depth", [1, 6])
def test_parameters_are_the_formula(width, depth):
    config = TransformerConfig(width=width, depth=depth)
    with torch.device("meta"):
        n, _ = count_parameters(config.build())
    assert n == (12 * depth + 3) * width**2 + (13 * depth + 112) * width + 4
    assert config.heads == width // 32


@pytest.mark.parametrize("forces", ["direct", "conservative"])
@pytest.mark.parametrize("width", [12, 64])
def test_literal_flops_are_the_formula(width, forces):
    config = TransformerConfig(width=width, depth=2, forces=forces)
    graph = graph_for(config, random_molecules(4, 5, 40, seed=1))
    with FlopCounterMode(display=False) as counter:
        Literal(config.build())(graph)
    assert counter.get_total_flops() == pytest.approx(config.flops(graph.counts), rel=0.01)


@pytest.mark.parametrize("centered", [False, True])
def test_padded_attention_is_attention_of_each_structure(centered):
    config = TransformerConfig(width=24, depth=2, head_dim=8, centered=centered)
    graph = graph_for(config, random_molecules(4, 1, 12, seed=2), dtype=torch.float64)
    torch.manual_seed(0)
    fast = config.build().double()
    grads = []
    for potential in (fast, Literal(fast)):
        fast.zero_grad()
        x = graph.positions.clone().requires_grad_()
        out = potential(replace(graph, positions=x))
        (out.energy.sin().sum() + out.force.cos().sum()).backward()
        grads.append([out.energy, out.force, x.grad, fast.layers[0].qkv.weight.grad.clone()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_every_atom_sees_every_other_of_its_structure_at_any_distance():
    """No locality: the architecture that appendix K finds not to learn."""
    config = TransformerConfig(width=24, depth=1, head_dim=8)
    s = random_molecules(1, 5, 5, seed=3)[0]
    far = s.positions.copy()
    far[0] += 1000.0
    torch.manual_seed(0)
    potential = config.build().double()
    near, moved = (
        potential(graph_for(config, [x], dtype=torch.float64)).energy for x in (s, replace(s, positions=far))
    )
    assert (near - moved)[1:].abs().min() > 1e-6
