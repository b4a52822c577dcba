"""Runs that trained beside others on one device: in every law but those in hours, and that is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from equiscale.cli import main
from equiscale.facts import analyses
from equiscale.results import Results
from equiscale.run import load, save

LAPTOP = Path(__file__).parents[1] / "results" / "laptop"
SENTENCE = "runs shared their device with others: no law in hours has them."


def marked(folder: Path, widths: set[int]) -> Results:
    """The laptop study's EGNN ladder, one seed, in a folder of its own, these widths marked."""
    folder.mkdir()
    about = json.loads((LAPTOP / "study.json").read_text())
    records = [load(LAPTOP / f"{key}.json") for key in about["runs"]]
    chosen = [r for r in records if r.spec.architecture == "egnn" and r.spec.seed == 0]
    for record in chosen:
        save(replace(record, shared_device=record.spec.model.width in widths), folder)
    about["runs"] = [r.spec.key for r in chosen]
    (folder / "study.json").write_text(json.dumps(about))
    return Results(folder)


def test_marked_runs_leave_the_laws_in_hours_alone(tmp_path):
    """Would catch hours of a crowded device in a frontier or a plan, marked runs missing from the laws in FLOPs, and
    an unmarked study whose frontier in hours is lost with them."""
    options = dict(sets=("molecules",), resamples=4)
    plain = analyses(marked(tmp_path / "plain", set()), **options)[2]["molecules"]
    rows, _, made = analyses(marked(tmp_path / "marked", {4, 16}), **options)
    some = made["molecules"]
    before, after = plain.architectures["egnn"], some.architectures["egnn"]
    assert np.isnan(rows["H_train"][np.isin(rows["width"], [4, 16])]).all()
    assert np.isfinite(rows["H_train"][~np.isin(rows["width"], [4, 16])]).all()
    assert {4, 16} <= set(before.frontiers["H_train"].width.tolist())
    assert not {4, 16} & set(after.frontiers["H_train"].width.tolist())
    assert after.frontiers["C"].width.tolist() == before.frontiers["C"].width.tolist()
    assert after.rows_used == before.rows_used
    assert [np.isfinite(r.hours_per_atom) for r in after.rungs] == [r.width not in (4, 16) for r in after.rungs]
    assert after.H_range[0] > 0
    assert after.H_range[1] == before.H_range[1]
    assert f"2 {SENTENCE}" in some.warnings
    assert not any("shared" in w for w in plain.warnings)


def test_fit_report_and_plan_say_so(tmp_path, capsys):
    """Would catch a crowded study that is fitted in hours without a word, and a plan in hours with none to go by."""
    pytest.importorskip("plotly")
    results = marked(tmp_path / "all", {4, 6, 9, 12, 16, 25, 36, 49, 64, 81})
    assert main(["fit", str(results.folder), "--resamples", "4"]) == 0
    assert f"10 {SENTENCE}" in capsys.readouterr().out
    assert main(["plan", str(results.folder), "--hours", "1", "--resamples", "4"]) == 2
    assert "hours" in capsys.readouterr().err
    from equiscale.report.material import Material
    from equiscale.report.run_tables import warnings

    table, about, made = analyses(results, resamples=4)
    found = warnings(Material(table, about, made))
    assert sum("shared their device" in text for _, text in found) == 1


def test_runs_on_several_devices_are_told(tmp_path):
    """Would catch device-seconds of four GPUs read as those of one, without a word."""
    pytest.importorskip("plotly")
    from equiscale.report.material import Material
    from equiscale.report.run_tables import warnings

    results = marked(tmp_path / "some", set())
    for record in results.records()[:2]:
        save(replace(record, provenance={**record.provenance, "ranks": "4"}), results.folder)
    found = warnings(Material(*analyses(results, sets=("molecules",), resamples=4)))
    assert sum("2 runs were trained on several devices" in text for _, text in found) == 1
    plain = marked(tmp_path / "plain", set())
    found = warnings(Material(*analyses(plain, sets=("molecules",), resamples=4)))
    assert not any("several devices" in text for _, text in found)
