"""The figure of averaging holds what was measured and fitted, and shows which L_D the rungs allow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from equiscale.laws.averaging import averaged_runs
from equiscale.laws.size_exponent import size_exponent
from equiscale.report.averaging_figures import averages_figure
from equiscale.report.drawing import Line, Points, Rule, Strip
from equiscale.report.law_figures import write_figure

SIZES = np.geomspace(4e5, 6e7, 6)


def measured(known: bool = True):
    rng = np.random.default_rng(0)
    rows = []
    for i, n in enumerate(SIZES):
        term, u = 22.7 * n**-0.276, float(np.exp(0.006 * rng.normal()))
        losses = [{"rotations": m, "loss": (0.255 + term * (0.9 + 0.1 / m)) * u} for m in (1, 2, 8, 32)]
        rows.append(
            {
                "run": f"r{i}",
                "architecture": "mpnn",
                "N": n if known else None,
                "D": 1e9,
                "loss": "study",
                "averages": losses,
            }
        )
    return averaged_runs({"runs": rows})


@pytest.fixture(scope="module")
def both():
    runs = measured()
    found = size_exponent(SIZES, [r.at(1) for r in runs], [r.at(32) for r in runs], floors=(0.223,), resamples=60)
    return runs, found


def of(panel, kind, key=None):
    return [m for m in panel.marks if isinstance(m, kind) and (key is None or m.key == key)]


def test_every_measured_loss_and_every_law_is_drawn(both):
    runs, found = both
    against, sizes, floors = averages_figure(runs, {"mpnn": found}).panels
    assert sum(len(m.x) for m in of(against, Points)) == 24
    for run, mark in zip(runs, of(against, Line), strict=True):
        np.testing.assert_allclose(mark.y, run.law(np.asarray(mark.x)))
    assert [m.value for m in of(against, Rule)] == [run.law.mean for run in runs]
    np.testing.assert_array_equal(of(sizes, Points, "one")[0].y, found.loss)
    np.testing.assert_array_equal(of(sizes, Points, "many")[0].y, found.averaged)
    assert [m.value for m in of(floors, Rule, "chosen")] == [0.223]


def test_alpha_along_the_floor_is_bold_where_it_is_allowed(both):
    """Would catch a curve that runs on, as if any L_D went."""
    _, found = both
    panel = averages_figure(measured(), {"mpnn": found}).panels[2]
    for key, profile in zip(("one", "many"), found.profiles, strict=True):
        pale, bold = of(panel, Line, key)
        assert len(pale.x) == len(profile.floor)
        assert (min(bold.x), max(bold.x)) == pytest.approx(profile.allowed)
    assert [(m.low, m.high) for m in of(panel, Strip)] == [p.allowed for p in found.profiles]
    filled = [m.filled for m in of(panel, Points)]
    assert filled == [True, True, False, False]  # given, then fitted


def test_each_architecture_has_a_row(both):
    """Would catch runs of two architectures in one panel, rows that do not begin with their runs, and bars of the
    losses where those of the distance from the line are known."""
    runs, found = both
    other = [replace(run, architecture="egnn", deviation_errors=np.full(4, 1e-3)) for run in runs]
    mine = [replace(run, architecture="mpnn") for run in runs]
    figure = averages_figure([*other, *mine], {"mpnn": found})
    assert [p.title for p in figure.panels] == ["MPNN", "Loss against size", "α hangs on L_D", "EGNN"]
    first, last = figure.panels[0], figure.panels[3]
    assert sum(len(m.x) for m in of(first, Points)) == sum(len(m.x) for m in of(last, Points)) == 24
    bar = of(last, Points)[0]
    np.testing.assert_allclose(np.asarray(bar.high) - bar.low, 2e-3)


def test_without_sizes_there_is_one_panel(tmp_path):
    figure = averages_figure(measured(known=False), {})
    assert len(figure.panels) == 1
    assert "leading order" in figure.caption
    first, second = (write_figure(figure, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == second
    assert averages_figure([], {}).missing
