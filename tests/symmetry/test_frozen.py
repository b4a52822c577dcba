"""Functions whose constant part is computed once: the same values and derivatives, with fewer calls."""

import pytest
import torch

from equiscale.symmetry.frozen import frozen

AT = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def test_constants_are_computed_once_and_values_are_the_same():
    """Catches a constant that is recomputed (no gain), a dependent value that is not, and a lost gradient."""
    calls = []
    heavy = torch.linspace(0, 1, 9, dtype=torch.float64).reshape(3, 3)

    def f(t):
        calls.append(0)
        c = (heavy @ heavy).square()
        c.add_(1)
        left, right = c.split([1, 2])
        assert c.shape == (3, 3)
        return (torch.cat([left, right]) @ t).sin().sum() + t.square().sum()

    g = frozen(f, AT)
    assert g is not f
    for t in (AT, 3 * AT, AT - 1):
        torch.testing.assert_close(g(t), f(t), rtol=1e-15, atol=0)
    torch.testing.assert_close(torch.func.hessian(f)(AT), torch.autograd.functional.hessian(g, AT))


@pytest.mark.parametrize("kind", ["branch", "write"])
def test_falls_back_where_calls_differ(kind):
    """Catches a result of another branch, and a constant that the parameters overwrite, each time more."""

    def branch(t):
        return t.sum() if bool((t < 1.0).all()) else (2 * t).cos().sum()

    def write(t):
        c = torch.ones(3, dtype=torch.float64) * 2
        c.add_(t)
        return c.square().sum()

    f = {"branch": branch, "write": write}[kind]
    at = AT if kind == "write" else AT - 0.02
    g = frozen(f, at)
    for t in (at, at + 5, at):
        torch.testing.assert_close(g(t), f(t))
    assert g is f


def test_a_backward_pass_that_reads_constants_keeps_them():
    """Catches a derivative that finds an empty tensor where a custom function has saved a constant."""

    class Pick(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, index):
            ctx.save_for_backward(index)
            return torch.index_select(x, 0, *index.split(3))

        @staticmethod
        def backward(ctx, grad):
            return torch.zeros(3, dtype=grad.dtype).index_add(0, ctx.saved_tensors[0], grad), None

    def f(t):
        index = torch.arange(3).repeat(1)
        return Pick.apply(t.square(), index).sum()

    g, at = frozen(f, AT), AT.clone().requires_grad_()
    torch.testing.assert_close(g(AT), f(AT))
    torch.testing.assert_close(torch.autograd.grad(g(at), at)[0], 2 * AT)
