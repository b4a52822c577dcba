"""Radial bases against their formulas, and what the envelope promises at the cutoff."""

import math

import pytest
import torch

from equiscale.radial import RadialBasis, envelope

CUTOFF = 5.0


def derivatives(f, at: float, orders: int) -> list[float]:
    """f and its first derivatives at a point."""
    x = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    y, found = f(x).sum(), []
    for _ in range(orders + 1):
        found.append(y.item())
        (y,) = torch.autograd.grad(y, x, create_graph=True)
        y = y.sum()
    return found


def test_gaussians_are_faenets():
    """Centres from 0 to the cutoff, width equal to their spacing: each is 1 at its centre and e^-1/2 at the next."""
    basis = RadialBasis("gaussian", 11, CUTOFF).double()
    d = torch.linspace(0, CUTOFF, 11, dtype=torch.float64)
    values = basis(d)
    torch.testing.assert_close(values.diagonal(), torch.ones(11, dtype=torch.float64))
    expected = torch.full((10,), math.exp(-0.5), dtype=torch.float64)
    torch.testing.assert_close(values.diagonal(1), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(values, values.T, rtol=1e-6, atol=1e-6)


def test_bessel_functions_are_dimenets():
    """√(2/c) sin(kπd/c)/d: zero at the cutoff, orthonormal with weight d², and a finite limit at zero."""
    basis = RadialBasis("bessel", 6, CUTOFF).double()
    d = torch.tensor([1.3, 2.7], dtype=torch.float64)
    k = torch.arange(1, 7, dtype=torch.float64)
    expected = math.sqrt(2 / CUTOFF) * (k * math.pi * d[:, None] / CUTOFF).sin() / d[:, None]
    torch.testing.assert_close(basis(d), expected, rtol=1e-6, atol=1e-6)
    assert basis(torch.tensor([CUTOFF], dtype=torch.float64)).abs().max() < 1e-6
    x = torch.linspace(0, CUTOFF, 4001, dtype=torch.float64)
    weighted = basis(x) * x[:, None]
    gram = torch.trapezoid(weighted[:, :, None] * weighted[:, None, :], x, dim=0)
    torch.testing.assert_close(gram, torch.eye(6, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    limit, near = basis(torch.tensor([0.0, 1e-6], dtype=torch.float64))
    torch.testing.assert_close(limit, near, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["gaussian", "bessel"])
def test_bases_are_finite_with_three_derivatives_at_zero(kind):
    basis = RadialBasis(kind, 5, CUTOFF).double()
    for value in derivatives(lambda d: basis(d).sin(), 0.0, 3):
        assert math.isfinite(value)


@pytest.mark.parametrize("kind", ["gaussian", "bessel"])
def test_bases_have_no_parameters_and_the_right_shape(kind):
    basis = RadialBasis(kind, 7, CUTOFF)
    assert not list(basis.parameters())
    assert not basis.state_dict()
    assert basis(torch.rand(4)).shape == (4, 7)
    assert basis(torch.rand(0)).shape == (0, 7)
    assert torch.isfinite(RadialBasis(kind, 1, CUTOFF)(torch.rand(3))).all()


def test_envelope_is_zero_with_two_derivatives_at_the_cutoff_and_one_at_zero():
    """So energies, conservative forces and their derivatives are continuous when an atom comes or goes."""
    f = lambda d: envelope("polynomial", d, CUTOFF)  # noqa: E731
    for value in derivatives(f, CUTOFF - 1e-12, 2):
        assert abs(value) < 1e-9
    assert abs(derivatives(f, CUTOFF - 1e-12, 3)[3]) > 0.1  # and no more: the order is the one that is named
    at_zero = derivatives(f, 0.0, 2)
    assert at_zero == [1.0, 0.0, 0.0]
    d = torch.linspace(0, CUTOFF, 50, dtype=torch.float64)
    assert bool((f(d).diff() < 0).all())
    beyond = derivatives(f, CUTOFF + 0.5, 2)
    assert beyond == [0.0, 0.0, 0.0]


def test_no_envelope_is_none():
    assert envelope("none", torch.rand(3), CUTOFF) is None
