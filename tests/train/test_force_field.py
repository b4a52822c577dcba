"""Eq. 1, its exact composition over micro-batches, the order of structures, and augmentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import structures, tiny_spec, tiny_store

from equiscale.data.orientation import haar
from equiscale.data.store import Store
from equiscale.data.structure import Structure
from equiscale.errors import InputError
from equiscale.graph import Prediction, build_graph
from equiscale.train.epochs import by_molecule
from equiscale.train.force_field import Batch, ForceField, cut, edges_at_most, rotated
from equiscale.train.loop import train_step
from equiscale.train.loss import per_structure
from equiscale.train.optim import build, optimizer

KINDS = ("mpnn", "egnn")


@pytest.fixture(scope="module")
def store():
    return tiny_store()


def test_eq_1_by_hand():
    """Two atoms and one: the mean over structures of per-structure means, not over atoms."""
    pair = Structure(np.array([1, 1]), np.array([[0.0, 0, 0], [1, 0, 0]]))
    graph = build_graph([pair, Structure(np.array([8]), np.zeros((1, 3)))], 3.0, dtype=torch.float64)
    label = Prediction(torch.tensor([1.0, -2.0]).double(), torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 1]]).double())
    made = Prediction(torch.tensor([4.0, -1.0]).double(), torch.tensor([[3.0, 4, 0], [1, 0, 0], [0, 0, 0]]).double())
    energy, force = per_structure(made, label, graph)
    assert energy.tolist() == [1.5, 1.0]  # |4 - 1| / 2, |-1 + 2| / 1
    assert force.tolist() == [2.5, 1.0]  # (5 + 0) / 2, 1 / 1: L2 norms of vectors, not sums of components
    assert (energy + force).mean().item() == 3.0


def test_the_steps_loss_is_eq_1(store):
    """Through the task: weights of the parts, the share of each micro-batch, and float32 labels."""
    spec = tiny_spec(batch_structures=4, atom_budget=8, energy_weight=2.0, force_weight=3.0)
    task = ForceField.of(spec, store)
    potential = build(spec.model, spec.optim, 0)
    batches = task.micro_batches(3)
    assert len(batches) > 1
    total = sum(task.loss(potential, b)[0] for b in batches)
    whole = ForceField.of(replace(spec, optim=replace(spec.optim, atom_budget=4096)), store)
    (batch,) = whole.micro_batches(3)
    with torch.no_grad():
        out = potential(batch.graph)
    energies, forces = [], []
    at = 0
    for s, n in enumerate(batch.graph.size.tolist()):
        rows = slice(at, at + n)
        energies.append(abs(float(out.energy[rows].sum() - batch.label.energy[s])) / n)
        forces.append(float((out.force[rows] - batch.label.forces[rows]).norm(dim=1).mean()))
        at += n
    assert total.item() == pytest.approx(2 * np.mean(energies) + 3 * np.mean(forces), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forces", ["direct", "conservative"])
@pytest.mark.parametrize("budget", [1, 9, 14])
def test_micro_batches_compose_exactly(kind, forces, budget, store):
    """Gradient, loss and parts of a cut step equal the whole step's, however unequal the pieces (float64)."""
    spec = tiny_spec(kind, batch_structures=5)
    spec = replace(spec, model=replace(spec.model, forces=forces, envelope="polynomial"))
    potential = build(spec.model, spec.optim, 0).double()
    found = []
    for limit in (4096, budget):
        task = ForceField.of(replace(spec, optim=replace(spec.optim, atom_budget=limit)), store)
        batches = [Batch(b.graph.to(dtype=torch.float64), b.label.to(dtype=torch.float64), b.share)
                   for b in task.micro_batches(1)]  # fmt: skip
        potential.zero_grad()
        losses = []
        for b in batches:
            loss, _ = in_double(task, potential, b)
            loss.backward()
            losses.append(loss.item())
        sizes = [len(b.graph.size) for b in batches]
        found.append((sum(losses), [None if p.grad is None else p.grad.clone() for p in potential.parameters()], sizes))
    (one, gradient, _), (other, pieces, sizes) = found
    assert sum(sizes) == 5
    assert len(sizes) > 1
    assert budget == 1 or len(set(sizes)) > 1  # unequal, so that a mean of means would differ
    assert one == pytest.approx(other, rel=1e-12)
    for a, b in zip(gradient, pieces):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def in_double(task: ForceField, potential, batch: Batch):
    """``task.loss`` less its rounding of predictions to float32."""
    from equiscale.predict import predict

    energy, force = per_structure(predict(potential, batch.graph, create_graph=True), batch.label, batch.graph)
    return (energy.sum() + force.sum()) * batch.share, {}


@pytest.mark.parametrize("kind", KINDS)
def test_whole_steps_agree_to_rounding(kind, store):
    """The same through ``train_step`` in float32: clipping acts on the gradient of the whole step."""
    ends = []
    for budget in (4096, 9):
        spec = tiny_spec(kind, batch_structures=5, atom_budget=budget, clip=0.5)
        task = ForceField.of(spec, store)
        potential = build(spec.model, spec.optim, 0).train()
        made = optimizer(potential, spec.model, spec.optim)
        done = [train_step(task, potential, made, step, spec.optim.clip) for step in range(3)]
        ends.append((done, [p.detach().clone() for p in potential.parameters()]))
    for a, b in zip(*(done for done, _ in ends)):
        assert a["tokens"] == b["tokens"]
        assert a["flops"] == b["flops"]
        for part in ("loss", "energy_loss", "force_loss", "gradient_norm"):
            assert a[part] == pytest.approx(b[part], rel=2e-4)
        assert a["energy_loss"] + a["force_loss"] == pytest.approx(a["loss"], rel=1e-5)


def test_cutting_keeps_order_and_budget():
    sizes = np.array([5, 5, 5, 20, 1, 1])
    assert [p.tolist() for p in cut(sizes, 10)] == [[0, 1], [2], [3], [4, 5]]
    assert [p.tolist() for p in cut(sizes, 1000)] == [[0, 1, 2, 3, 4, 5]]
    assert [p.tolist() for p in cut(sizes, 1)] == [[k] for k in range(6)]


def test_a_perfect_force_gives_a_finite_gradient():
    graph = build_graph(structures(2), 4.0)
    forces = torch.zeros(len(graph.numbers), 3, requires_grad=True)
    energy, force = per_structure(
        Prediction(torch.zeros(2), forces), Prediction(torch.zeros(2), torch.zeros_like(forces)), graph
    )
    (energy.sum() + force.sum()).backward()
    assert not forces.grad.any()


# --- order ---------------------------------------------------------------------------------------------------------


def test_a_smaller_runs_order_is_a_prefix(store):
    long, short = (ForceField.of(tiny_spec(structures=n), store) for n in (32, 12))
    assert short.order(0).tolist() == long.order(0)[:12].tolist()
    assert sorted(long.order(0).tolist()) == list(range(32))
    assert long.order(0).tolist() != ForceField.of(tiny_spec(seed=1), store).order(0).tolist()


def test_epochs_see_every_structure_once_in_another_order(store):
    task = ForceField.of(tiny_spec(structures=12, epochs=3), store)
    orders = [task.order(k).tolist() for k in range(3)]
    assert all(sorted(o) == sorted(orders[0]) for o in orders)
    assert len({tuple(o) for o in orders}) == 3
    seen = [b.graph.numbers for step in range(task.spec.steps) for b in task.micro_batches(step)]
    assert sum(len(x) for x in seen) == 3 * task.train.sizes[task.order(0)].sum()


def test_a_subset_of_molecules_holds_whole_ones(store):
    """All conformers of few molecules, nested, the last one cut; every epoch shuffles exactly these."""
    chosen = {}
    for count in (4, 10, 12, 32):
        task = ForceField.of(tiny_spec(structures=count, epochs=2, subset="molecules"), store)
        orders = [task.order(epoch).tolist() for epoch in (0, 1)]
        assert len(set(orders[0])) == count
        assert sorted(orders[0]) == sorted(orders[1])
        assert count == 4 or orders[0] != orders[1]
        chosen[count] = set(orders[0])
        sizes = np.bincount(task.train.group[orders[0]])
        whole = np.bincount(task.train.group)
        assert sorted(sizes[sizes > 0]) == sorted([4] * (count // 4) + [count % 4] * (count % 4 > 0))
        assert sum(0 < a < b for a, b in zip(sizes, whole)) == (count % 4 > 0)
        seen = [n for step in range(task.spec.steps_per_epoch) for b in task.micro_batches(step) for n in b.graph.size]
        assert sum(map(int, seen)) == task.unique_atoms(task.spec.steps) == task.train.sizes[orders[0]].sum()
    assert chosen[4] < chosen[10] < chosen[12] < chosen[32]
    other = ForceField.of(tiny_spec(structures=12, subset="molecules", seed=1), store)
    assert set(other.order(0).tolist()) != chosen[12]


def test_a_subset_of_structures_is_what_it_was(store):
    """The order of published runs, written out: NumPy's permutation and its prefix, later epochs shuffled anew."""
    task = ForceField.of(tiny_spec(structures=12, epochs=2, seed=4), store)
    first = np.random.default_rng([4, 1]).permutation(32)[:12]
    assert np.array_equal(task.order(0), first)
    assert np.array_equal(task.order(1), np.random.default_rng([4, 1, 1]).permutation(first))
    assert tiny_spec(subset="structures").key == tiny_spec().key != tiny_spec(subset="molecules").key


def test_the_order_of_molecules_does_not_know_their_numbers():
    """A packed store numbers molecules by hashes of their names, another by their place: the same ones are chosen."""
    groups = np.random.default_rng(0).integers(20, size=100)
    hashes = np.random.default_rng(1).integers(2**60, size=20)
    assert np.array_equal(by_molecule(groups, 3), by_molecule(hashes[groups], 3))
    assert sorted(by_molecule(groups, 3)) == list(range(100))
    firsts = {groups[by_molecule(groups, seed)[0]] for seed in range(200)}
    assert len(firsts) > 15  # any molecule may come first


def test_unique_atoms_stop_growing_after_the_first_epoch(store):
    task = ForceField.of(tiny_spec(structures=12, epochs=3), store)
    sizes = task.train.sizes[task.order(0)]
    assert task.unique_atoms(2) == sizes[:4].sum()
    assert task.unique_atoms(6) == task.unique_atoms(7) == task.unique_atoms(18) == sizes.sum()


def test_only_whole_steps_are_taken(store):
    spec = tiny_spec(structures=11, batch_structures=4)
    assert spec.steps == 2
    task = ForceField.of(spec, store)
    assert {b.graph.num_structures for step in range(2) for b in task.micro_batches(step)} == {4}
    with pytest.raises(InputError, match="do not fill one step"):
        ForceField.of(tiny_spec(structures=3, batch_structures=4), store)
    with pytest.raises(InputError, match="wants 33 training structures"):
        ForceField.of(tiny_spec(structures=33), store)


def test_references_come_from_the_whole_training_part_and_nothing_else(store):
    """So a shorter run has the same normalisation, and validation labels are not seen."""
    long, short = (ForceField.of(tiny_spec(structures=n), store) for n in (32, 12))
    assert long.references == short.references
    spoiled = replace(store, energy=np.where(store.part == 0, store.energy, store.energy + 1e3))
    assert ForceField.of(tiny_spec(), spoiled).references == long.references
    assert abs(long.train.energy.mean()) < 1e-9
    assert long.train.energy.std() == pytest.approx(1.0)


# --- augmentation --------------------------------------------------------------------------------------------------


def test_rotation_turns_forces_with_positions():
    """Distances, force lengths and the work f·r stay; the turns are proper and differ between structures."""
    made = structures(6)
    cell = np.broadcast_to(np.eye(3) * 9 + 0.1, (6, 3, 3)).copy()
    store = replace(Store.from_structures(made), cell=cell)
    turned = rotated(store, np.random.default_rng(0))
    turns = []
    for s in range(len(store)):
        a, b = store[s], turned[s]
        turn = np.linalg.lstsq(a.cell, b.cell, rcond=None)[0]  # cell @ turn
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-10)
        assert np.linalg.det(turn) == pytest.approx(1.0)
        np.testing.assert_allclose(a.positions @ turn, b.positions, atol=1e-5)
        np.testing.assert_allclose(a.forces @ turn, b.forces, atol=1e-5)
        turns.append(turn)
    assert np.abs(turns[0] - turns[1]).max() > 0.1
    assert np.array_equal(store.energy, turned.energy)


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_changes_the_loss_of_the_unconstrained_only(kind, store):
    """An equivariant potential's loss knows no rotation; if labels were left behind it would change here too."""
    plain, augmented = (ForceField.of(tiny_spec(kind, augment=a), store) for a in (False, True))
    potential = build(plain.spec.model, plain.spec.optim, 0)
    with torch.no_grad():
        for p in potential.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    differences = []
    for step in range(4):
        (a,), (b,) = plain.micro_batches(step), augmented.micro_batches(step)
        assert torch.equal(a.graph.numbers, b.graph.numbers)
        assert not torch.allclose(a.graph.positions, b.graph.positions, atol=1e-2)
        x, y = (task.loss(potential, batch)[0].item() for task, batch in ((plain, a), (augmented, b)))
        differences.append(abs(x - y) / x)
    if kind == "egnn":
        assert max(differences) < 1e-4
    else:
        assert max(differences) > 1e-3


def test_every_epoch_turns_anew_and_the_same_step_the_same_way(store):
    task = ForceField.of(tiny_spec(structures=2, epochs=2, augment=True), store)
    (a,), (again,), (b,) = task.micro_batches(0), task.micro_batches(0), task.micro_batches(1)
    assert torch.equal(a.graph.positions, again.graph.positions)
    assert sorted(a.graph.numbers.tolist()) == sorted(b.graph.numbers.tolist())
    assert not torch.allclose(a.graph.positions.sort(0).values, b.graph.positions.sort(0).values, atol=1e-2)


def test_steps_are_cut_by_edges_too(store):
    """The pieces of the whole step, in order; none with more edges than asked for, unless it is one structure."""
    spec = tiny_spec(batch_structures=12)
    (whole,) = ForceField.of(spec, store).micro_batches(0)
    budget = 60
    cut_spec = replace(spec, optim=replace(spec.optim, edge_budget=budget))
    pieces = ForceField.of(cut_spec, store).micro_batches(0)
    assert len(pieces) > 1
    assert sum(len(b.graph.numbers) for b in pieces) == len(whole.graph.numbers)
    assert torch.equal(torch.cat([b.graph.numbers for b in pieces]), whole.graph.numbers)
    for b in pieces:
        assert b.graph.receiver.shape[0] <= budget or len(b.graph.size) == 1
    assert spec.key == replace(spec, optim=replace(spec.optim, edge_budget=None)).key


@pytest.mark.parametrize("neighbors", [None, 2])
def test_no_graph_has_more_edges_than_it_is_counted_for(store, neighbors):
    most = edges_at_most(store, 5.0, neighbors)
    for s in range(len(store)):
        graph = build_graph([store[s]], 5.0, neighbors)
        assert graph.receiver.shape[0] <= most[s]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("periodic", [False, True])
def test_rotations_are_those_of_published_runs(store, dtype, periodic):
    """Bit for bit the formula that records were made with, written out here: else they could not be made again."""
    cell = np.random.default_rng(1).normal(size=(len(store), 3, 3)) if periodic else None
    made = replace(store, positions=store.positions.astype(dtype), forces=store.forces.astype(dtype), cell=cell)
    found = rotated(made, np.random.default_rng([7, 2, 3]))
    turn = haar(np.random.default_rng([7, 2, 3]), len(made))
    each = np.repeat(turn, made.sizes, axis=0)
    assert np.array_equal(found.positions, np.einsum("aij,aj->ai", each, made.positions))
    assert np.array_equal(found.forces, np.einsum("aij,aj->ai", each, made.forces))
    if periodic:
        assert np.array_equal(found.cell, np.einsum("sij,skj->ski", turn, made.cell))
