"""Dips and correlations of arrays whose dip and correlation are known."""

import numpy as np
import pytest

from equiscale.laws.correlation import log_correlation
from equiscale.laws.dips import dip, dips

STEPS = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000.0])


def curve(rise: float) -> np.ndarray:
    """Falls to .1 at step 100, then rises by ``rise`` altogether."""
    return np.where(
        STEPS <= 100, 0.1 * (101 / (1 + STEPS)), 0.1 + rise * np.log(np.fmax(STEPS, 100) / 100) / np.log(10)
    )


def test_where_and_how_deep():
    """Catches step 0 counted as a dip, and start and end mixed up."""
    found = dip(STEPS, curve(0.2), 0.01 * curve(0.2))
    assert (found.step, found.last_step, found.points) == (100, 1000, 10)
    assert (found.start, found.least) == pytest.approx((10.1, 0.1))
    assert found.rise == pytest.approx(0.2)
    assert found.verdict == "rises"


def test_order_and_gaps_do_not_matter():
    """Catches points that are taken in the order in which they come, and NaN that is the least of all."""
    percent = curve(0.2)
    percent[3] = np.nan
    back = dip(STEPS[::-1], percent[::-1], 0.01 * percent[::-1])
    assert (back.step, back.last_step, back.points) == (100, 1000, 9)


def test_noise_about_a_flat_end_is_no_rise():
    """Catches the least of many noisy points taken for a dip: at most 5 % of flat curves may be said to rise."""
    rng = np.random.default_rng(0)
    steps = np.arange(1, 31)
    rises = sum(dip(steps, 1 + 0.1 * rng.normal(size=30), np.full(30, 0.1)).verdict == "rises" for _ in range(400))
    assert rises <= 0.05 * 400


def test_every_verdict():
    """Catches a monotone curve with a dip, rounding with broken symmetry, and an unknown error with evidence."""
    falling = 10 / (1 + STEPS)
    assert dip(STEPS, falling, 0.1 * falling).verdict == "falls to the end"
    assert dip(STEPS, np.full(11, 1e-9), np.full(11, 1e-10)).verdict == "no broken symmetry"
    assert dip(STEPS, 0.01 * (-1.0) ** np.arange(11), np.full(11, 0.02)).verdict == "no broken symmetry"
    assert dip(STEPS, curve(0.2), np.full(11, np.nan)).verdict == "within errors"
    assert dip(STEPS[:3], falling[:3], falling[:3]).verdict == "too few points"
    empty = dip([], [], [])
    assert empty.verdict == "too few points"
    assert empty.to_dict()["least"] is None
    assert set(dips({"a": (STEPS, falling, falling)})) == {"a"}
    with pytest.raises(ValueError, match="as many"):
        dip(STEPS, falling[:3], falling)


def power_law(runs: int, noise: float, seed: int, points: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ln y = ln x + an offset of the run + noise."""
    rng = np.random.default_rng(seed)
    u = np.tile(np.linspace(-3, 0, points), runs)
    run = np.repeat(np.arange(runs), points)
    return np.exp(u), np.exp(u + rng.normal(size=runs)[run] * 0.3 + noise * rng.normal(size=len(u))), run


def test_a_power_law_is_correlated_in_logarithms():
    x, y, run = power_law(1, 0.0, 0)
    found = log_correlation(x, y**2.5, run)
    assert (found.pearson, found.spearman) == pytest.approx((1.0, 1.0))
    assert found.runs == 1
    assert "stretches" in found.method


def test_pairs_without_a_logarithm_are_counted():
    """Catches a negative estimate that silently becomes NaN, or its absolute value."""
    x, y, run = power_law(1, 0.1, 0)
    y[3], x[4], y[5] = -1.0, np.nan, 0.0
    found = log_correlation(x, y, run)
    assert (found.points, found.left_out) == (17, 3)


def test_whole_runs_are_left_out_in_turn():
    """Catches intervals as if every point were independent: with an offset per run they would be far too narrow."""
    x, y, run = power_law(6, 0.0, 1, points=50)
    found = log_correlation(x, y, run)
    low, high = found.pearson_interval
    naive = 2 * 1.96 / np.sqrt(len(x) - 3)
    assert found.method == "jackknife over 6 runs"
    assert low < found.pearson < high
    assert np.arctanh(high) - np.arctanh(low) > 1.5 * naive
    assert min(p for p, _, _ in found.per_run.values()) > 0.999


def test_too_little_for_a_number_or_an_interval():
    """Catches a correlation of three points, of a constant, and a crash on none."""
    assert np.isnan(log_correlation([1, 2, 3], [1, 2, 3], list("aaa")).pearson)
    assert np.isnan(log_correlation(np.ones(9), np.arange(1, 10), ["a"] * 9).pearson)
    assert log_correlation([], [], []).to_dict()["pearson"] is None
    few = log_correlation([1, 2, 3, 4, 5], [1, 2, 3, 5, 4], ["a"] * 5)
    assert few.pearson_interval is None
    assert few.method == ""
    with pytest.raises(ValueError, match="pairs"):
        log_correlation([1, 2], [1, 2, 3], ["a", "a"])
