"""Errors of a trained rung: the figures are those of plain numpy, whatever the batches; bad input is one sentence."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from molecules import random_molecules
from runs import refused, structures, tiny_spec, tiny_store, write_extxyz

from equiscale.cli import main
from equiscale.errors import InputError
from equiscale.evaluate import describe, evaluate, read
from equiscale.predict import TrainedPotential
from equiscale.run import checkpoint_path, load
from equiscale.train.record import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on the tiny set: its folder and spec."""
    folder, spec = tmp_path_factory.mktemp("run"), tiny_spec("egnn")
    train(spec, tiny_store(), folder)
    return folder, spec


@pytest.fixture(scope="module")
def checkpoint(run):
    return checkpoint_path(run[0], run[1].key)


@pytest.fixture(scope="module")
def trained(checkpoint):
    return TrainedPotential.load(checkpoint)


def naive(trained, chosen, predicted=None) -> dict[str, float]:
    """Every figure with plain numpy, one structure after another; ``predicted``: (energy, forces) of a structure."""
    if predicted is None:

        def predicted(s):
            out = trained([s])
            return float(out.energy[0]), out.forces.numpy()

    sigma = trained.references.sigma
    de, per_atom, df, norms, cosines, e_loss, f_loss = [], [], [], [], [], [], []
    for s in chosen:
        energy, forces = predicted(s)
        if s.energy is not None:
            de.append(energy - s.energy)
            per_atom.append(de[-1] / len(s))
        if s.forces is not None:
            df.append(forces - s.forces)
            norms.append(np.linalg.norm(df[-1], axis=1))
            for f, g in zip(forces, s.forces):
                if np.linalg.norm(f) * np.linalg.norm(g) > 0:
                    cosines.append(f @ g / np.linalg.norm(f) / np.linalg.norm(g))
        if s.energy is not None and s.forces is not None:
            e_loss.append(abs(per_atom[-1]) / sigma)
            f_loss.append(norms[-1].mean() / sigma)
    de, per_atom = 1e3 * np.array(de), 1e3 * np.array(per_atom)
    df, norms = 1e3 * np.concatenate(df).ravel(), 1e3 * np.concatenate(norms)
    return {
        "energy_mae_meV_per_atom": np.abs(per_atom).mean(),
        "energy_rmse_meV_per_atom": np.sqrt((per_atom**2).mean()),
        "energy_bias_meV_per_atom": per_atom.mean(),
        "energy_mae_meV": np.abs(de).mean(),
        "energy_rmse_meV": np.sqrt((de**2).mean()),
        "force_mae_meV_per_angstrom": np.abs(df).mean(),
        "force_rmse_meV_per_angstrom": np.sqrt((df**2).mean()),
        "force_error_norm_meV_per_angstrom": norms.mean(),
        "force_cosine": np.mean(cosines) if cosines else None,
        "loss": np.mean(e_loss) + np.mean(f_loss),
        "energy_loss": np.mean(e_loss),
        "force_loss": np.mean(f_loss),
    }


def figures(errors) -> dict[str, float]:
    """The same names out of ``Errors``."""
    found = {**vars(errors.energy), **vars(errors.forces), **vars(errors.loss)}
    return {k: v for k, v in found.items() if k not in ("structures", "atoms", "force_cosine_atoms")}


def agree(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=1e-4, abs=1e-6)), name


@pytest.mark.parametrize("atoms", [1, 17, 4096])
def test_the_figures_are_those_of_plain_numpy(trained, atoms):
    """In batches of one structure, of a few and of all, from a store and from a stream alike."""
    store = tiny_store()
    made = list(store)
    baseline = {id(s): e for s, e in zip(made, trained.references.baseline(store))}
    for data in (store, iter(made)):
        found = evaluate(trained, data, atoms=atoms)
        agree(figures(found.potential), naive(trained, made))
        agree(figures(found.trivial), naive(trained, made, lambda s: (baseline[id(s)], np.zeros((len(s), 3)))))
    assert (found.structures, found.with_energy, found.with_forces) == (44, 44, 44)
    assert found.atoms == sum(map(len, made))


def test_by_element_and_by_size(trained):
    """Each element's force errors, each bin's figures, and their counts add up to the whole."""
    made = structures(40, 3, 14)
    found = evaluate(trained, made, atoms=50)
    out = [trained([s]).forces.numpy() - s.forces for s in made]
    numbers, errors = np.concatenate([s.numbers for s in made]), 1e3 * np.concatenate(out)
    for z, symbol in ((1, "H"), (6, "C"), (7, "N"), (8, "O")):
        mine, own = found.by_element[symbol], errors[numbers == z]
        assert mine.atoms == len(own)
        assert mine.force_mae_meV_per_angstrom == pytest.approx(np.abs(own).mean(), rel=1e-4)
    assert sum(e.atoms for e in found.by_element.values()) == found.atoms
    assert set(found.by_size) == {"1-10", "11-20"}
    for name, low, high in (("1-10", 1, 10), ("11-20", 11, 20)):
        own = [s for s in made if low <= len(s) <= high]
        assert found.by_size[name].structures == len(own)
        agree(figures(found.by_size[name]), naive(trained, own))


def test_the_loss_is_the_records(run, trained):
    """L, meV/atom and the trivial predictor of a validation set are what the run's record says."""
    folder, spec = run
    record, store = load(folder / f"{spec.key}.json"), tiny_store()
    for name in ("molecules", "conformers"):
        found = evaluate(trained, store.take(store.where(name)))
        losses, trivial = getattr(record, f"final_{name}"), getattr(record, f"trivial_{name}")
        assert found.potential.loss.loss == pytest.approx(losses.loss, rel=1e-5)
        assert found.potential.loss.force_loss == pytest.approx(losses.force_loss, rel=1e-5)
        assert found.potential.energy.energy_mae_meV_per_atom == pytest.approx(losses.energy_mae, rel=1e-4)
        assert found.trivial.loss.loss == pytest.approx(trivial.loss, rel=1e-6)


def test_missing_labels_are_counted_and_left_out(trained):
    """Each figure is of the structures that have what it needs; those without any label are not predicted."""
    made = structures(12)
    made = [replace(s, energy=None if k % 2 else s.energy, forces=None if k % 3 else s.forces)
            for k, s in enumerate(made)]  # fmt: skip
    found = evaluate(trained, made, atoms=20)
    agree(figures(found.potential), naive(trained, made))
    assert found.found == "found energy in 6/12, forces in 4/12 structures"
    assert found.potential.loss.structures == 2
    only_forces = evaluate(trained, [replace(s, energy=None) for s in structures(5)])
    assert only_forces.potential.energy is None
    assert only_forces.potential.loss is None
    assert "found energy in 0/5, forces in 5/5" in describe(only_forces)
    with pytest.raises(InputError, match="energy in 0/3, forces in 0/3"):
        evaluate(trained, random_molecules(3, 3, 5, seed=1))


def test_a_stream_is_never_held(trained):
    """What is read ahead fits a batch: would catch a list made of the whole file."""
    read_so_far = done = most = 0

    def stream():
        nonlocal read_so_far, most
        for s in structures(40):
            read_so_far += len(s)
            most = max(most, read_so_far - done)
            yield s

    sizes = np.cumsum([len(s) for s in structures(40)])

    def tell(structures):
        nonlocal done
        done = int(sizes[structures - 1])

    evaluate(trained, stream(), atoms=20, tell=tell)
    assert most <= 20 + 7  # a batch and the structure that did not fit


def test_an_extxyz_file(checkpoint, trained, tmp_path, capsys):
    """The command: whole file or a part of its split, own keys, isolated atoms left out, figures as JSON."""
    made = structures(40)
    path = write_extxyz(tmp_path / "a.xyz", made, energy="E", forces="F")
    with path.open("a") as file:
        file.write('1\nProperties=species:S:1:pos:R:3:F:R:3 E=-10.0 pbc="F F F"\nH 0 0 0 0 0 0\n')
    words = ["evaluate", checkpoint, path, "--energy-key", "E", "--forces-key", "F", "--json", tmp_path / "a.json"]
    assert main([str(w) for w in words]) == 0
    said = capsys.readouterr().out
    assert "found energy in 40/40, forces in 40/40" in said
    assert "1 isolated atoms left out" in said
    written = json.loads((tmp_path / "a.json").read_text())
    expected = naive(trained, made)
    assert written["potential"]["energy"]["energy_mae_meV_per_atom"] == pytest.approx(
        expected["energy_mae_meV_per_atom"], rel=1e-3
    )
    assert f"{expected['force_rmse_meV_per_angstrom']:.1f}" in said
    assert written["weights"] == trained.content_hash
    part = [*words, "--part", "molecules", "--group-key", "group"]
    assert main([str(w) for w in part]) == 0
    assert 0 < json.loads((tmp_path / "a.json").read_text())["structures"] < 40
    assert len(read(str(path), "all", energy_key="E", forces_key="F", group_key="group")) == 40


def test_energies_of_another_theory_are_noticed(trained):
    found = evaluate(trained, [replace(s, energy=s.energy + 5.0 * len(s)) for s in structures(10)])
    assert "nearly all of the energy error is one sign (-" in describe(found)


BAD = {
    "no checkpoint": (lambda c, d: (c.parent / "nothing", d), "there is no checkpoint"),
    "a results folder": (lambda c, d: (c.parent, d), "holds the checkpoints of several runs"),
    "a file": (lambda c, d: (c / "weights.pt", d), "is a file, not a checkpoint"),
    "another folder": (lambda c, d: (d.parent, d), "is not a checkpoint: potential.json is missing"),
    "no data": (lambda c, d: (c, d.parent / "nothing.xyz"), "there is no file"),
    "not extxyz": (lambda c, d: (c, text(d, "hello\nthere\n")), "is not an extxyz file"),
    "empty": (lambda c, d: (c, text(d, "")), "is empty"),
    "no labels": (lambda c, d: (c, write_extxyz(d, structures(5), "", "")), "energy .'energy'. in 0/5 and forces"),
    "a key that is not there": (
        lambda c, d: (c, write_extxyz(d, structures(5)), "--energy-key", "REF"), "found energy .'REF'. in 0/5.*energy"),
    "unknown element": (
        lambda c, d: (c, write_extxyz(d, [replace(s, numbers=np.full(len(s), 16)) for s in structures(5)])),
        "holds S, which the potential was not trained on: it knows H, C, N, O"),
    "NaN": (lambda c, d: (c, write_extxyz(d, [replace(s, energy=np.nan) for s in structures(5)])), "structure 0 .*NaN"),
    "a device": (lambda c, d: (c, write_extxyz(d, structures(5)), "--device", "abacus"), "device 'abacus' cannot"),
    "no atoms": (lambda c, d: (c, write_extxyz(d, structures(5)), "--atoms", "0"), "at least one atom"),
    "blocks alone": (lambda c, d: (c, write_extxyz(d, structures(5)), "--blocks", "4"), "name the part"),
    "keys of the built-in set": (lambda c, d: (c, "builtin", "--energy-key", "E"), "built-in set takes no energy_key"),
}  # fmt: skip


def text(path, content):
    path.write_text(content)
    return path


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_sentence(what, checkpoint, tmp_path, capsys):
    make, expected = BAD[what]
    (tmp_path / "data").mkdir()
    said = refused(capsys, "evaluate", *make(checkpoint, tmp_path / "data" / "a.xyz"))
    assert re.search(expected, said), said


def test_a_run_that_is_not_finished(tmp_path, capsys):
    (tmp_path / "a.ckpt").mkdir()
    (tmp_path / "a.ckpt" / "unfinished.pt").write_bytes(b"")
    assert "not finished" in refused(capsys, "evaluate", tmp_path / "a.ckpt")


def test_the_key_beside_the_record_is_enough(run, trained):
    """results/<study>/<key> and results/<study>/<key>.json mean <key>.ckpt."""
    folder, spec = run
    for name in (spec.key, f"{spec.key}.json"):
        assert TrainedPotential.load(folder / name).content_hash == trained.content_hash
