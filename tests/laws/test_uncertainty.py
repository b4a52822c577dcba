"""Intervals: runs are independent, rows are not; and the default covers."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import law, table

from equiscale.laws.allocation import exponents
from equiscale.laws.fit import fit
from equiscale.laws.forms import SUM_POWER
from equiscale.laws.uncertainty import Draws, bootstrap, molecule_shift


def drawn(method: str, seed: int, noise: float = 0.02, resamples: int = 200, **kwargs) -> tuple[Draws, dict]:
    t, _ = table(("mpnn",), noise=noise, seed=seed, **kwargs)
    keep = t["D"] >= 0.03 * t["D"].max()
    x, y = {k: t[k][keep].astype(float) for k in ("N", "D")}, t["loss_molecules"][keep]
    found = fit(SUM_POWER, x, y, profile=False)
    d = bootstrap(found, x, y, t["run"][keep], sizes=t["width"][keep], method=method, resamples=resamples, seed=seed)
    return d, {**d.values, **exponents(d.values)}


def width(values: np.ndarray) -> float:
    return float(np.ptp(np.quantile(values, [0.025, 0.975])))


def test_runs_are_wider_than_rows() -> None:
    rows, runs = drawn("rows", 0)[1], drawn("runs", 0)[1]
    effect = drawn("run effect", 0)[1]
    for name in ("alpha", "beta", "gamma"):
        assert width(runs[name]) > 1.5 * width(rows[name])
        assert width(effect[name]) > 1.5 * width(rows[name])


def test_few_runs_choose_the_run_effect_model() -> None:
    assert "random run effect" in drawn("auto", 0, resamples=20)[0].method
    assert "over runs" in drawn("auto", 0, resamples=20, seeds=7)[0].method


def test_variance_components_are_found() -> None:
    """Averaged over studies: the run effect and the checkpoints' noise that made them."""
    found = [drawn("run effect", s, noise=0.03, resamples=2)[0] for s in range(30)]
    assert np.sqrt(np.mean([d.run_noise**2 for d in found])) == pytest.approx(0.03, rel=0.25)
    assert np.sqrt(np.mean([d.checkpoint_noise**2 for d in found])) == pytest.approx(0.015, rel=0.1)


def test_default_intervals_cover() -> None:
    """60 studies of six runs each: nominal 95 %, at least 52 must cover (a right method fails once in a thousand)."""
    true = exponents(law("mpnn"))["gamma"]
    hits = 0
    for seed in range(60):
        low, high = np.quantile(drawn("auto", seed, resamples=100)[1]["gamma"], [0.025, 0.975])
        hits += low <= true <= high
    assert hits >= 52


def test_same_seed_same_draws() -> None:
    assert np.array_equal(drawn("auto", 3)[1]["alpha"], drawn("auto", 3)[1]["alpha"])


def test_validation_molecules_are_a_second_level() -> None:
    """Few validation molecules shift every run's loss alike, and by about spread / sqrt(molecules)."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(25), 4)
    easy = rng.lognormal(0, 0.5, 25)[group]
    losses = {
        run: {"steps": np.array([10, 20]), "molecules": np.stack([easy, 0.5 * easy]), "group_molecules": group}
        for run in ("a", "b")
    }
    run, step = np.array(["a", "a", "b", "b", "c"]), np.array([10, 20, 10, 20, 10])
    shift = molecule_shift(run, step, losses, "molecules", 400)
    assert shift is not None
    assert shift.shape == (400, 5)
    assert np.allclose(shift[:, :4], shift[:, :1])
    assert not shift[:, 4].any()
    each = easy[::4]
    assert shift[:, 0].std() == pytest.approx(each.std() / each.mean() / 5, rel=0.25)
    assert molecule_shift(run, step, {}, "molecules", 10) is None


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="not known"):
        drawn("jackknife", 0)
