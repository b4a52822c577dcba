"""Variants of an architecture side by side: who shares a panel, what a point is, and names and hues of variants."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from equiscale.report import figures, style
from equiscale.report.drawing import Line
from equiscale.report.material import Material
from equiscale.report.variant_figures import remedies, variants


@pytest.fixture
def varied(full) -> Material:
    table, facts, analyses = full
    names = np.asarray(table["architecture"]).astype("<U40")
    names[names == "egnn"] = "mpnn augmented"
    return Material.of({**table, "architecture": names}, facts, analyses)


def test_variants_share_a_panel_and_a_point_is_a_rungs_end(varied):
    (panel,) = variants(varied).panels
    assert panel.title == "MPNN"
    lines = {m.key: m for m in panel.marks if isinstance(m, Line)}
    assert set(lines) == {"mpnn", "mpnn augmented"}
    for name, line in lines.items():
        ends = {}
        for curve in varied.of_architecture(name):
            ends.setdefault(curve.width, []).append(curve.last(varied.loss))
        np.testing.assert_allclose(line.y, [np.median(ends[w]) for w in sorted(ends)])


def test_a_study_without_variants_has_no_such_figure(full, varied):
    assert "variants" not in figures.drawings(Material.of(*full))
    assert "variants" in figures.drawings(varied)


def test_variants_have_names_and_hues_of_their_own():
    names = ["esen", "esen lmax=1 mmax=1", "esen lmax=2", "esen lmax=3", "escaip", "escaip force head=tied"]
    assert [style.name_of(n) for n in names[:2]] == ["eSEN", "eSEN lmax=1 mmax=1"]
    assert len({style.hue(n) for n in names}) == len(names)
    assert sorted(["other", "esen lmax=2", "mpnn"], key=style.rank) == ["mpnn", "esen lmax=2", "other"]


def test_variants_that_would_share_a_hue_are_moved_apart():
    """Catches two ladders of one look in one panel; names that do not clash keep the look that they have everywhere."""
    many = [
        "mpnn",
        *(f"mpnn {word}" for word in ("augmented", "larger batch", "4 frames", "symmetry loss", "lie loss")),
    ]
    assert style.hue("mpnn augmented") == style.hue("mpnn larger batch")
    looks = style.apart(many, markers=True)
    assert len({look.hue for look in looks.values()}) == len({look.symbol for look in looks.values()}) == len(many)
    assert looks["mpnn augmented"].hue == style.hue("mpnn augmented")
    assert style.apart(["esen", "egnn"])["egnn"] == style.Look(style.hue("egnn"), style.symbol("egnn"))


@pytest.fixture
def remedied(full) -> Material:
    table, facts, analyses = full
    names = np.asarray(table["architecture"]).astype("<U40")
    names[names == "egnn"] = "mpnn symmetry loss"
    return Material.of({**table, "architecture": names}, facts, analyses)


def test_what_a_cost_buys_with_a_remedy(remedied, varied):
    """Catches an envelope above one of its own runs, and the figure in a study without remedies."""
    drawing = remedies(remedied)
    panel = drawing.panels[0]
    for name in ("mpnn", "mpnn symmetry loss"):
        best = max((m for m in panel.marks if isinstance(m, Line) and m.key == name), key=lambda m: m.width)
        assert (np.diff(best.y) <= 0).all()
        for curve in remedied.of_architecture(name):
            there = np.exp(np.interp(np.log(curve["C"]), np.log(best.x), np.log(best.y)))
            assert (there <= curve[remedied.loss] * 1.02).all()
    assert {k.name for k in drawing.keys} == {"mpnn", "mpnn symmetry loss"}
    assert not remedies(varied).panels
    assert "remedies" in figures.drawings(remedied)
    assert "remedies" not in figures.drawings(varied)


def test_specifications_are_shown_beside_the_plain_ladder(full):
    """Catches a figure of all pairs of many variants, and a figure of different architectures that lost a pair."""
    table, facts, analyses = full
    made = next(iter(analyses.values()))
    pair = made.pairs[0]
    names = ("mpnn", "mpnn 4 frames", "mpnn lie loss")
    laws = dict(zip(names, (*made.architectures.values(), made.architectures["mpnn"]), strict=True))
    laws = {n: replace(a, name=n) for n, a in laws.items()}
    pairs = tuple(replace(pair, first=a, second=b) for a, b in combinations(names, 2))
    varied = Material.of(table, facts, replace(made, architectures=laws, pairs=pairs))
    drawing = figures.drawings(varied)["specifications"]
    assert len(drawing.panels) == 4
    assert any("the other pair, of two variants, is in" in n for n in drawing.notes)
    laws = {**{n: a for n, a in laws.items() if n != "mpnn"}, "egnn": made.architectures["egnn"]}
    pairs = tuple(replace(pair, first=a, second=b) for a, b in combinations(laws, 2))
    other = Material.of(table, facts, replace(made, architectures=laws, pairs=pairs))
    assert len(figures.drawings(other)["specifications"].panels) == 6
