"""Frames along principal axes: exactly equivariant where the axes are determined, and said where they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from ase import Atoms
from models.test_contract import made
from molecules import crystal, random_molecules
from runs import structures, tiny_spec, tiny_store, write_extxyz

from equiscale.calculator import Calculator
from equiscale.data.orientation import haar
from equiscale.data.structure import Structure
from equiscale.errors import InputError
from equiscale.fine_tune import fine_tune
from equiscale.models import EGNNConfig, MPNNConfig, TransformerConfig
from equiscale.models.base import graph_for
from equiscale.predict import TrainedPotential, predict
from equiscale.run import Remedy, checkpoint_path, load
from equiscale.symmetry.frames import framed, principal
from equiscale.train.force_field import ForceField
from equiscale.train.loop import executed_ratio, train_step
from equiscale.train.optim import build, optimizer
from equiscale.train.record import train
from equiscale.train.start import copied, started

KINDS = ("canonical", "average", "average8")
every_kind = pytest.mark.parametrize("kind", KINDS)
FIELDS = dict(width=12, depth=2, elements=(1, 6, 7, 8))
CONFIGS = {
    "mpnn": MPNNConfig(num_radial=8, cutoff=4.0, **FIELDS),
    "conservative": MPNNConfig(num_radial=8, cutoff=4.0, forces="conservative", envelope="polynomial", **FIELDS),
    "absolute": MPNNConfig(num_radial=8, cutoff=4.0, translation_invariant=False, **FIELDS),
    "transformer": TransformerConfig(**FIELDS),
}

CH = 0.63
METHANE = Structure(
    np.array([6, 1, 1, 1, 1]), CH * np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
)
AMMONIA = Structure(
    np.array([7, 1, 1, 1]),
    np.array([[0, 0, 0.3]] + [[np.cos(a), np.sin(a), 0] for a in 2 * np.pi / 3 * np.arange(3)]),
)
ATOM = Structure(np.array([8]), np.zeros((1, 3)))
LINEAR = Structure(np.array([6, 8, 7]), np.array([[0.0, 0, 0], [0, 0, 1.2], [0, 0, -1.1]]))
WATER = Structure(np.array([8, 1, 1]), np.array([[0, 0, 0.2], [0.76, 0, -0.4], [-0.76, 0, -0.4]]))


def moved(s: Structure, turn: np.ndarray, shift=(0.0, 0, 0)) -> Structure:
    return replace(s, positions=s.positions @ turn.T + np.asarray(shift))


def outputs(potential, structures, kind):
    out = predict(potential, graph_for(potential.config, structures, dtype=torch.float64), frames=kind)
    return out.energy.detach().numpy(), out.forces.detach().numpy()


def error(potential, structures, kind, sign: float = 1.0, shift=(0.0, 0, 0), draws: int = 4) -> float:
    """Largest change of energies, and of forces turned back, over turned copies, over the forces' size."""
    energy, forces = outputs(potential, structures, kind)
    worst = 0.0
    for turn in sign * haar(np.random.default_rng(1), draws):
        again, other = outputs(potential, [moved(s, turn, shift) for s in structures], kind)
        worst = max(worst, np.abs(again - energy).max(), np.abs(other @ turn - forces).max())
    return worst / np.abs(forces).mean()


@every_kind
@pytest.mark.parametrize("name", CONFIGS)
def test_equivariant_where_the_axes_are_determined(name, kind):
    """Whatever the potential: rotations and shifts, exactly; reflections with all eight frames only."""
    potential, structures = made(CONFIGS[name]), random_molecules(4, 5, 8, seed=3)
    graph = graph_for(potential.config, structures, dtype=torch.float64)
    assert not principal(graph, kind).degenerate.any()
    assert error(potential, structures, "none") > 1e-2
    assert error(potential, structures, kind, shift=(3.0, -2.0, 5.0)) < 1e-9
    reflected = error(potential, structures, kind, sign=-1.0)
    assert reflected < 1e-9 if kind == "average8" else reflected > 1e-2


@every_kind
@pytest.mark.parametrize("structure", [METHANE, AMMONIA], ids=["cubic", "symmetric top"])
def test_not_equivariant_where_they_are_not(kind, structure):
    """What no frame can give: finite, reported, and not equivariant. If it were, the report would be wrong."""
    potential = made(CONFIGS["mpnn"])
    graph = graph_for(potential.config, [structure], dtype=torch.float64)
    assert principal(graph, kind).degenerate.all()
    assert np.isfinite(np.concatenate([x.ravel() for x in outputs(potential, [structure], kind)])).all()
    assert error(potential, [structure], kind) > 1e-3


@every_kind
@pytest.mark.parametrize("structure", [ATOM, LINEAR, WATER, METHANE, AMMONIA], ids=len)
@pytest.mark.parametrize("name", ["mpnn", "conservative"])
def test_degenerate_spectra_are_finite(name, kind, structure):
    """Outputs and the gradient of a loss, in a batch with others: no NaN of an empty axis."""
    potential = made(CONFIGS[name])
    graph = graph_for(potential.config, [structure, *random_molecules(2, 4, 5, seed=4)], dtype=torch.float64)
    out = predict(potential, graph, create_graph=True, frames=kind)
    (out.energy.square().sum() + out.forces.square().sum()).backward()
    values = [out.energy, out.forces, *(p.grad for p in potential.parameters() if p.grad is not None)]
    assert all(torch.isfinite(v).all() for v in values)
    into = principal(graph, kind).into.matrix
    np.testing.assert_allclose(into @ into.swapaxes(-1, -2), np.broadcast_to(np.eye(3), into.shape), atol=1e-12)


def test_what_is_reported():
    """Equal eigenvalues; for canonical frames also signs that nothing decides. Planar molecules have axes."""
    graph = graph_for(CONFIGS["mpnn"], [ATOM, LINEAR, WATER, METHANE, AMMONIA, *random_molecules(2, 5, 6, seed=5)])
    assert principal(graph, "average").degenerate.tolist() == [True, True, False, True, True, False, False]
    assert principal(graph, "canonical").degenerate.tolist() == [True, True, True, True, True, False, False]


@pytest.mark.parametrize("structure", [ATOM, LINEAR], ids=["atom", "linear"])
@pytest.mark.parametrize("kind", ["average", "average8"])
def test_averages_of_atoms_and_linear_molecules_are_exact_nevertheless(kind, structure):
    """Signs cancel what eigh chose across the axis."""
    potential = made(CONFIGS["mpnn"])
    scale = np.abs(outputs(potential, [LINEAR], "none")[1]).mean()
    energy, forces = outputs(potential, [structure], kind)
    for turn in haar(np.random.default_rng(1), 4):
        again, other = outputs(potential, [moved(structure, turn)], kind)
        assert np.abs(again - energy).max() < 1e-9 * scale
        assert np.abs(other @ turn - forces).max() < 1e-9 * scale


def test_a_twofold_axis_leaves_canonical_energies_only():
    """Water looks the same from two frames, so energies agree; its forces keep no C2 axis but under an average."""
    potential = made(CONFIGS["mpnn"])
    assert error(potential, [WATER], "average") < 1e-9
    assert error(potential, [WATER], "canonical") > 1e-3
    energy, _ = outputs(potential, [WATER], "canonical")
    for turn in haar(np.random.default_rng(1), 4):
        assert outputs(potential, [moved(WATER, turn)], "canonical")[0] == pytest.approx(energy, rel=1e-9)


def test_a_mirror_plane_leaves_the_canonical_frame_determined():
    """A third moment that is zero by symmetry is not the one that decides: the two others do."""
    s = random_molecules(1, 4, 4, seed=9)[0]
    half = s.positions + np.array([2.0, 0, 0])
    x = np.concatenate([half, half * np.array([-1, 1, 1])])
    mirrored = Structure(np.concatenate([s.numbers, s.numbers]), x)
    potential = made(CONFIGS["mpnn"])
    graph = graph_for(potential.config, [mirrored], dtype=torch.float64)
    assert not principal(graph, "canonical").degenerate.any()
    assert error(potential, [mirrored], "canonical") < 1e-9


def test_predictions_jump_where_eigenvalues_cross():
    """The price: a square-based cluster whose two axes are exchanged by 1e-6 Å (Dym et al. 2024)."""
    potential = made(CONFIGS["mpnn"])
    corners = np.array([[1.2, 0.1, 0], [-1.1, 0, 0.1], [0, 1.3, 0], [0.1, -1, 0], [0.3, 0.2, 0.4], [0, 0, -0.3]])
    x = corners - corners.mean(0)
    values, axes = np.linalg.eigh(x.T @ x)
    level = x @ (axes * np.sqrt(values.mean() / values))  # the same spread along every axis
    found = []
    for stretch in (1 - 1e-6, 1 + 1e-6):
        s = Structure(np.array([6, 1, 8, 7, 1, 6]), level * [1.5, stretch, 1.0])
        found.append(outputs(potential, [s], "average")[0])
    assert np.abs(found[0] - found[1]).max() > 1e-3


@every_kind
def test_an_equivariant_potential_is_left_alone(kind):
    potential, structures = made(EGNNConfig(num_radial=8, cutoff=4.0, **FIELDS)), random_molecules(3, 1, 7, seed=6)
    for a, b in zip(outputs(potential, structures, kind), outputs(potential, structures, "none")):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_periodic_structures_are_refused():
    """Their atoms have images, and no covariance. By the graph, and by a trained potential."""
    config = CONFIGS["mpnn"]
    graph = graph_for(config, [crystal(4, seed=1)])
    with pytest.raises(InputError, match="of molecules only"):
        framed(partial(predict, config.build()), graph, "average")


# --- trained in frames ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store():
    return tiny_store()


def spec_of(kind: str, forces: str = "direct", **fields):
    spec = tiny_spec(remedy=Remedy(frames=kind), structures=16, **fields)
    envelope = "polynomial" if forces == "conservative" else "none"
    return replace(spec, model=replace(spec.model, forces=forces, envelope=envelope, cutoff=8.0))


@pytest.fixture(scope="module")
def trained_in(store, tmp_path_factory):
    """Checkpoint and record of a run in these frames, trained when it is first asked for."""
    found = {}

    def get(kind: str, forces: str = "direct"):
        if (kind, forces) not in found:
            folder, spec = tmp_path_factory.mktemp("framed"), spec_of(kind, forces)
            record = train(spec, store, folder)
            found[kind, forces] = checkpoint_path(folder, spec.key), record
        return found[kind, forces]

    return get


@pytest.mark.parametrize(("kind", "forces"), [(k, "direct") for k in KINDS] + [("average", "conservative")])
def test_checkpoints_of_framed_runs_are_equivariant(kind, forces, trained_in):
    """Through TrainedPotential and the calculator, in eV: a checkpoint that forgot its frames would not be."""
    folder, _ = trained_in(kind, forces)
    trained = TrainedPotential.load(folder, dtype="float64")
    assert trained.frames == kind
    for s in random_molecules(3, 5, 8, seed=8):
        energy, force = (x.numpy() for x in (lambda p: (p.energy, p.forces))(trained([s])))
        for turn in haar(np.random.default_rng(2), 3):
            other = moved(s, turn, (1.0, 2.0, -1.0))
            again = trained([other])
            assert np.abs(again.energy.numpy() - energy).max() < 1e-9 * abs(energy[0])
            assert np.abs(again.forces.numpy() @ turn - force).max() < 1e-9 * np.abs(force).max()
            atoms = Atoms(numbers=other.numbers, positions=other.positions, calculator=Calculator(trained))
            assert np.array_equal(atoms.get_forces(), again.forces.numpy())
    plain = replace(trained, frames="none")
    assert np.abs(plain([other]).forces.numpy() @ turn - plain([s]).forces.numpy()).max() > 1e-4 * np.abs(force).max()


def test_what_a_run_validates_is_what_its_checkpoint_predicts(trained_in, store):
    """The record's meV are the errors of the checkpoint: training, evaluation and use see the same frames."""
    folder, record = trained_in("average")
    assert load(folder.with_suffix(".json")).spec.frames == "average"
    raw = store.take(store.where("molecules"))
    energy = TrainedPotential.load(folder)(raw).energy.numpy()
    assert 1e3 * np.mean(np.abs(energy - raw.energy) / raw.sizes) == pytest.approx(
        record.final_molecules.energy_mae, rel=1e-4
    )


def test_frames_are_in_the_content_and_only_where_there_are_some(trained_in, store, tmp_path):
    """potential.json and the hash of what has none are what they were before there were any."""
    folder, _ = trained_in("average")
    framed_, plain = TrainedPotential.load(folder), replace(TrainedPotential.load(folder), frames="none")
    assert framed_.content_hash != plain.content_hash
    plain.save(tmp_path)
    assert "frames" not in json.loads((tmp_path / "potential.json").read_text())
    assert json.loads((folder / "potential.json").read_text())["frames"] == "average"
    assert TrainedPotential.load(tmp_path).content_hash == plain.content_hash
    about = json.loads((folder / "potential.json").read_text())
    (tmp_path / "potential.json").write_text(json.dumps({**about, "frames": "some"}))
    with pytest.raises(InputError, match="do not describe one potential"):
        TrainedPotential.load(tmp_path)
    with pytest.raises(InputError, match="takes molecules, no cells"):
        framed_([crystal(4, seed=1)])


def test_a_run_that_starts_from_frames_keeps_them(trained_in):
    """Weights that were trained in frames are of no use without them; one sentence."""
    origin = TrainedPotential.load(trained_in("average")[0])
    spec = started(spec_of("average"), origin)
    copied(origin, spec.model.build(), spec)
    for other in (None, Remedy(frames="canonical")):
        with pytest.raises(InputError, match="trained in four frames and the run is to be"):
            copied(origin, spec.model.build(), replace(spec, remedy=other))
    with pytest.raises(InputError, match="trained without frames and the run is to be in four frames"):
        copied(replace(origin, frames="none"), spec.model.build(), spec)


def test_fine_tuning_keeps_the_frames(trained_in, tmp_path):
    """From the checkpoint's folder to a checkpoint of the same frames, with nothing to be asked for."""
    data = write_extxyz(tmp_path / "data.xyz", structures(44))
    fine_tune(trained_in("average")[0], str(data), tmp_path / "out", structures=8, keys={"group_key": "group"})
    (record,) = (tmp_path / "out").glob("*.json")
    assert load(record).spec.frames == "average"
    assert TrainedPotential.load(record).frames == "average"


@pytest.mark.parametrize(("kind", "passes"), [("canonical", 1), ("average", 4), ("average8", 8)])
@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_executed_flops_are_those_of_all_frames(kind, passes, forces, store):
    spec = spec_of(kind, forces)
    both = [ForceField.of(s, store) for s in (spec, replace(spec, remedy=None))]
    potential = build(spec.model, spec.optim, 0)
    flops = [task.flops(task.micro_batches(0)[0]) for task in both]
    assert flops[0] == passes * flops[1]
    ratio = [executed_ratio(task, potential, 1) * f for task, f in zip(both, flops)]
    assert ratio[0] / ratio[1] == pytest.approx(passes, rel=0.01)


def test_frames_and_a_loss_together(store):
    """In frames there is nothing left to break (molecules of the set have axes): the term is rounding."""
    spec = replace(spec_of("average"), remedy=Remedy(loss="consistency", copies=2, frames="average"))
    task = ForceField.of(spec, store)
    potential = build(spec.model, spec.optim, 0).train()
    done = train_step(task, potential, optimizer(potential, spec.model, spec.optim), 0, None)
    (plain,) = ForceField.of(replace(spec, remedy=None), store).micro_batches(0)
    assert done["flops"] == 12 * ForceField.of(replace(spec, remedy=None), store).flops(plain)
    assert done["symmetry_loss"] < 1e-6


def test_periodic_training_sets_are_refused(store):
    cell = np.broadcast_to(9 * np.eye(3), (len(store), 3, 3)).copy()
    with pytest.raises(InputError, match="of molecules only"):
        ForceField.of(spec_of("average"), replace(store, cell=cell))
