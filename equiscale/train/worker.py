"""What a launcher's process does: time every rung alone, or train one run. Loads a data set once and keeps it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equiscale.claim import Busy, Lost, take
from equiscale.data.layout import is_packed
from equiscale.data.order import permuted
from equiscale.data.packed import Packed, open_packed
from equiscale.data.sources import load, read_extxyz
from equiscale.data.store import Store
from equiscale.data.structure import SYMBOLS
from equiscale.errors import InputError
from equiscale.graph import build_graph
from equiscale.models.base import count_parameters
from equiscale.predict import refuse_missing_device
from equiscale.run import DataSpec, RunSpec, reader_options
from equiscale.train.ahead import loading
from equiscale.train.force_field import ForceField
from equiscale.train.loop import time_steps
from equiscale.train.optim import build, optimizer
from equiscale.train.record import train

ROUNDS, STEPS, WARM = 3, 5, 2
"""Each rung is timed in this many rounds, every rung once a round, so that a drift of the machine meets all alike."""


LOOKED_AT = 100_000  # structures, for atoms without neighbours


@dataclass(frozen=True)
class TrainOne:
    """Train this run. ``step_seconds``: its rung's median step timed alone."""

    spec: RunSpec
    step_seconds: float | None = None
    shared_device: bool = False

    def __str__(self) -> str:
        return str(self.spec)


@dataclass(frozen=True)
class TimeAll:
    """Check the data and time every one of these runs, nothing else running."""

    specs: tuple[RunSpec, ...]

    def __str__(self) -> str:
        return "timing"


@dataclass(frozen=True)
class Timing:
    """One rung before it is trained."""

    step_seconds: float
    parameters: int
    parameters_body: int
    atoms: float  # mean per structure
    degree: float  # mean
    flops_per_atom: float  # of all forward passes of a step, of the published formulation


@dataclass
class Worker:
    """Picklable; called in the launcher's processes as ``worker(item, tell)``."""

    folder: Path
    device: str = "cpu"
    checkpoint_every: float = 15.0
    ahead: bool | None = None  # as ``train`` takes it
    _stores: dict[Any, tuple[Store | Packed, dict[int, float] | None]] = field(default_factory=dict, repr=False)

    def __call__(self, item: TrainOne | TimeAll, tell: Callable[[Any], None]) -> Any:
        if self.device == "cpu":
            torch.set_num_threads(1)
        refuse_missing_device(self.device)
        if isinstance(item, TimeAll):
            return self.time(item.specs, tell)
        store, isolated = self.data(item.spec.data)
        claim = take(self.folder / f"{item.spec.key}.claim")
        if isinstance(claim, Busy):
            return claim
        with claim:
            if not (self.folder / f"{item.spec.key}.json").exists():  # else another worker was first
                try:
                    train(
                        item.spec,
                        store,
                        self.folder,
                        isolated=isolated,
                        device=self.device,
                        step_seconds=item.step_seconds,
                        shared_device=item.shared_device,
                        tell=tell,
                        checkpoint_every=self.checkpoint_every,
                        ahead=self.ahead,
                        confirm=claim.confirm,
                    )
                except Lost:  # this process was stopped for long, and another one has gone on
                    return Busy("another worker")
            claim.done()
        return item.spec.key

    def data(self, spec: DataSpec) -> tuple[Store | Packed, dict[int, float] | None]:
        key = spec.source, spec.references  # isolated atoms come with the second
        if key not in self._stores:
            keys = reader_options(spec)
            isolated = None
            if spec.references == "isolated_atoms" and is_packed(spec.name):
                isolated = open_packed(spec.name).isolated
            elif spec.references == "isolated_atoms":
                own = {k: v for k, v in keys.items() if k not in ("blocks", "seed")}  # how it is split is load's
                isolated = read_extxyz(spec.name, **own).isolated
            self._stores[key] = (load(spec.name, **keys), isolated)
        return self._stores[key]

    def time(self, specs: tuple[RunSpec, ...], tell: Callable[[Any], None]) -> dict[str, Timing]:
        """Median step seconds of every run, interleaved; refuses a cutoff that leaves atoms alone."""
        ready, checked = [], set()
        for spec in specs:
            store, isolated = self.data(spec.data)
            model = spec.model
            reach = (spec.data.name, model.cutoff)
            if model.cutoff is not None and reach not in checked:
                refuse_lone_atoms(store, model.cutoff, spec.data.name)
                checked.add(reach)
            refuse_unknown_elements(store, model.elements, spec)
            task = ForceField.of(spec, store, isolated, self.device)
            potential = build(model, spec.optim, spec.seed).to(task.device).train()
            ready.append((spec, task, potential, optimizer(potential, model, spec.optim)))
        seconds: dict[str, list[float]] = {spec.key: [] for spec in specs}
        for turn in range(ROUNDS):
            for spec, task, potential, made in ready:
                first = turn * (WARM + STEPS)
                steps = [s % spec.steps for s in range(first, first + WARM + STEPS)]
                with loading(task, spec.steps, self.ahead, task.device) as load:
                    taken = time_steps(task, potential, made, steps, spec.optim.clip, load)
                seconds[spec.key] += taken[WARM:]
                tell((turn, str(spec)))
        out = {}
        for spec, task, potential, _ in ready:
            sample = task.batch(task.train.take(np.arange(min(256, len(task.train)))))
            counts = sample.graph.counts
            n, body = count_parameters(potential)
            out[spec.key] = Timing(
                statistics.median(seconds[spec.key]),
                n,
                body,
                task.train.atoms / len(task.train),
                counts.edges / counts.atoms,
                spec.passes * spec.model.flops(counts) / counts.atoms,
            )
        return out


def refuse_unknown_elements(store: Store | Packed, elements: tuple[int, ...] | None, spec: RunSpec) -> None:
    """InputError where the data hold an element that the model has no row for."""
    missing = [z for z in store.elements if elements is not None and z not in elements]
    if missing:
        raise InputError(
            f"{spec.data.name!r} holds {', '.join(SYMBOLS[z] for z in missing)}, which the `elements` of the "
            f"{spec.model.kind} leave out: name these too, or leave `elements` unset."
        )


def refuse_lone_atoms(
    store: Store | Packed, cutoff: float | None, name: str, cure: str = "choose a larger cutoff"
) -> None:
    """InputError where the cutoff, if there is one, leaves an atom of a larger structure without any neighbour.

    Of more than ``LOOKED_AT`` structures a sample of so many is looked at: all neighbours of 34 million take an hour.
    """
    if cutoff is None:
        return
    for start in range(0, min(len(store), LOOKED_AT), 512):
        places = np.arange(start, min(start + 512, len(store), LOOKED_AT))
        chosen = places if len(store) <= LOOKED_AT else permuted(places, len(store), 0)
        piece = store.take(chosen)
        graph = build_graph(piece, cutoff)
        alone = (graph.degree == 0) & (graph.size.index_select(0, graph.structure) > 1)
        if bool(alone.any()):
            where = int(chosen[int(graph.structure[alone][0])])
            raise InputError(
                f"a cutoff of {cutoff:g} Å leaves an atom of structure {where} of {name!r} without neighbours: {cure}."
            )
