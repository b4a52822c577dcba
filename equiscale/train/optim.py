"""The optimisers and the two width rules: how the learning rate and the initial weights follow the width."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from equiscale.errors import InputError
from equiscale.models import ModelConfig
from equiscale.models.base import Potential
from equiscale.run import OptimSpec


@dataclass(frozen=True)
class WidthFactor:
    """What one parameter tensor's rate and initial standard deviation are multiplied by, and why."""

    kind: str  # "hidden" | "input" | "output" | "vector"
    rate: float
    init: float


def width_factors(
    model: ModelConfig,
    optim: OptimSpec,
) -> dict[str, WidthFactor]:
    """Per parameter name, relative to the base width; at the base width every factor is 1.

    ``paper``: one global base_width / width. ``mup`` (Yang et al. 2021, Adam): which dimensions grow is read off the
    shapes at the base width and at four times it. Both grow (hidden): rate ∝ 1/fan_in, variance 1/fan_in. Fixed
    fan-in (embeddings, radial bases, vectors): constant. Fixed fan-out (heads): rate ∝ 1/fan_in and variance
    1/fan_in², which equals a constant rate with a 1/fan_in multiplier.
    """
    with torch.device("meta"):
        at = {w: _dimensions(replace(model, width=w).build()) for w in (optim.base_width, 4 * optim.base_width)}
        here = _dimensions(model.build())
    base, wide = at[optim.base_width], at[4 * optim.base_width]
    if optim.width_rule == "paper":
        rate = optim.base_width / model.width
        return {name: WidthFactor("any", rate, 1.0) for name in here}
    factors = {}
    for name, dims in here.items():
        if dims is None:
            factors[name] = WidthFactor("vector", 1.0, 1.0)
            continue
        fan_in, _ = dims
        narrow, broad = base[name], wide[name]
        assert narrow is not None  # the same tensors exist at every width
        assert broad is not None
        (in0, out0), (in1, out1) = narrow, broad
        shrink = in0 / fan_in
        if in1 == in0:
            factors[name] = WidthFactor("input", 1.0, 1.0)
        elif out1 == out0:
            factors[name] = WidthFactor("output", shrink, shrink**0.5)
        else:
            factors[name] = WidthFactor("hidden", shrink, 1.0)
    return factors


def _dimensions(potential: nn.Module) -> dict[str, tuple[int, int] | None]:
    """(fan-in, fan-out) of every matrix, None for vectors. An embedding is a matrix that acts on one-hot rows."""
    kinds: dict[str, tuple[int, int] | None] = {}
    for prefix, module in potential.named_modules():
        for name, p in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            if p.ndim < 2:
                kinds[full] = None
            elif isinstance(module, nn.Embedding):
                kinds[full] = (p.shape[0], p.shape[1])
            elif isinstance(module, nn.Linear):
                kinds[full] = (p.shape[1], p.shape[0])
            else:
                raise TypeError(
                    f"{full} is a matrix outside nn.Linear and nn.Embedding: its fan-in cannot be read off; "
                    "hold it in one of these."
                )
    return kinds


def build(model: ModelConfig, optim: OptimSpec, seed: int) -> Potential:
    """A fresh potential whose initial weights follow the width rule; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        potential = model.build()
    factors = width_factors(model, optim)
    with torch.no_grad():
        for name, p in potential.named_parameters():
            p.mul_(factors[name].init)
    return potential


class WarmUp:
    """A torch optimiser whose rates rise linearly over the first ``steps`` steps and stay.

    Where it is lies in the parameter groups, so that it is saved and restored with them.
    """

    def __init__(self, made: torch.optim.Optimizer, steps: int):
        self.made, self.steps = made, steps
        for group in made.param_groups:
            group["full_rate"], group["taken"] = group["lr"], 0
        self.zero_grad, self.state_dict, self.load_state_dict = made.zero_grad, made.state_dict, made.load_state_dict

    def step(self) -> None:
        for group in self.made.param_groups:
            group["taken"] += 1
            group["lr"] = group["full_rate"] * min(1.0, group["taken"] / max(self.steps, 1))
        self.made.step()


def optimizer(potential: Potential, model: ModelConfig, optim: OptimSpec) -> Any:
    """``OptimSpec.optimizer`` in train mode, one parameter group per distinct rate."""
    if optim.optimizer == "sgd" and model.width != optim.base_width:
        raise InputError(
            f"the width rules are Adam's and say nothing of sgd: set base_width to the width, {model.width}, "
            "and the learning rate to that width's own."
        )
    by_rate: dict[float, list[nn.Parameter]] = {}
    factors = width_factors(model, optim)
    for name, p in potential.named_parameters():
        by_rate.setdefault(factors[name].rate, []).append(p)
    groups = [{"params": ps, "lr": optim.learning_rate * rate} for rate, ps in sorted(by_rate.items())]
    if optim.optimizer == "sgd":
        return WarmUp(torch.optim.SGD(groups, weight_decay=optim.weight_decay), optim.warmup_steps)
    betas = optim.beta1, optim.beta2
    if optim.optimizer == "adamw":
        plain = torch.optim.AdamW(groups, betas=betas, weight_decay=optim.weight_decay)
        return WarmUp(plain, optim.warmup_steps)
    from schedulefree import AdamWScheduleFree

    made = AdamWScheduleFree(groups, betas=betas, weight_decay=optim.weight_decay, warmup_steps=optim.warmup_steps)
    made.train()
    return made


def averaged(potential: Potential, made: Any) -> Potential:
    """A copy in eval mode that holds the averaged weights x; the original stays as it is, to the bit.

    Schedule-free's own eval() and train() round twice, so that looking would change the run: y = (1-β₁) z + β₁ x is
    solved for x on the copy only. The other optimisers do not average: their last weights.
    """
    twin = copy.deepcopy(potential)
    if isinstance(made, WarmUp):
        return twin.eval()
    x = dict(zip(potential.parameters(), twin.parameters()))
    with torch.no_grad():
        for group in made.param_groups:
            for p in group["params"]:
                if "z" in made.state[p]:
                    x[p].lerp_(made.state[p]["z"], 1 - 1 / group["betas"][0])
    return twin.eval()
