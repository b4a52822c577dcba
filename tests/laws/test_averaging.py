"""Two numbers tell what averaging over rotations does to a loss; measured curves are checked against them."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pytest

from equiscale.laws import averaging
from equiscale.laws.averaging import Averaging, averaged_runs, averaging_of, check

M = np.array([1, 2, 4, 8, 16, 32], float)


def test_doctests() -> None:
    found = doctest.testmod(averaging)
    assert found.attempted
    assert not found.failed


def squared_losses(structures: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, float, float]:
    """[M, structures] squared errors of averages of M independent predictions with known bias and spread."""
    rng = np.random.default_rng(seed)
    bias, spread = rng.normal(size=structures), np.sqrt(rng.gamma(2.0, 0.2, structures))
    draws = bias + spread * rng.standard_t(8, (int(M.max()), structures)) * np.sqrt(6 / 8)
    losses = np.stack([np.square(draws[: int(m)].mean(0)) for m in M])
    return losses, bias, float(np.mean(bias**2)), float(np.mean(spread**2))


def test_averages_of_independent_predictions_follow_the_law() -> None:
    """Squared error of the mean of M predictions, drawn here: would catch a law with M - 1, or in root M."""
    losses, _, mean, equiv = squared_losses()
    error = losses.std(1) / np.sqrt(losses.shape[1])
    found = check(Averaging(mean, equiv), M, losses.mean(1), error)
    assert found.agrees
    assert abs(found.largest) < 0.05
    assert "as it must for squared error" in found.text
    fitted = averaging_of(M, losses.mean(1), error)
    assert fitted.mean == pytest.approx(mean, rel=0.05)
    assert fitted.equiv == pytest.approx(equiv, rel=0.05)


def test_a_curve_that_breaks_the_law_is_told() -> None:
    """L_mean + L_equiv / sqrt(M), within small errors: would catch a check that always agrees."""
    law = Averaging(0.27, 0.03)
    wrong = check(law, M, 0.27 + 0.03 / np.sqrt(M), np.full(6, 1e-3))
    assert wrong.agrees is False
    assert wrong.rotations[np.abs(wrong.deviations).argmax()] == 4
    loose = check(law, M, 0.27 + 0.03 / np.sqrt(M), np.full(6, 1e-2))
    assert loose.agrees


def test_errors_of_deviations_judge_where_they_are_known() -> None:
    """Measured on the structures that gave the numbers, deviations err less than losses: these are asked first."""
    law = Averaging(0.27, 0.03, 0.01, 0.005)
    off = law(M) * 1.01
    assert check(law, M, off, np.full(6, 0.01)).agrees
    assert check(law, M, off, np.full(6, 0.01), deviation_errors=np.full(6, 2e-4)).agrees is False


def test_the_law_is_not_exact_for_a_norm() -> None:
    """|z| of a mean of normal draws: convex, so averaging helps, and 1 / M is off. It is said, and no verdict made."""
    rng = np.random.default_rng(1)
    draws = 0.3 + rng.normal(size=(32, 20000, 3))
    losses = np.array([np.linalg.norm(draws[: int(m)].mean(0), axis=-1).mean() for m in M])
    found = check(Averaging(losses[-1], losses[0] - losses[-1]), M, losses, exact=False)
    assert abs(found.largest) > 0.05
    assert "leading order" in found.text


def test_saturation() -> None:
    law = Averaging(0.27, 0.03)
    gain = law(1.0) - law.mean
    for share in (0.5, 0.9, 0.99):
        assert law(1.0) - law(law.needed(share)) == pytest.approx(share * gain)
    assert law(law.within(0.01)) == pytest.approx(1.01 * law.mean)
    assert law.within(10.0) == 1.0
    with pytest.raises(ValueError, match="all of it needs all M"):
        law.needed(1.0)


def test_error_of_the_prediction_is_that_of_repeated_measurements() -> None:
    """Means over structures of both parts, correlated: would catch a covariance that is left out."""
    rng = np.random.default_rng(2)
    root = np.linalg.cholesky(np.array([[1.0, 0.6], [0.6, 1.0]]) * np.outer([0.01, 0.004], [0.01, 0.004]))
    many = np.array([0.27, 0.03]) + rng.normal(size=(40000, 2)) @ root.T
    law = Averaging(0.27, 0.03, 0.01, 0.004, 0.6)
    for m in (1, 4, 32):
        assert law.error(m) == pytest.approx((many[:, 0] + many[:, 1] / m).std(), rel=0.03)


def test_errors_of_a_fitted_law() -> None:
    """Over repeated curves the fitted numbers scatter as their errors say."""
    rng = np.random.default_rng(3)
    error = np.full(6, 0.002)
    fits = [averaging_of(M, 0.27 + 0.03 / M + error * rng.normal(size=6), error) for _ in range(800)]
    assert np.std([f.mean for f in fits]) == pytest.approx(fits[0].mean_error, rel=0.1)
    assert np.std([f.equiv for f in fits]) == pytest.approx(fits[0].equiv_error, rel=0.1)
    assert np.corrcoef([f.mean for f in fits], [f.equiv for f in fits])[0, 1] == pytest.approx(
        fits[0].correlation, abs=0.1
    )


PLAIN = {
    "run": "a" * 16, "architecture": "mpnn", "width": 8, "N": 1234, "D": 8e5, "loss": "squared", "mean": 0.27,
    "equiv": 0.03, "averages": [{"rotations": m, "loss": 0.27 + 0.03 / m, "error": 0.004} for m in (1, 4, 32)],
}  # fmt: skip
MEASURED = {
    "model": "mpnn w=8", "loss": "squared", "about": {"architecture": "mpnn", "width": 8},
    "whole": {"mean": {"value": 0.27, "error": 0.004}, "equiv": {"value": 0.03, "error": 0.001}},
    "averages": [
        {"rotations": m, "measured": {"value": 0.27 + 0.03 / m, "error": 0.004}, "exact": True,
         "predicted": {"value": 0.27 + 0.03 / m, "error": 0.004}, "deviation": {"value": 0.0, "error": 1e-4}}
        for m in (1, 4, 32)
    ],
}  # fmt: skip


@pytest.mark.parametrize("entry", [PLAIN, MEASURED, {k: v for k, v in PLAIN.items() if k not in ("mean", "equiv")}])
def test_both_shapes_are_read(entry: dict) -> None:
    """Would catch a key of the measuring command that is no longer found: everything would be 'fitted' silently."""
    for data in (entry, {"runs": [entry]}):
        (run,) = averaged_runs(json.loads(json.dumps(data)))
        assert (run.architecture, run.width) == ("mpnn", 8)
        assert run.law.mean == pytest.approx(0.27)
        assert run.law.equiv == pytest.approx(0.03)
        assert run.law.fitted == ("whole" not in entry and "mean" not in entry)
        assert run.exact
        assert run.check().agrees
        assert run.at(4) == pytest.approx(0.2775)
        assert np.isnan(run.at(7))
    assert (run.deviation_errors is not None) == (entry is MEASURED)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "there are no averages"),
        ({"runs": []}, "there are no averages"),
        ({"runs": [{"run": "x", "averages": [{"rotations": 1}]}]}, "losses of averaged predictions are finite"),
        ({"runs": [{"run": "x", "averages": [{"loss": 1}]}]}, "averages of x are damaged"),
        ({"runs": [{"run": "x", "averages": []}]}, "no average of x was measured"),
        ({"runs": [3]}, "averages of run 1 are damaged"),
        ({"runs": [{"run": "x", "averages": [{"rotations": 2, "loss": 1.0}]}]}, "tells no law"),
    ],
)
def test_what_is_no_measurement_is_one_sentence(data: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        averaged_runs(data)
