"""Exponents of two losses of the same runs: their difference is told where either alone is not."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import table

from equiscale.laws.forms import power, sum_power
from equiscale.laws.paired import exponent_change, exponents_of


def tracked(change: float = 0.0, seed: int = 0, own: float = 0.004) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Six sizes with 2 % run noise; L_mean is nine tenths of L, its beta larger by `change`, with noise of its own."""
    made, _ = table(("esen",), noise=0.02, seed=seed)
    rng = np.random.default_rng(100 + seed)
    run = np.unique(made["run"], return_inverse=True)[1]
    noise = own * rng.normal(size=run.max() + 1)[run] + own / 2 * rng.normal(size=len(run))
    keep = made["D"] >= 0.03 * made["D"].max()
    mean = 0.9 * made["loss_molecules"] * (made["D"] / made["D"].max()) ** -change * np.exp(noise)
    return {name: column[keep] for name, column in made.items()}, mean[keep]


def changed(change: float = 0.0, seed: int = 0, **options):
    made, mean = tracked(change, seed)
    x = {"N": made["N"], "D": made["D"]}
    return exponent_change(sum_power(), x, made["loss_molecules"], mean, made["run"], resamples=300, **options)


def test_pairing_cancels_what_the_runs_share() -> None:
    """Unpaired, the difference's interval would be wider than either exponent's; paired it is far narrower."""
    found = changed()
    assert set(found.changes) == {"alpha", "beta", "gamma"}
    assert found.correlation > 0.9
    for change in found.changes.values():
        one, gap = change.first.interval, change.difference.interval
        assert gap.high - gap.low < 0.6 * (one.high - one.low)
        assert change.difference.value == pytest.approx(change.second.value - change.first.value)


def test_a_law_that_changes_is_told_from_one_that_does_not() -> None:
    same, other = changed().changes["gamma"], changed(0.05).changes["gamma"]
    assert not same.distinguishable
    assert "not distinguishable" in same.text
    assert other.distinguishable
    assert other.p_value < 0.05
    assert "L_mean is steeper" in other.text


def test_no_change_is_claimed_about_as_often_as_promised() -> None:
    """Twelve studies without a change: would catch draws that are paired too tightly."""
    told = [changed(seed=s, quantities=["gamma"], profile=False).changes["gamma"].distinguishable for s in range(12)]
    assert sum(told) <= 3


def test_one_exponent_of_compute() -> None:
    """A power in C with one row a run, of which between runs and within cannot be told apart."""
    c = np.geomspace(1e12, 1e15, 9)
    rng = np.random.default_rng(0)
    noise = np.exp(0.02 * rng.normal(size=9))
    found = exponent_change(power("C"), {"C": c}, 30 * c**-0.15 * noise, 28 * c**-0.17 * noise, np.arange(9))
    change = found.changes["gamma"]
    assert change.difference.value == pytest.approx(0.02, abs=1e-3)
    assert "to rounding" not in change.text


def test_exponents_of_a_law() -> None:
    assert list(exponents_of(sum_power())) == ["alpha", "beta", "gamma"]
    assert list(exponents_of(sum_power(tied=True))) == ["alpha"]
    assert list(exponents_of(power("C"))) == ["gamma"]
    made, mean = tracked()
    with pytest.raises(ValueError, match="has no exponent 'delta'"):
        exponent_change(sum_power(), {"N": made["N"], "D": made["D"]}, mean, mean, made["run"], quantities=["delta"])


def test_three_runs_have_no_interval() -> None:
    made, mean = tracked()
    few = np.isin(made["width"], np.unique(made["width"])[:3])
    x = {"N": made["N"][few], "D": made["D"][few]}
    found = exponent_change(sum_power(), x, made["loss_molecules"][few], mean[few], made["run"][few])
    assert found.changes["gamma"].difference.interval is None
    assert any("no interval" in w for w in found.warnings)
