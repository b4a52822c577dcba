"""Figures of measured models: many runs can be told apart, and names leave their panel room."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from equiscale.measure.found import Average, Part
from equiscale.report.drawing import Line
from equiscale.report.one_figure import write_figure
from equiscale.report.symmetry_figures import averages_figure, decomposition_figure
from equiscale.symmetry.decomposition import Figure


def found(architecture: str, equiv: float = 0.1) -> SimpleNamespace:
    one = Figure(equiv, 0.01)
    total, percent = Figure(1 + equiv, 0.02), Figure(100 * equiv / (1 + equiv), 1.0)
    whole = Part(24, one, one, total, Figure(1.0, 0.02), percent, 5.0, 12.0)
    averages = tuple(
        Average(m, Figure(1 + equiv / m, 0.02), Figure(1 + equiv / m, 0.02), Figure(0.0, 0.01), True) for m in (1, 2, 8)
    )
    return SimpleNamespace(
        whole=whole, averages=averages, about={"architecture": architecture}, loss="squared", rotations=10,
        labelled=True, structures=24, data="builtin", moves="rotations", sampler="random:10", estimator="u-statistic",
    )  # fmt: skip


def runs(architectures: int, sizes: int) -> list:
    names = ("mpnn", "mpnn no translation invariant", "egnn")[:architectures]
    return [(f"{a} w={w} seed=0", found(a, 0.01 * w)) for a in names for w in range(8, 8 + sizes)]


def test_few_runs_have_colours_of_their_own():
    drawing = averages_figure(runs(2, 3))
    assert len(drawing.panels) == 1
    assert len({m.colour for m in drawing.panels[0].marks if isinstance(m, Line)}) == 6


def test_many_runs_have_a_panel_for_each_architecture():
    """Would catch colours that come round again, and a legend as long as the runs."""
    drawing = averages_figure(runs(3, 5))
    assert [p.title for p in drawing.panels] == ["MPNN", "MPNN no translation invariant", "EGNN"]
    for panel in drawing.panels:
        assert len({m.colour for m in panel.marks if isinstance(m, Line)}) == 5
    assert [k.ends for k in drawing.keys] == [("w=8 seed=0", "w=12 seed=0")] * 3


@pytest.mark.parametrize(("count", "least"), [(1, 7.0), (0, 3.4)])
def test_long_names_stand_across_the_page(tmp_path, count, least):
    """Would catch a column of names that leaves bars and percentages no room."""
    named = runs(2, 2) if count else [(f"run {i}", f) for i, (_, f) in enumerate(runs(1, 2))]
    text = write_figure(decomposition_figure(named), tmp_path / "a.svg").read_text()
    assert float(text.split('width="')[1].split("pt")[0]) / 72 == pytest.approx(least, rel=0.05)
