"""eSEN: the fast formulation against the published one term by term, its grid, its compute, and degenerate frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from models.literal_esen import LiteralESEN
from molecules import crystal, random_molecules
from pydantic import ValidationError
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from equiscale.data.orientation import haar
from equiscale.data.structure import Structure
from equiscale.graph import AtomGraph, Counts
from equiscale.models import ESENConfig
from equiscale.models.base import count_parameters, graph_for
from equiscale.models.esen import messages
from equiscale.models.esen.grid import grid
from equiscale.predict import predict
from equiscale.so3 import num_components

SMALL = ESENConfig(width=6, depth=2, lmax=3, mmax=2, hidden=7, num_radial=9, cutoff=4.0, max_neighbors=None)
FINE = replace(SMALL, lmax=2, grid=(24, 25))  # equivariant to 1e-7 by its own declaration
DEGREES = [(1, 0), (1, 1), (2, 0), (2, 2), (3, 1), (4, 2), (6, 2), (6, 6)]
CROWD = crystal(3, seed=3, edge=2.2)  # many images: more than 200 neighbours within 6 Å


def made(config: ESENConfig, seed: int = 0):
    """In float64, every weight moved off its start."""
    torch.manual_seed(seed)
    potential = config.build().double()
    with torch.no_grad():
        for p in potential.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return potential


def graph_of(config: ESENConfig, structures) -> AtomGraph:
    return graph_for(config, structures, dtype=torch.float64)


def without_shortcut(graph: AtomGraph) -> AtomGraph:
    """The same graph, its cached property told to deny that edges have counter edges."""
    again = replace(graph)
    again.__dict__["symmetric"] = False
    return again


def everything(potential, graph: AtomGraph, by_positions: bool = False) -> tuple[dict, dict]:
    """Outputs; and the gradients of one number by the weights, and if asked for by the positions (the plain path)."""
    x = graph.positions.clone().requires_grad_(by_positions)
    moved = replace(graph, positions=x)
    moved.__dict__["symmetric"] = graph.symmetric
    out = potential(moved)
    rng = torch.Generator().manual_seed(5)
    weight = torch.randn(out.force.shape, dtype=x.dtype, generator=rng)
    potential.zero_grad()
    (out.energy.sin().sum() + (out.force * weight).sum()).backward()
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in potential.named_parameters()}
    return {"energy": out.energy, "force": out.force, "positions": x.grad}, gradients


def same(ours: dict, theirs: dict) -> None:
    """To 1e-10 of each tensor's largest entry."""
    for name, a in ours.items():
        b = theirs[name]
        if a is not None and b is not None:
            assert torch.isfinite(b).all(), name
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10 * (1 + b.abs().max().item()), msg=name)


def compare_with_literal(config: ESENConfig, graph: AtomGraph) -> None:
    fast, slow = made(config), LiteralESEN(config, roll=1).double()
    slow.load(fast)
    out, literal = everything(slow, graph, by_positions=True)
    for by_positions in (False, True):  # fused, plain
        ours, gradients = everything(fast, graph, by_positions)
        same(ours, out)
        same({name: slow.of(name, gradients) for name in literal}, literal)


# --- one function, three ways --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lmax", "mmax"), DEGREES)
def test_fused_plain_and_literal_are_one_function(lmax, mmax):
    """Outputs and all gradients, those by positions too; the literal version rolls each edge's frame at random."""
    config = replace(SMALL, lmax=lmax, mmax=mmax, envelope="polynomial")
    compare_with_literal(config, graph_of(config, random_molecules(3, 3, 8, seed=2)))


@pytest.mark.parametrize("fields", [{}, dict(absolute_directions=True), dict(radial="bessel"), dict(hidden=3)], ids=str)
def test_variants_are_the_literal_ones(fields):
    config = replace(SMALL, **fields)
    compare_with_literal(config, graph_of(config, random_molecules(2, 3, 8, seed=3)))


@pytest.mark.parametrize("envelope", ["none", "polynomial"])
def test_crystals_and_capped_graphs_are_the_literal_ones(envelope):
    """Several images of one pair; and a cap that takes counter edges away, so that nothing can be shared."""
    config = replace(SMALL, envelope=envelope)
    whole = graph_of(config, [crystal(4, seed=3, edge=4.0)])
    capped = graph_of(replace(config, max_neighbors=3), random_molecules(3, 6, 9, seed=4))
    assert whole.symmetric
    assert not capped.symmetric
    compare_with_literal(config, whole)
    compare_with_literal(config, capped)


@pytest.mark.parametrize(("lmax", "mmax"), [(1, 1), (4, 2), (3, 3)])
def test_sharing_an_edges_turn_with_its_counter_edge_changes_nothing(lmax, mmax):
    config = replace(SMALL, lmax=lmax, mmax=mmax, envelope="polynomial")
    graph = graph_of(config, [*random_molecules(2, 4, 8, seed=5), crystal(3, seed=5)])
    assert graph.symmetric
    potential = made(config)
    for by_positions in (False, True):
        ours, gradients = everything(potential, graph, by_positions)
        ours, gradients = dict(ours), {n: g.clone() for n, g in gradients.items()}
        general, others = everything(potential, without_shortcut(graph), by_positions)
        same(ours, general)
        same(gradients, others)


def test_blocks_of_edges_change_nothing(monkeypatch):
    """Blocks of 16 with a ragged last one, against one block of all."""
    graph = graph_of(SMALL, random_molecules(2, 6, 8, seed=6))
    edges = len(graph.receiver)
    assert edges > 32
    assert edges % 16
    potential = made(SMALL)
    whole, gradients = everything(potential, graph)
    gradients = {n: g.clone() for n, g in gradients.items()}
    monkeypatch.setattr(messages, "BLOCK_BYTES", 1)
    blocks, others = everything(potential, graph)
    same(whole, blocks)
    same(gradients, others)


def test_second_derivatives_are_the_literal_ones():
    """What conservative training differentiates: a force loss by every weight."""
    config = replace(SMALL, forces="conservative", envelope="polynomial")
    graph = graph_of(config, random_molecules(2, 3, 6, seed=7))
    fast = made(config)
    slow = LiteralESEN(config).double().load(fast)
    for potential in (fast, slow):
        predict(potential, graph, create_graph=True).forces.square().sum().backward()
    theirs = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in fast.named_parameters()}
    mine = {n: p.grad for n, p in slow.named_parameters() if p.grad is not None}
    assert len(mine) > 40
    same({name: slow.of(name, theirs) for name in mine}, mine)


def test_two_hundred_neighbours():
    config = replace(SMALL, width=3, depth=1, cutoff=6.0)
    graph = graph_of(config, [CROWD])
    assert graph.max_degree > 200
    compare_with_literal(config, graph)


# --- the grid ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lmax", [1, 2, 4, 6])
@pytest.mark.parametrize("more", [None, (0, 0), (1, 0), (2, 4), (9, 2)], ids=str)
def test_the_quadrature_gives_coefficients_back(lmax, more):
    """On the published grid, on the smallest that is accepted, and on odd and even numbers of points."""
    least = 2 * lmax + 1
    points = None if more is None else (least + more[0], least + more[1])
    values, coefficients = grid(
        lmax, *ESENConfig(lmax=lmax, mmax=1, grid=points).points, torch.float64, torch.device("cpu")
    )
    eye = torch.eye(num_components(lmax), dtype=torch.float64)
    torch.testing.assert_close(coefficients @ values, eye, rtol=0, atol=1e-13)
    assert coefficients[0].sum().item() == pytest.approx((4 * np.pi) ** 0.5, rel=1e-13)  # ∫ Y_00


@pytest.mark.parametrize("lmax", [1, 4])
def test_weights_of_the_grid_are_the_published_ones(lmax):
    """ω_j = (2π/n_α) (4/n_β) sin β_j Σ_q sin((2q+1)β_j) / (2q+1), for an even n_β."""
    n, azimuths = ESENConfig(lmax=lmax, mmax=0).points
    assert (n, azimuths) == (2 * (lmax + 1), 2 * (lmax + 1) + 1)
    beta = np.pi * (np.arange(n) + 0.5) / n
    q = 2 * np.arange(n // 2) + 1
    omega = 8 * np.pi / (azimuths * n) * np.sin(beta) * (np.sin(np.outer(beta, q)) / q).sum(1)
    values, coefficients = grid(lmax, n, azimuths, torch.float64, torch.device("cpu"))
    np.testing.assert_allclose(coefficients[0] / values[:, 0], np.repeat(omega, azimuths), atol=1e-14)


def test_a_grid_one_smaller_than_the_least_loses_coefficients():
    for points in ((2 * 3, 2 * 3 + 1), (2 * 3 + 1, 2 * 3)):
        values, coefficients = grid(3, *points, torch.float64, torch.device("cpu"))
        assert (coefficients @ values - torch.eye(16)).abs().max() > 1e-3


def equivariance_error(config: ESENConfig, seed: int) -> float:
    """As the contract measures it: the largest |difference| / (1 + |value|) of energies and forces over rotations."""
    structures = [*random_molecules(2, 8, 8, seed=6), crystal(4, seed=6)]
    potential, worst = made(config, seed), 0.0
    before = predict(potential, graph_of(config, structures))
    for turn in torch.from_numpy(haar(np.random.default_rng(seed), 2)):
        after = predict(potential, graph_of(config, [turned(s, turn.numpy()) for s in structures]))
        for a, b in ((before.energy, after.energy), (before.forces @ turn.mT, after.forces)):
            worst = max(worst, ((a - b).abs() / (1 + b.abs())).max().item())
    return worst


def turned(s: Structure, turn: np.ndarray) -> Structure:
    return replace(s, positions=s.positions @ turn.T, cell=None if s.cell is None else s.cell @ turn.T)


@pytest.mark.parametrize(("lmax", "mmax"), [(1, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_equivariance_error_is_the_grids_and_below_its_bound(lmax, mmax, forces):
    """It falls with every finer grid, from the published one to 1e-6 and less, and stays under what is declared."""
    config = replace(
        SMALL, width=12, hidden=32, num_radial=8, lmax=lmax, mmax=mmax, forces=forces, envelope="polynomial"
    )
    errors = []
    for extra in (0, 2 * lmax, 4 * lmax, 8 * lmax):
        n = 2 * (lmax + 1) + extra
        finer = replace(config, grid=(n, n + 1))
        errors.append(max(equivariance_error(finer, seed) for seed in range(2)))
        assert errors[-1] < finer.equivariance_tolerance
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-6  # the published grid does break the symmetry
    assert errors[-1] < 1e-6


def test_the_network_on_the_grid_is_all_that_breaks_the_symmetry():
    """Without it round-off is left, on the published grid and for every order."""
    config = replace(SMALL, lmax=4, mmax=4)
    potential = made(config)
    with torch.no_grad():
        for layer in potential.layers:
            layer.grid.out.weight.zero_()
    s = random_molecules(1, 9, 9, seed=8)
    before = predict(potential, graph_of(config, s))
    for turn in haar(np.random.default_rng(0), 3):
        after = predict(potential, graph_of(config, [turned(x, turn) for x in s]))
        torch.testing.assert_close(after.energy, before.energy, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(after.forces, before.forces @ torch.from_numpy(turn).mT, rtol=1e-12, atol=1e-12)


# --- what a config refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (dict(lmax=13), r"frames are exact to lmax = 12, not 13"),
        (dict(lmax=0, mmax=0), r"lmax of 1 or more"),
        (dict(mmax=5), r"mmax lies between 0 and lmax = 4, not 5"),
        (dict(mmax=-1), r"mmax lies between 0 and lmax = 4, not -1"),
        (dict(grid=(8, 11)), r"8 x 11 points cannot hold lmax = 4: it takes at least 9 x 9"),
        (dict(grid=(10, 8)), r"10 x 8 points cannot hold lmax = 4"),
        (dict(forces="conservative"), r"envelope='polynomial'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_sentence(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        ESENConfig(**fields)


# --- compute -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lmax", "mmax"), [(1, 0), (4, 2), (3, 3)])
def test_literal_flops_are_the_formula_but_for_how_wigner_matrices_are_made(lmax, mmax):
    """Those apart: 4 Σ (2l+1)³ products per edge as published, others here; the rest to one part in a thousand."""
    config = replace(SMALL, width=8, hidden=32, lmax=lmax, mmax=mmax)
    graph = graph_of(config, random_molecules(3, 8, 12, seed=1))
    slow, flops = LiteralESEN(config).double(), []
    for call in (slow, slow.rotations):
        with FlopCounterMode(display=False) as counter:
            call(graph)
        flops.append(counter.get_total_flops())
    wigner = 2 * 4 * sum((2 * l + 1) ** 3 for l in range(lmax + 1)) * len(graph.receiver)
    assert flops[0] - flops[1] == pytest.approx(config.flops(graph.counts) - wigner, rel=1e-3)


@pytest.mark.parametrize(("width", "most"), [(4, 0.75), (16, 0.9), (64, 0.95)])
def test_the_fast_formulation_executes_fewer_flops(width, most):
    """Forward, of the published count; padding where degrees differ included."""
    config = ESENConfig(width=width, depth=2)
    graph = graph_for(config, random_molecules(3, 20, 27, seed=2))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        config.build()(graph)
    assert counter.get_total_flops() < most * config.flops(graph.counts)


def test_kappa_is_the_papers(shared):
    """78.8 [77.6, 80.0] by the paper's tables: the slope of FLOPs per atom against N, at its mean degree of 22."""
    from models.test_parity import ladder

    numbers, flops = [], []
    for width, _ in ladder(shared, "esen"):
        config = ESENConfig(width=width)
        with torch.device("meta"):
            numbers.append(count_parameters(config.build())[0])
        flops.append(config.flops(Counts(1000, 22000)) / 1000)
    slope, _ = np.polyfit(numbers, flops, 1)
    assert slope == pytest.approx(79.1, abs=0.1)
    assert np.dot(numbers, flops) / np.dot(numbers, numbers) == pytest.approx(86.5, abs=0.5)


@pytest.mark.parametrize("width", [4, 16, 33])
def test_parameter_counts_are_the_formulas(width):
    with torch.device("meta"):
        n, _ = count_parameters(ESENConfig(width=width).build())
    assert n == 332 * width**2 + 105180 * width + 15746


class Largest(TorchDispatchMode):
    """The most elements that one new tensor had."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


def kept(potential, graph: AtomGraph) -> int:
    """Bytes that autograd holds for the backward pass."""
    held: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = potential(graph)
    assert out.energy.requires_grad
    return sum(held.values())


def test_no_tensor_of_edges_by_components_by_channels_is_formed():
    """The reference's rotation forms one of twice this; here senders and receivers are turned atom by atom."""
    config = ESENConfig(width=48, depth=2)
    graph = graph_for(config, [crystal(6, seed=9)])
    edges = len(graph.receiver)
    assert edges > 0.9 * len(graph.numbers) * graph.max_degree  # little padding
    reference = edges * num_components(config.lmax) * config.width
    largest = {}
    for name, model in (("fast", config.build()), ("literal", LiteralESEN(config))):
        with Largest() as watch:
            model(graph)
        largest[name] = watch.numel
    assert largest["fast"] < reference
    assert largest["literal"] >= 2 * reference


def test_the_fused_path_keeps_less_memory():
    config = ESENConfig(width=16, depth=4)
    graph = graph_for(config, [crystal(6, seed=9)])
    potential = config.build()
    positions = graph.positions.clone().requires_grad_()
    fused, plain = kept(potential, graph), kept(potential, replace(graph, positions=positions))
    assert fused < 0.65 * plain
    assert fused < 0.65 * kept(LiteralESEN(config), graph)


# --- frames with a special direction -------------------------------------------------------------------------------


def and_gradient(config: ESENConfig, s: Structure) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Energy, forces, and the energy's gradient by positions, through the frames."""
    graph = graph_of(config, [s])
    x = graph.positions.clone().requires_grad_()
    out = made(config)(replace(graph, positions=x))
    (gradient,) = torch.autograd.grad(out.energy.sum(), x)
    return out.energy.detach().sum(), out.force.detach(), gradient


AXES = np.concatenate([np.eye(3), -np.eye(3)])
SPECIAL = {
    **{f"edge along {axis}": np.array([[0.0, 0, 0], 1.3 * axis]) for axis in AXES},
    **{f"and an atom beside {axis}": np.array([[0.0, 0, 0], 1.3 * axis, [0.9, -0.7, 0.8]]) for axis in AXES},
    "collinear": np.array([[0.0, 0, 0], [1.2, 0, 0], [-1.2, 0, 0], [2.5, 0, 0]]),
    "planar": np.array([[1.0, 1, 0], [-1, 1.3, 0], [-1, -1, 0], [1.1, -1, 0], [0, 0.2, 0]]),
    "a cube's corners": np.array([[x, y, z] for x in (0.0, 1.2) for y in (0.0, 1.2) for z in (0.0, 1.2)]),
}


@pytest.mark.parametrize("positions", SPECIAL.values(), ids=SPECIAL)
def test_special_directions_are_like_any_other(positions):
    """Energies, forces and gradients through the frames: those of a copy in general position, turned."""
    s = Structure(np.array([6, 8, 1, 7, 8, 1, 6, 6])[: len(positions)], positions)
    energy, *vectors = and_gradient(FINE, s)
    tolerance = FINE.equivariance_tolerance
    assert tolerance < 1e-6
    for turn in haar(np.random.default_rng(2), 2):
        again, *others = and_gradient(FINE, turned(s, turn))
        assert float((again - energy).abs()) < tolerance * (1 + abs(float(energy)))
        for a, b in zip(vectors, others):
            assert torch.isfinite(a).all()
            torch.testing.assert_close(a @ torch.from_numpy(turn).mT, b, rtol=10 * tolerance, atol=10 * tolerance)


def test_a_collinear_molecule_is_pulled_along_its_axis():
    _, forces, gradient = and_gradient(FINE, Structure(np.array([6, 8, 8, 1]), SPECIAL["collinear"]))
    for vectors in (forces, gradient):
        assert vectors[:, 0].abs().max() > 1e-2
        assert vectors[:, 1:].abs().max() < FINE.equivariance_tolerance
