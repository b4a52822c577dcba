"""The training loop: the step whose FLOPs and seconds are published, readable from top to bottom.

It knows a ``Task`` and no atoms, energies or forces; ``record.py`` makes a run of a potential of it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from equiscale.train.ahead import Load
from equiscale.train.checkpoint import State
from equiscale.train.flops import counted
from equiscale.train.ranks import ALONE, Asked, Ranks, asked
from equiscale.train.task import Task

COUNTED_STEPS = 8

TELL_EVERY = 1.0
"""Seconds after which a run tells again, whatever its steps: that is how it hears that it is to stop."""


def train_step(
    task: Task,
    model: nn.Module,
    made: Any,
    step: int,
    clip: float | None,
    load: Load | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """One optimiser step on one step's micro-batches. Returns loss, its parts, gradient norm, tokens and FLOPs.

    ``load``: hands out the task's micro-batches, where the task itself does not. ``ranks``: between which the task has
    split the step; what is returned is the whole step's, and whether a rank was asked to stop.
    """
    made.zero_grad(set_to_none=True)
    total: dict[str, Any] = {"loss": 0.0, "structures": 0, "tokens": 0, "flops": 0.0}
    for batch in (load or task.micro_batches)(step):
        loss, parts = task.loss(model, batch)
        loss.backward()
        for name, value in {"loss": loss.detach(), **parts}.items():
            total[name] = total.get(name, 0.0) + value
        total["structures"] += task.structures(batch)
        total["tokens"] += task.tokens(batch)
        total["flops"] += task.flops(batch)
    if ranks.world > 1:
        total = summed(ranks, model, {**total, "asked": asked()})
    limit = math.inf if clip is None else clip
    # What a forward pass does not reach has no gradient (a vector head's last scalar path, say): None is skipped.
    total["gradient_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    if torch.isfinite(total["gradient_norm"]):
        made.step()
    return {name: float(value) for name, value in total.items()}


def summed(ranks: Ranks, model: nn.Module, total: dict[str, Any]) -> dict[str, Any]:
    """The whole step's totals; and its gradients, into ``model``: sums, as every loss is a share of the whole step's.

    Not DistributedDataParallel, whose gradients are as right (of conservative forces, too): it averages, wants the loss
    inside a module, and tells neither what no rank reached nor the step's totals, which would be a second sum anyway.
    """
    weights = list(model.parameters())
    # What no rank's forward pass reached keeps no gradient, as on one rank: the optimiser skips it.
    reached = [float(p.grad is not None) for p in weights]
    # From the CPU, and first: there a rank that is gone is noticed at once, and all ranks stop at the same step.
    sums = ranks.sum(torch.tensor([*map(float, total.values()), *reached], dtype=torch.float64)).tolist()
    chosen = [p for p, count in zip(weights, sums[len(total) :]) if count]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in chosen])
    for p, gradient in zip(chosen, ranks.sum(flat).split([p.numel() for p in chosen])):
        p.grad = gradient.view_as(p)
    return dict(zip(total, sums))


def run_steps(
    task: Task,
    model: nn.Module,
    made: Any,
    state: State,
    *,
    steps: int,
    clip: float | None,
    looks: Collection[int],
    look: Callable[[], str],
    tell: Callable[[], None],
    save: Callable[[], None],
    save_every: float,
    load: Load | None = None,
    ranks: Ranks = ALONE,
) -> str:
    """Train from ``state`` to ``steps``. Returns why it ended early, or nothing.

    ``look`` is called after each step in ``looks`` and returns a reason to end; ``save`` every ``save_every`` seconds;
    ``tell`` now and then: whatever it raises (a stop) ends the loop between two steps, after a save.
    """
    saved = told = time.perf_counter()
    while state.step < steps:
        started = time.perf_counter()
        done = train_step(task, model, made, state.step, clip, load, ranks)
        state.seconds_train += ranks.world * (time.perf_counter() - started)
        stop = done.pop("asked", asked())
        norm = state.add(done)
        if not (math.isfinite(done["loss"]) and math.isfinite(norm)):
            return f"the loss or its gradient was not finite at step {state.step} of {steps}"
        state.max_gradient_norm = max(state.max_gradient_norm, norm)
        state.clipped_steps += clip is not None and norm > clip
        if state.step in looks and (reason := look()):
            return reason
        if stop:
            save()
            raise Asked(f"asked to stop after step {state.step} of {steps}")
        due = time.perf_counter() - saved > save_every
        try:
            if state.step in looks or state.step % 20 == 0 or time.perf_counter() - told > TELL_EVERY:
                told = time.perf_counter()
                tell()
        except BaseException:  # asked to stop, between two steps: keep what there is
            due = True
            raise
        finally:
            if due:
                save()
                saved = time.perf_counter()
    return ""


def executed_ratio(task: Task, model: nn.Module, steps: int, ranks: Ranks = ALONE) -> float:
    """FLOPs executed over FLOPs of the published formulation, on the first steps' real batches; on a copy."""
    twin = copy.deepcopy(model)
    executed = published = 0.0
    for step in range(min(COUNTED_STEPS, steps)):
        for batch in task.micro_batches(step):
            executed += counted(partial(_forward_backward, task, twin, batch))
            published += task.flops(batch)
    if ranks.world > 1:
        executed, published = ranks.sum(torch.tensor([executed, published], dtype=torch.float64)).tolist()
    return executed / published


def _forward_backward(task: Task, model: nn.Module, batch: Any) -> None:
    task.loss(model, batch)[0].backward()


def time_steps(
    task: Task, model: nn.Module, made: Any, steps: Iterable[int], clip: float | None, load: Load | None = None
) -> list[float]:
    """Seconds of each step, loading and neighbours included: what a law in hours is made of."""
    seconds = []
    for step in steps:
        started = time.perf_counter()
        train_step(task, model, made, step, clip, load)
        if next(model.parameters()).is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds
