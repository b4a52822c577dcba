"""EScAIP: counts, compute, the fast formulation against the literal, and the closed form of its broken symmetry."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from models.literal_escaip import LiteralEScAIP
from molecules import crystal, random_molecules
from scipy.spatial.transform import Rotation
from torch.utils.flop_counter import FlopCounterMode

from equiscale.graph import AtomGraph, sum_by
from equiscale.models.base import count_parameters, graph_for
from equiscale.models.escaip import EScAIPConfig
from equiscale.models.escaip.distance import Distances
from equiscale.predict import predict
from equiscale.radial import RadialBasis

SMALL = dict(width=24, depth=2, num_radial=150, cutoff=4.0, head_dim=8)
DIRECT = [dict(), dict(force_head="tied"), dict(envelope="polynomial", aggregation="sum")]
CONSERVATIVE = dict(forces="conservative", envelope="polynomial")


def made(config, seed: int = 0, dtype: torch.dtype = torch.float64):
    torch.manual_seed(seed)
    return config.build().to(dtype)


@pytest.mark.parametrize("width", [8, 64, 128])
@pytest.mark.parametrize("depth", [1, 6])
@pytest.mark.parametrize("head", ["free", "tied"])
def test_parameters_are_the_formula(width, depth, head):
    config = EScAIPConfig(width=width, depth=depth, force_head=head)
    with torch.device("meta"):
        n, _ = count_parameters(config.build())
    h, l = width, depth
    stated = (33 * l + 31) * h * h + (2641 * l + 2649) * h + config.heads * l
    assert n == stated - (2 * h if head == "tied" else 0)


def test_defaults_are_the_published_sizes():
    """Version 1's model for SPICE: six million parameters, 8 heads, pieces of 512, 64 and 128 channels."""
    config = EScAIPConfig()
    assert (config.width, config.depth, config.heads, config.max_neighbors) == (128, 6, 8, 20)
    assert config.pieces == (512, 64, 128)
    assert EScAIPConfig(width=64).heads == 4
    with torch.device("meta"):
        n, _ = count_parameters(config.build())
    assert round(n / 1e6) == 6


def test_parameters_without_radial_basis_and_embedding():
    with torch.device("meta"):
        n, body = count_parameters(EScAIPConfig(width=16).build())
        _, other = count_parameters(EScAIPConfig(width=16, num_radial=64, elements=(1, 6)).build())
    assert body == other < n


@pytest.mark.parametrize("fields", [*DIRECT, CONSERVATIVE], ids=str)
@pytest.mark.parametrize("width", [8, 48])
def test_literal_flops_are_the_formula(width, fields):
    config = EScAIPConfig(width=width, depth=3, **fields)
    graph = graph_for(config, random_molecules(4, 12, 20, seed=1))
    with FlopCounterMode(display=False) as counter:
        LiteralEScAIP(config)(graph)
    assert counter.get_total_flops() == pytest.approx(config.flops(graph.counts), rel=0.01)


def test_the_fast_formulation_multiplies_less():
    config = EScAIPConfig(width=64, depth=2)
    graph = graph_for(config, random_molecules(4, 18, 22, seed=1))
    with FlopCounterMode(display=False) as counter:
        config.build()(graph)
    assert counter.get_total_flops() < 0.75 * config.flops(graph.counts)


@pytest.mark.parametrize("fields", [*DIRECT, CONSERVATIVE], ids=str)
@pytest.mark.parametrize("periodic", [False, True], ids=["molecules", "crystal"])
def test_fast_formulation_equals_the_literal_one(fields, periodic):
    """Outputs, gradients with respect to positions and to every kind of weight, float64, uneven degrees."""
    config = EScAIPConfig(**SMALL, max_neighbors=9, **fields)
    structures = [crystal(6, seed=3)] if periodic else random_molecules(3, 2, 14, seed=2)
    graph = graph_for(config, structures, dtype=torch.float64)
    fast = made(config)
    with torch.no_grad():
        for p in fast.parameters():
            p.add_(0.05 * torch.randn_like(p))
    slow = LiteralEScAIP(config).double().load(fast)
    weight = torch.randn(len(graph.numbers), 3, dtype=torch.float64)
    for positions_too in (False, True):
        grads = []
        for potential in (fast, slow):
            potential.zero_grad()
            x = graph.positions.clone().requires_grad_(positions_too)
            out = potential(replace(graph, positions=x))
            loss = out.energy.sin().sum() + (0.0 if out.force is None else (out.force * weight).sum())
            loss.backward()
            grads.append([out.energy, out.force, x.grad])
        for a, b in zip(*grads):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        for mine, theirs in zip([fast.attributes, *(layer.attributes for layer in fast.layers)], slow.layers):
            whole = [mine.out.weight.grad, mine.sender.out.weight.grad, mine.receiver.out.weight.grad]
            same(torch.cat(whole, dim=1), theirs.attributes.weight.grad)
            same(mine.distance.weight.grad, theirs.distance.weight.grad)
            same(mine.sender.element.table.weight.grad, theirs.element_s.table.weight.grad)
        for mine, theirs in zip(fast.layers, slow.layers[1:]):
            same(torch.cat(mine.ends.weight.grad.chunk(2), dim=1), theirs.ends.weight.grad)
            same(mine.angle.grad, theirs.angle.grad)
            same(mine.qkv.weight.grad, theirs.qkv.weight.grad)
            same(mine.norm.weight.grad, theirs.norm.weight.grad)
        same(fast.node_projection.norm_in.weight.grad, slow.norm_in["node"].weight.grad)
        same(fast.node_projection.lin.weight.grad, slow.project["node"].weight.grad)
        if fast.direction is not None:
            same(fast.direction.out.weight.grad, slow.last["direction"].weight.grad)
            same(fast.edge_readouts[0].norm.weight.grad, slow.read_norm["edge"][0].weight.grad)


def same(a, b) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("num", [1, 40, 150, 600])
@pytest.mark.parametrize("differentiable", [False, True])
def test_banded_product_is_the_dense_one(dtype, num, differentiable):
    """Within round-off, at both ends of the basis, with distances that repeat, and for no edge at all."""
    basis = RadialBasis("gaussian", num, 12.0, spread=2.0)
    torch.manual_seed(0)
    weights = torch.nn.Linear(num, 7).to(dtype)
    tolerance = 2e-7 if dtype == torch.float32 else 1e-14
    d = torch.cat([torch.tensor([0.0, 0.0, 11.9999999, 3.0, 3.0]), 12 * torch.rand(300)]).to(dtype)
    for some in (d, d[:0]):
        some = some.clone().requires_grad_(differentiable)
        made_ = Distances(some, basis)
        values, dense = made_.to_edges(made_.map(weights)), weights(basis(some))
        assert (values - dense).abs().max() < 20 * tolerance if len(some) else values.shape == dense.shape
    assert len(Distances(d, basis).values) == len(d.unique())


@pytest.mark.parametrize("fields", [dict(), dict(envelope="polynomial")], ids=["plain", "envelope"])
@pytest.mark.parametrize("isolated", [False, True])
def test_closed_form_of_the_broken_symmetry(fields, isolated):
    """L_mean and L_equiv of the free head, exactly: the twirl is the head w̄, L_equiv = (1/9) Σ_k d_kᵀ G d_k."""
    config = EScAIPConfig(**SMALL, **fields)
    structures = random_molecules(2, 4, 7, seed=5)
    if isolated:
        structures.append(replace(structures[0], numbers=np.array([8]), positions=np.zeros((1, 3))))
    graph = graph_for(config, structures, dtype=torch.float64)
    potential = made(config)
    with torch.no_grad():
        unit, h = potential.head_features(graph)
        n, weight = len(graph.numbers), potential.direction.out.weight  # (3, w)
        s = sum_by(graph.receiver, unit[:, :, None] * h[:, None, :], n)  # (atoms, 3, w)
        torch.testing.assert_close(forces(potential, graph), torch.einsum("nkw,kw->nk", s, weight))
        gram = torch.einsum("nkw,nkv->wv", s, s) / n
        d = weight - weight.mean(0)
        closed = torch.einsum("kw,wv,kv->", d, gram, d) / 9
        # Forces hold rotations to degree 2, their squares to degree 4: any coset of the 60 rotations of an
        # icosahedron, exact to degree 5, gives the average over all rotations.
        turns = (Rotation.create_group("I") * Rotation.random(rng=1)).as_matrix()
        back = [forces(potential, turned(graph, turn)) @ torch.from_numpy(turn) for turn in turns]
        z = torch.stack(back)
        mean = z.mean(0)
        torch.testing.assert_close(mean, torch.einsum("nkw,w->nk", s, weight.mean(0)), rtol=1e-12, atol=1e-12)
        assert ((z - mean).square().mean() - closed).abs() < 1e-12 * closed
        assert closed > 1e-6


def turned(graph: AtomGraph, turn: np.ndarray) -> AtomGraph:
    return replace(graph, positions=graph.positions @ torch.from_numpy(turn).mT)


def forces(potential, graph: AtomGraph) -> torch.Tensor:
    return potential(graph).force


def test_the_tied_head_is_the_free_head_with_equal_rows():
    """The minimal pair: the same skeleton, 2H weights apart."""
    free, tied = made(EScAIPConfig(**SMALL)), made(EScAIPConfig(**SMALL, force_head="tied"))
    state = dict(free.state_dict())
    row = state["direction.out.weight"].mean(0, keepdim=True)
    tied.load_state_dict(state | {"direction.out.weight": row})
    free.load_state_dict(state | {"direction.out.weight": row.expand(3, -1)})
    graph = graph_for(free.config, random_molecules(2, 5, 8, seed=4), dtype=torch.float64)
    torch.testing.assert_close(forces(free, graph), forces(tied, graph))
    assert count_parameters(free)[0] - count_parameters(tied)[0] == 2 * SMALL["width"]


def test_isolated_atoms_feel_no_force():
    """The published version gives them a fixed direction, which no rotation turns."""
    config = EScAIPConfig(**SMALL)
    structures = [replace(random_molecules(1, 2, 2, seed=1)[0], numbers=np.array([8]), positions=np.ones((1, 3)))]
    out = predict(made(config), graph_for(config, structures, dtype=torch.float64))
    assert not out.forces.any()
    assert torch.isfinite(out.energy).all()


@pytest.mark.parametrize("fields", [dict(), CONSERVATIVE], ids=["direct", "conservative"])
def test_two_hundred_neighbours(fields):
    config = EScAIPConfig(**SMALL | dict(cutoff=30.0), max_neighbors=None, **fields)
    graph = graph_for(config, random_molecules(1, 120, 120, seed=6))
    assert graph.max_degree == 119
    config = replace(config, max_neighbors=200)
    dense = graph_for(replace(config, cutoff=11.0), [crystal(5, seed=7)])
    assert dense.max_degree == 200
    for some in (graph, dense):
        out = predict(made(config, dtype=torch.float32), some, create_graph=True)
        (out.energy.sum() + out.forces.square().sum()).backward()
        assert torch.isfinite(out.forces).all()
