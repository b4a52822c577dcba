"""Drawings hold what they promise: lines in every loss figure, grey where nothing is fitted, a sentence where empty."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from equiscale.errors import InputError
from equiscale.report import figures, printed
from equiscale.report.drawing import Drawing, Line, Points, Rule, Strip, extent
from equiscale.report.material import Material

LOSSES = ("summary", "frontier-flops", "frontier-hours", "loss-data", "loss-size", "prediction", "parts")


@pytest.fixture
def drawn(full):
    return figures.drawings(Material.of(*full))


def test_every_figure_is_there(drawn):
    assert tuple(drawn) == figures.IDS
    assert all(isinstance(d, Drawing) and d.panels and not d.missing for d in drawn.values())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_panel_has_both_reference_lines(drawn, full, name):
    """Catches a loss figure without the trivial predictor or without the noise floor."""
    for panel in drawn[name].panels:
        rules = [m for m in panel.marks if isinstance(m, Rule) and m.key == "trivial"]
        assert len(rules) == 1
        assert [m for m in panel.marks if isinstance(m, Strip) and m.key == "noise"]
    value = full[1]["trivial"]["molecules"]["loss"]
    if name != "parts":
        assert all(
            m.value == value for p in drawn[name].panels for m in p.marks if isinstance(m, Rule) and m.key == "trivial"
        )


def test_the_gap_shows_them_too(drawn):
    for panel in drawn["gap"].panels[:-1]:
        assert any(isinstance(m, Rule) and m.key == "trivial" for m in panel.marks)
        assert any(isinstance(m, Strip) and m.key == "noise" for m in panel.marks)


def test_frontier_points_are_the_analysis(drawn, full):
    """Used and dropped points are the analysis', dropped ones hollow; hand-overs and range likewise."""
    material = Material.of(*full)
    for panel, name in zip(drawn["frontier-flops"].panels, material.architectures):
        found = material.main.architectures[name].frontiers["C"]
        used = next(m for m in panel.marks if isinstance(m, Points) and m.key == "frontier")
        grey = next(m for m in panel.marks if isinstance(m, Points) and m.key == "grey")
        over = next(m for m in panel.marks if isinstance(m, Points) and m.key == "hand-over")
        np.testing.assert_array_equal(used.x, found.x[~found.dropped])
        np.testing.assert_array_equal(grey.y, found.loss[found.dropped])
        np.testing.assert_array_equal(over.x, found.handovers)
        assert used.filled
        assert not grey.filled
        fit = next(m for m in panel.marks if isinstance(m, Line) and m.key == "frontier")
        assert (fit.x[0], fit.x[-1]) == pytest.approx(found.range)
        np.testing.assert_allclose(fit.y, found.fit(C=fit.x))


def test_what_lies_beyond_the_range_is_dotted(drawn, full):
    """Catches a law drawn as a result outside its hand-overs, or beyond ten times the largest compute."""
    material = Material.of(*full)
    for panel, name in zip(drawn["frontier-flops"].panels, material.architectures):
        low, high = material.main.architectures[name].frontiers["C"].range
        most = 10 * max(c.last("C") for c in material.of_architecture(name))
        beyond = [m for m in panel.marks if isinstance(m, Line) and m.key == "beyond"]
        assert beyond
        for line in beyond:
            assert line.dash == "dot"
            assert max(line.x) <= low * 1.001 or min(line.x) >= high * 0.999
            assert max(line.x) <= most * 1.001


def test_rows_before_the_exclusion_are_grey(drawn, full):
    material = Material.of(*full)
    start = material.main.architectures["mpnn"].D_min
    marks = [m for m in drawn["loss-data"].panels[0].marks if isinstance(m, Points)]
    assert all(max(m.x) < start for m in marks if m.key == "excluded" and len(m.x))
    assert all(min(m.x) >= start for m in marks if m.key == "mpnn" and len(m.x))


def test_panels_to_be_compared_share_their_axes(drawn):
    for name in ("frontier-flops", "loss-data", "loss-size", "prediction"):
        assert len({extent(p, "y") for p in drawn[name].panels}) == 1


def test_every_specification_is_shown(drawn, full):
    pair = full[2]["molecules"].pairs[0]
    top, choices = drawn["specifications"].panels
    shown = [m for m in top.marks if isinstance(m, Points)]
    assert sum(len(m.y) for m in shown) == len(pair.specifications)
    assert sorted(y for m in shown for y in m.y) == sorted(s.delta for s in pair.specifications)
    assert len(choices.marks[0].x) == 6 * len(pair.specifications)


def test_prediction_and_outcome(drawn, full):
    score = full[2]["molecules"].architectures["mpnn"].held_out
    marks = {m.key: m for m in drawn["prediction"].panels[0].marks if isinstance(m, Points)}
    assert marks["foretold"].y == [score.prediction.loss.value]
    assert marks["foretold"].low == [score.prediction.loss.interval.low]
    assert marks["measured"].y == [score.measured]


def test_printed_figures_leave_matplotlib_as_it_was(drawn, tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    paths = printed.save(drawn["kappa"], tmp_path)
    assert [p.suffix for p in paths] == [".svg", ".pdf", ".png"]
    assert all(p.stat().st_size > 1000 for p in paths)
    assert dict(mpl.rcParams) == before


def test_same_records_same_bytes(drawn, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        printed.save(drawn["kappa"], tmp_path / folder)
    for ending in ("svg", "pdf"):
        assert (tmp_path / "a" / f"kappa.{ending}").read_bytes() == (tmp_path / "b" / f"kappa.{ending}").read_bytes()


def test_a_table_without_a_column_is_one_sentence(full):
    table, facts, analyses = full
    with pytest.raises(InputError, match="no column C"):
        Material.of({k: v for k, v in table.items() if k != "C"}, facts, analyses)
    with pytest.raises(InputError, match="no analysis"):
        Material.of(table, facts, {})


def test_without_seeds_the_noise_floor_is_the_fits_and_without_a_fit_there_is_none(synthetic):
    import made

    table, facts = synthetic.table(("mpnn",), seeds=1)
    analysis = made.analysis(table, facts, {"mpnn": synthetic.law("mpnn")})
    law = replace(analysis.architectures["mpnn"], noise=made.bare().noise)
    for surface, strips, sentence in ((law.surface, 1, "the surface fit found"), (None, 0, "No noise floor for MPNN")):
        seedless = replace(analysis, architectures={"mpnn": replace(law, surface=surface)})
        drawing = figures.drawings(Material.of(table, facts, seedless))["summary"]
        assert len([m for m in drawing.panels[0].marks if isinstance(m, Strip)]) == strips
        assert any(sentence in n for n in drawing.notes)


def test_a_ladder_of_one_seed_is_not_said_to_have_seeds(synthetic):
    """Catches a strip that is called the seeds' where the ladder in its panel was trained with one."""
    import made

    table, facts = synthetic.table(seeds=2)
    alone = (table["architecture"] == "egnn") & (table["seed"] > 0)
    table = {k: v[~alone] for k, v in table.items()}
    analysis = made.analysis(table, facts, {a: synthetic.law(a) for a in ("mpnn", "egnn")})
    single = replace(analysis.architectures["egnn"], noise=made.bare().noise)
    analysis = replace(analysis, architectures={**analysis.architectures, "egnn": single})
    drawing = figures.drawings(Material.of(table, facts, analysis))["frontier-flops"]
    for panel in drawing.panels:
        (strip,) = [m for m in panel.marks if isinstance(m, Strip) and m.key == "noise"]
        assert ("between runs" if panel.title == "EGNN" else "over seeds") in strip.text
    (key,) = [k for k in drawing.keys if k.name == "noise"]
    assert "of ladders with one seed, between runs" in key.label
    assert [n for n in drawing.notes if n.startswith("Noise floor of EGNN")]


def test_ladders_of_three_runs_have_the_strip_of_the_others(synthetic):
    """Catches a strip as wide as a fit to three runs says."""
    import made

    table, facts = synthetic.table()
    analysis = made.analysis(table, facts, {a: synthetic.law(a) for a in ("mpnn", "egnn")})
    found = {n: replace(a, noise=made.bare().noise) for n, a in analysis.architectures.items()}
    wild = replace(found["egnn"].surface, run_noise=0.9)
    found["egnn"] = replace(found["egnn"], surface=wild, rungs=found["egnn"].rungs[:3])
    material = Material.of(table, facts, replace(analysis, architectures=found))
    assert material.scatter("egnn", material.loss) == material.scatter("mpnn", material.loss) == 0.01
    notes = figures.drawings(material)["frontier-flops"].notes
    assert any("fit to so few runs tells none" in n and n.endswith("of MPNN, pooled.") for n in notes)
