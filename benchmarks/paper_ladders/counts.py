"""What a study's rungs take that does not depend on the device: executed FLOPs, operations, bytes of their files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils._python_dispatch import TorchDispatchMode

from equiscale.data.sources import load
from equiscale.ladder import Study
from equiscale.models.esen import messages
from equiscale.models.gemnet_oc import chains, geometry
from equiscale.run import DataSpec, RunSpec
from equiscale.train import checkpoint
from equiscale.train.checkpoint import State
from equiscale.train.flops import counted
from equiscale.train.force_field import Batch, ForceField
from equiscale.train.loop import train_step
from equiscale.train.optim import build, optimizer
from equiscale.train.provenance import provenance
from equiscale.train.series import write_log

BATCH = 2  # structures: neither ratio nor operations depend on it
ROWS = 100_000  # of a log
FREE = {"detach", "empty", "empty_like", "empty_strided", "_unsafe_view"}


class Operations(TorchDispatchMode):
    """Counts what would be launched: every operation but views and allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        self.count += not views and func._schema.name.split("::")[1] not in FREE
        return func(*args, **(kwargs or {}))


def small(run: RunSpec) -> RunSpec:
    """The same rung on a few structures of the built-in set."""
    return replace(
        run, data=DataSpec("builtin", structures=4 * BATCH), optim=replace(run.optim, batch_structures=BATCH)
    )


def task_of(run: RunSpec, store: Any) -> tuple[ForceField, list[Batch]]:
    task = ForceField.of(small(run), store)
    return task, task.micro_batches(0)


def executed(run: RunSpec, store: Any) -> float:
    """FLOPs that a step executes, over those of the published formulation."""
    task, batches = task_of(run, store)
    model = build(run.model, run.optim, run.seed).train()
    model.prepare(task.first_structures())
    done = sum(counted(partial(_forward_backward, task, model, batch)) for batch in batches)
    return done / sum(task.flops(batch) for batch in batches)


def _forward_backward(task: ForceField, model: Any, batch: Batch) -> None:
    task.loss(model, batch)[0].backward()


def operations(run: RunSpec, store: Any) -> int:
    """Of a step with its optimiser, after the first; in one piece, as on a GPU: on a CPU some sums are in pieces."""
    kept = messages.BLOCK_BYTES, geometry.PIECE, chains.PIECE
    messages.BLOCK_BYTES, geometry.PIECE, chains.PIECE = 1 << 40, 1 << 40, 1 << 40
    try:
        task, batches = task_of(run, store)
        model = build(run.model, run.optim, run.seed).train()
        model.prepare(task.first_structures())
        made = optimizer(model, run.model, run.optim)
        for turn in range(2):
            with Operations() as seen:
                train_step(task, model, made, turn, run.optim.clip, lambda step: batches)
        return seen.count
    finally:
        messages.BLOCK_BYTES, geometry.PIECE, chains.PIECE = kept


def files(run: RunSpec, store: Any) -> dict[str, float]:
    """Bytes of a checkpoint by parameter and by logged step, a core's seconds for that, bytes of a record's log."""
    task, batches = task_of(run, store)
    model = build(run.model, run.optim, run.seed).train()
    made = optimizer(model, run.model, run.optim)
    done = train_step(task, model, made, 0, run.optim.clip, lambda step: batches)
    state = State()
    state.add(done)
    rng = np.random.default_rng(0)
    rows = rng.lognormal(size=(ROWS, len(state.columns))).tolist()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pt"
        sizes, seconds = [], []
        for log in ([], rows):
            state.log = log
            taken = []
            for _ in range(5):
                begun = time.process_time()  # other work may run beside
                checkpoint.write(file, model, made, state)
                taken.append(time.process_time() - begun)
            seconds.append(min(taken))
            sizes.append(file.stat().st_size)
        write_log(Path(folder) / "log.parquet", state.columns, rows)
        logged = (Path(folder) / "log.parquet").stat().st_size
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "checkpoint_per_parameter": sizes[0] / parameters,
        "checkpoint_per_step": (sizes[1] - sizes[0]) / ROWS,
        "checkpoint_seconds_per_step": (seconds[1] - seconds[0]) / ROWS,
        "log_per_step": logged / ROWS,
    }


def count(study: Study, architectures: Sequence[str] = (), widths: int | None = None) -> dict[str, Any]:
    """Of these architectures (all), the smallest ``widths`` (all)."""
    store = load("builtin")
    out: dict[str, Any] = {}
    for ladder in study.ladders:
        runs = ladder.runs()[:widths]
        if architectures and ladder.architecture not in architectures:
            continue
        out[ladder.architecture] = {
            "operations": operations(runs[0], store),
            "executed": {str(run.model.width): executed(run, store) for run in runs},
        }
    out["files"] = files(study.ladders[0].runs()[min(4, widths or 4) - 1], store)
    return {**out, "provenance": {**provenance("cpu"), "when": datetime.now(UTC).isoformat(timespec="minutes")}}
