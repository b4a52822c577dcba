"""Neighbour lists three ways (all pairs, vesin, brute force), the cap and its tie rule, batching, and the layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from molecules import crystal, random_molecules

import equiscale.graph as module
from equiscale.data.store import Store
from equiscale.data.structure import Structure
from equiscale.errors import InputError
from equiscale.graph import AtomGraph, build_graph, safe_norm, sum_by

CUTOFF = 4.0


def brute_force(s: Structure, cutoff: float, cap: int | None = None) -> list[tuple[int, int, tuple[float, ...]]]:
    """(receiver, sender, vector) of every edge, by trying every pair and image; nearest first within a receiver."""
    images = np.zeros((1, 3), int)
    if s.cell is not None:
        heights = 1 / np.linalg.norm(np.linalg.inv(s.cell), axis=0)
        spread = np.abs(s.positions @ np.linalg.inv(s.cell)).max() * 2
        n = np.ceil(cutoff / heights + spread).astype(int)
        images = np.array([(i, j, k) for i in range(-n[0], n[0] + 1) for j in range(-n[1], n[1] + 1)
                           for k in range(-n[2], n[2] + 1)])  # fmt: skip
    cell = np.zeros((3, 3)) if s.cell is None else s.cell
    edges = []
    for i in range(len(s)):
        mine = []
        for j in range(len(s)):
            for image in images:
                vector = s.positions[j] + image @ cell - s.positions[i]
                d = np.linalg.norm(vector)
                if d < cutoff and (i != j or image.any()):
                    mine.append((d, j, tuple(image.tolist()), tuple(vector.tolist())))
        mine.sort(key=lambda e: e[:3])
        edges += [(i, j, vector) for _, j, _, vector in (mine if cap is None else mine[:cap])]
    return edges


def edges_of(graph: AtomGraph) -> list[tuple]:
    """Receiver, sender and rounded vector of every edge, sorted."""
    rows = zip(graph.receiver.tolist(), graph.sender.tolist(), graph.vectors.round(decimals=8).tolist())
    return sorted((r, s, tuple(x + 0.0 for x in v)) for r, s, v in rows)


def expected(structures, cutoff: float, cap: int | None) -> list[tuple]:
    edges, offset = [], 0
    for s in structures:
        for i, j, v in brute_force(s, cutoff, cap):
            edges.append((i + offset, j + offset, tuple(float(x) + 0.0 for x in np.round(v, 8))))
        offset += len(s)
    return sorted(edges)


def by_cells(monkeypatch, *arguments, **options) -> AtomGraph:
    """The same graph through vesin."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "ALL_PAIRS_UP_TO", 0)
        return build_graph(*arguments, **options)


@pytest.mark.parametrize("cap", [None, 30, 5, 1])
def test_all_pairs_equals_vesin_equals_brute_force(monkeypatch, cap):
    structures = random_molecules(6, 1, 20, seed=0)
    options = dict(cutoff=CUTOFF, max_neighbors=cap, dtype=torch.float64)
    fast, cells = build_graph(structures, **options), by_cells(monkeypatch, structures, **options)
    assert edges_of(fast) == expected(structures, CUTOFF, cap)
    assert edges_of(cells) == edges_of(fast)
    assert fast.max_degree <= (cap or 19)


@pytest.fixture(scope="module")
def carbonates(shared):
    """Clusters of up to 87 atoms: the only data at hand that reach a cap of 30."""
    io = pytest.importorskip("ase.io")
    frames = io.read(shared / "data" / "extxyz" / "solvent_xtb_test.xyz", index=":", format="extxyz")
    structures = [Structure(a.numbers.astype(np.int64), a.positions) for a in frames if len(a) > 60]
    crowd = [int(build_graph([s], 6.0).degree.max()) for s in structures]
    return [structures[k] for k in np.argsort(crowd)[-6:]]


@pytest.mark.parametrize("cap", [None, 30])
def test_carbonate_clusters_at_the_cap(monkeypatch, carbonates, cap):
    options = dict(cutoff=6.0, max_neighbors=cap, dtype=torch.float64)
    fast, cells = build_graph(carbonates, **options), by_cells(monkeypatch, carbonates, **options)
    assert edges_of(fast) == edges_of(cells)
    assert edges_of(fast) == expected(carbonates, 6.0, cap)
    if cap is None:
        assert int(fast.degree.max()) > 30  # so that the cap of the other case does cut
    else:
        assert int(fast.degree.max()) == 30
        assert len({(r, s) for r, s in zip(fast.receiver.tolist(), fast.sender.tolist())} ^
                   {(s, r) for r, s in zip(fast.receiver.tolist(), fast.sender.tolist())}) > 0  # fmt: skip


def test_of_equally_near_atoms_those_with_the_lower_index_stay(monkeypatch):
    """Six neighbours at the same distance along the axes, whose squares are exact: the rule decides, not rounding."""
    x = 1.5 * np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.0]])
    for order in (np.arange(7), np.array([0, 6, 5, 4, 3, 2, 1]), np.array([3, 1, 0, 2, 6, 5, 4])):
        s = Structure(np.full(7, 6), x[order])
        centre = int(np.flatnonzero(order == 0)[0])
        others = [k for k in range(7) if k != centre]
        options = dict(cutoff=1.6, max_neighbors=3, dtype=torch.float64)
        for graph in (build_graph([s], **options), by_cells(monkeypatch, [s], **options)):
            assert graph.sender[graph.receiver == centre].tolist() == others[:3]


@pytest.mark.parametrize("cap", [None, 7])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_periodic_cells(cap, seed):
    """Images, atoms outside their cell, and a skewed cell smaller than the cutoff."""
    s = crystal(5, seed=seed, edge=3.2)
    graph = build_graph([s], CUTOFF, cap, dtype=torch.float64)
    assert len(graph.receiver) > 0
    if cap is None:
        assert edges_of(graph) == expected([s], CUTOFF, cap)
    else:  # equal distances differ in their last bits between the two sums: compare what has to be equal
        lengths = [np.sort(np.linalg.norm([v for i, _, v in brute_force(s, CUTOFF, cap) if i == a], axis=1))
                   for a in range(5)]  # fmt: skip
        d = graph.vectors.norm(dim=1)
        for a in range(5):
            np.testing.assert_allclose(np.sort(d[graph.receiver == a].numpy()), lengths[a], atol=1e-9)


def test_an_atom_alone_in_a_small_cell_neighbours_its_own_images():
    """Simple cubic, 2 Å: 6 at 2 Å, 12 at 2.83 Å, 8 at 3.46 Å, and itself never at distance zero."""
    s = Structure(np.array([6]), np.array([[0.3, 0.1, 5.0]]), cell=2.0 * np.eye(3))
    graph = build_graph([s], 3.5, None, dtype=torch.float64)
    assert len(graph.receiver) == 26
    assert not graph.receiver.any()
    assert not graph.sender.any()
    d = graph.vectors.norm(dim=1).sort().values
    np.testing.assert_allclose(d, np.repeat([2, 8**0.5, 12**0.5], [6, 12, 8]), atol=1e-12)
    assert torch.allclose(sum_by(graph.receiver, graph.vectors, 1), torch.zeros(1, 3, dtype=torch.float64))


def test_a_periodic_structure_may_be_batched_with_molecules():
    structures = [random_molecules(1, 7, 7, seed=4)[0], crystal(4, seed=4), random_molecules(1, 1, 1, seed=5)[0]]
    graph = build_graph(structures, CUTOFF, 30, dtype=torch.float64)
    assert edges_of(graph) == expected(structures, CUTOFF, 30)
    assert not graph.shift[graph.receiver < 7].any()
    store = Store.from_structures([replace(s, energy=0.0, forces=np.zeros((len(s), 3))) for s in structures])
    assert edges_of(build_graph(store, CUTOFF, 30, dtype=torch.float64)) == edges_of(graph)


def test_wrapping_an_atom_into_another_image_changes_no_vector():
    s = crystal(5, seed=6)
    shift = np.random.default_rng(0).integers(-2, 3, (5, 3)) @ s.cell
    inside, wrapped = (
        build_graph([x], CUTOFF, None, dtype=torch.float64) for x in (s, replace(s, positions=s.positions + shift))
    )
    assert edges_of(inside) == edges_of(wrapped)


def test_a_large_structure_equals_the_small_path(monkeypatch):
    """More than ALL_PAIRS_UP_TO atoms go through vesin by themselves."""
    large = random_molecules(1, 210, 210, seed=7)[0]
    small = random_molecules(2, 5, 9, seed=8)
    assert len(large) > module.ALL_PAIRS_UP_TO
    options = dict(cutoff=CUTOFF, max_neighbors=30, dtype=torch.float64)
    cells = build_graph([*small, large], **options)
    monkeypatch.setattr(module, "ALL_PAIRS_UP_TO", 1000)
    pairs = build_graph([*small, large], **options)
    assert edges_of(cells) == edges_of(pairs)
    assert int(pairs.degree.max()) == 30


def graphs() -> list[AtomGraph]:
    return [
        build_graph(random_molecules(5, 1, 12, seed=9), CUTOFF, 6),
        build_graph([crystal(6, seed=9), *random_molecules(2, 1, 3, seed=9)], CUTOFF, 30),
        build_graph(random_molecules(2, 1, 1, seed=9), CUTOFF, 30),
    ]


@pytest.mark.parametrize("graph", graphs(), ids=["molecules", "mixed", "lone atoms"])
def test_layout(graph):
    """Edges sorted by receiver, slots counted from zero, padding exact, no edge between structures."""
    receiver = graph.receiver
    assert bool((receiver.diff() >= 0).all())
    assert torch.equal(graph.degree, torch.bincount(receiver, minlength=len(graph.numbers)))
    assert graph.max_degree == int(graph.degree.max())
    for atom in range(len(graph.numbers)):
        assert graph.slot[receiver == atom].tolist() == list(range(int(graph.degree[atom])))
    assert torch.equal(graph.structure[receiver], graph.structure[graph.sender])
    assert torch.equal(torch.bincount(graph.structure), graph.size)
    assert graph.num_structures == len(graph.size)
    values = torch.arange(1.0, 2 * len(receiver) + 1).view(-1, 2)
    padded = graph.pad(values)
    assert padded.shape == (len(graph.numbers), graph.max_degree, 2)
    assert torch.equal(padded[receiver, graph.slot], values)
    assert int((padded != 0).sum()) == values.numel()
    assert torch.equal(padded.sum(1), sum_by(receiver, values, len(graph.numbers)))


def test_vectors_point_from_receiver_to_sender_and_carry_gradients():
    graph = build_graph(random_molecules(1, 4, 4, seed=10), CUTOFF, dtype=torch.float64)
    x = graph.positions.clone().requires_grad_()
    vectors = replace(graph, positions=x).vectors
    torch.testing.assert_close(vectors, graph.positions[graph.sender] - graph.positions[graph.receiver])
    (g,) = torch.autograd.grad(vectors[0].sum(), x)
    assert g[graph.sender[0]].tolist() == [1.0, 1.0, 1.0]
    assert g[graph.receiver[0]].tolist() == [-1.0, -1.0, -1.0]


def test_charge_and_spin_are_carried():
    a, b = random_molecules(2, 3, 5, seed=11)
    graph = build_graph([replace(a, charge=-1, spin=2), b], CUTOFF)
    assert graph.charge.tolist() == [-1, 0]
    assert graph.spin.tolist() == [2, 1]
    labelled = [replace(s, energy=0.0, forces=np.zeros((len(s), 3))) for s in (replace(a, charge=3, spin=4), b)]
    graph = build_graph(Store.from_structures(labelled), CUTOFF)
    assert graph.charge.tolist() == [3, 0]
    assert graph.spin.tolist() == [4, 1]
    assert graph.charge.dtype == torch.int64


def test_the_cutoff_itself_is_outside(monkeypatch):
    s = Structure(np.array([1, 1]), np.array([[0.0, 0, 0], [2.0, 0, 0]]))
    for graph in (build_graph([s], 2.0), by_cells(monkeypatch, [s], 2.0)):
        assert len(graph.receiver) == 0


def test_safe_norm_has_finite_derivatives_at_zero():
    x = torch.zeros(2, 3, dtype=torch.float64)
    x[1, 0] = 2.0
    x.requires_grad_()
    (first,) = torch.autograd.grad(safe_norm(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sin().sum(), x)
    assert first.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert torch.isfinite(second).all()
    assert not second[0].any()


@pytest.mark.parametrize("cap", [None, 3])
def test_symmetric_edges_are_the_union_and_know_their_counter_edge(monkeypatch, cap):
    structures = [crystal(6, seed=11, edge=3.0), *random_molecules(2, 5, 9, seed=11)]
    options = dict(cutoff=CUTOFF, max_neighbors=cap, dtype=torch.float64)
    for make, given in (
        (build_graph, structures[1:]),
        (build_graph, structures),
        (lambda *a, **o: by_cells(monkeypatch, *a, **o), structures[1:]),
    ):
        plain, graph = make(given, **options), make(given, symmetric=True, **options)
        back = graph.reverse
        assert torch.equal(graph.receiver[back], graph.sender)
        torch.testing.assert_close(graph.vectors[back], -graph.vectors, rtol=0, atol=1e-12)
        assert torch.equal(back[back], torch.arange(len(back)))
        kept = set(edges_of(plain))
        assert set(edges_of(graph)) == kept | {(s, r, tuple(0.0 - x for x in v)) for r, s, v in kept}
        assert (len(graph.receiver) > len(plain.receiver)) == (cap is not None)


def test_counts_are_sums_over_atoms_and_structures():
    graph = build_graph(random_molecules(3, 2, 9, seed=12), CUTOFF)
    degrees = torch.bincount(graph.receiver, minlength=len(graph.numbers))
    counts = graph.counts
    assert (counts.atoms, counts.edges) == (len(graph.numbers), len(graph.sender))
    assert counts.edge_pairs == int((degrees**2).sum())
    assert counts.atom_pairs == int((graph.size**2).sum())


def test_without_a_cutoff_there_are_no_edges_and_no_crystals():
    graph = build_graph(random_molecules(2, 3, 5, seed=13), None)
    assert len(graph.receiver) == graph.max_degree == 0
    with pytest.raises(InputError, match="molecules only"):
        build_graph([crystal(3, seed=13)], None)
