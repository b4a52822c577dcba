"""Tracking: it measures what it says, and it changes nothing."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import ELEMENTS, tiny_spec, tiny_store

from equiscale.graph import labels
from equiscale.models import EScAIPConfig
from equiscale.models.base import graph_for
from equiscale.predict import TrainedPotential, predict
from equiscale.run import (
    SymmetryPoint,
    Tracking,
    checkpoint_path,
    evaluation_steps,
    load,
    tracking_steps,
)
from equiscale.symmetry.designs import Coset
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.graphs import turn_store, twisted_predictions
from equiscale.symmetry.groups import SO3
from equiscale.symmetry.parts import parts
from equiscale.train import record as record_module
from equiscale.train.checkpoint import State
from equiscale.train.force_field import ForceField
from equiscale.train.optim import averaged, build, optimizer
from equiscale.train.record import train
from equiscale.train.tracking import SET, TRACKING, gradients, products, symmetry_point

TRACKED = Tracking(structures=5, gradients=True, gradient_structures=2)


@pytest.fixture(scope="module")
def store():
    return tiny_store()


def tracked(spec, tracking=TRACKED):
    return replace(spec, evaluation=replace(spec.evaluation, symmetry=tracking))


def less(record) -> dict:
    """The record without what is tracked."""
    shared = record.without_clock()
    shared.pop("symmetry", None)
    del shared["spec"]
    return shared


def escaip(head: str):
    return EScAIPConfig(width=16, depth=1, num_radial=8, cutoff=5.0, elements=ELEMENTS, force_head=head)


SPECS = {
    "mpnn": tiny_spec("mpnn", structures=12),
    "augmented": tiny_spec("mpnn", structures=12, augment=True),
    "conservative": tiny_spec("egnn", structures=12, envelope="polynomial", forces="conservative"),
    "escaip": replace(tiny_spec(structures=12), model=escaip("free")),
}


@pytest.mark.parametrize("kind", SPECS)
def test_tracking_changes_nothing(kind, store, tmp_path):
    """Would catch a look that trains, draws from the run's own numbers, or rounds the weights: all but the points is
    the same to the bit."""
    plain = SPECS[kind]
    a, b = train(tracked(plain), store, tmp_path), train(plain, store, tmp_path)
    assert less(a) == less(b)
    assert not b.symmetry
    one, two = (torch.load(checkpoint_path(tmp_path, r.spec.key) / "weights.pt", weights_only=True) for r in (a, b))
    assert all(torch.equal(one[name], two[name]) for name in two)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [1, 5])
def test_a_killed_run_keeps_its_points_and_draws_the_same_rotations(at, store, tmp_path):
    """Would catch points that a resumed run loses, measures twice, or draws other rotations for."""
    spec = tracked(tiny_spec(structures=16, augment=True, linear_points=8))
    undisturbed = train(spec, store, tmp_path / "undisturbed")

    def tell(progress):
        if progress.step >= at:
            raise Killed

    with pytest.raises(Killed):
        train(spec, store, tmp_path / "killed", tell=tell)
    again = train(spec, store, tmp_path / "killed")
    assert again.without_clock() == undisturbed.without_clock()
    assert [p.step for p in again.symmetry] == tracking_steps(spec.steps, spec.evaluation)
    assert load(tmp_path / "killed" / f"{spec.key}.json") == again


def test_tf32_is_of_the_run_and_not_of_its_look(store):
    """Would catch a point measured with products in tf32, whose rounding is told as broken symmetry; and a run that
    goes on in float32 after its first look, or after a look that failed."""
    spec = tracked(replace(tiny_spec(structures=8), dtype="tf32"))
    task = ForceField.of(spec, store)
    model = build(spec.model, spec.optim, spec.seed).eval()
    seen = set()
    model.register_forward_pre_hook(lambda *_: seen.add(torch.get_float32_matmul_precision()))
    before = torch.get_float32_matmul_precision()
    try:
        record_module.set_precision(spec)
        symmetry_point(task, model, TRACKED, State())
        assert torch.get_float32_matmul_precision() == "high"
        model.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            symmetry_point(task, model, TRACKED, State())
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == {"highest"}


def test_gradients_are_drawn_after_the_rest(store, tmp_path):
    """Would catch that asking for gradients gives the decomposition other rotations."""
    spec = tiny_spec(structures=8)
    on = train(tracked(spec), store, tmp_path).symmetry
    off = train(tracked(spec, replace(TRACKED, gradients=False)), store, tmp_path).symmetry
    left_out = dict(gradient_mean=None, gradient_equiv=None, gradient_cosine=None, seconds=0.0)
    assert [replace(p, **left_out) for p in on] == [replace(p, seconds=0.0) for p in off]


@pytest.mark.parametrize("kind", ["mpnn", "conservative"])
def test_a_point_is_what_turned_structures_say(kind, store, tmp_path):
    """Against turned stores whose graphs are built anew, one by one, and the formulas written out: would catch a wrong
    direction of a rotation, wrong units, another subset, other weights than the look's."""
    spec = tracked(SPECS[kind])
    point = train(spec, store, tmp_path).symmetry[-1]
    trained = TrainedPotential.load(checkpoint_path(tmp_path, spec.key))
    task = ForceField.of(spec, store)
    chosen = np.sort(np.random.default_rng(0).permutation(6)[:5])
    part = task.validation["molecules"].take(chosen)
    g = SO3().sample(np.random.default_rng([spec.seed, TRACKING, spec.steps]), 2, 5)
    z, e = [], []
    for i in range(2):
        turned = turn_store(g[i], part)
        out = predict(trained.potential, graph_for(spec.model, turned))
        back = g.matrix[i].transpose(0, 2, 1)[np.repeat(np.arange(5), part.sizes)]
        z.append(np.einsum("aij,aj->ai", back, out.forces.detach().double().numpy()))
        e.append(out.energy.detach().double().numpy())
    n, y = part.sizes, labels(part, dtype=torch.float64)

    def mean_over_structures(per_atom: np.ndarray) -> float:
        return float(np.mean(np.add.reduceat(per_atom, part.offsets[:-1]) / n))

    error = [v - y.forces.numpy() for v in z]
    assert point.total == pytest.approx(np.mean([mean_over_structures((d**2).sum(1)) / 3 for d in error]), rel=1e-4)
    assert point.mean == pytest.approx(mean_over_structures((error[0] * error[1]).sum(1)) / 3, rel=1e-4)
    assert point.equiv == pytest.approx(mean_over_structures(((z[0] - z[1]) ** 2).sum(1)) / 6, rel=1e-4, abs=1e-12)
    assert point.size == pytest.approx(np.mean([mean_over_structures((v**2).sum(1)) / 3 for v in z]), rel=1e-4)
    assert point.percent == pytest.approx(100 * point.equiv / point.total)
    assert point.total == pytest.approx(point.mean + point.equiv)
    energy = [np.abs(v - y.energy.numpy()) / n for v in e]
    norms = [mean_over_structures(np.linalg.norm(d, axis=1)) for d in error]
    assert point.loss == pytest.approx(np.mean(energy) + np.mean(norms), rel=1e-4)
    middle = mean_over_structures(np.linalg.norm((error[0] + error[1]) / 2, axis=1))
    at_middle = np.mean(np.abs((e[0] + e[1]) / 2 - y.energy.numpy()) / n)
    expected = 2 * (at_middle + middle) - (np.mean(energy) + np.mean(norms))  # jackknife of two
    assert point.loss_mean == pytest.approx(expected, rel=1e-4)
    assert (point.structures, point.atoms) == (12, task_atoms(task))
    assert point.seconds > 0
    if kind == "mpnn":
        assert point.percent > 1
    else:  # equivariant by construction: what is left is round-off
        assert point.equiv < 1e-10 * point.size


def task_atoms(task: ForceField) -> int:
    return sum(len(b.graph.numbers) for step in range(task.spec.steps) for b in task.micro_batches(step))


def test_gradients_are_unbiased(store):
    """Would catch that ∇L_mean holds a part of ∇L_equiv, or a norm that is too large by its noise: the mean over many
    looks is what the 60 rotations of the icosahedral group say, and that of one set's own products is far off."""
    spec = tiny_spec(width=4, depth=1, structures=4)
    tracking = Tracking(rotations=2, gradients=True, gradient_structures=2)
    task = ForceField.of(spec, store)
    model = build(spec.model, spec.optim, 1).eval()
    (batch,) = task.batches(SET, 2)
    weights = list(model.parameters())

    def of(g: Elements, unbiased: bool) -> list[np.ndarray]:
        z = twisted_predictions(lambda graph: predict(model, graph), batch.graph, g).forces.double()
        found = parts(z, batch.label.forces.double(), batch.graph.structure, batch.graph.size, unbiased)
        out = []
        for part in (found.mean, found.equiv):
            by = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
            out.append(torch.cat([d.reshape(-1).double() for d in by if d is not None]).numpy())
        return out

    drawn = Coset("I").draw(SO3(), np.random.default_rng(5), 2).elements
    mean, equiv = of(Elements(drawn.matrix.swapaxes(0, 1)), unbiased=False)
    truth = np.array([mean @ mean, equiv @ equiv, mean @ equiv])
    rng = np.random.default_rng(7)
    looks = np.array([products(task, model, tracking, rng) for _ in range(500)])
    off = (looks.mean(0) - truth) / (looks.std(0) / math.sqrt(len(looks)))
    assert np.abs(off).max() < 4
    naive = [of(SO3().sample(rng, 2, 2), unbiased=True) for _ in range(150)]
    squares = np.array([[a @ a, b @ b, a @ b] for a, b in naive])
    assert np.abs((squares.mean(0) - truth) / (squares.std(0) / math.sqrt(len(squares)))).min() > 3


def test_no_angle_of_a_gradient_that_is_not_there(store):
    """Would catch a division by zero: a potential that knows no position has no gradient of L_equiv."""
    spec = tiny_spec(envelope="polynomial", forces="conservative", cutoff=0.1)
    task = ForceField.of(spec, store)
    model = build(spec.model, spec.optim, 0).eval()
    assert gradients(task, model, TRACKED, np.random.default_rng(0)) == (0.0, 0.0, None)


def test_the_free_heads_distance(store, tmp_path):
    """‖W - W̄‖² of the weights that are looked at; nothing for potentials without a free head."""
    spec = tracked(SPECS["escaip"])
    record = train(spec, store, tmp_path)
    weight = torch.load(checkpoint_path(tmp_path, spec.key) / "weights.pt", weights_only=True)["direction.out.weight"]
    by_pairs = sum(float((weight[i] - weight[j]).square().sum()) for i in range(3) for j in range(i)) / 3
    assert record.symmetry[-1].head == pytest.approx(by_pairs, rel=1e-5)
    assert record.symmetry[0].head != record.symmetry[-1].head
    assert escaip("tied").build().head_deviation() is None
    assert tiny_spec().model.build().head_deviation() is None


def test_a_diverged_run_keeps_its_points(store, tmp_path):
    """Would catch a crash on NaN, or a null in its place: what is not finite is written and read as such."""
    spec = tracked(tiny_spec("egnn", learning_rate=1e12, clip=None, warmup_steps=0))
    record = train(spec, store, tmp_path)
    assert record.status == "diverged"
    again = load(tmp_path / f"{spec.key}.json")
    assert [p.step for p in again.symmetry] == [p.step for p in record.symmetry]
    assert math.isfinite(again.symmetry[0].total)
    task, model = ForceField.of(spec, store), build(spec.model, spec.optim, 0).eval()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    point = symmetry_point(task, model, TRACKED, State())
    assert math.isnan(point.total)
    assert math.isnan(point.gradient_mean)
    assert point.gradient_cosine is None
    kept = replace(record, symmetry=(point,))
    record_module.save(kept, tmp_path)
    assert math.isnan(load(tmp_path / f"{spec.key}.json").symmetry[0].percent)


def test_looks_are_not_training_time(store, tmp_path, monkeypatch):
    """Would catch looks in the seconds of training, and a second averaged copy where two looks meet."""
    spec, made = tracked(tiny_spec()), []

    def slow(*given) -> SymmetryPoint:
        time.sleep(0.1)
        return symmetry_point(*given)

    def once(*given):
        made.append(averaged(*given))
        return made[-1]

    monkeypatch.setattr(record_module, "symmetry_point", slow)
    monkeypatch.setattr(record_module, "averaged", once)
    clock = train(spec, store, tmp_path).curve[-1].clock
    steps = tracking_steps(spec.steps, spec.evaluation)
    assert set(evaluation_steps(spec.steps, spec.evaluation)) < set(steps)
    assert len(made) == len(steps) + 1  # the last is the end's
    assert clock.seconds_total - clock.seconds_train > 0.1 * (len(steps) - 1)


def test_a_look_leaves_the_model_as_it_is(store):
    """Would catch gradients left in the weights, or the mode of the model changed."""
    spec = tiny_spec()
    task, model = ForceField.of(spec, store), build(spec.model, spec.optim, 0)
    made = optimizer(model, spec.model, spec.optim)
    before = copy.deepcopy(model.state_dict())
    symmetry_point(task, averaged(model, made), TRACKED, State())
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
