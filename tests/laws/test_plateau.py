"""A law with a plateau at its two ends: the trivial predictor's loss, and the sum of powers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from equiscale.laws.plateau import plateau

POWERS = {"A": 1e2, "B": 1e3, "alpha": 0.5, "beta": 0.5, "L0": 1.3}


@pytest.mark.parametrize("floor", ["zero", "free"])
@pytest.mark.parametrize("s", [1.0, 8.0, 300.0])
def test_far_from_the_plateau_it_is_the_sum_of_powers(floor, s):
    """Would catch a power that overflows, and ends at the floor instead of the sum of powers above it."""
    e = 0.1 if floor == "free" else 0.0
    x = {"N": np.array([1e12]), "D": np.array([1e12])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = plateau(floor=floor).loss(x, POWERS | {"s": s, "E": e})
    rest = 1e2 * 1e-6 + 1e3 * 1e-6
    assert found - e == pytest.approx(rest, rel=2e-3)


def test_on_the_plateau_it_is_the_trivial_loss():
    x = {"N": np.array([10.0]), "D": np.array([1.0])}
    assert plateau().loss(x, POWERS | {"s": 4.0}) == pytest.approx(1.3, rel=1e-6)
