"""Losses that make a potential more symmetric: what they are, what they cost, and that nothing else changes."""

from __future__ import annotations

import typing
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
import torch
from models.test_contract import small
from runs import tiny_spec, tiny_store
from test_loop import Killed, files, same, weights

from equiscale.data.orientation import haar
from equiscale.data.structure import Structure
from equiscale.errors import InputError
from equiscale.graph import AtomGraph, Prediction
from equiscale.models import ModelConfig
from equiscale.models.base import graph_for
from equiscale.predict import predict
from equiscale.run import Remedy, RunSpec, load
from equiscale.symmetry.graphs import twisted_predictions
from equiscale.train import remedies
from equiscale.train.force_field import Batch, ForceField
from equiscale.train.loop import executed_ratio, train_step
from equiscale.train.loss import per_structure
from equiscale.train.optim import build, optimizer
from equiscale.train.record import train

ARCHITECTURES = typing.get_args(typing.get_args(ModelConfig)[0])
LOSSES = ("symmetry", "consistency", "lie")
every_loss = pytest.mark.parametrize("loss", LOSSES)
CONSERVATIVE = dict(forces="conservative", envelope="polynomial")


@pytest.fixture(scope="module")
def store():
    return tiny_store()


def spec_of(loss: str, kind: str = "mpnn", *, copies: int = 3, weight: float = 1.0, model=None, **fields) -> RunSpec:
    spec = tiny_spec(kind, remedy=Remedy(loss=loss, copies=copies, weight=weight), **fields)
    return replace(spec, model=replace(spec.model, **(model or {})))


def off_start(spec: RunSpec, dtype: torch.dtype = torch.float32):
    """A potential with every weight moved off its start."""
    potential = build(spec.model, spec.optim, 0).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in potential.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=dtype))
    return potential


def in_double(task: ForceField, potential, batch: Batch) -> Prediction:
    """[copies]: what the remedy's loss is made of, without rounding to float32."""
    graph = batch.graph.to(dtype=torch.float64)
    return twisted_predictions(lambda g: predict(potential, g, create_graph=True), graph, batch.turned)


def turned_by_hand(graph: AtomGraph, turns: np.ndarray, s: int) -> Structure:
    mine = (graph.structure == s).numpy()
    x = graph.positions[mine].double().numpy()
    return Structure(graph.numbers[mine].numpy(), (x - x.mean(0)) @ turns[s].T + x.mean(0))


@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_symmetry_loss_by_hand(forces, store):
    """Eq. 2: every structure turned, with its forces, against eq. 1, weights of the two parts and λ included."""
    model = CONSERVATIVE if forces == "conservative" else {}
    spec = spec_of("symmetry", copies=2, weight=0.7, model=model, energy_weight=2.0, force_weight=3.0)
    task = ForceField.of(spec, store)
    potential = off_start(spec)
    (batch,) = task.micro_batches(1)
    loss, parts = task.loss(potential, batch)
    (plain,) = ForceField.of(replace(spec, remedy=None), store).micro_batches(1)
    without, eq_1 = task.loss(potential, plain)
    assert parts["energy_loss"].item() == pytest.approx(eq_1["energy_loss"].item(), rel=1e-4)
    assert parts["force_loss"].item() == pytest.approx(eq_1["force_loss"].item(), rel=1e-4)
    expected = []
    for matrix in batch.turned.matrix[1:]:
        made = [turned_by_hand(batch.graph, matrix, s) for s in range(batch.graph.num_structures)]
        graph = graph_for(spec.model, made)
        each = torch.from_numpy(matrix).float()[batch.graph.structure]
        label = Prediction(batch.label.energy, (each @ batch.label.forces[:, :, None]).squeeze(-1))
        energy, force = per_structure(predict(potential, graph), label, graph)
        expected.append((2 * energy + 3 * force).mean().item())
    assert parts["symmetry_loss"].item() == pytest.approx(np.mean(expected), rel=1e-4)
    assert loss.item() == pytest.approx(without.item() + 0.7 * np.mean(expected), rel=1e-4)


def test_consistency_by_hand(store):
    """The mean ‖f(g x) - g f(x)‖² over atoms and copies, and the squared energies per atom; labels play no part."""
    spec = spec_of("consistency", copies=2)
    task = ForceField.of(spec, store)
    potential = off_start(spec)
    (batch,) = task.micro_batches(0)
    found = task.loss(potential, batch)[1]["symmetry_loss"].item()
    other = replace(batch, label=Prediction(batch.label.energy + 3, batch.label.forces - 1))
    assert task.loss(potential, other)[1]["symmetry_loss"].item() == found
    base, expected = predict(potential, batch.graph), []
    for matrix in batch.turned.matrix[1:]:
        made = [turned_by_hand(batch.graph, matrix, s) for s in range(batch.graph.num_structures)]
        out = predict(potential, graph_for(spec.model, made))
        for s, turn in enumerate(torch.from_numpy(matrix).float()):
            mine = batch.graph.structure == s
            force = (out.forces[mine] - base.forces[mine] @ turn.T).square().sum(1).mean()
            energy = ((out.energy[s] - base.energy[s]) / mine.sum()).square()
            expected.append((force + energy).item())
    assert found == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_lie_is_the_derivative_over_all_three_axes_in_the_mean(forces, store):
    """Σ_a ‖L_a f‖² by fine differences along x, y and z, against the mean of the term over many random axes."""
    spec = spec_of("lie", model=CONSERVATIVE if forces == "conservative" else {})
    task = ForceField.of(spec, store)
    potential = off_start(spec, torch.float64)
    (batch,) = task.micro_batches(0)
    graph = batch.graph.to(dtype=torch.float64)
    size = graph.num_structures
    h, total = 1e-4, 0.0
    for axis in np.eye(3):
        there = np.broadcast_to(remedies.about(axis, h), (size, 3, 3))
        pair = np.stack([there, there.swapaxes(1, 2)])
        out = in_double(task, potential, replace(batch, turned=replace(batch.turned, matrix=pair)))
        slope = (out.energy[0] - out.energy[1]) / (2 * h), (out.forces[0] - out.forces[1]) / (2 * h)
        total += remedies.squared(*slope, graph).mean().item()
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        turned = remedies.drawn(spec.remedy, size, rng)
        out = in_double(task, potential, replace(batch, turned=turned))
        found.append(remedies.terms(spec.remedy, spec.optim, out, batch.label, graph).mean().item())
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(total, abs=4 * error)
    assert error < 0.05 * total


@every_loss
def test_an_equivariant_potential_has_nothing_to_pay(loss, store):
    """Its symmetry loss is eq. 1 again, the other two are rounding: a copy turned without its label would show."""
    spec = spec_of(loss, "egnn")
    task = ForceField.of(spec, store)
    potential = off_start(spec)
    (batch,) = task.micro_batches(0)
    total, parts = task.loss(potential, batch)
    eq_1 = (parts["energy_loss"] + parts["force_loss"]).item()
    term = parts["symmetry_loss"].item()
    assert total.item() == pytest.approx(eq_1 + term, rel=1e-5)
    if loss == "symmetry":
        assert term == pytest.approx(eq_1, rel=1e-4)
    else:
        assert 0 <= term < 1e-6
        assert task.loss(off_start(spec_of(loss)), batch)[1]["symmetry_loss"].item() > 1e-3


@every_loss
@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_gradients_are_finite_differences(loss, forces, store):
    """Of the whole objective, weight by weight, through the turned copies and the double backward (float64)."""
    spec = spec_of(loss, copies=2, weight=0.5, model=CONSERVATIVE if forces == "conservative" else {})
    task = ForceField.of(spec, store)
    potential = off_start(spec, torch.float64)
    (batch,) = task.micro_batches(0)
    label, graph = batch.label.to(dtype=torch.float64), batch.graph.to(dtype=torch.float64)

    def objective() -> torch.Tensor:
        out = in_double(task, potential, batch)
        energy, force = per_structure(Prediction(out.energy[0], out.forces[0]), label, graph)
        return (energy + force + 0.5 * remedies.terms(spec.remedy, spec.optim, out, label, graph)).mean()

    objective().backward()
    weights_ = [p for p in potential.parameters() if p.grad is not None and p.grad.abs().max() > 1e-4]
    assert len(weights_) > 5
    for p in weights_[:: len(weights_) // 4]:
        at, flat, h = int(p.grad.abs().flatten().argmax()), p.data.view(-1), 1e-6
        flat[at] += h
        above = objective().item()
        flat[at] -= 2 * h
        below = objective().item()
        flat[at] += h
        assert p.grad.flatten()[at].item() == pytest.approx((above - below) / (2 * h), rel=1e-4)


@every_loss
@pytest.mark.parametrize("forces", ["direct", "conservative"])
@pytest.mark.parametrize("cls", ARCHITECTURES, ids=lambda c: c().kind)
def test_one_step_of_every_architecture(cls, loss, forces, store):
    """A finite gradient that the remedy has a part in."""
    model = small(cls, forces=forces, elements=(1, 6, 7, 8), depth=1, grid=None)
    found = []
    for remedy in (None, Remedy(loss=loss, copies=2)):
        spec = replace(tiny_spec(atom_budget=8), model=model, remedy=remedy)
        spec = replace(spec, optim=replace(spec.optim, base_width=model.width))
        task = ForceField.of(spec, store)
        potential = off_start(spec).train()
        done = train_step(task, potential, optimizer(potential, model, spec.optim), 0, None)
        assert np.isfinite(list(done.values())).all()
        found.append(done)
    plain, remedied = found
    assert "symmetry_loss" not in plain
    assert remedied["tokens"] == plain["tokens"]  # D counts structures, not their copies
    assert remedied["flops"] == 3 * plain["flops"]
    if not model.equivariant or loss == "symmetry":
        assert remedied["gradient_norm"] != pytest.approx(plain["gradient_norm"], rel=1e-3)


# --- cost ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mpnn", "egnn"])
@pytest.mark.parametrize("forces", ["direct", "conservative"])
@pytest.mark.parametrize(("loss", "copies", "passes"), [("symmetry", 5, 6), ("consistency", 1, 2), ("lie", 5, 3)])
def test_executed_flops_are_those_of_all_passes(kind, forces, loss, copies, passes, store):
    """M = 5 copies cost six plain steps: would catch a pass that is not counted, or one that is made twice."""
    spec = spec_of(loss, kind, copies=copies, model=CONSERVATIVE if forces == "conservative" else {})
    plain = ForceField.of(replace(spec, remedy=None), store)
    task = ForceField.of(spec, store)
    potential = build(spec.model, spec.optim, 0)
    (batch,), (before,) = task.micro_batches(0), plain.micro_batches(0)
    assert task.flops(batch) == passes * plain.flops(before)
    ratio = [executed_ratio(t, potential, 2) * t.flops(b) for t, b in ((task, batch), (plain, before))]
    assert ratio[0] / ratio[1] == pytest.approx(passes, rel=0.01)


# --- what must not change ------------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("budget", [1, 30])
def test_micro_batches_change_rounding_only(loss, budget, store):
    """The turns are the whole step's: each piece has its own structures' ones, and shares add up."""
    ends = []
    for limit in (4096, budget):
        spec = spec_of(loss, batch_structures=5, atom_budget=limit, augment=True)
        task = ForceField.of(spec, store)
        batches = task.micro_batches(2)
        potential = off_start(spec).train()
        done = train_step(task, potential, optimizer(potential, spec.model, spec.optim), 2, None)
        ends.append((len(batches), np.concatenate([b.turned.matrix for b in batches], axis=1), done))
    (one, turns, whole), (several, pieces, cut) = ends
    assert several > one == 1
    assert np.array_equal(turns, pieces)
    for name in ("loss", "energy_loss", "force_loss", "symmetry_loss", "gradient_norm"):
        assert cut[name] == pytest.approx(whole[name], rel=2e-4)


def test_turns_are_a_function_of_seed_and_step(store):
    """The same step asked for twice, and out of order; another step, another seed: other turns. Data stay theirs."""
    task = ForceField.of(spec_of("symmetry"), store)
    (a,), (b,), (again,) = (task.micro_batches(k) for k in (3, 4, 3))
    assert np.array_equal(a.turned.matrix, again.turned.matrix)
    other = ForceField.of(spec_of("symmetry", seed=1), store).micro_batches(3)[0]
    for x in (b, other):
        assert np.abs(x.turned.matrix[1:] - a.turned.matrix[1:]).max() > 0.1
    plain = ForceField.of(tiny_spec(augment=True), store).micro_batches(3)[0]
    augmented = ForceField.of(spec_of("symmetry", augment=True), store).micro_batches(3)[0]
    assert torch.equal(plain.graph.positions, augmented.graph.positions)
    first = haar(np.random.default_rng([0, 2, 3]), 1)[0]  # augmentation's own
    assert not any(np.allclose(first, turn) for turn in augmented.turned.matrix.reshape(-1, 3, 3))


@every_loss
def test_a_killed_run_goes_on_bit_for_bit(loss, store, tmp_path):
    """With batches made ahead in a thread, stopped twice: everything written is as if undisturbed."""
    spec = spec_of(loss, linear_points=16)
    train(spec, store, tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    for stop in (5, 11):

        def tell(progress, stop=stop):
            if progress.step >= stop:
                raise Killed

        with pytest.raises(Killed):
            train(spec, store, folder, tell=tell, checkpoint_every=0.0, ahead=True)
    train(spec, store, folder, ahead=True)
    assert files(folder, spec) == files(tmp_path / "undisturbed", spec)


def test_records_tell_the_term_apart_and_validate_without_it(store, tmp_path):
    """The log has eq. 1's parts and the term; validation is eq. 1; a weight that does nothing learns the same."""
    spec, faint = spec_of("consistency", weight=0.5), spec_of("consistency", weight=1e-30)
    plain = replace(spec, remedy=None)
    for each in (spec, faint, plain):
        train(each, store, tmp_path)
    log = pyarrow.parquet.read_table(tmp_path / f"{spec.key}.curve.parquet").to_pydict()
    total = np.array(log["energy_loss"]) + log["force_loss"] + 0.5 * np.array(log["symmetry_loss"])
    np.testing.assert_allclose(log["loss"], total, rtol=1e-5)
    assert "symmetry_loss" not in pyarrow.parquet.read_table(tmp_path / f"{plain.key}.curve.parquet").column_names
    ends = [load(tmp_path / f"{each.key}.json") for each in (spec, faint, plain)]
    assert ends[1].final_molecules.loss == pytest.approx(ends[2].final_molecules.loss, rel=1e-3)
    assert ends[0].final_molecules.loss != pytest.approx(ends[2].final_molecules.loss, rel=1e-3)
    assert ends[0].curve[-1].flops_model == 4 * ends[2].curve[-1].flops_model
    assert not same(weights(tmp_path, spec), weights(tmp_path, plain))


@every_loss
def test_it_makes_the_unconstrained_more_symmetric(loss, store):
    """Some steps with the remedy leave a smaller consistency error than as many without: it is descended."""
    errors = []
    for remedy in (None, Remedy(loss=loss, copies=2, weight=3.0)):
        spec = tiny_spec(structures=32, epochs=4, remedy=remedy)
        task = ForceField.of(spec, store)
        potential = build(spec.model, spec.optim, 0).train()
        made = optimizer(potential, spec.model, spec.optim)
        for step in range(48):
            train_step(task, potential, made, step, spec.optim.clip)
        watch = ForceField.of(replace(spec, remedy=Remedy(loss="consistency", copies=4)), store)
        with torch.no_grad():
            errors.append(np.mean([float(watch.loss(potential, b)[1]["symmetry_loss"])
                                   for k in range(8) for b in watch.micro_batches(k)]))  # fmt: skip
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("dtype", ["bf16", "tf32"])
def test_lie_in_few_digits_is_refused(dtype, store):
    with pytest.raises(InputError, match="too few digits"):
        ForceField.of(replace(spec_of("lie"), dtype=dtype), store)


def test_bfloat16_turns_in_float32(store):
    """Positions of turned copies keep their digits; an equivariant potential's loss stays near eq. 1."""
    spec = replace(spec_of("symmetry", "egnn"), dtype="bf16")
    task = ForceField.of(spec, store)
    (batch,) = task.micro_batches(0)
    _, parts = task.loss(off_start(spec), batch)
    eq_1 = (parts["energy_loss"] + parts["force_loss"]).item()
    assert parts["symmetry_loss"].item() == pytest.approx(eq_1, rel=0.05)
