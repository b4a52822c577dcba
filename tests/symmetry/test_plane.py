"""Grids of losses: quadratics are recognised, and so is noise."""

import numpy as np
import pytest
import torch

from equiscale.errors import InputError
from equiscale.symmetry.hessian import hessians
from equiscale.symmetry.plane import Plane, plane, random_axes

RNG = np.random.default_rng(0)
N = 12
HALF = torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
AT = torch.linspace(-1, 1, N, dtype=torch.float64)


def bowls(t):
    """A quadratic, a constant, and a quartic."""
    return torch.stack([(HALF @ t).square().sum(), 0 * t.sum() + 3, (t**4).sum()])


def test_a_quadratic_is_one():
    """Catches a fit with other monomials, and a curvature in other units: it is that of the Hessian along the axes."""
    directions = random_axes(N, np.random.default_rng(1))
    got = plane(bowls, AT, directions, 0.1, 9)
    assert abs(got.r2[0] - 1) < 1e-12
    assert np.isnan(got.r2[1])
    assert np.isnan(got.roughness[1])
    assert 0.9 < got.r2[2] < 1 - 1e-9
    h = hessians(bowls, AT)[0]
    np.testing.assert_allclose(got.curvature[0], [v @ h @ v for v in directions], rtol=1e-9)
    assert got.roughness[0] < 0.3
    assert got.to_dict()["r2"][1] is None


def test_values_lie_where_they_are_said_to():
    """Catches a grid whose axes are swapped or whose centre is not the point itself."""
    u, v = random_axes(N, np.random.default_rng(2))
    got = plane(bowls, AT, np.stack([u, v]), 0.2, 5)
    np.testing.assert_allclose(got.steps, [-0.4, -0.2, 0, 0.2, 0.4], atol=1e-15)
    for i, j in ((2, 2), (0, 3), (4, 1)):
        theta = AT + got.steps[i] * torch.tensor(u) + got.steps[j] * torch.tensor(v)
        np.testing.assert_allclose(got.values[:, i, j], bowls(theta), rtol=1e-12)
    np.testing.assert_allclose([u @ u, u @ v, v @ v], [1, 0, 1], atol=1e-14)


def test_redrawing_shows_as_white_noise():
    """Catches points that share one call, where each shall have draws of its own; and noise that is called smooth: its
    roughness is 2 and a quadratic explains next to nothing of it."""
    rng = np.random.default_rng(4)

    def noisy(t):
        return torch.stack([1e-4 * (t**2).sum() + float(rng.normal()), (t**2).sum()])

    got = plane(noisy, AT, random_axes(N, rng), 0.01, 21)
    assert got.roughness[0] == pytest.approx(2, abs=0.2)
    assert got.r2[0] < 0.05
    assert got.r2[1] > 0.999


def test_noise_and_smooth_by_hand():
    """Catches a roughness that is normalised by something else than the variance."""
    x = np.array([-1.0, 0.0, 1.0])
    ramp = np.tile(x[:, None], (1, 3))[None]
    assert Plane(x, ramp).roughness[0] == pytest.approx((1 * 6 + 0 * 6) / 12 / (2 / 3))


@pytest.mark.parametrize(
    ("points", "step", "sentence"), [(4, 1.0, "odd number"), (1, 1.0, "odd"), (5, 0.0, "positive")]
)
def test_refuses_a_grid_that_is_none(points, step, sentence):
    """Catches a grid without its centre, and one whose points coincide."""
    with pytest.raises(InputError, match=sentence):
        plane(bowls, AT, random_axes(N, RNG), step, points)
