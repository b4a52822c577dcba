"""From a spec to a record: one run of a potential, with its looks, its verdict and its files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equiscale.config import from_json, to_json
from equiscale.data.packed import Packed
from equiscale.data.store import Store
from equiscale.models.base import count_parameters
from equiscale.predict import TrainedPotential
from equiscale.run import (
    Clock,
    Evaluation,
    Losses,
    RunRecord,
    RunSpec,
    Sets,
    Status,
    SymmetryPoint,
    checkpoint_path,
    evaluation_steps,
    losses_path,
    save,
    start_path,
    tracking_steps,
)
from equiscale.train import checkpoint
from equiscale.train.ahead import loading
from equiscale.train.checkpoint import State
from equiscale.train.force_field import ForceField
from equiscale.train.loop import executed_ratio, run_steps
from equiscale.train.optim import averaged, build, optimizer
from equiscale.train.provenance import provenance
from equiscale.train.ranks import Call, heeding, here
from equiscale.train.series import write_log, write_losses
from equiscale.train.start import begin, copied, references
from equiscale.train.tracking import symmetry_point

PLATEAU = 0.98
"""A run whose loss stays above this fraction of the trivial predictor's did not learn. That is data, not an error."""


@dataclass(frozen=True)
class Progress:
    """What a run tells while it lives."""

    key: str
    step: int
    steps: int
    loss: float | None
    seconds: float


def train(
    spec: RunSpec,
    store: Store | Packed,
    folder: Path,
    *,
    isolated: dict[int, float] | None = None,
    device: str = "cpu",
    step_seconds: float | None = None,
    shared_device: bool = False,
    tell: Callable[[Progress], None] = lambda progress: None,
    checkpoint_every: float = 15.0,
    ahead: bool | None = None,
    confirm: Callable[[], None] = lambda: None,
) -> RunRecord:
    """Train one run to its end, from its checkpoint or its start's weights if it has one, and write its record.

    ``step_seconds``: median step of this rung timed alone, if it was. ``checkpoint_every``: seconds. ``ahead``:
    batches are made while the step before them runs (None: on a GPU). None of these, nor the device's company, nor
    being killed and started again, changes a bit of what is learned. ``confirm`` raises before something is written
    where another process may by now train this run.
    """
    begun = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    set_precision(spec)
    ranks = here()
    origin = begin(spec, folder)
    normal = None if origin is None else references(spec, origin, store)
    task = ForceField.of(spec, store, isolated, device, normal, ranks)
    ranks.call(Call(spec, folder, device, ahead))
    model = build(spec.model, spec.optim, spec.seed)
    if origin is not None:
        copied(origin, model, spec)
    model = model.to(task.device).train()
    made = optimizer(model, spec.model, spec.optim)
    executed = executed_ratio(task, model, spec.steps, ranks)
    unfinished = checkpoint_path(folder, spec.key) / "unfinished.pt"
    state = checkpoint.read(unfinished, model, made, task.device) if ranks.leads else None
    if state is None:
        state = State()
        if origin is None:  # other weights bring what was fitted with them
            model.prepare(task.first_structures())
    state = checkpoint.shared(ranks, model, made, state)
    state.ranks = max(state.ranks, ranks.world)
    evaluated = set(evaluation_steps(spec.steps, spec.evaluation))
    tracked = set(tracking_steps(spec.steps, spec.evaluation))
    before, wall = state.seconds_total, state.seconds_wall
    trivial = {name: task.trivial(name) for name in Sets}
    latest: list[float | None] = [None]

    def clock() -> None:
        state.seconds_wall = wall + time.perf_counter() - begun
        state.seconds_total = before + ranks.world * (time.perf_counter() - begun)

    def keep() -> None:
        confirm()
        clock()
        if ranks.leads:
            checkpoint.write(unfinished, model, made, state)

    def look_now() -> str:
        clock()
        weights, finite = averaged(model, made), True
        if state.step in evaluated:
            evaluation = look(task, weights, state, executed)
            state.curve.append(to_json(Evaluation, evaluation, indent=None).decode())
            state.since = []
            latest[0] = evaluation.molecules.loss
            finite = evaluation.molecules.finite and evaluation.conformers.finite
        if state.step in tracked and (tracking := spec.evaluation.symmetry) is not None:
            point = symmetry_point(task, weights, tracking, state)
            state.symmetry.append(to_json(SymmetryPoint, point, indent=None).decode())
        ranks.refuse_drift(model)
        return "" if finite else f"the validation loss was not finite at step {state.step} of {spec.steps}"

    if state.step == 0:
        look_now()  # the fresh weights: tracked only
    with loading(task, spec.steps, ahead, task.device) as load, heeding():
        reason = run_steps(
            task,
            model,
            made,
            state,
            steps=spec.steps,
            clip=spec.optim.clip,
            looks=evaluated | tracked,
            look=look_now,
            tell=lambda: tell(Progress(spec.key, state.step, spec.steps, latest[0], state.seconds_train)),
            save=keep,
            save_every=checkpoint_every,
            load=load,
            ranks=ranks,
        )
    clock()
    record = finish(task, averaged(model, made), state, trivial, reason, folder, confirm)
    about = provenance(device)
    if state.ranks > 1:  # the record's seconds are of all devices together
        about |= {"ranks": str(state.ranks), "wall_seconds": f"{state.seconds_wall:.1f}"}
    record = replace(record, step_seconds=step_seconds, shared_device=shared_device, provenance=about)
    if ranks.leads:
        confirm()
        save(record, folder)
        unfinished.unlink(missing_ok=True)
        shutil.rmtree(start_path(folder, spec.key), ignore_errors=True)
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
    task: ForceField,
    model: Any,
    state: State,
    trivial: dict[str, Losses],
    reason: str,
    folder: Path,
    confirm: Callable[[], None],
) -> RunRecord:
    """Evaluate on all validation structures, judge the run, and write weights and series beside the record."""
    spec = task.spec
    curve = tuple(from_json(Evaluation, text, "checkpoint") for text in state.curve)
    final = {name: task.evaluate(model, name)[0] for name in Sets}
    status, reason = judge(curve, trivial["molecules"].loss, reason)
    n, body = count_parameters(model)
    if task.ranks.leads:
        confirm()  # the evaluation may have taken minutes
        write_beside(task, model, state, folder, [e.step for e in curve], status != "diverged")
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
        symmetry=tuple(from_json(SymmetryPoint, text, "checkpoint") for text in state.symmetry),
    )


def write_beside(task: ForceField, model: Any, state: State, folder: Path, steps: list[int], weights: bool) -> None:
    """The files beside a record: per-structure losses, the log, and the weights if they are worth keeping."""
    spec = task.spec
    write_losses(
        losses_path(folder, spec.key),
        steps=steps,
        losses=state.per_structure,
        groups={name: task.groups(name, spec.evaluation.structures) for name in Sets},
    )
    write_log(folder / f"{spec.key}.curve.parquet", state.columns, state.log)
    if weights:
        trained = TrainedPotential(model, spec.model, task.references, spec.frames)
        trained.save(checkpoint_path(folder, spec.key), within=folder)
    else:
        shutil.rmtree(checkpoint_path(folder, spec.key), ignore_errors=True)


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


def set_precision(spec: RunSpec) -> None:
    """tf32 only where the spec says so; one of the few global switches, set from the spec and nothing else."""
    torch.set_float32_matmul_precision("high" if spec.dtype == "tf32" else "highest")
