"""Runs that start from another run's weights: what is copied, what may differ, and that they are runs like others."""

from __future__ import annotations

import json
import typing
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import LOOKS, refused, structures, tiny_spec, tiny_store, write_extxyz

from equiscale.calculator import Calculator
from equiscale.cli import main
from equiscale.config import from_json, to_json
from equiscale.data.builtin import builtin
from equiscale.data.references import fit_references
from equiscale.data.store import Store
from equiscale.errors import InputError
from equiscale.models import EGNNConfig, ModelConfig
from equiscale.predict import TrainedPotential
from equiscale.run import DataSpec, OptimSpec, RunSpec, Start, checkpoint_path, load, save, start_path, table
from equiscale.train.force_field import ForceField
from equiscale.train.record import train
from equiscale.train.start import copied, place, started, turned, warnings

ROOT = Path(__file__).parents[2]
SMOOTH = dict(envelope="polynomial", aggregation="sum", max_neighbors=None, norm="atom")


@pytest.fixture(scope="module")
def store():
    return tiny_store()


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory):
    """The checkpoint of a direct EGNN that could be conservative."""
    folder, spec = tmp_path_factory.mktemp("direct"), tiny_spec("egnn", cutoff=8.0, **SMOOTH)
    train(spec, store, folder)
    return checkpoint_path(folder, spec.key)


@pytest.fixture
def origin(folder):
    return TrainedPotential.load(folder)


def continued(origin: TrainedPotential, forces: str | None = None, **fields) -> RunSpec:
    """A run on the tiny set that starts from ``origin``."""
    return started(replace(tiny_spec("egnn", **fields), model=turned(origin.model, forces)), origin)


def test_specs_from_before_keep_their_keys():
    """The published study's records still are what their names say; a start is part of a key, its absence is not."""
    published = [p for p in (ROOT / "results/laptop").rglob("*.json") if len(p.stem) == 16]
    assert published
    for path in published:
        assert load(path).spec.key == path.stem
    spec = tiny_spec()
    assert b"start" not in to_json(RunSpec, spec)
    other = replace(spec, start=Start("0" * 64))
    assert len({spec.key, other.key, replace(spec, start=Start("1" * 64)).key}) == 3
    assert from_json(RunSpec, to_json(RunSpec, other), "spec") == other


def test_weights_are_named_by_their_content(origin, folder, tmp_path):
    """The same wherever the folder lies and however often it was saved; another for any weight, config or σ."""
    origin.save(tmp_path / "copy")
    assert TrainedPotential.load(tmp_path / "copy").content_hash == origin.content_hash
    hashes = {origin.content_hash}
    hashes.add(replace(origin, references=replace(origin.references, sigma=2.0)).content_hash)
    hashes.add(replace(origin, model=replace(origin.model, max_neighbors=29)).content_hash)
    other = TrainedPotential.load(folder)
    with torch.no_grad():
        next(other.potential.parameters()).view(-1)[0] += 1e-6
    assert len({*hashes, other.content_hash}) == 4


def test_a_direct_potential_becomes_conservative(origin, store, tmp_path):
    """Its force head is left behind by name, references stay, the force loss falls, and forces are a gradient."""
    spec = continued(origin, "conservative", epochs=3)
    potential = spec.model.build()
    dropped = copied(origin, potential, spec)
    assert "force.weight" in dropped
    assert all(n == "force.weight" or n.startswith("layers.1.mix") for n in dropped)
    theirs = origin.potential.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in potential.state_dict().items())
    place(origin, spec, tmp_path)
    record = train(spec, store, tmp_path)
    assert not start_path(tmp_path, spec.key).exists()
    assert record.status == "ok"
    assert record.curve[-1].molecules.force_loss < 0.9 * record.curve[0].molecules.force_loss
    tuned = TrainedPotential.load(checkpoint_path(tmp_path, spec.key), dtype="float64")
    assert tuned.references == origin.references
    assert record.sigma == origin.references.sigma
    s, h = structures(1)[0], 1e-4
    forces = tuned([s]).forces.numpy()
    for i, k in ((0, 0), (1, 2)):
        step = np.zeros_like(s.positions)
        step[i, k] = h
        up, down = tuned([replace(s, positions=s.positions + step), replace(s, positions=s.positions - step)]).energy
        assert -float(up - down) / (2 * h) == pytest.approx(forces[i, k], rel=1e-5, abs=1e-7)


def test_on_molecules_of_the_built_in_set(tmp_path):
    """The same on real molecules: some steps of a direct EGNN, then of its energy's gradient."""
    whole = builtin()
    chosen = np.concatenate([whole.where("train")[:300], whole.where("molecules")[:20], whole.where("conformers")[:20]])
    store = whole.take(chosen)
    model = EGNNConfig(width=8, depth=2, num_radial=8, elements=store.elements, **SMOOTH)
    optim = OptimSpec(learning_rate=2e-2, batch_structures=2, base_width=8, warmup_steps=10)
    spec = RunSpec(model, DataSpec(structures=300, epochs=2, content_hash=store.content_hash), optim, LOOKS)
    train(spec, store, tmp_path)
    origin = TrainedPotential.load(checkpoint_path(tmp_path, spec.key))
    spec = started(replace(spec, model=turned(model, "conservative")), origin)
    place(origin, spec, tmp_path)
    record, task = train(spec, store, tmp_path), ForceField.of(spec, store, references=origin.references)
    potential = model_of(origin, spec)
    for name in ("molecules", "conformers"):
        before = task.evaluate(potential, name)[0].force_loss
        assert getattr(record, f"final_{name}").force_loss < 0.8 * before
    s = store[310]
    calculator = Calculator(checkpoint_path(tmp_path, spec.key), dtype="float64")
    from ase import Atoms

    atoms = Atoms(s.numbers, s.positions, calculator=calculator)
    force, energy = atoms.get_forces()[1, 1], []
    for step in (1e-4, -1e-4):
        atoms.positions[1, 1] = s.positions[1, 1] + step
        energy.append(atoms.get_potential_energy())
    assert -(energy[0] - energy[1]) / 2e-4 == pytest.approx(force, rel=1e-5, abs=1e-6)


def model_of(origin: TrainedPotential, spec: RunSpec):
    """The potential of ``spec`` with the weights of ``origin``."""
    potential = spec.model.build().eval()
    copied(origin, potential, spec)
    return potential


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [1, 6])
def test_a_killed_run_goes_on_bit_for_bit(at, origin, store, tmp_path):
    """With the checkpoint it started from gone: the run holds the weights until it is recorded."""
    spec = continued(origin, "conservative", linear_points=16)
    place(origin, spec, tmp_path / "undisturbed")
    expected = train(spec, store, tmp_path / "undisturbed")
    place(origin, spec, tmp_path / "killed")

    def tell(progress):
        if progress.step >= at:
            raise Killed

    with pytest.raises(Killed):
        train(spec, store, tmp_path / "killed", tell=tell, checkpoint_every=0.0 if at > 1 else 1e9)
    assert train(spec, store, tmp_path / "killed").without_clock() == expected.without_clock()
    a, b = (TrainedPotential.load(checkpoint_path(tmp_path / f, spec.key)) for f in ("killed", "undisturbed"))
    assert a.content_hash == b.content_hash


def test_started_runs_are_in_no_table(origin, store, tmp_path):
    """Their compute is not a run's from scratch: dropped by name, with the reason."""
    spec = continued(origin)
    place(origin, spec, tmp_path)
    record = train(spec, store, tmp_path)
    fresh = train(tiny_spec(), store, tmp_path)
    rows, dropped = table([record, fresh])
    assert set(rows["run"].tolist()) == {fresh.spec.key}
    (lost,) = dropped
    assert lost["run"] == spec.key
    assert "another run's weights" in lost["reason"]
    assert load(save(record, tmp_path)).spec.start == spec.start


def test_without_a_step_nothing_changed(origin, store, tmp_path):
    """A start with forces as they were says what the checkpoint says: weights and references came along."""
    spec = continued(origin)
    potential = spec.model.build()
    assert copied(origin, potential, spec) == []
    same = TrainedPotential(potential.eval(), spec.model, origin.references)
    made = structures(3)
    assert torch.equal(same(made).energy, origin(made).energy)
    assert torch.equal(same(made).forces, origin(made).forces)


@pytest.mark.parametrize("cls", typing.get_args(typing.get_args(ModelConfig)[0]), ids=lambda c: c().kind)
def test_every_architecture_can_become_conservative(cls):
    """A gradient needs no tensor that a direct potential has not, and its energy stays, to rounding."""
    wanted = dict(width=8, depth=2, num_radial=8, cutoff=5.0, elements=(1, 6, 7, 8), envelope="polynomial")
    names = {f.name for f in fields(cls)}
    model = cls(**{k: v for k, v in wanted.items() if k in names and (k != "cutoff" or cls().cutoff is not None)})
    origin = TrainedPotential(model.build().eval(), model, fit_references(tiny_store()))
    spec = started(replace(tiny_spec("egnn"), model=turned(model, "conservative")), origin)
    potential = spec.model.build().eval()
    assert copied(origin, potential, spec)
    tuned, made = TrainedPotential(potential, spec.model, origin.references), structures(3)
    torch.testing.assert_close(tuned(made).energy, origin(made).energy, rtol=0, atol=1e-3)
    assert tuned.content_hash != origin.content_hash


def test_an_envelope_is_put_in_with_a_warning():
    """A gradient needs one: the config gets it, and a person is told that the function changes."""
    bare = EGNNConfig(width=8, depth=2)
    made = turned(bare, "conservative")
    assert made == replace(bare, envelope="polynomial", forces="conservative")
    said = warnings(bare, made)
    assert any("without an envelope" in text for text in said)
    assert any("not smooth" in text for text in said)
    good = replace(bare, **SMOOTH)
    assert warnings(good, turned(good, "conservative")) == []
    assert turned(bare, None) == bare


def test_what_cannot_be_started_from(origin, store, tmp_path):
    """One sentence each, before anything is trained."""
    spec = continued(origin)
    with pytest.raises(InputError, match="architecture 'egnn', the run of 'mpnn'"):
        place(origin, started(tiny_spec("mpnn"), origin), tmp_path)
    with pytest.raises(InputError, match="differs from the checkpoint's in width"):
        place(origin, replace(spec, model=replace(spec.model, width=16)), tmp_path)
    with pytest.raises(InputError, match="differs from the checkpoint's in cutoff, elements"):
        place(origin, replace(spec, model=replace(spec.model, cutoff=4.0, elements=None)), tmp_path)
    with pytest.raises(InputError, match="takes their σ and references: leave scale unset"):
        place(origin, replace(spec, data=replace(spec.data, scale="force_rms")), tmp_path)
    conservative = replace(origin, model=turned(origin.model, "conservative"))
    conservative = replace(conservative, potential=conservative.model.build())
    with pytest.raises(InputError, match=r"needs weights that the conservative one has not \(force.weight"):
        place(conservative, continued(conservative, "direct"), tmp_path)
    with pytest.raises(InputError, match="holds no weights to start from"):
        train(spec, store, tmp_path)
    place(origin, replace(spec, seed=1), tmp_path)
    start_path(tmp_path, replace(spec, seed=1).key).rename(tmp_path / "other")
    conservative.save(start_path(tmp_path, spec.key))
    with pytest.raises(InputError, match="holds other weights"):
        train(spec, store, tmp_path)


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    return write_extxyz(tmp_path / "a.xyz", structures(60))


def words(folder, data, out, *more) -> list[str]:
    fixed = ["--group-key", "group", "--structures", "24", "--batch", "2", "--out", out]
    return [str(w) for w in ("fine-tune", folder, data, *fixed, *more)]


def test_the_command(folder, data, tmp_path, capsys, monkeypatch):
    """Trains, says what was left behind and how it began; the second call has nothing to do; stopped, it goes on."""
    out = tmp_path / "out"
    assert main(words(folder, data, out, "--forces", "conservative")) == 0
    said = capsys.readouterr().out
    assert "direct → conservative, 12 steps" in said
    assert "no use for it: force.weight" in said
    (path,) = (p for p in out.glob("*.json"))
    record = load(path)
    assert record.spec.start == Start(TrainedPotential.load(folder).content_hash)
    assert record.spec.model.forces == "conservative"
    assert f"L {record.final_molecules.loss:.4f}" in said
    assert str(tmp_path) not in json.dumps({**json.loads(path.read_text())["spec"], "data": None})

    def never(*_, **__):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr("equiscale.train.worker.train", never)
        assert main(words(folder, data, out, "--forces", "conservative")) == 0
    assert "nothing to do" in capsys.readouterr().out

    from equiscale.train import worker

    stops = iter([True, False])

    def stopped(*arguments, **options):
        if next(stops):
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(worker, "train", stopped)
    assert main(words(folder, data, out, "--seed", "1")) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert main(words(folder, data, out, "--seed", "1")) == 0
    assert len(list(out.glob("*.json"))) == 2


def test_bad_input_is_one_sentence(folder, data, tmp_path, capsys):
    out = tmp_path / "out"
    assert "there is no checkpoint" in refused(capsys, *words(tmp_path / "nothing", data, out))
    assert "there is no file" in refused(capsys, *words(folder, tmp_path / "nothing.xyz", out))
    assert "wants 2400 training structures" in refused(capsys, *words(folder, data, out, "--structures", "2400"))
    for option, value in (("--epochs", "0"), ("--batch", "-1"), ("--lr", "nan"), ("--lr", "0"), ("--structures", "0")):
        assert "must be positive" in refused(capsys, *words(folder, data, out, option, value))
    assert "do not fill one step" in refused(capsys, *words(folder, data, out, "--batch", "50"))
    unlabelled = write_extxyz(tmp_path / "b.xyz", structures(60), forces="")
    assert "has no forces under 'forces'" in refused(capsys, *words(folder, unlabelled, out))
    sulphur = write_extxyz(tmp_path / "c.xyz", [replace(s, numbers=np.full(len(s), 16)) for s in structures(60)])
    assert "holds S, which the potential was not trained on" in refused(capsys, *words(folder, sulphur, out))
    far = [replace(s, positions=s.positions * 9) for s in structures(60)]
    said = refused(capsys, *words(folder, write_extxyz(tmp_path / "d.xyz", far), out))
    assert "without neighbours: leave it out, or start from a checkpoint with a larger cutoff" in said
    assert not out.exists()


def test_labels_of_another_theory(folder, tmp_path, capsys):
    """Refused with the cure; with references fitted anew σ and the forces' scale stay, and the energies are learned."""
    foreign = [replace(s, energy=float(s.energy - 30.0 * s.numbers.sum())) for s in structures(60)]
    data = write_extxyz(tmp_path / "a.xyz", foreign)
    assert "--refit-references" in refused(capsys, *words(folder, data, tmp_path / "out"))
    assert main(words(folder, data, tmp_path / "out", "--refit-references")) == 0
    (path,) = (tmp_path / "out").glob("*.json")
    record, origin = load(path), TrainedPotential.load(folder)
    tuned = TrainedPotential.load(checkpoint_path(tmp_path / "out", path.stem))
    assert record.sigma == tuned.references.sigma == origin.references.sigma
    assert tuned.references.energies[6] == pytest.approx(origin.references.energies[6] - 180.0, abs=20)
    assert record.final_molecules.loss < 2 * record.trivial_molecules.loss
    assert record.spec.start == Start(origin.content_hash, "data")


def test_references_of_the_checkpoint_need_no_data(origin):
    """An element whose share of the new data is zero keeps its reference energy."""
    water = [replace(s, numbers=np.where(s.numbers == 7, 8, s.numbers)) for s in structures(44)]
    spec = continued(origin)
    task = ForceField.of(spec, Store.from_structures(water, [0] * 32 + [1] * 6 + [2] * 6), None, "cpu",
                         origin.references)  # fmt: skip
    assert task.references == origin.references
