"""Hessians by double backward and Lanczos, against finite differences and matrices that are known."""

import numpy as np
import pytest
import torch

from equiscale.errors import InputError
from equiscale.symmetry import hessian
from equiscale.symmetry.hessian import Spectrum, axes, extremes, hessians, spectrum


def bowl(n: int = 12):
    """½ θᵀAθ, a loss with third derivatives, and a linear one; A known."""
    torch.manual_seed(0)
    a = torch.randn(n, n, dtype=torch.float64)
    a = a + a.T
    b = torch.randn(n, dtype=torch.float64)
    return a, lambda t: torch.stack([0.5 * t @ a @ t, torch.tanh(a @ t).square().sum(), b @ t])


def test_hessians_against_finite_differences():
    """Catches a factor, a transposed or missing row (here the last chunk is a short one), and a linear loss, whose
    gradient no longer knows the parameters."""
    a, losses = bowl(37)
    at = 0.3 * torch.randn(37, dtype=torch.float64)
    got = hessians(losses, at)
    np.testing.assert_allclose(got[0], a.numpy(), atol=1e-13)
    assert not got[2].any()

    def gradient(t):
        t = t.clone().requires_grad_()
        return torch.autograd.grad(losses(t)[1], t)[0]

    step = 1e-5
    rows = [(gradient(at + step * e) - gradient(at - step * e)) / (2 * step) for e in torch.eye(37).double()]
    np.testing.assert_allclose(got[1], torch.stack(rows).numpy(), atol=1e-6 * np.abs(got[1]).max())


def test_rows_one_by_one_where_gradients_have_no_batch():
    """Catches a fallback that loses rows: an operation that cannot be batched gives the same matrix."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            return Square.apply(*ctx.saved_tensors) * 3 * grad

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return torch.from_numpy(2 * (x * grad).detach().numpy())  # numpy: no rule for batches

    at = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    np.testing.assert_allclose(hessians(lambda t: Cube.apply(t).sum()[None], at)[0], np.diag([6.0, 12.0, -6.0]))


def test_spectrum_of_a_known_matrix():
    """Catches a null space that enters the condition number, and another definition of a figure: -1, 0, 0, 2, 8."""
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    s = spectrum((q * [-1.0, 0.0, 0.0, 2.0, 8.0]) @ q.T)
    assert s.complete
    assert s.rank == 3
    assert s.condition == pytest.approx(8)
    assert s.smallest == pytest.approx(2)
    assert s.effective_rank == pytest.approx(9 / 8)
    assert s.quantile_ratio == pytest.approx(7.4 / 2.6)
    assert s.negative_mass == pytest.approx(1 / 11)
    directions = axes((q * [-1.0, 0.0, 0.0, 2.0, 8.0]) @ q.T)
    np.testing.assert_allclose(np.abs(directions @ q), [[0, 0, 0, 0, 1], [0, 0, 0, 1, 0]], atol=1e-12)


def test_naive_ratio_is_about_the_arithmetic():
    """Catches a naive ratio that is cut off like the condition number: of a matrix of rank 20 in 60 dimensions with
    condition 10 it is the reciprocal of round-off, and another one in float32."""
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.normal(size=(60, 60)))[0][:, :20]
    s = spectrum((q * np.geomspace(1, 10, 20)) @ q.T)
    assert s.rank == 20
    assert s.condition == pytest.approx(10, rel=1e-9)
    assert s.naive_ratio > 1e15
    assert 1e6 < s.naive_single < 1e-2 * s.naive_ratio


def test_lanczos_finds_the_extremes(monkeypatch):
    """Catches products with the wrong loss, and a trace of other weights; nothing is said about what was not sought."""
    _, losses = bowl(60)
    at = 0.1 * torch.randn(60, dtype=torch.float64)
    whole = [spectrum(h) for h in hessians(losses, at)[:2]]
    found = extremes(lambda t: losses(t)[:2], at, 4, probes=4000)
    for (got, ends), all_ in zip(found, whole):
        np.testing.assert_allclose(got.eigenvalues, all_.eigenvalues[[0, 1, 2, 3, -4, -3, -2, -1]], rtol=1e-8)
        assert got.trace == pytest.approx(all_.trace, abs=0.1 * np.abs(all_.eigenvalues).sum())
        assert (got.rank, got.condition, got.smallest, got.naive_ratio) == (None,) * 4
        np.testing.assert_allclose(np.linalg.norm(ends, axis=1), 1)
    with pytest.raises(InputError, match="whole Hessian"):
        extremes(losses, at[:10], 4)
    monkeypatch.setattr(hessian, "DENSE_UP_TO", 50)
    with pytest.raises(InputError, match="60 parameters are too many"):
        hessians(losses, at)


def test_parameters_that_change_nothing():
    """Catches a traceback of autograd's, or of ARPACK's where a Hessian is zero."""
    at = torch.linspace(0, 1, 40, dtype=torch.float64)
    for find in (hessians, extremes):
        with pytest.raises(InputError, match="change none of the losses"):
            find(lambda t: torch.ones(2, dtype=torch.float64), at)
    with pytest.raises(InputError, match="finds no eigenvalues"):
        extremes(lambda t: t.sum()[None], at)


def test_no_effective_rank_of_a_falling_loss():
    """tr H / λ_max is no number of directions where negative curvature outweighs the rest."""
    assert spectrum(np.diag([-3.0, 1.0])).effective_rank is None
    assert spectrum(np.diag([-1.0, 3.0])).effective_rank == pytest.approx(2 / 3)


def test_a_loss_without_curvature():
    """Catches divisions by zero where a loss is constant."""
    s = spectrum(np.zeros((3, 3)))
    assert (s.rank, s.condition, s.smallest, s.quantile_ratio, s.negative_mass, s.naive_ratio) == (0, *[None] * 5)
    assert s.effective_rank is None
    with pytest.raises(InputError, match="no plane"):
        axes(np.diag([0.0, 1.0, -1.0]))
    assert isinstance(s, Spectrum)
    assert s.to_dict(values=False)["rank"] == 0
