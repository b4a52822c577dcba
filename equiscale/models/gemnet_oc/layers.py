"""Dense layers and residual stacks of GemNet-OC: no biases, silu(x)/0.6, sums of equals over √2.

Each comes twice: composed of differentiable operations, for gradients of gradients and for autocast; and as one
``Function`` with its backward written out, which makes fewer passes over [edges, w]. Constant factors ride on weights
(w² numbers) and sums on the products' accumulators, so that an activation costs one pass and a sum none.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu

GAIN = 1 / 0.6
"""silu(x)/0.6 keeps the variance of a normal x about 1."""

HALF = math.sqrt(0.5)

silu_out = torch.ops.aten.silu.out
silu_backward = torch.ops.aten.silu_backward
silu_backward_out = torch.ops.aten.silu_backward.grad_input


def he_orthogonal(fan_in: int, fan_out: int) -> Tensor:
    """(fan_out, fan_in): semi-orthogonal, then every row of mean 0 and variance 1/fan_in (Klicpera et al. 2020)."""
    weight = nn.init.orthogonal_(torch.empty(fan_out, fan_in))
    if fan_in == 1:
        return weight
    variance, mean = torch.var_mean(weight, dim=1, keepdim=True)
    return (weight - mean) / (variance + 1e-6).sqrt() / math.sqrt(fan_in)


def matrix(fan_in: int, fan_out: int) -> nn.Linear:
    """A linear map without bias, He-orthogonal at the start."""
    made = nn.Linear(fan_in, fan_out, bias=False)
    with torch.no_grad():
        made.weight.copy_(he_orthogonal(fan_in, fan_out))
    return made


def split_matrix(parts: tuple[int, ...], fan_out: int) -> list[nn.Linear]:
    """One He-orthogonal matrix on a concatenation, as one linear map per part: W [a, b] = W_a a + W_b b."""
    made = [nn.Linear(part, fan_out, bias=False) for part in parts]
    with torch.no_grad():
        for one, block in zip(made, he_orthogonal(sum(parts), fan_out).split(parts, dim=1)):
            one.weight.copy_(block)
    return made


class Scale(nn.Module):
    """A frozen factor, fitted once before training: √(var reference / var output), 1 until then.

    Variances are per channel over rows, averaged over channels (fairchem's ScaleFactor).
    """

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(1.0))
        self.fitting = False

    def fit(self, reference: Tensor, output: Tensor, weight: Tensor | None = None) -> None:
        """``weight``: how often each row of the reference counts. Nothing happens where there is nothing to fit to."""
        if len(output) < 2 or (weight is not None and weight.sum() < 2):
            return
        given, found = mean_variance(reference, weight), mean_variance(output)
        if given > 0 and found > 0:
            self.factor.copy_((given / found).sqrt())


def mean_variance(rows: Float[Tensor, "n w"], weight: Int[Tensor, " n"] | None = None) -> Tensor:
    """Variance of each channel over rows (each counted ``weight`` times), averaged over channels."""
    rows = rows.double()
    if weight is None:
        return rows.var(dim=0).mean()
    times = weight.double()[:, None]
    mean = (rows * times).sum(0) / times.sum()
    return (((rows - mean).square() * times).sum(0) / (times.sum() - 1)).mean()


# --- dense ---------------------------------------------------------------------------------------------------------


def dense(x: Float[Tensor, "n i"], *weights: Tensor, fused: bool) -> list[Tensor]:
    """silu(W x)/0.6 for every W."""
    if fused:
        made = _Dense.apply(x, *weights)
        return list(made)
    return [silu(linear(x, w)) * GAIN for w in weights]


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, *weights):
        before = [x @ w.t() for w in weights]
        ctx.save_for_backward(x, *weights, *before)
        return tuple(silu(z).mul_(GAIN) for z in before)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        x, *saved = ctx.saved_tensors
        weights, before = saved[: len(grads)], saved[len(grads) :]
        to_x, to_weights = None, []
        for grad, weight, z in zip(grads, weights, before):
            g = silu_backward(grad, z)
            to_weights.append((g.t() @ x).mul_(GAIN))
            if ctx.needs_input_grad[0]:
                scaled = weight * GAIN
                to_x = g @ scaled if to_x is None else to_x.addmm_(g, scaled)
        return to_x, *to_weights


def dense_over(parts: list[Tensor], weight: Float[Tensor, "o all"], *, fused: bool) -> Float[Tensor, "n o"]:
    """silu(W x)/0.6 of the concatenation x of ``parts``, which is not formed."""
    if fused:
        return _DenseOver.apply(weight, *parts)
    return silu(linear(torch.cat(parts, dim=1), weight)) * GAIN


class _DenseOver(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, *parts):
        blocks = weight.chunk(len(parts), dim=1)
        z = parts[0] @ blocks[0].t()
        for x, w in zip(parts[1:], blocks[1:]):
            z.addmm_(x, w.t())
        ctx.save_for_backward(weight, z, *parts)
        return silu(z).mul_(GAIN)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weight, z, *parts = ctx.saved_tensors
        g = silu_backward(grad, z)
        to_weight = torch.cat([g.t() @ x for x in parts], dim=1).mul_(GAIN)
        return to_weight, *(g @ w for w in (weight * GAIN).chunk(len(parts), dim=1))


def dense_pair(
    y: Float[Tensor, "n i"], forth: Tensor, back: Tensor, reverse: Tensor, *, fused: bool
) -> Float[Tensor, "n o"]:
    """silu(F y)/0.6 of an edge plus silu(G y)/0.6 of its counter edge."""
    if fused:
        return _DensePair.apply(y, forth, back, reverse)
    return (silu(linear(y, forth)) + silu(linear(y, back)).index_select(0, reverse)) * GAIN


class _DensePair(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, forth, back, reverse):
        z1, z2 = y @ forth.t(), y @ back.t()
        ctx.save_for_backward(y, forth, back, reverse, z1, z2)
        return silu(z2).index_select(0, reverse).add_(silu(z1)).mul_(GAIN)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, forth, back, reverse, z1, z2 = ctx.saved_tensors
        # A counter edge's counter edge is the edge: the gather is its own transpose.
        g1, g2 = silu_backward(grad, z1), grad.index_select(0, reverse)
        silu_backward_out(g2, z2, grad_input=g2)
        to_y = (g1 @ (forth * GAIN)).addmm_(g2, back * GAIN)
        return to_y, (g1.t() @ y).mul_(GAIN), (g2.t() @ y).mul_(GAIN), None


def activate(z: Float[Tensor, "n w"], *, fused: bool) -> Float[Tensor, "n w"]:
    """silu(z)/0.6."""
    return _Activate.apply(z) if fused else silu(z) * GAIN


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return silu(z).mul_(GAIN)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return silu_backward(grad, *ctx.saved_tensors).mul_(GAIN)


# --- residual stacks -----------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """(x + f(x))/√2, f two dense layers."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = matrix(width, width), matrix(width, width)

    @property
    def matrices(self) -> tuple[Tensor, Tensor]:
        return self.first.weight, self.second.weight


def residuals(
    x: Float[Tensor, "n w"], stack: nn.ModuleList, skip: Float[Tensor, "n w"] | None = None, *, fused: bool
) -> Float[Tensor, "n w"]:
    """One residual layer after another; then the mean with ``skip`` over √2, if there is one."""
    weights: list[Tensor] = [w for layer in stack for w in layer.matrices]  # type: ignore[misc, union-attr]
    if fused:
        return _Residuals.apply(x, skip, *weights)
    for first, second in zip(weights[0::2], weights[1::2]):
        x = (x + silu(linear(silu(linear(x, first)) * GAIN, second)) * GAIN) * HALF
    return x if skip is None else (skip + x) * HALF


class _Residuals(torch.autograd.Function):
    """Carries X = x/s with s = 2^(-k/2) after k layers: the 1/√2 go into the weights, not over the rows.

    Keeps what goes into the activations, two of four tensors a layer; the others cost one pass each to make again.
    """

    @staticmethod
    def forward(ctx, x, skip, *weights):
        before, s, kept = [], 1.0, x
        a, out = torch.empty_like(x), torch.empty_like(x)
        for first, second in zip(weights[0::2], weights[1::2]):
            z1 = kept @ (first * s).t()
            silu_out(z1, out=a)
            z2 = a @ (second * GAIN).t()
            before += [z1, z2]
            silu_out(z2, out=a)
            kept = torch.add(kept, a, alpha=GAIN / s, out=out)
            s *= HALF
        ctx.save_for_backward(x, *weights, *before)
        ctx.layers, ctx.skips = len(weights) // 2, skip is not None
        return out.mul_(s) if skip is None else torch.add(skip, out, alpha=s, out=out).mul_(HALF)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        n = ctx.layers
        x, *rest = ctx.saved_tensors
        weights, before = rest[: 2 * n], rest[2 * n :]
        kept, s = [x], 1.0
        for k in range(n - 1):
            y = silu(before[2 * k + 1])
            kept.append(torch.add(kept[-1], y, alpha=GAIN / s, out=y))
            s *= HALF
        s *= HALF
        g, factor = grad, s * (HALF if ctx.skips else 1.0)  # the gradient of X is factor * g
        to_weights = [grad] * (2 * n)
        a, d = torch.empty_like(x), torch.empty_like(x)
        for k in reversed(range(n)):
            (first, second), (z1, z2) = weights[2 * k : 2 * k + 2], before[2 * k : 2 * k + 2]
            s /= HALF
            c = factor * GAIN / s * GAIN
            silu_out(z1, out=a)
            silu_backward_out(g, z2, grad_input=d)
            to_weights[2 * k + 1] = (d.t() @ a).mul_(c)
            torch.mm(d, second * c, out=a)
            silu_backward_out(a, z1, grad_input=a)
            to_weights[2 * k] = (a.t() @ kept[k]).mul_(s)
            g = torch.addmm(g, a, first * s, beta=factor) if k == n - 1 else g.addmm_(a, first * s, beta=factor)
            factor = 1.0
        return g, grad * HALF if ctx.skips else None, *to_weights
