"""`equiscale dynamics` as somebody with a results folder meets it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tracked
from runs import refused

from equiscale.cli import main
from equiscale.ladder import Ladder, Study
from equiscale.results import Results
from equiscale.run import RunRecord, save


def folder(path: Path, records: list[RunRecord]) -> Path:
    """A results folder of these records."""
    path.mkdir()
    spec = records[0].spec
    Results(path).begin(Study("made", (Ladder(spec.model, (spec.model.width,), spec.data),)), [r.spec for r in records])
    for record in records:
        save(record, path)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return folder(tmp_path_factory.mktemp("dynamics") / "results", tracked.study())


def told(capsys, *words) -> str:
    capsys.readouterr()
    assert main([str(w) for w in words]) == 0
    return capsys.readouterr().out


def test_the_dip_of_every_run(study, capsys):
    """Catches a dip at another step than the records', and a run that is not listed."""
    out = told(capsys, "dynamics", study)
    rows = [line for line in out.splitlines() if " seed=0" in line]
    assert len(rows) == 6
    assert all(f" {tracked.DIP} " in row and row.endswith("rises after its dip") for row in rows)
    assert "squared distance of the head" in out


def test_json_says_the_same(study, capsys):
    found = json.loads(told(capsys, "dynamics", study, "--json"))
    first = found["runs"][0]
    assert (first["architecture"], first["width"], first["step"]) == ("mpnn", 8, tracked.DIP)
    assert first["verdict"] == "rises"
    assert first["least"] < first["last"] < first["start"]
    assert set(found["correlations"]) == {"mpnn", "escaip"}
    assert found["correlations"]["escaip"]["head"]["pearson"] > 0.99
    assert "head" not in found["correlations"]["mpnn"]


def test_only_some_runs(study, capsys):
    found = json.loads(told(capsys, "dynamics", study, "--only", "escaip.*w=(16|32)", "--json"))
    assert [(r["architecture"], r["width"]) for r in found["runs"]] == [("escaip", 16), ("escaip", 32)]
    assert "matches none of 6" in refused(capsys, "dynamics", study, "--only", "egnn")
    assert "no regular expression" in refused(capsys, "dynamics", study, "--only", "(")


@pytest.mark.parametrize("show", ["percent", "parts", "gradients", "head"])
def test_figures(study, show, tmp_path, capsys):
    out = told(capsys, "dynamics", study, "--show", show, "--figure", tmp_path / "f.svg")
    assert (tmp_path / "f.svg").stat().st_size > 5000
    assert str(tmp_path / "f.svg") in out


def test_a_figure_that_cannot_be_is_refused_before_anything_is_printed(study, tmp_path, capsys):
    assert "head" in refused(
        capsys, "dynamics", study, "--only", "mpnn", "--show", "head", "--figure", tmp_path / "f.svg"
    )
    assert not (tmp_path / "f.svg").exists()
    assert ".svg" in refused(capsys, "dynamics", study, "--figure", tmp_path / "f.docx")


def test_a_study_without_tracking_is_told_how(tmp_path, capsys):
    """Catches an empty table where a reader needs the one line that turns tracking on."""
    bare = folder(tmp_path / "bare", [replace(r, symmetry=()) for r in tracked.study()])
    assert "EvalSpec(symmetry=Tracking())" in refused(capsys, "dynamics", bare)
    nothing = tmp_path / "empty"
    nothing.mkdir()
    assert "study.json" in refused(capsys, "dynamics", nothing)
