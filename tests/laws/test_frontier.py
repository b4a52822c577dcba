"""Frontiers of curves whose exponent is known, and what is refused one."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from synthetic import law, table

from equiscale.laws.allocation import exponents
from equiscale.laws.frontier import SELECTORS, Curves, frontier, lower_hull
from equiscale.laws.uncertainty import Interval


def of(t, **kwargs):
    keep = t["D"] >= 0.03 * t["D"].max()
    return frontier(
        t["C"][keep], t["loss_molecules"][keep], t["width"][keep], t["step"][keep], parameters=t["N"][keep], **kwargs
    )


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("architecture", ["mpnn", "egnn"])
def test_known_exponent(architecture: str, selector: str) -> None:
    t, _ = table((architecture,), noise=0.0)
    found = of(t, selector=selector)
    assert found.estimates["gamma"].value == pytest.approx(float(exponents(law(architecture))["gamma"]), rel=0.06)
    assert selector.replace("_", " ") in found.text
    assert "local exponent" in found.text


def test_ends_of_the_ladder_are_dropped() -> None:
    t, _ = table(("egnn",), noise=0.0)
    found = of(t)
    ends = (found.width == found.width.min()) | (found.width == found.width.max())
    assert found.dropped[ends].all()
    low, high = found.range
    assert ((found.x[~found.dropped] >= low) & (found.x[~found.dropped] <= high)).all()
    assert found.fit.rows == (~found.dropped).sum()


def test_fewer_than_six_widths_have_no_exponent() -> None:
    found = of(table(("egnn",), noise=0.0, widths=5)[0])
    assert found.fit is None
    assert "5 widths" in found.reason
    assert found.text == found.reason


def test_fewer_than_three_handovers_have_no_exponent() -> None:
    """A ladder in which the smallest rung is never beaten until the very end."""
    t, _ = table(("egnn",), noise=0.0)
    t["loss_molecules"] = t["D"].astype(float) ** -0.3  # size does not help: the cheapest always wins
    found = of(t)
    assert found.fit is None
    assert "hand-overs" in found.reason


def test_seeds_are_averaged() -> None:
    """Three seeds of a rung are one curve: the frontier is not the luckiest seed's."""
    lucky, _ = table(("egnn",), noise=0.05, seeds=3)
    keep = lucky["width"] == 60
    found = of(lucky)
    best = lucky["loss_molecules"][keep & (lucky["step"] == lucky["step"].max())]
    assert found.loss.min() == pytest.approx(np.exp(np.log(best).mean()), rel=0.02)


def test_simulated_studies_give_the_interval() -> None:
    t, _ = table(("egnn",), noise=0.0)
    keep = t["D"] >= 0.03 * t["D"].max()
    noise = np.random.default_rng(0).normal(size=(60, keep.sum())) * 0.01
    found = of(t, simulated=np.log(t["loss_molecules"][keep]) + noise, interval_method="made")
    interval = found.estimates["gamma"].interval
    assert isinstance(interval, Interval)
    assert interval.low < found.estimates["gamma"].value < interval.high
    assert interval.method == "made"


def test_hull_is_below_every_point() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 5, 200), rng.uniform(0, 1, 200)
    chosen = lower_hull(x, y)
    span = (x >= x[chosen].min()) & (x <= x[chosen].max())
    assert (np.interp(x[span], x[chosen], y[chosen]) <= y[span] + 1e-12).all()
    assert (np.diff(y[chosen]) < 0).all()


def test_unknown_selector_is_refused() -> None:
    with pytest.raises(ValueError, match="selector"):
        of(table(("egnn",), noise=0.0)[0], selector="envelope")


def test_selectors_on_public_language_models(shared) -> None:
    """Exponent of N*(C) over 22 runs (Gemstones): .49938 published for the hull, .553 for the running minimum."""
    with open(shared / "data/laws/gemstones/hot_477.csv") as file:
        rows = list(csv.DictReader(file))
    n, c, d, loss = (np.array([float(row[k]) for row in rows]) for k in ("N", "C", "D", "loss"))
    index = np.unique([row["run"] for row in rows], return_inverse=True)[1]
    size = np.array([n[index == i][0] for i in range(index.max() + 1)])
    curves = Curves.of(c, index, d)
    for selector, exponent, within in (("hull", 0.49938, 1e-5), ("running_minimum", 0.553, 3e-3)):
        x, _, owner = curves.select(np.log(loss), selector)
        assert np.polyfit(x, np.log(size[owner]), 1)[0] == pytest.approx(exponent, abs=within)
