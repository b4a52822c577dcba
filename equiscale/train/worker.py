"""What a launcher's process does: time every rung alone, or train one run. Loads a data set once and keeps it."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equiscale.claim import Busy, Lost, settle
from equiscale.data.layout import is_packed
from equiscale.data.order import permuted
from equiscale.data.packed import Packed, open_packed
from equiscale.data.sources import load, read_extxyz
from equiscale.data.store import Store
from equiscale.data.structure import SYMBOLS
from equiscale.errors import InputError
from equiscale.graph import build_graph
from equiscale.models.base import Potential, count_parameters
from equiscale.predict import refuse_missing_device
from equiscale.run import DataSpec, RunSpec, reader_options
from equiscale.train.ahead import loading
from equiscale.train.force_field import ForceField
from equiscale.train.loop import time_steps
from equiscale.train.memory import TooLarge, within_memory
from equiscale.train.optim import build, optimizer
from equiscale.train.provenance import hardware
from equiscale.train.record import set_precision, train

ROUNDS, STEPS, WARM = 3, 5, 2
"""Each rung is timed in this many rounds, every rung once a round, so that a drift of the machine meets all alike."""


LOOKED_AT = 100_000  # structures, for atoms without neighbours


@dataclass(frozen=True)
class TrainOne:
    """Train this run. ``step_seconds``: its rung's median step timed alone, on the hardware ``timed_on``.

    On other hardware, as clusters of unlike nodes have, they are left out of the record.
    """

    spec: RunSpec
    step_seconds: float | None = None
    shared_device: bool = False
    timed_on: str = ""  # empty: not noted, in a folder of an earlier version

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        return (self.spec,)

    def __str__(self) -> str:
        return str(self.spec)


@dataclass(frozen=True)
class TimeAll:
    """Check the data and time every one of these runs, nothing else running."""

    specs: tuple[RunSpec, ...]

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        return self.specs

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
    hardware: str = ""
    fits: bool = True  # else memory ran out, and the seconds are those of the largest rung that fits, by FLOPs


@dataclass
class Worker:
    """Picklable; called in the launcher's processes as ``worker(item, tell)``."""

    folder: Path
    device: str = "cpu"
    checkpoint_every: float = 15.0
    ahead: bool | None = None  # as ``train`` takes it
    places: dict[str, str] = field(default_factory=dict)  # where data lie, by their path or an earlier place
    _stores: dict[Any, tuple[Store | Packed, dict[int, float] | None]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, folder: Path, runs: Iterable[RunSpec], *more: Any) -> Worker:
        """One whose folder, which is made if need be, and data are found from any working directory."""
        folder.mkdir(parents=True, exist_ok=True)
        names = {run.data.name for run in runs}
        worker = cls(folder.absolute(), *more)
        worker.places |= {name: str(Path(name).absolute()) for name in names if Path(name).exists()}
        return worker

    def __call__(self, item: TrainOne | TimeAll, tell: Callable[[Any], None]) -> Any:
        if self.device == "cpu":
            torch.set_num_threads(1)
        refuse_missing_device(self.device)
        if isinstance(item, TimeAll):
            return self.time(item.specs, tell)
        store, isolated = self.data(item.spec.data)
        claim = settle(self.folder / f"{item.spec.key}.claim")
        if isinstance(claim, Busy):
            return claim
        with claim:
            if not (self.folder / f"{item.spec.key}.json").exists():  # else another worker was first
                run = partial(
                    train,
                    item.spec,
                    store,
                    self.folder,
                    isolated=isolated,
                    device=self.device,
                    step_seconds=item.step_seconds if item.timed_on in ("", hardware(self.device)) else None,
                    shared_device=item.shared_device,
                    tell=tell,
                    checkpoint_every=self.checkpoint_every,
                    ahead=self.ahead,
                    confirm=claim.confirm,
                )
                try:
                    within_memory(run, item.spec, self.device)
                except Lost:  # this process was stopped for long, and another one has gone on
                    return Busy("another worker")
            claim.done()
        return item.spec.key

    def needs(self, item: TrainOne | TimeAll) -> list[str]:
        """The paths of data that the item reads, each once; the built-in set has none."""
        names = dict.fromkeys(spec.data.name for spec in item.runs)
        return [self.place(name) for name in names if name != "builtin"]

    def refuse_machine(self, item: TrainOne | TimeAll) -> None:
        """InputError where this machine cannot do the item, though another one may: its device, its data."""
        refuse_missing_device(self.device)
        for spec in item.runs:
            self.data(spec.data)

    def place(self, name: str) -> str:
        """Where a source lies on this machine."""
        while self.places.get(name, name) != name:
            name = self.places[name]
        return name

    def data(self, spec: DataSpec) -> tuple[Store | Packed, dict[int, float] | None]:
        """The structures, and energies of isolated atoms where they are asked for; each source is read once.

        InputError where they are not those that the spec was declared with.
        """
        name = self.place(spec.name)
        key = name, spec.keys, spec.references  # isolated atoms come with the last
        if key not in self._stores:
            keys = reader_options(spec)
            isolated = None
            if spec.references == "isolated_atoms" and is_packed(name):
                isolated = open_packed(name).isolated
            elif spec.references == "isolated_atoms":
                own = {k: v for k, v in keys.items() if k not in ("blocks", "seed")}  # how it is split is load's
                isolated = read_extxyz(name, **own).isolated
            self._stores[key] = (load(name, **keys), isolated)
        found = self._stores[key][0].content_hash
        if spec.content_hash and found != spec.content_hash:
            raise InputError(
                f"the data at {name} on {platform.node()} are not those that the study was declared with (content "
                f"{found[:16]}, not {spec.content_hash[:16]}): put the same data there, or begin a study of these."
            )
        return self._stores[key]

    def time(self, specs: tuple[RunSpec, ...], tell: Callable[[Any], None]) -> dict[str, Timing]:
        """Median step seconds of every run, interleaved; refuses a cutoff that leaves atoms alone."""
        ready: dict[str, _Ready] = {}
        short: list[TooLarge] = []
        checked = set()
        for spec in specs:
            store, isolated = self.data(spec.data)
            model = spec.model
            reach = (spec.data.source, model.cutoff)
            if model.cutoff is not None and reach not in checked:
                refuse_lone_atoms(store, model.cutoff, spec.data.name)
                checked.add(reach)
            refuse_unknown_elements(store, model.elements, spec)
            make = partial(ForceField.of, spec, store, isolated, self.device)
            ready[spec.key] = _Ready(spec, within_memory(make, spec, self.device))
        for turn in range(ROUNDS):
            for one in ready.values():
                if one.fits:
                    try:
                        within_memory(partial(one.time, turn, self.ahead), one.spec, self.device)
                    except TooLarge as error:  # the others are timed, and trained
                        one.drop()
                        short.append(error)
                tell((turn, str(one.spec)))
        if len(short) == len(ready):
            raise short[0]
        return {key: one.timing(list(ready.values())) for key, one in ready.items()}


@dataclass
class _Ready:
    """A rung that is being timed."""

    spec: RunSpec
    task: ForceField
    made: tuple[Potential, Any] | None = None  # with its optimiser
    seconds: list[float] = field(default_factory=list)
    fits: bool = True

    def time(self, turn: int, ahead: bool | None) -> None:
        spec, task = self.spec, self.task
        set_precision(spec)
        if self.made is None:
            potential = build(spec.model, spec.optim, spec.seed).to(task.device).train()
            self.made = potential, optimizer(potential, spec.model, spec.optim)
        first = turn * (WARM + STEPS)
        steps = [s % spec.steps for s in range(first, first + WARM + STEPS)]
        with loading(task, spec.steps, ahead, task.device) as load:
            self.seconds += time_steps(task, *self.made, steps, spec.optim.clip, load)[WARM:]
        if task.device.type != "cpu":  # all rungs at once may not fit beside the largest: made anew each round
            self.made = None
            torch.cuda.empty_cache()

    def drop(self) -> None:
        """It does not fit: leave the memory to the others."""
        self.fits, self.made, self.seconds = False, None, []

    @cached_property
    def flops(self) -> tuple[float, float]:
        """Degree; FLOPs per atom."""
        sample = self.task.batch(self.task.train.take(np.arange(min(256, len(self.task.train)))))
        counts = sample.graph.counts
        return counts.edges / counts.atoms, self.spec.passes * self.spec.model.flops(counts) / counts.atoms

    @property
    def work(self) -> float:
        """FLOPs of a step."""
        task = self.task
        return self.flops[1] * self.spec.optim.batch_structures * task.train.atoms / len(task.train)

    def timing(self, all_: list[_Ready]) -> Timing:
        if self.fits:
            seconds = statistics.median(self.seconds)
        else:
            largest = max((one for one in all_ if one.fits), key=lambda one: one.work)
            seconds = statistics.median(largest.seconds) * self.work / largest.work
        with torch.device("meta"):
            n, body = count_parameters(self.spec.model.build())
        on = hardware(str(self.task.device))
        return Timing(seconds, n, body, self.task.train.atoms / len(self.task.train), *self.flops, on, self.fits)


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
