"""The training loop: the step whose FLOPs and seconds are published, readable from top to bottom."""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equiscale.config import from_json, to_json
from equiscale.data.store import Store
from equiscale.models.base import Potential, count_parameters
from equiscale.predict import TrainedPotential
from equiscale.run import (
    Clock,
    Evaluation,
    Losses,
    RunRecord,
    RunSpec,
    Sets,
    Status,
    checkpoint_path,
    evaluation_steps,
    losses_path,
    save,
)
from equiscale.train import checkpoint
from equiscale.train.checkpoint import State
from equiscale.train.flops import counted
from equiscale.train.force_field import ForceField
from equiscale.train.optim import averaged, build, optimizer
from equiscale.train.provenance import provenance
from equiscale.train.series import write_log, write_losses

PLATEAU = 0.98
"""A run whose loss stays above this fraction of the trivial predictor's did not learn. That is data, not an error."""

COUNTED_STEPS = 8


@dataclass(frozen=True)
class Progress:
    """What a run tells while it lives."""

    key: str
    step: int
    steps: int
    loss: float | None
    seconds: float


def train_step(task: Any, model: torch.nn.Module, made: Any, step: int, clip: float | None) -> dict[str, float]:
    """One optimiser step on one step's micro-batches. Returns loss parts, gradient norm, tokens and FLOPs."""
    made.zero_grad(set_to_none=True)
    total: dict[str, Any] = {"loss": 0.0, "tokens": 0, "flops": 0.0}
    for batch in task.micro_batches(step):
        loss, parts = task.loss(model, batch)
        loss.backward()
        for name, value in {"loss": loss.detach(), **parts}.items():
            total[name] = total.get(name, 0.0) + value
        total["tokens"] += task.tokens(batch)
        total["flops"] += task.flops(batch)
    limit = math.inf if clip is None else clip
    # What a forward pass does not reach has no gradient (a vector head's last scalar path, say): None is skipped.
    total["gradient_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    if torch.isfinite(total["gradient_norm"]):
        made.step()
    return {name: float(value) for name, value in total.items()}


def train(
    spec: RunSpec,
    store: Store,
    folder: Path,
    *,
    isolated: dict[int, float] | None = None,
    device: str = "cpu",
    step_seconds: float | None = None,
    shared_device: bool = False,
    tell: Callable[[Progress], None] = lambda progress: None,
    checkpoint_every: float = 15.0,
) -> RunRecord:
    """Train one run to its end, from its checkpoint if it has one, and write its record.

    ``step_seconds``: median step of this rung timed alone, if it was. ``checkpoint_every``: seconds. Neither, nor the
    device's company, nor being killed and started again, changes a bit of what is learned.
    """
    begun = time.perf_counter()
    set_precision(spec)
    task = ForceField.of(spec, store, isolated, device)
    model = build(spec.model, spec.optim, spec.seed).to(task.device).train()
    made = optimizer(model, spec.model, spec.optim)
    executed = executed_ratio(task, model)
    unfinished = checkpoint_path(folder, spec.key) / "unfinished.pt"
    state = checkpoint.read(unfinished, model, made, task.device) or State()
    before = state.seconds_total
    looks = set(evaluation_steps(spec.steps, spec.evaluation))
    trivial = {name: task.trivial(name) for name in Sets}
    reason, latest = "", None
    saved = time.perf_counter()

    while state.step < spec.steps:
        started = time.perf_counter()
        done = train_step(task, model, made, state.step, spec.optim.clip)
        state.seconds_train += time.perf_counter() - started
        state.step += 1
        state.structures += spec.optim.batch_structures
        state.tokens += int(done["tokens"])
        state.flops += done["flops"]
        norm = done["gradient_norm"]
        state.since.append(done["loss"])
        state.log.append([state.step, done["loss"], done["energy_loss"], done["force_loss"], norm])
        if not (math.isfinite(done["loss"]) and math.isfinite(norm)):
            reason = f"the loss or its gradient was not finite at step {state.step} of {spec.steps}"
            break
        state.max_gradient_norm = max(state.max_gradient_norm, norm)
        state.clipped_steps += spec.optim.clip is not None and norm > spec.optim.clip
        if state.step in looks:
            state.seconds_total = before + time.perf_counter() - begun
            evaluation = look(task, averaged(model, made), state, executed)
            state.curve.append(to_json(Evaluation, evaluation, indent=None).decode())
            state.since = []
            if not (evaluation.molecules.finite and evaluation.conformers.finite):
                reason = f"the validation loss was not finite at step {state.step} of {spec.steps}"
                break
            latest = evaluation.molecules.loss
        due = time.perf_counter() - saved > checkpoint_every
        try:
            if state.step in looks or state.step % 20 == 0:
                tell(Progress(spec.key, state.step, spec.steps, latest, state.seconds_train))
        except BaseException:  # asked to stop, between two steps: keep what there is
            due = True
            raise
        finally:
            if due:
                state.seconds_total = before + time.perf_counter() - begun
                checkpoint.write(unfinished, model, made, state)
                saved = time.perf_counter()

    state.seconds_total = before + time.perf_counter() - begun
    record = finish(task, averaged(model, made), state, trivial, reason, folder)
    record = replace(record, step_seconds=step_seconds, shared_device=shared_device, provenance=provenance(device))
    save(record, folder)
    unfinished.unlink(missing_ok=True)
    return record


def look(task: ForceField, model: Any, state: State, executed: float) -> Evaluation:
    """Evaluate a copy of the model, and note what training has cost up to here."""
    found: dict[str, Losses] = {}
    for name in Sets:
        found[name], each = task.evaluate(model, name, task.spec.evaluation.structures)
        state.per_structure.setdefault(name, []).append([float(x) for x in each])
    return Evaluation(
        step=state.step,
        structures=state.structures,
        atoms=state.tokens,
        unique_atoms=task.unique_atoms(state.step),
        flops_model=state.flops,
        flops_executed=state.flops * executed,
        train_loss=float(np.mean(state.since)),
        molecules=found["molecules"],
        conformers=found["conformers"],
        clock=Clock(state.seconds_train, state.seconds_total),
    )


def finish(
    task: ForceField, model: Any, state: State, trivial: dict[str, Losses], reason: str, folder: Path
) -> RunRecord:
    """Evaluate on all validation structures, judge the run, and write weights and series beside the record."""
    spec = task.spec
    curve = tuple(from_json(Evaluation, text, "checkpoint") for text in state.curve)
    final = {name: task.evaluate(model, name)[0] for name in Sets}
    status, reason = judge(curve, trivial["molecules"].loss, reason)
    n, body = count_parameters(model)
    write_losses(
        losses_path(folder, spec.key),
        steps=[e.step for e in curve],
        losses=state.per_structure,
        groups={name: task.groups(name, spec.evaluation.structures) for name in Sets},
    )
    write_log(folder / f"{spec.key}.curve.parquet", state.log)
    if status != "diverged":
        TrainedPotential(model, spec.model, task.references).save(checkpoint_path(folder, spec.key))
    else:
        shutil.rmtree(checkpoint_path(folder, spec.key), ignore_errors=True)
    return RunRecord(
        spec=spec,
        status=status,
        reason=reason,
        parameters=n,
        parameters_body=body,
        curve=curve,
        final_molecules=final["molecules"],
        final_conformers=final["conformers"],
        trivial_molecules=trivial["molecules"],
        trivial_conformers=trivial["conformers"],
        mu=task.references.mu,
        sigma=task.references.sigma,
        max_gradient_norm=state.max_gradient_norm,
        clipped_steps=int(state.clipped_steps),
    )


def judge(curve: tuple[Evaluation, ...], trivial: float, reason: str) -> tuple[Status, str]:
    """Status and reason. Diverged: not finite, or a loss that rises past the trivial predictor after being below it."""
    if reason:
        return "diverged", reason
    losses = [e.molecules.loss for e in curve]
    best, last = min(losses), losses[-1]
    if last > 1.05 * trivial and best < 0.95 * last:
        return "diverged", (
            f"the validation loss rose to {last:.3g}, past the trivial predictor's {trivial:.3g}, from {best:.3g}"
        )
    if last > PLATEAU * trivial:
        return (
            "did not learn",
            f"the validation loss {last:.3g} stayed at the trivial predictor's {trivial:.3g}",
        )
    return "ok", ""


def executed_ratio(task: ForceField, model: Potential) -> float:
    """FLOPs executed over FLOPs of the published formulation, on the first steps' real batches; on a copy."""
    twin = copy.deepcopy(model)
    executed = published = 0.0
    for step in range(min(COUNTED_STEPS, task.spec.steps)):
        for batch in task.micro_batches(step):
            executed += counted(partial(_forward_backward, task, twin, batch))
            published += task.flops(batch)
    return executed / published


def _forward_backward(task: ForceField, model: Potential, batch: Any) -> None:
    task.loss(model, batch)[0].backward()


def time_steps(task: ForceField, model: torch.nn.Module, made: Any, steps: range) -> list[float]:
    """Seconds of each step, loading and neighbours included: what a law in hours is made of."""
    seconds = []
    for step in steps:
        started = time.perf_counter()
        train_step(task, model, made, step % task.spec.steps, task.spec.optim.clip)
        if task.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds


def set_precision(spec: RunSpec) -> None:
    """tf32 only where the spec says so; one of the few global switches, set from the spec and nothing else."""
    torch.set_float32_matmul_precision("high" if spec.dtype == "tf32" else "highest")


__all__ = ["Progress", "time_steps", "train", "train_step"]
