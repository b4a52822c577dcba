"""`equiscale symmetry` end to end: checkpoints, a study, calculators; JSON, figures; each mistake is one sentence."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import refused, structures, tiny_spec, tiny_store, write_extxyz

from equiscale.cli import main
from equiscale.ladder import Ladder, Study
from equiscale.results import Results
from equiscale.run import checkpoint_path
from equiscale.train.record import train

BROKEN = Path(__file__).parent / "broken.py"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder, spec = tmp_path_factory.mktemp("run"), tiny_spec("mpnn")
    train(spec, tiny_store(), folder)
    return checkpoint_path(folder, spec.key)


@pytest.fixture
def data(tmp_path):
    return write_extxyz(tmp_path / "a.xyz", structures(12))


def run(*words) -> None:
    assert main(["symmetry", *(str(w) for w in words)]) == 0


def read(capsys):
    return json.loads(capsys.readouterr().out)


def test_a_checkpoint(checkpoint, data, tmp_path, capsys):
    """Text, JSON beside it and JSON alone hold the same numbers; the figure is written."""
    words = [checkpoint, data, "--dtype", "float64", "--averages", "1,2,4", "--degrees", "2", "--lie"]
    run(*words, "--json", tmp_path / "a.json", "--figure", tmp_path / "a.png")
    said, written = capsys.readouterr().out, json.loads((tmp_path / "a.json").read_text())
    for word in (
        "L_mean",
        "percent of L",
        "net torque",
        "bound by Lie",
        "l = 2",
        "exactly",
        "element",
        "forward passes",
    ):
        assert word in said
    assert (tmp_path / "a.png").stat().st_size > 5000
    assert written["structures"] == 12
    assert written["forward_passes"] == 12 * (10 + 4 + 12) + 2 * 12
    whole = written["whole"]
    assert whole["total"]["value"] == pytest.approx(whole["mean"]["value"] + whole["equiv"]["value"])
    assert written["about"]["architecture"] == "mpnn"
    run(*words, "--json")
    assert read(capsys)["whole"] == whole
    run(checkpoint, data, "--figure", tmp_path / "b.svg", "--loss", "study")
    assert "L_mean" in (tmp_path / "b.svg").read_text() or (tmp_path / "b.svg").stat().st_size > 5000


def test_a_calculator(data, capsys):
    """By dotted path with arguments; without labels the percentage is said to need them."""
    words = ["ase.calculators.lj:LennardJones", data, "--arg", "sigma=1.2", "--arg", "rc=20"]
    run(*words, "--reflections", "--translations", "3", "--permutations", "--rotations", "random:3", "--json")
    found = read(capsys)
    assert found["whole"]["relative"]["value"] < 1e-20
    assert found["moves"] == "rotations and reflections, shifts of 3 Å, orders of the atoms"
    write_extxyz(data, structures(12), "", "")
    run(*words)
    said = capsys.readouterr().out
    assert "no labels" in said
    assert "round-off" in said
    assert "percent of L " not in said


def test_structures_are_spread_and_labels_counted(tmp_path, capsys):
    made = [replace(s, forces=s.forces) for s in structures(40)]
    path = write_extxyz(tmp_path / "a.xyz", made[:20])
    path.write_text(path.read_text() + write_extxyz(tmp_path / "b.xyz", made[20:], forces="").read_text())
    run("ase.calculators.lj:LennardJones", path, "--structures", 7, "--json")
    found = read(capsys)
    assert (found["structures"], found["left"], found["labelled"]) == (7, 20, True)


def test_isolated_atoms_of_a_file_are_left_out_and_counted(data, tmp_path, capsys):
    """They are references; a file of nothing else says so, and is not called empty."""
    atom = "1\nProperties=species:S:1:pos:R:3 energy=-13.6\nH 0 0 0\n"
    data.write_text(data.read_text() + 2 * atom)
    run("ase.calculators.lj:LennardJones", data)
    assert "12 structures" in (said := capsys.readouterr().out)
    assert "2 isolated atoms left out" in said
    data.write_text(atom)
    assert "isolated atoms only" in refused(capsys, "symmetry", "ase.calculators.lj:LennardJones", data)


def test_a_study(tmp_path, monkeypatch, capsys):
    """A row per run on the same structures: those the study keeps for validation."""
    data = write_extxyz(tmp_path / "a.xyz", structures(44))
    specs = [tiny_spec(kind, name=str(data), keys=(("group_key", "group"),)) for kind in ("mpnn", "egnn")]
    folder = tmp_path / "results" / "tiny"
    Results(folder).begin(Study("tiny", tuple(Ladder(s.model, (s.model.width,), s.data) for s in specs)), specs)
    for spec in specs:
        train(spec, tiny_store(), folder)
    monkeypatch.chdir(tmp_path)
    for name in ("results/tiny", "tiny"):
        run(name, "--rotations", "T", "--json", "--figure", tmp_path / "runs.pdf")
        rows = {r["about"]["architecture"]: r for r in read(capsys)["runs"]}
        assert rows["mpnn"]["structures"] == rows["egnn"]["structures"] < 44
        assert rows["egnn"]["whole"]["relative"]["value"] < 1e-8
        assert rows["egnn"]["whole"]["relative"]["value"] < 1e-3 * rows["mpnn"]["whole"]["relative"]["value"]
    run("tiny", data, "--averages", "1,2", "--figure", tmp_path / "runs.html")
    assert (tmp_path / "runs.html").exists()
    assert re.search(r"mpnn w=8.*\d", capsys.readouterr().out)
    for spec in specs:
        shutil.rmtree(checkpoint_path(folder, spec.key))
    assert "holds no checkpoint" in refused(capsys, "symmetry", "tiny")


def test_evaluate_and_nve_average(checkpoint, data, tmp_path, capsys):
    """Errors of the average are no larger than L says; its cost is in its name."""
    for average in ([], ["--average", "O"], ["--average", "random:3"]):
        assert main(["evaluate", str(checkpoint), str(data), *average, "--json", str(tmp_path / "e.json")]) == 0
        said = capsys.readouterr().out
        assert ("averaged over" in said) == bool(average)
    assert "(3 forward passes)" in json.loads((tmp_path / "e.json").read_text())["model"]
    assert main(["nve", str(checkpoint), str(data), "--steps", "10", "--average", "T"]) == 0
    assert "averaged over T (12 forward passes)" in capsys.readouterr().out
    assert "how many" in refused(capsys, "evaluate", checkpoint, data, "--average", "random")


LJ = "ase.calculators.lj:LennardJones"
BAD = {
    "no such class": ((LJ[:-1],), "has no LennardJone"),
    "no such module": (("nobody.knows:It",), "cannot be imported"),
    "its arguments": ((LJ, "--arg", "unheard=3", "--arg", "sigma"), "--arg is NAME=VALUE, not 'sigma'"),
    "a device": ((LJ, "--device", "cuda"), "--device and --dtype are a checkpoint's"),
    "no forces": (("broken:Forceless",), "Forceless has no forces, only energy"),
    "not made": (("ase.calculators.lj:LennardJones.x",), "has no LennardJones.x"),
    "random": (("broken:Random",), "Random is not deterministic: .* differ by up to 0.0"),
    "fails": (("broken:Picky",), r"Picky fails on structure \d+ of .*a.xyz \(.*\): RuntimeError: five atoms"),
    "no sampler": ((LJ, "--rotations", "many"), "no sampler 'many'"),
    "one rotation": ((LJ, "--rotations", "random:1"), "one rotation"),
    "a design with shifts": ((LJ, "--rotations", "T", "--translations", "1"), "for SO3.. and O3.. alone"),
    "a pair and no square": ((LJ, "--rotations", "T*2", "--loss", "force"), "a pair of cosets is for squared"),
    "degrees of others": ((LJ, "--degrees", "2", "--reflections"), "of rotations alone"),
    "averages": ((LJ, "--averages", "1,two"), "--averages are whole numbers"),
    "no average": ((LJ, "--averages", "0,1"), "one rotation or more"),
    "no structures": ((LJ, "--structures", "-3"), "at least one structure"),
    "a figure": ((LJ, "--figure", "a.doc"), "names no kind of figure"),
    "a key": ((LJ, "--forces-key", "F"), "found forces .'F'. in 0/12 structures"),
    "a scale": ((LJ, "--translations", "-1"), "the scale of translations"),
    "no checkpoint": (("nothing",), "there is no checkpoint nothing"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_mistake_is_one_sentence(what, data, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BROKEN.parent)
    (model, *words), expected = BAD[what]
    said = refused(capsys, "symmetry", model, data, *words)
    assert re.search(expected, said), said


def test_of_a_checkpoint(checkpoint, data, tmp_path, capsys):
    assert "--arg is for a calculator" in refused(capsys, "symmetry", checkpoint, data, "--arg", "a=1")
    data.write_text("")
    assert "is empty" in refused(capsys, "symmetry", checkpoint, data)
    write_extxyz(data, [replace(s, numbers=np.full(len(s), 16)) for s in structures(5)])
    assert "holds S, which the potential was not trained on" in refused(capsys, "symmetry", checkpoint, data)


def test_averages_know_their_run(tmp_path, monkeypatch, capsys):
    """`averages` takes what `symmetry --averages --json` writes, of runs and of a checkpoint beside its record, without
    further options: would catch a run whose N, D or variant is not told, and variants taken for one architecture."""
    data = write_extxyz(tmp_path / "a.xyz", structures(12))
    base = tiny_spec("mpnn", name=str(data))
    specs = [replace(base, model=replace(base.model, width=w), variant="odd") for w in (4, 6, 8, 10)]
    folder = tmp_path / "results" / "tiny"
    Results(folder).begin(Study("tiny", (Ladder(base.model, (4, 6, 8, 10), base.data, variant="odd"),)), specs)
    for spec in specs:
        train(spec, tiny_store(), folder)
    records = {r.spec.key: r for r in Results(folder).records()}
    monkeypatch.chdir(tmp_path)
    run("tiny", data, "--averages", "1,2,4", "--rotations", "random:3", "--json", "all.json")
    capsys.readouterr()
    assert main(["averages", "all.json", "--bootstrap", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["sizes"]) == {"mpnn odd"}
    assert {r["key"]: (r["N"], r["D"]) for r in found["runs"]} == {
        key: (r.parameters, r.curve[-1].atoms) for key, r in records.items()
    }
    one = specs[0].key
    for word in (folder / one, f"results/tiny/{one}.ckpt", f"results/tiny/{one}.json"):
        run(word, data, "--averages", "1,2", "--rotations", "random:3", "--json")
        about = read(capsys)["about"]
        assert (about["key"], about["architecture"]) == (one, "mpnn odd")
        assert (about["N"], about["D"]) == (records[one].parameters, records[one].curve[-1].atoms)
    monkeypatch.chdir(checkpoint_path(folder, one))
    run(".", data, "--rotations", "random:3", "--json")
    assert read(capsys)["about"]["key"] == one
    shutil.copytree(checkpoint_path(folder, one), tmp_path / "elsewhere.ckpt")
    (tmp_path / "elsewhere.json").write_text("{}")
    run(tmp_path / "elsewhere.ckpt", data, "--rotations", "random:3", "--json")
    assert "key" not in read(capsys)["about"]
    monkeypatch.chdir(tmp_path)
    assert "several runs" in refused(capsys, "evaluate", ".")
