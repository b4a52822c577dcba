"""One rung on the device, in the process that this runs in: time of a step and of a look, and memory at its worst."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equiscale.models.base import count_parameters
from equiscale.predict import refuse_missing_device
from equiscale.probe.figures import Ask, Point, Size
from equiscale.run import RunSpec, Sets
from equiscale.train.ahead import loading
from equiscale.train.checkpoint import State
from equiscale.train.flops import counted
from equiscale.train.force_field import Batch, ForceField, cut
from equiscale.train.loop import executed_ratio, time_steps, train_step
from equiscale.train.memory import out_of_memory
from equiscale.train.optim import averaged, build, optimizer
from equiscale.train.record import set_precision
from equiscale.train.tracking import symmetry_point
from equiscale.train.worker import Worker, refuse_lone_atoms, refuse_unknown_elements

WARM, STEPS = 3, 10
SCANNED = 2**20
"""Places of a run's order that are looked through for its worst step; of longer orders the first so many."""

CONTEXT = 600 * 2**20
"""Bytes that CUDA takes of a GPU for a process before any tensor (assumed: it varies with device and version)."""


def measure(ask: Ask, tell: Callable[[dict[str, Any]], None]) -> None:
    """Tell fields of ``Found`` as they are known: of a process that is killed there remains what it told."""
    if ask.device == "cpu":
        torch.set_num_threads(1)
    refuse_missing_device(ask.device)
    spec = ask.specs[0]
    set_precision(spec)
    counted(lambda: None)  # what it imports is no part of a run's start, nor of its memory
    with reported(tell, "its start"):
        _measured(ask, spec, tell)


def _measured(ask: Ask, spec: RunSpec, tell: Callable[[dict[str, Any]], None]) -> None:
    store, isolated = Worker(Path(), ask.device).data(spec.data)
    refuse_lone_atoms(store, spec.model.cutoff, spec.data.name)
    refuse_unknown_elements(store, spec.model.elements, spec)
    begun = time.perf_counter()
    task = ForceField.of(spec, store, isolated, ask.device)
    meter = Meter(task.device, ask.enforce)
    tell({"base": meter.base, "limit": meter.limit, "enforced": ask.enforce})
    model = build(spec.model, spec.optim, spec.seed).to(task.device).train()
    model.prepare(task.first_structures())
    made = optimizer(model, spec.model, spec.optim)
    with reported(tell, "an ordinary step or a look"):
        _sizes(task, ask, model, tell)
        executed_ratio(task, model, spec.steps)
        for name in Sets:
            task.trivial(name)
        tell({"start_seconds": time.perf_counter() - begun})
        with loading(task, spec.steps, None, task.device) as load:
            steps = [s % spec.steps for s in range(WARM + STEPS)]
            used = time.process_time()
            taken = time_steps(task, model, made, steps, spec.optim.clip, load)
            used = time.process_time() - used
        share = None if ask.device != "cpu" else min(1.0, used / sum(taken))
        tell({"step_seconds": statistics.median(taken[WARM:]), "core_share": share})
        _look(task, meter, model, made, tell)
    del model, made
    _memory(meter, _seeds(task, ask.specs), tell)


@contextlib.contextmanager
def reported(tell: Callable[[dict[str, Any]], None], where: str) -> Iterator[None]:
    """Memory that runs out is told, and what can be measured without is measured."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not out_of_memory(error):
            raise
        tell({"ended": f"memory ran out in {where}", "memory_ran_out": True})


class Meter:
    """Memory of this process on a device, beyond what it had when the meter was made."""

    def __init__(self, device: torch.device, enforce: int | None):
        self.cuda = device.type == "cuda"
        self.device = device
        self.limit: int | None = None
        if self.cuda:
            self.base = CONTEXT
            self.limit = torch.cuda.mem_get_info(device)[0] + CONTEXT
            return
        gc.collect()
        self.base = _status("VmRSS")
        if enforce is not None:
            # Held to it by the system, so that a rung that is too large fails here and takes no other process with it.
            most = _status("VmData") + enforce
            resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))

    def begin(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # what an earlier measurement freed goes back to the system
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew; without it, it is the process's

    def peak(self) -> int:
        """Bytes since ``begin`` at the most."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_reserved(self.device)
        return max(0, _status("VmHWM") - self.base)

    def allocated(self) -> int | None:
        return torch.cuda.max_memory_allocated(self.device) if self.cuda else None


def _status(name: str) -> int:
    """Bytes, from the kernel's account of this process; elsewhere the largest it ever was."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _sizes(task: ForceField, ask: Ask, model: Any, tell: Callable[[dict[str, Any]], None]) -> None:
    """N and FLOPs per atom of this rung and of those between, whose shapes are enough."""
    sample = task.batch(task.train.take(np.arange(min(256, len(task.train)))))
    counts = sample.graph.counts
    made = {}
    for spec in (ask.specs[0], *ask.between):
        with torch.device("meta"):
            n = count_parameters(spec.model.build())[0]
        made[spec.key] = Size(n, spec.passes * spec.model.flops(counts) / counts.atoms)
    own = made[ask.specs[0].key]
    tell(
        {
            "parameters": count_parameters(model)[0],
            "flops_per_atom": own.flops_per_atom,
            "atoms": task.train.atoms / len(task.train),
            "sizes": made,
        }
    )


def _look(task: ForceField, meter: Meter, model: Any, made: Any, tell: Callable[[dict[str, Any]], None]) -> None:
    """A look that makes its graphs, one that has them, the end's by its atoms, and the loss decomposition."""
    limit = task.spec.evaluation.structures

    def evaluated() -> float:
        begun = time.perf_counter()
        weights = averaged(model, made)
        for name in Sets:
            task.evaluate(weights, name, limit)
        return time.perf_counter() - begun

    meter.begin()
    first, again = evaluated(), evaluated()
    kept = sum(_bytes(batch) for name in Sets for batch in task.batches(name, limit))
    seen = sum(len(batch.graph.numbers) for name in Sets for batch in task.batches(name, limit))
    times = sum(int(task.validation[name].sizes.sum()) for name in Sets) / seen
    tell(
        {
            "first_look_seconds": first,
            "look_seconds": again,
            "final_seconds": first * times,
            "look_memory": meter.peak(),
            "kept": kept,
            "kept_final": round(kept * times),
        }
    )
    if (tracking := task.spec.evaluation.symmetry) is not None:
        begun = time.perf_counter()
        symmetry_point(task, averaged(model, made), tracking, State())
        tell({"track_seconds": time.perf_counter() - begun, "look_memory": meter.peak()})


def _bytes(batch: Batch) -> int:
    tensors = [v for part in (batch.graph, batch.label) for v in vars(part).values() if isinstance(v, torch.Tensor)]
    return sum(t.element_size() * t.numel() for t in tensors)


def _seeds(task: ForceField, specs: tuple[RunSpec, ...]) -> list[ForceField]:
    """Every seed has an order of its own, on the same data."""
    return [replace(task, spec=spec, _cache={}, _seen=[0, 0]) for spec in specs]


def _with_budget(task: ForceField, budget: int) -> ForceField:
    return replace(task, spec=replace(task.spec, optim=replace(task.spec.optim, atom_budget=budget)))


def _work(task: ForceField, batch: Batch) -> float:
    return task.spec.passes * task.spec.model.flops(batch.graph.counts)


def _memory(meter: Meter, tasks: list[ForceField], tell: Callable[[dict[str, Any]], None]) -> None:
    """Peak memory of a step on the worst micro-batch, of small atom budgets first: of one that fails they remain."""
    suspects = [(task, step) for task in tasks for step in worst_steps(task)]
    budgets = grid(suspects)
    worst = {b: max(_largest(_with_budget(t, b), step) for t, step in suspects) for b in budgets}
    found = tuple((b, worst[b][0]) for b in budgets)
    spec = tasks[0].spec
    work, place = worst[budgets[-1]]
    task, step = next((t, s) for t, s in suspects if _largest(_with_budget(t, budgets[-1]), s)[:1] == (work,))
    biggest = _with_budget(task, budgets[-1]).micro_batches(step)[place]
    tell(
        {
            "budgets": found,
            "worst_step": step,
            "worst_atoms": biggest.graph.counts.atoms,
            "worst_edges": biggest.graph.counts.edges,
        }
    )
    del biggest
    points: list[Point] = []
    with reported(tell, "the step with the largest batch"):
        for budget in sorted({budgets[0], budgets[len(budgets) // 2], budgets[-1]}):
            small = _with_budget(task, budget)
            meter.begin()
            model = build(spec.model, spec.optim, spec.seed).to(task.device).train()
            made = optimizer(model, spec.model, spec.optim)
            whole = small.micro_batches(step)  # the step's graphs are there together
            batch = max(whole, key=lambda b: _work(small, b))
            one = [batch]
            for _ in range(2):  # the second has the optimiser's state
                train_step(small, model, made, step, spec.optim.clip, lambda step: one)  # noqa: B023
            points.append(Point(budget, _work(small, batch), meter.peak()))
            tell({"points": tuple(points), "allocated": meter.allocated()})
            del model, made, whole, batch, one


def _largest(task: ForceField, step: int) -> tuple[float, int]:
    """Work of a step's largest micro-batch, and its place."""
    works = [_work(task, batch) for batch in task.micro_batches(step)]
    return max(works), int(np.argmax(works))


def worst_steps(task: ForceField) -> list[int]:
    """The steps of the order that may need the most memory: by a bound on edges, by atoms, and the largest structure's.

    A bound, since neighbours of every step would take too long: which of the few is the worst their graphs tell.
    """
    spec, size = task.spec, task.spec.optim.batch_structures
    per_epoch, left = spec.steps_per_epoch, SCANNED // size
    rows: list[tuple[float, int, int, int]] = []  # edges at most, atoms, largest structure, step
    for epoch in range(spec.data.epochs):
        steps = min(per_epoch, left)
        left -= steps
        for first in range(0, steps, 4096):
            last = min(first + 4096, steps)
            sizes = task.train.sizes_at(task.epochs.at(epoch, first * size, last * size)).reshape(-1, size)
            most = np.minimum(sizes - 1, spec.model.max_neighbors or sizes.max()) * sizes
            whole = spec.passes * sizes.sum(1) <= spec.optim.atom_budget
            for i in range(len(sizes)):
                pieces = [slice(None)] if whole[i] else cut(spec.passes * sizes[i], spec.optim.atom_budget)
                edges = max(int(most[i][p].sum()) for p in pieces)
                atoms = max(int(sizes[i][p].sum()) for p in pieces)
                rows.append((edges, atoms, int(sizes[i].max()), epoch * per_epoch + first + i))
        if left <= 0:
            break
    found: dict[int, None] = {}
    for column, count in ((0, 3), (1, 2), (2, 1)):
        found.update(dict.fromkeys(row[3] for row in sorted(rows, key=lambda row: -row[column])[:count]))
    return list(found)


def grid(suspects: list[tuple[ForceField, int]]) -> tuple[int, ...]:
    """Atom budgets to choose from, ascending: the study's own, and below the atoms of its largest micro-batch 2^k and
    3·2^k down to the largest structure, which no budget cuts."""
    task = suspects[0][0]
    own = task.spec.optim.atom_budget
    sizes = [(t.spec.passes * len(b.graph.numbers), t.spec.passes * int(b.graph.size.max()))
             for t, step in suspects for b in t.micro_batches(step)]  # fmt: skip
    largest, single = max(a for a, _ in sizes), max(s for _, s in sizes)
    below = sorted(b for k in range(40) for m in (2, 3) if single < (b := m * 2**k) < min(largest, own))
    return tuple(sorted({min(single, own), *below[-12:], own}))
