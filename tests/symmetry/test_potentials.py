"""What is measured on real potentials: zero where symmetry is declared, plainly not zero where it is not."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from models.test_contract import VARIANTS, graph_of, made
from molecules import crystal, random_molecules

from equiscale.data.store import Store
from equiscale.errors import InputError
from equiscale.graph import build_graph
from equiscale.predict import predict
from equiscale.symmetry.designs import Coset, Random
from equiscale.symmetry.estimate import estimate
from equiscale.symmetry.graphs import copies, turn, turn_prediction, turn_store, twisted_predictions
from equiscale.symmetry.groups import O3, SO3, Permutations, Product, Translations
from equiscale.symmetry.losses import SquaredEnergy, SquaredForce

LOSSES = (SquaredForce(), SquaredEnergy())
every_potential = pytest.mark.parametrize("config", VARIANTS)


def labelled(structures) -> Store:
    rng = np.random.default_rng(0)
    return Store.from_structures(
        [replace(s, energy=rng.normal(), forces=rng.normal(size=(len(s), 3))) for s in structures]
    )


def mixed(config=None) -> Store:
    """Molecules of 1 to 8 atoms and, where the architecture sees images, a crystal."""
    images = [] if config is not None and config.cutoff is None else [crystal(4, seed=6)]
    return labelled(random_molecules(3, 1, 8, seed=6) + images)


def rows(graph) -> list[tuple]:
    """Edges as sorted rows: receiver, sender, vector rounded; structures with a cell list them nearest first, and what
    is equally near may change places."""
    v = graph.vectors.numpy().round(6) + 0.0
    return sorted(map(tuple, np.column_stack([graph.receiver, graph.sender, v]).tolist()))


@every_potential
def test_error_if_and_only_if_not_declared(config):
    """Over rotations and, where declared, reflections: random ones and a coset give zero to 1e-20 of the size (of a
    stated tolerance the square), or more than 1e-8. Catches a twist that turns something wrongly, for every
    architecture, forces direct and as a gradient."""
    store = mixed(config)
    potential = made(config).eval()
    graph = graph_of(config, store)
    tolerance = config.equivariance_tolerance**2 if config.equivariance_tolerance > 1e-8 else 1e-20
    group = O3() if config.reflection_equivariant else SO3()
    for sampler in (Random(3), Coset("D2")):
        draws = sampler.draw(group, np.random.default_rng(0), len(store))
        z = twisted_predictions(lambda g: predict(potential, g), graph, draws.elements.transposed)
        outputs = {"energy": z.energy.detach().numpy(), "forces": z.forces.detach().numpy()}
        none = {name: np.zeros_like(v[0]) for name, v in outputs.items()}
        got = {loss.name: estimate(outputs, none, store.offsets, loss, draws.kind, draws.weights) for loss in LOSSES}
        share = {name: np.abs(s.equiv).sum() / s.size.sum() for name, s in got.items()}
        if config.equivariant:
            assert max(share.values()) < tolerance
        else:  # of some, energies are invariant although forces do not turn
            assert share["squared"] > 1e-8


@every_potential
def test_one_pass_over_copies_is_many_passes(config):
    """Catches copies that see each other, and elements given to the wrong copy: f of turned graphs one by one."""
    store = mixed(config)
    potential = made(config).eval()
    graph = graph_of(config, store)
    g = SO3().sample(np.random.default_rng(1), 3, len(store))
    together = twisted_predictions(lambda x: predict(potential, x), graph, g)
    for m in range(3):
        out = predict(potential, turn(g[m], graph))
        alone = turn_prediction(g[m].inverse(), out, graph.structure)
        torch.testing.assert_close(together.energy[m], alone.energy, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.forces[m], alone.forces, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("group", [SO3(), O3(), Product(O3(), Translations(2.0))], ids=str)
@pytest.mark.parametrize("cap", [None, 5])
def test_a_turned_graph_is_the_graph_of_turned_structures(group, cap):
    """Catches periodic shifts or cells that turn the other way, and shifts that are added twice: edges and vectors, of
    molecules and a skewed crystal with atoms outside its cell, with reflections."""
    store = mixed()
    g = group.sample(np.random.default_rng(2), len(store))
    graph = turn(g, build_graph(store, 4.0, cap, dtype=torch.float64))
    other = build_graph(turn_store(g, store), 4.0, cap, dtype=torch.float64)
    torch.testing.assert_close(graph.positions, other.positions, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(rows(graph), rows(other), atol=1e-6)
    for name in ("numbers", "structure", "size", "degree", "receiver", "slot", "charge", "spin"):
        assert torch.equal(getattr(graph, name), getattr(other, name)), name


def test_a_turned_graph_stays_symmetric():
    """Turned periodic shifts of an edge and of its counter edge are still exact negatives: GemNet finds it by them."""
    graph = build_graph(mixed(), 4.0, 5, symmetric=True, dtype=torch.float64)
    assert graph.symmetric
    g = SO3().sample(np.random.default_rng(3), graph.num_structures)
    turned = turn(g, graph)
    assert turned.symmetric
    assert turn(g, graph.to(dtype=torch.float32)).symmetric
    torch.testing.assert_close(turned.vectors[turned.reverse], -turned.vectors)


@pytest.mark.parametrize("periodic", [False, True])
def test_copies_are_the_graph_of_repeated_structures(periodic):
    """Field by field: catches a field that a later version of the graph adds and copies forget."""
    store = mixed() if periodic else labelled(random_molecules(3, 1, 8, seed=6))
    graph = copies(build_graph(store, 4.0, 5, dtype=torch.float64), 3)
    other = build_graph(store.take(np.tile(np.arange(len(store)), 3)), 4.0, 5, dtype=torch.float64)
    for field in fields(graph):
        a, b = getattr(graph, field.name), getattr(other, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def test_structures_turn_about_their_centroid():
    """Distances and centroids stay, labels turn along; about the origin, the centroid moves."""
    store = labelled(random_molecules(2, 4, 6, seed=8))
    g = O3().sample(np.random.default_rng(4), 2)
    turned, origin = turn_store(g, store), turn_store(g, store, labels=False, about="origin")
    for s in range(2):
        a, b, c = store[s], turned[s], origin[s]
        np.testing.assert_allclose(a.positions.mean(0), b.positions.mean(0), atol=1e-12)
        np.testing.assert_allclose(a.positions @ g.matrix[s].T, c.positions, atol=1e-12)
        np.testing.assert_allclose(a.forces @ g.matrix[s].T, b.forces, atol=1e-12)
        np.testing.assert_array_equal(a.forces, c.forces)


def test_permutations_are_undone():
    """Turned, shifted and permuted, then back: the store as it was. Sizes that differ, and graphs, are refused."""
    store = labelled(random_molecules(3, 5, 5, seed=9))
    g = Product(SO3(), Translations(1.0), Permutations(5)).sample(np.random.default_rng(5), 3)
    there = turn_store(g, store, about="origin")
    assert not np.array_equal(there.numbers, store.numbers)
    back = turn_store(g.inverse(), there, about="origin")
    np.testing.assert_array_equal(back.numbers, store.numbers)
    np.testing.assert_allclose(back.positions, store.positions, atol=1e-12)
    np.testing.assert_allclose(back.forces, store.forces, atol=1e-12)
    with pytest.raises(InputError, match="of that size"):
        turn_store(g[:1], mixed().take(np.array([0])))
    with pytest.raises(InputError, match="not permuted"):
        turn(g, build_graph(store, 4.0))


def test_gradients_pass_through_a_turned_graph():
    """Training's own measure needs them: the derivative of a turned length by the positions is that of the length."""
    graph = build_graph(labelled(random_molecules(2, 4, 5, seed=10)), 4.0, dtype=torch.float64)
    x = graph.positions.clone().requires_grad_()
    g = SO3().sample(np.random.default_rng(6), 2)
    turned = turn(g, replace(graph, positions=x))
    (a,) = torch.autograd.grad(turned.vectors.square().sum(), x)
    (b,) = torch.autograd.grad(replace(graph, positions=x).vectors.square().sum(), x)
    torch.testing.assert_close(a, b)
