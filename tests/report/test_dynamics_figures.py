"""Figures of tracked runs: what is drawn where, and what a log axis has no place for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tracked

from equiscale.report import dynamics_figures, style
from equiscale.report.drawing import Band, Line, Points, absent, extent
from equiscale.report.one_figure import write_figure
from equiscale.report.tracks import gradient_correlation, head_correlation, tracks_of

AWKWARD = {  # row of the points: what it is replaced by
    0: dict(percent=0.0, equiv=0.0, size=0.0),
    3: dict(percent=float("nan"), equiv=float("nan"), mean=float("nan"), percent_error=float("nan")),
    5: dict(gradient_mean=-1e-3),
    6: dict(gradient_equiv=-1e-3),
    8: dict(percent=-0.02, equiv=-1e-4, percent_error=0.05),
    10: dict(percent=float("inf"), equiv=float("inf"), equiv_error=float("inf")),
}


@pytest.fixture(scope="module")
def study():
    return tracks_of(tracked.study())


@pytest.fixture(scope="module")
def awkward():
    """The same with one run whose points are what unbiased estimates and diverging runs can be."""
    records = tracked.study()
    for i in (0, 1):
        points = [replace(p, **AWKWARD.get(k, {})) for k, p in enumerate(records[i].symmetry)]
        records[i] = replace(records[i], symmetry=tuple(points))
    return tracks_of(records)


def lines(panel) -> list[Line]:
    return [m for m in panel.marks if isinstance(m, Line) and m.dash != "dot"]


def test_one_line_per_run_shaded_by_size(study):
    """Catches runs of two architectures in one panel, a lost run, and sizes that look alike."""
    panels = dynamics_figures.percent(study).panels
    assert [p.title for p in panels] == ["MPNN", "EScAIP"]
    for panel, name in zip(panels, ("mpnn", "escaip")):
        own = [t for t in study if t.architecture == name]
        assert len({line.colour for line in lines(panel)}) == 3
        for line, track in zip(lines(panel), own, strict=True):
            np.testing.assert_allclose(line.x, track["step"][1:])
            np.testing.assert_allclose(line.y, track["percent"][1:])


def test_bands_are_the_standard_error(study):
    panel, track = dynamics_figures.percent(study).panels[0], study[0]
    band = next(m for m in panel.marks if isinstance(m, Band))
    np.testing.assert_allclose(np.asarray(band.high) - band.low, 2 * track["percent_error"])


def test_step_0_and_what_is_not_positive_stand_open_at_an_edge(awkward):
    """Catches points that a log axis drops without a word."""
    panel = dynamics_figures.percent(awkward).panels[0]
    low, high = extent(panel, "y")
    marks = [m for m in panel.marks if isinstance(m, Points) and not m.filled]
    xs = [x for m in marks for x in m.x]
    assert min(xs) == pytest.approx(0.4)  # step 0 of the three runs
    assert 200 in xs
    lowest = min(float(y) for m in marks for y in m.y)
    assert low < lowest < 0.05
    assert high < 1e3
    edge = next(k for k in dynamics_figures.percent(awkward).legend if k.name == "edge")
    assert "open" in edge.label


@pytest.mark.parametrize("which", dynamics_figures.FIGURES)
@pytest.mark.parametrize("ending", ["svg", "html"])
def test_awkward_points_never_break_a_figure(awkward, which, ending, tmp_path):
    """Catches a crash, a warning about logarithms, and NaN or infinity in what is drawn."""
    drawing = dynamics_figures.FIGURES[which](awkward)
    for panel in drawing.panels:
        assert np.isfinite([*extent(panel, "x"), *extent(panel, "y")]).all()
        for mark in panel.marks:
            if isinstance(mark, Points):
                assert np.isfinite(np.asarray(mark.x, float)).all()
                assert np.isfinite(np.asarray(mark.y, float)).all()
                assert len(mark.hover) == len(mark.x)
    text = write_figure(drawing, tmp_path / f"f.{ending}").read_text(encoding="utf-8")
    assert len(text) > 5000


def test_exactly_equivariant_runs_have_a_figure():
    """Catches an axis without a value: rounding alone, all of it below what is shown."""
    record = tracked.record(tracked.spec())
    points = [replace(p, percent=1e-11, percent_error=1e-12, equiv=1e-13) for p in tracked.points()]
    drawing = dynamics_figures.percent(tracks_of([replace(record, symmetry=tuple(points))]))
    low, high = extent(drawing.panels[0], "y")
    assert 0 < low < high
    assert not any(m.filled for m in drawing.panels[0].marks if isinstance(m, Points))


def test_parts_are_parts_and_the_relative_error_is_relative(study):
    """Catches L_mean drawn as L_equiv, or a relative error that still carries the output's scale."""
    left, right = dynamics_figures.parts(study).panels[:2]
    track = study[0]
    solid, dashed = (next(m for m in lines(left) if m.dash == d) for d in ("solid", "dash"))
    np.testing.assert_allclose(solid.y, track["mean"][1:])
    np.testing.assert_allclose(dashed.y, track["equiv"][1:])
    np.testing.assert_allclose(lines(right)[0].y, (track["equiv"] / track["size"])[1:])


def test_correlations_never_mix_runs(study):
    """Catches pairs of one run's percentage with another's gradients: here every run's own pairs lie on one law."""
    mpnn = [t for t in study if t.architecture == "mpnn"]
    found = gradient_correlation(mpnn)
    assert found.points == 3 * len(tracked.STEPS)
    assert set(found.per_run) == {t.name for t in mpnn}
    assert all(p > 0.99 for p, _, _ in found.per_run.values())
    assert head_correlation(study).runs == 3
    notes = dynamics_figures.gradients(study).notes
    assert any("Spearman" in n and "Pearson" in n for n in notes)


def test_negative_gradient_norms_make_no_ratio(awkward):
    """Catches a negative over a negative, which would look like a fine ratio."""
    assert np.isnan(awkward[0].gradient_ratio[5])
    assert awkward[0].gradient_ratio[6] < 0
    assert gradient_correlation(awkward[:1]).left_out >= 3


def test_what_was_not_tracked_is_said():
    bare = tracks_of([tracked.record(tracked.spec(), tracked.points(gradients=False))])
    assert "gradients=True" in dynamics_figures.gradients(bare).missing
    assert "head" in dynamics_figures.head(bare).missing
    assert "Tracking()" in dynamics_figures.percent(()).missing


def test_diverged_runs_and_strange_starts_are_left_out():
    """Catches a diverged run in the figures that every table leaves out."""
    fine = tracked.record(tracked.spec(), tracked.points())
    assert len(tracks_of([fine, replace(fine, status="diverged", reason="NaN at step 3")])) == 1
    assert tracks_of([replace(fine, symmetry=())]) == ()


def test_variants_of_one_size_share_a_panel_and_are_told_apart():
    """Catches five remedies of one colour and one marker (fig. 2d-f): colour or marker must differ for each pair."""
    records = [r for r in tracked.remedies() if r.spec.model.width == 8]
    drawing = dynamics_figures.percent(tracks_of(records))
    assert len(drawing.panels) == 1
    looks = {k.name: (k.colour, k.symbol) for k in drawing.keys if k.name != "edge"}
    assert len(looks) == len(set(looks.values())) == 5
    both = dynamics_figures.percent(tracks_of(tracked.remedies()))
    assert len(both.panels) == 5
    assert style.name_of("mpnn 4 frames") in [p.title for p in both.panels]


def test_the_page_has_the_section_where_runs_were_tracked(full, study):
    """Catches a page of an untracked study that has an empty section, and a table with other numbers than the dips."""
    from equiscale.report.dynamics_tables import symmetry_ends
    from equiscale.report.material import Material
    from equiscale.report.page import render

    nothing = {"summary": absent("summary", "Summary", "not drawn here.")}
    drawn = nothing | {d.id: d for d in (dynamics_figures.percent(study), dynamics_figures.parts(study))}
    tracked_page = render(Material.of(*full, study), drawn)
    assert 'id="broken-symmetry"' in tracked_page
    assert all(f'id="{name}"' in tracked_page for name in ("figure-symmetry-percent", "table-symmetry-ends"))
    assert "broken-symmetry" not in render(Material.of(*full), nothing)
    first = symmetry_ends(study).rows[0]
    assert first[3].text == style.number(study[0].dip.last, 2)
    assert "step 200" in first[7].aside
