"""The differentiable parts of a loss: the identity, the estimators' expectations, and their gradients."""

import pytest
import torch

from equiscale.errors import InputError
from equiscale.symmetry.parts import parts

SIZES = torch.tensor([2, 3])
STRUCTURE = torch.tensor([0, 0, 1, 1, 1])


def drawn(m: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(m, 5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)


@pytest.mark.parametrize("unbiased", [True, False])
def test_total_is_the_mean_squared_error(unbiased):
    """Catches a correction that is put in one part and not taken from the other, and a mean over atoms instead of
    structures (they differ in size here)."""
    z, y = drawn(4)
    each = (z - y).square()
    expected = (each[:, :2].mean() + each[:, 2:].mean()) / 2
    got = parts(z, y, STRUCTURE, SIZES, unbiased)
    torch.testing.assert_close(got.total, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(got.mean + got.equiv, got.total, rtol=1e-15, atol=0)


def test_mean_is_the_average_over_pairs():
    """Catches M for M - 1 anywhere: L_mean of independent rotations is <z_i - y, z_j - y> over i ≠ j."""
    m = 4
    z, y = drawn(m)
    off = z - y
    pair = torch.einsum("iak,jak->ija", off, off)
    pair = pair[~torch.eye(m, dtype=torch.bool)].mean(0) / 3
    expected = (pair[:2].mean() + pair[2:].mean()) / 2
    torch.testing.assert_close(parts(z, y, STRUCTURE, SIZES, True).mean, expected, rtol=1e-12, atol=0)


def test_unbiased_with_two_draws():
    """Catches a bias: of draws of known variance 0.25 and mean error 0.3, 2 at a time, the averages are those."""
    torch.manual_seed(1)
    n, draws = 300, 200
    y = torch.randn(n, 3, dtype=torch.float64)
    structure, sizes = torch.arange(n), torch.ones(n, dtype=torch.long)
    got = torch.zeros(2)
    for _ in range(draws):
        z = y + 0.3 + 0.5 * torch.randn(2, n, 3, dtype=torch.float64)
        p = parts(z, y, structure, sizes, True)
        got += torch.tensor([p.mean, p.equiv]) / draws
    torch.testing.assert_close(got, torch.tensor([0.09, 0.25]), rtol=0.02, atol=0)


def test_weights_of_a_quadrature():
    """Catches weights that are used for the average and not for the spread: two elements twice are two of weight 2."""
    z, y = drawn(3)
    again = z[[0, 0, 1, 2]]
    w = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    for a, b in zip(parts(z, y, STRUCTURE, SIZES, False, w), parts(again, y, STRUCTURE, SIZES, False)):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=0)


def test_gradients_of_the_parts_add_up():
    """Catches a detached piece: the parts' gradients agree with finite differences (so do the second ones)."""
    z, y = drawn(3)
    z.requires_grad_()
    for k in range(3):
        assert torch.autograd.gradgradcheck(lambda v, k=k: parts(v, y, STRUCTURE, SIZES, True)[k], (z,))
        assert torch.autograd.gradcheck(lambda v, k=k: parts(v, y, STRUCTURE, SIZES, True)[k], (z,))


def test_refuses_one_rotation():
    """Catches a division by zero that shows up as NaN losses."""
    z, y = drawn(1)
    with pytest.raises(InputError, match="at least two"):
        parts(z, y, STRUCTURE, SIZES, True)
