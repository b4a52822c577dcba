"""The loop's theorems: short runs are prefixes, looking changes nothing, a killed run goes on bit for bit."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from molecules import random_molecules
from runs import tiny_spec, tiny_store

from equiscale.data.references import fit_references
from equiscale.errors import InputError
from equiscale.graph import build_graph
from equiscale.models import EGNNConfig
from equiscale.predict import TrainedPotential
from equiscale.run import checkpoint_path, evaluation_steps, load, load_losses, losses_path, save, table
from equiscale.train import checkpoint
from equiscale.train.flops import counted
from equiscale.train.force_field import ForceField
from equiscale.train.loop import executed_ratio, train_step
from equiscale.train.optim import averaged, build, optimizer
from equiscale.train.record import judge, train

KINDS = ("mpnn", "egnn")


@pytest.fixture(scope="module")
def store():
    return tiny_store()


def weights(folder, spec) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint_path(folder, spec.key) / "weights.pt", weights_only=True)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [{}, {"augment": True}, {"forces": "conservative", "envelope": "polynomial"}],
                         ids=["direct", "augmented", "conservative"])  # fmt: skip
def test_a_run_of_a_quarter_equals_the_long_runs_checkpoint(kind, fields, store, tmp_path):
    """One run serves every D: weights and losses at D/4 are those of a run that was only that long, to the bit."""
    model = {k: v for k, v in fields.items() if k != "augment"}
    long = tiny_spec(kind, augment=fields.get("augment", False))
    long = replace(long, model=replace(long.model, **model))
    short = replace(long, data=replace(long.data, structures=8))
    train(short, store, tmp_path)

    task = ForceField.of(long, store)
    potential = build(long.model, long.optim, long.seed).train()
    made = optimizer(potential, long.model, long.optim)
    for step in range(short.steps):
        train_step(task, potential, made, step, long.optim.clip)
    at_quarter = averaged(potential, made)
    assert same(at_quarter.state_dict(), weights(tmp_path, short))
    record = load(tmp_path / f"{short.key}.json")
    assert task.evaluate(at_quarter, "molecules")[0] == record.final_molecules
    assert task.evaluate(at_quarter, "conformers")[0] == record.final_conformers


@pytest.mark.parametrize("kind", KINDS)
def test_looking_changes_nothing(kind, store, tmp_path):
    """Many looks, few looks, looks at more structures: the same weights to the bit."""
    often = tiny_spec(kind, log_points=12, linear_points=16)
    seldom = tiny_spec(kind, log_points=1, linear_points=1)
    assert len(evaluation_steps(often.steps, often.evaluation)) > len(evaluation_steps(16, seldom.evaluation)) + 5
    a, b = train(often, store, tmp_path), train(seldom, store, tmp_path)
    assert same(weights(tmp_path, often), weights(tmp_path, seldom))
    assert a.final_molecules == b.final_molecules
    assert a.curve[-1].atoms == b.curve[-1].atoms


@pytest.mark.parametrize("kind", KINDS)
def test_averaged_weights_are_schedulefrees_own(kind, store):
    """Our copy against the package's eval() of the same moment, to rounding; and the original untouched, to the bit."""
    spec = tiny_spec(kind)
    task = ForceField.of(spec, store)
    potential = build(spec.model, spec.optim, 0).train()
    made = optimizer(potential, spec.model, spec.optim)
    for step in range(6):
        train_step(task, potential, made, step, None)
    before = copy.deepcopy(potential.state_dict())
    mine = averaged(potential, made)
    assert same(before, potential.state_dict())
    assert not mine.training
    made.eval()
    for (name, a), b in zip(mine.named_parameters(), potential.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)
    moved = [not torch.equal(before[name], p) for name, p in mine.named_parameters()]
    assert any(moved)  # the average is not the training point


class Killed(BaseException):
    pass


def files(folder, spec) -> dict[str, bytes]:
    """What a finished run leaves, by name; the record less its clocks."""
    found = {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    record = load(folder / f"{spec.key}.json")
    found[f"{spec.key}.json"] = json.dumps(record.without_clock(), sort_keys=True).encode()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [[1], [5], [5, 6, 13], [16]], ids=str)
def test_a_killed_run_goes_on_bit_for_bit(kind, at, store, tmp_path):
    """Stopped after any step, with or without a checkpoint there: everything written is as if undisturbed."""
    spec = tiny_spec(kind, log_points=4, linear_points=16, augment=True)  # a look, and so a tell, after every step
    train(spec, store, tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    for stop in at:

        def tell(progress, stop=stop):
            if progress.step >= stop:
                raise Killed

        with pytest.raises(Killed):
            train(spec, store, folder, tell=tell, checkpoint_every=0.0 if stop % 2 else 1e9)
        assert not (folder / f"{spec.key}.json").exists()
    train(spec, store, folder)
    assert files(folder, spec) == files(tmp_path / "undisturbed", spec)


def test_a_kill_between_checkpoints_repeats_the_steps_since(store, tmp_path):
    """kill -9 saves nothing: the run goes on from an older checkpoint, and ends in the same bits."""
    spec = tiny_spec("egnn", linear_points=16)
    train(spec, store, tmp_path / "undisturbed")
    folder, kept = tmp_path / "killed", []

    def tell(progress):
        path = checkpoint_path(folder, spec.key) / "unfinished.pt"
        if progress.step == 7:
            kept.append(path.read_bytes())  # written after step 6
        if progress.step == 11:
            raise Killed

    with pytest.raises(Killed):
        train(spec, store, folder, tell=tell, checkpoint_every=0.0)
    (checkpoint_path(folder, spec.key) / "unfinished.pt").write_bytes(kept[0])
    train(spec, store, folder)
    assert files(folder, spec) == files(tmp_path / "undisturbed", spec)


class Payload:
    """What a malicious file would hold: unpickling it calls a function of its choice."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def poisoned(path, witness) -> None:
    buffer = io.BytesIO()
    torch.save({"model": Payload(witness)}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_loading_executes_no_code(how, store, tmp_path):
    """A pickle that calls a function is refused with a sentence, by checkpoints and by trained potentials alike."""
    spec = tiny_spec()
    train(spec, store, tmp_path)
    witness, folder = tmp_path / "executed", checkpoint_path(tmp_path, spec.key)
    for path in (folder / "weights.pt", folder / "unfinished.pt"):
        poisoned(path, witness)
        if how == "pickle":
            path.write_bytes(pickle.dumps(Payload(witness)))
    with pytest.raises(InputError, match="not written by equiscale"):
        TrainedPotential.load(folder)
    potential = build(spec.model, spec.optim, 0)
    with pytest.raises(InputError, match=r"unfinished\.pt"):
        checkpoint.read(folder / "unfinished.pt", potential, optimizer(potential, spec.model, spec.optim),
                        torch.device("cpu"))  # fmt: skip
    assert not witness.exists()


def test_a_damaged_checkpoint_is_one_sentence(store, tmp_path):
    spec = tiny_spec()
    train(spec, store, tmp_path)
    folder = checkpoint_path(tmp_path, spec.key)
    whole = (folder / "weights.pt").read_bytes()
    (folder / "weights.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        TrainedPotential.load(folder)
    (folder / "weights.pt").unlink()
    with pytest.raises(InputError, match=r"weights.pt is missing"):
        TrainedPotential.load(folder)
    (folder / "weights.pt").write_bytes(whole)
    (folder / "potential.json").write_text("{}")
    with pytest.raises(InputError, match="do not describe one potential"):
        TrainedPotential.load(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_trained_potentials_speak_eV(kind, store, tmp_path):
    """The record's meV/atom and meV/Å are the errors of what TrainedPotential returns for raw structures."""
    spec = tiny_spec(kind)
    record = train(spec, store, tmp_path)
    potential = TrainedPotential.load(checkpoint_path(tmp_path, spec.key))
    for name, losses in (("molecules", record.final_molecules), ("conformers", record.final_conformers)):
        raw = list(store.take(store.where(name)))
        out = potential(raw)
        energy = np.mean([abs(float(e) - s.energy) / len(s) for e, s in zip(out.energy, raw)])
        at = np.cumsum([0] + [len(s) for s in raw])
        error = [np.linalg.norm(out.forces[a:b].numpy() - s.forces, axis=1).mean() for a, b, s in zip(at, at[1:], raw)]
        assert 1e3 * energy == pytest.approx(losses.energy_mae, rel=1e-4)
        assert 1e3 * np.mean(error) == pytest.approx(losses.force_mae, rel=1e-4)
    assert out.energy.dtype == torch.float64


def test_trivial_loss_is_that_of_the_references(store):
    task = ForceField.of(tiny_spec(), store)
    references = fit_references(store.take(store.where("train")))
    for name in ("molecules", "conformers"):
        expected = references.trivial(store.take(store.where(name)))
        found = task.trivial(name)
        assert found.loss == pytest.approx(expected["loss"])
        assert found.force_loss == pytest.approx(expected["force_loss"])


def test_a_diverged_run_is_recorded_named_and_dropped(store, tmp_path):
    spec = tiny_spec("egnn", learning_rate=1e12, clip=None, warmup_steps=0)
    record = train(spec, store, tmp_path)
    assert record.status == "diverged"
    assert record.reason
    again = load(tmp_path / f"{spec.key}.json")
    assert again.status == "diverged"
    assert not (checkpoint_path(tmp_path, spec.key) / "weights.pt").exists()
    healthy = train(tiny_spec(), store, tmp_path)
    rows, dropped = table([again, healthy])
    assert set(rows["run"].tolist()) == {healthy.spec.key}
    assert [d["run"] for d in dropped] == [spec.key]
    assert "diverged" in dropped[0]["reason"]
    assert record.without_clock() == again.without_clock() or math.isnan(record.final_molecules.loss)


def test_a_validation_loss_that_is_not_finite_is_a_divergence_too(store, tmp_path, monkeypatch):
    """The look at an exploded model: NaN is written, read back and named."""
    spec = tiny_spec()
    original = ForceField.evaluate

    def evaluate(self, model, name, limit=None):
        losses, each = original(self, model, name, limit)
        return replace(losses, loss=math.nan, force_loss=math.inf), each

    monkeypatch.setattr(ForceField, "evaluate", evaluate)
    record = train(spec, store, tmp_path)
    assert record.status == "diverged"
    assert "validation loss" in record.reason
    again = load(tmp_path / f"{spec.key}.json")
    assert math.isnan(again.curve[-1].molecules.loss)
    assert again.curve[-1].molecules.force_loss == math.inf


def test_judging():
    """Diverged, did not learn and ok are three things; a run at the plateau is data and stays in the table."""
    losses = lambda x: type("E", (), {"molecules": type("L", (), {"loss": x})()})()  # noqa: E731
    curve = lambda *xs: tuple(losses(x) for x in xs)  # noqa: E731
    assert judge(curve(2.0, 1.0), 2.0, "")[0] == "ok"
    assert judge(curve(2.1, 1.99), 2.0, "")[0] == "did not learn"
    assert judge(curve(2.2, 2.15), 2.0, "")[0] == "did not learn"
    status, reason = judge(curve(1.0, 5.0), 2.0, "")
    assert status == "diverged"
    assert "trivial" in reason
    assert judge(curve(2.0, 1.0), 2.0, "the loss was not finite") == ("diverged", "the loss was not finite")
    assert judge((), 2.0, "gone")[0] == "diverged"


def test_one_that_did_not_learn_is_data(store, tmp_path):
    record = train(tiny_spec(learning_rate=1e-9), store, tmp_path)
    assert record.status == "did not learn"
    rows, dropped = table([record])
    assert len(rows["run"]) == len(record.curve)
    assert not dropped


@pytest.mark.parametrize("kind", KINDS)
def test_flops(kind, store, tmp_path):
    """The record's columns: 3 × the formula over every structure seen; what was executed by torch's counter."""
    spec = tiny_spec(kind)
    record = train(spec, store, tmp_path)
    task = ForceField.of(spec, store)
    batches = [b for step in range(spec.steps) for b in task.micro_batches(step)]
    expected = sum(3 * spec.model.flops(b.graph.counts) for b in batches)
    assert record.curve[-1].flops_model == pytest.approx(expected, rel=1e-12)
    assert record.curve[-1].atoms == sum(len(b.graph.numbers) for b in batches)
    ratio = executed_ratio(task, build(spec.model, spec.optim, 0), spec.steps)
    assert record.curve[-1].flops_executed == pytest.approx(ratio * expected, rel=1e-12)
    assert ratio < 1.0


@pytest.mark.parametrize(("width", "factor"), [(32, 1.3), (64, 1.5), (256, 1.8)])
def test_egnn_executes_less_than_is_published(width, factor):
    """Its forward by about these factors at a degree of 20 (method.md): would catch a formulation that fell back."""
    config = EGNNConfig(width=width)
    graph = build_graph(random_molecules(8, 20, 23, seed=2), config.cutoff, config.max_neighbors)
    potential = config.build()
    executed = counted(lambda: potential(graph))
    assert config.flops(graph.counts) / executed == pytest.approx(factor, rel=0.08)


def test_records_survive_the_disk(store, tmp_path):
    spec = tiny_spec()
    record = train(spec, store, tmp_path, step_seconds=0.01)
    again = load(save(record, tmp_path))
    assert again == record
    losses = load_losses(tmp_path, [spec.key])[spec.key]
    assert losses["molecules"].shape == (len(record.curve), 5)
    assert losses["steps"].tolist() == [e.step for e in record.curve]
    np.testing.assert_allclose(losses["molecules"].mean(1), [e.molecules.loss for e in record.curve], rtol=1e-6)
    assert losses["group_molecules"].shape == (5,)
    assert losses_path(tmp_path, spec.key).exists()
    rows, _ = table([record])
    np.testing.assert_allclose(rows["H_train"], [e.step * 0.01 / 3600 for e in record.curve])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu(kind, dtype, store, tmp_path):
    """Lower precision still learns, and float32 on a GPU is float32 on a processor to rounding."""
    spec = replace(tiny_spec(kind), dtype=dtype)
    record = train(spec, store, tmp_path, device="cuda")
    assert record.status == "ok"
    on_cpu = train(replace(spec, dtype="float32"), store, tmp_path / "cpu")
    rel = {"float32": 1e-2, "tf32": 3e-2, "bf16": 0.15}[dtype]
    assert record.final_molecules.loss == pytest.approx(on_cpu.final_molecules.loss, rel=rel)
