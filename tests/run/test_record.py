"""Records on the disk: what is refused, and that thousands are read without work that grows with their number."""

from __future__ import annotations

import gc
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from equiscale.errors import InputError
from equiscale.ladder import Ladder, Study
from equiscale.models import EGNNConfig, MPNNConfig
from equiscale.results import Results
from equiscale.run import SCHEMA, Clock, DataSpec, Evaluation, Losses, RunRecord, RunSpec, load, save, table


def record(spec: RunSpec, looks: int = 3, **fields) -> RunRecord:
    """Numbers that are all different, so that none can pass for another."""
    number = iter(np.random.default_rng(spec.seed * 1000 + spec.model.width).uniform(0.5, 2.0, 1000).tolist())

    def losses() -> Losses:
        return Losses(*(next(number) for _ in range(6)))

    curve = [
        Evaluation(7 * k, 28 * k, 500 * k, 400 * k, next(number), next(number), next(number), losses(), losses(),
                   Clock(next(number), next(number)))
        for k in range(1, looks + 1)
    ]  # fmt: skip
    made = RunRecord(spec, "ok", "", 2000, 1500, tuple(curve), losses(), losses(), losses(), losses(), 0.0, 1.0, 1.0,
                     0, next(number))  # fmt: skip
    return replace(made, **fields)


def declared(folder: Path, seeds: int = 3) -> list[RunSpec]:
    """A study of two ladders of two widths, begun in ``folder``; its runs."""
    data = DataSpec("tiny", structures=800)
    ladders = tuple(Ladder(m, (8, 16), data, seeds=tuple(range(seeds))) for m in (MPNNConfig(), EGNNConfig()))
    study = Study("many", ladders)
    runs = study.runs({data.source: "0" * 64})
    Results(folder).begin(study, runs)
    return runs


def spoiled(path: Path, *where: str | int, value: object) -> None:
    """A field of a record's file set by hand."""
    about = json.loads(path.read_text())
    inner = about
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    path.write_text(json.dumps(about))


@pytest.fixture
def path(tmp_path) -> Path:
    return save(record(declared(tmp_path)[0]), tmp_path)


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        (("parameters",), "2000", "parameters — input should be a valid integer"),
        (("curve", 1, "molecules", "loss"), "0.1", r"curve\.1\.molecules\.loss — input should be a valid number"),
        (("curve", 1, "molecules", "los"), 0.1, r"'curve\.1\.molecules\.los' is not a field \(did you mean 'loss'"),
        (("curve", 2, "clock"), None, r"curve\.2\.clock"),
        (("curve", 0, "step"), 7.5, r"curve\.0\.step — input should be a valid integer"),
        (("status",), "fine", "status"),
        (("spec", "model", "kind"), "mpn", "spec.model"),
        (("spec", "schema_version"), SCHEMA + 1, f"has schema version {SCHEMA + 1}"),
    ],
    ids=lambda x: ".".join(map(str, x)) if isinstance(x, tuple) else "",
)
def test_a_record_that_was_edited_is_named_with_the_field(where, value, says, path):
    """Would catch validation that was given up for speed."""
    spoiled(path, *where, value=value)
    with pytest.raises(InputError, match=says) as refused:
        Results(path.parent).records()
    assert path.name in str(refused.value)


def test_another_version_is_told_before_its_fields(path):
    """Would catch a newer record refused for a field that this version does not know."""
    spoiled(path, "temperature", value=300.0)
    with pytest.raises(InputError, match="'temperature' is not a field"):
        load(path)
    spoiled(path, "spec", "schema_version", value=SCHEMA + 1)
    with pytest.raises(InputError, match=f"has schema version {SCHEMA + 1}, this equiscale reads {SCHEMA}"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"spec": 3}', b"\xff\xfe{", b"half", b"[" * 300])
def test_what_is_no_record(content, path):
    """Would catch a damaged file that is read, or told without its name."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(InputError, match=f"{path.name} is not a run record"):
        load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=f"{path.name} cannot be read"):
        load(path)


def test_numbers_that_are_not_finite_survive(tmp_path):
    """Would catch a parser that refuses or drops what a diverged run ended with."""
    spec = declared(tmp_path)[0]
    bad = Losses(math.inf, -math.inf, math.inf, 1.0, 1.0, 1.0)
    made = record(spec, status="diverged", reason="loss inf", final_molecules=bad)
    assert load(save(made, tmp_path)) == made


def test_a_record_travels(tmp_path):
    """Between processes: would catch classes without a dictionary that cannot be pickled, or that can be changed."""
    made = record(declared(tmp_path)[0])
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(AttributeError):
        made.curve[0].molecules.loss = 0.0


def test_the_collector_is_as_it_was(path):
    """Would catch garbage that is never collected again once records were read, or once they could not be."""
    was = gc.isenabled()
    try:
        for state in (True, False):
            gc.enable() if state else gc.disable()
            assert len(Results(path.parent).records()) == 1
            assert gc.isenabled() == state
            assert gc.get_freeze_count() == 0
        gc.enable()
        path.write_text("{")
        with pytest.raises(InputError):
            Results(path.parent).records()
        assert gc.isenabled()
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable() if was else gc.disable()


def test_the_table_is_that_of_its_rows(tmp_path):
    """Would catch a column of another run or field: every number differs, and curves differ in length."""
    made = [record(spec, looks=1 + k % 4) for k, spec in enumerate(declared(tmp_path))]
    made[1] = replace(made[1], status="diverged", reason="loss nan")
    made[2] = replace(made[2], curve=())
    made[3] = replace(made[3], shared_device=True)
    made[4] = replace(made[4], step_seconds=None)
    rows, dropped = table(made)
    assert [d["run"] for d in dropped] == [made[1].spec.key]
    expected = [(r, e) for r in made if r.status == "ok" for e in r.curve]
    assert len(rows["run"]) == len(expected)
    for k, (r, e) in enumerate(expected):
        timed = r.step_seconds is not None and not r.shared_device
        about = {
            "run": r.spec.key, "architecture": r.spec.model.kind, "width": r.spec.model.width, "seed": r.spec.seed,
            "depth": r.spec.model.depth, "step": e.step, "N": 2000.0, "N_body": 1500.0, "D": e.atoms,
            "unique_atoms": e.unique_atoms, "structures": e.structures, "C": e.flops_model,
            "C_executed": e.flops_executed, "H_train": e.step * r.step_seconds / 3600 if timed else math.nan,
            "H_train_measured": e.clock.seconds_train / 3600, "H_total": e.clock.seconds_total / 3600,
            "train_loss": e.train_loss,
        }  # fmt: skip
        for name in ("molecules", "conformers"):
            for part in ("loss", "energy_loss", "force_loss", "atom_loss", "energy_mae", "force_mae"):
                about[f"{part}_{name}"] = getattr(getattr(e, name), part)
        assert set(rows) == set(about)
        np.testing.assert_equal({name: rows[name][k] for name in about}, about)
    assert {rows[name].dtype.kind for name in ("width", "seed", "depth", "step", "structures")} == {"i"}
    assert table([made[1], made[2]])[0] == {}


def test_a_key_is_hashed_once_a_run(tmp_path, monkeypatch):
    """Would catch a table that hashes a spec for every row: of 10,000 runs that took longer than reading them."""
    made = [record(spec, looks=4) for spec in declared(tmp_path)]
    calls = []
    plain = RunSpec.key.fget
    monkeypatch.setattr(RunSpec, "key", property(lambda spec: calls.append(spec) or plain(spec)))
    table(made)
    assert len(calls) == len(made)
