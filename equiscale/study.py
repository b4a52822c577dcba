"""Running a study: rungs timed, runs trained by a launcher, the largest rung predicted before it trains."""

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from equiscale.config import from_json, to_json
from equiscale.errors import InputError, need
from equiscale.files import write_atomically
from equiscale.ladder import Study, largest
from equiscale.launch import Event, local_processes
from equiscale.laws import predict_largest
from equiscale.run import SCHEMA, RunRecord, RunSpec, Sets, load, load_losses, reader_options, table

EVALUATION_SHARE = 1.3
"""A run takes about this much longer than its steps: looks, the final evaluation and loading (for estimates only)."""


def data_hashes(study: Study) -> dict[str, str]:
    """Content hash of every data set of the study; the built-in set's is on its card, so nothing is loaded for it."""
    try:
        from equiscale.data.builtin import card
        from equiscale.data.sources import load as load_data
    except ImportError as error:
        raise need("train", error) from None
    hashes = {}
    for ladder in study.ladders:
        name = ladder.data.name
        if name not in hashes:
            hashes[name] = (
                card()["content_hash"]
                if name == "builtin"
                else load_data(name, **reader_options(ladder.data)).content_hash
            )
    return hashes


class Results:
    """A study's results folder: what is recorded, what is missing, and the small files beside the records."""

    def __init__(self, folder: Path):
        self.folder = folder

    def begin(self, study: Study, runs: list[RunSpec]) -> None:
        """Note the study as declared; refuse a folder of another study or version."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file: choose another results folder.")
        if self._path("study").exists():
            name = self.declared()["study"]["name"]
            if name != study.name:
                raise InputError(f"{self.folder} holds the study {name!r}, not {study.name!r}: choose another folder.")
        elif self.folder.is_dir() and (strange := self._strangers({run.key for run in runs})):
            raise InputError(
                f"{self.folder} has no study.json, and {strange} records that are not of the study {study.name!r}: "
                "choose another results folder."
            )
        about = {
            "schema": SCHEMA,
            "study": json.loads(to_json(Study, study)),
            "runs": [run.key for run in runs],
        }
        text = json.dumps(about, indent=1)
        if not self._path("study").exists() or self._path("study").read_text() != text:
            write_atomically(self._path("study"), text.encode())

    def declared(self) -> dict[str, Any]:
        """study.json, its version checked."""
        if not self.folder.is_dir() or not self._path("study").exists():
            raise InputError(
                f"{self.folder} is not a results folder (no study.json): name one that `equiscale run` wrote."
            )
        about = self._read("study")
        if not isinstance(about, dict) or "schema" not in about:
            raise InputError(f"{self._path('study')} is damaged: remove it and run the study again.")
        if about["schema"] != SCHEMA:
            raise InputError(
                f"{self.folder} was written with schema version {about['schema']}, this equiscale reads {SCHEMA}: "
                "use the equiscale that wrote it, or another results folder."
            )
        if not isinstance(about.get("study"), dict) or "name" not in about["study"] or not about.get("runs"):
            raise InputError(f"{self._path('study')} is damaged: remove it and run the study again.")
        return about

    def _strangers(self, keys: set[str]) -> int:
        return sum(len(p.stem) == 16 and p.stem not in keys for p in self.folder.glob("*.json"))

    def study(self) -> Study:
        return from_json(Study, json.dumps(self.declared()["study"]), str(self._path("study")))

    def done(self, key: str) -> bool:
        return (self.folder / f"{key}.json").exists()

    def records(self) -> list[RunRecord]:
        """The records of the study's runs that are there."""
        keys = self.declared()["runs"]
        records = [load(self.folder / f"{key}.json") for key in keys if self.done(key)]
        return sorted(records, key=lambda r: (r.spec.model.kind, r.spec.model.width, r.spec.seed))

    def timings(self) -> dict[str, dict[str, float]]:
        return self._read("timing") if self._path("timing").exists() else {}

    def add_timings(self, new: dict[str, Any]) -> dict[str, dict[str, float]]:
        timings = {**self.timings(), **{key: asdict(value) for key, value in new.items()}}
        write_atomically(self._path("timing"), json.dumps(timings, indent=1).encode())
        return timings

    def predictions(self) -> list[dict[str, Any]]:
        return self._read("prediction") if self._path("prediction").exists() else []

    def add_predictions(self, predictions: list[dict[str, Any]]) -> None:
        write_atomically(self._path("prediction"), json.dumps(predictions, indent=1).encode())

    def tuning(self) -> dict[str, Any] | None:
        return self._read("tuning") if self._path("tuning").exists() else None

    def live(self) -> dict[str, Any]:
        """What the running launcher last said, or nothing."""
        return self._read("progress") if self._path("progress").exists() else {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One launcher per folder and machine; a killed one's lock goes with it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another `equiscale run` works on {self.folder}: wait for it, or see `equiscale status`."
                ) from None
            yield

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> Any:
        try:
            return json.loads(self._path(name).read_text())
        except (OSError, ValueError):
            raise InputError(f"{self._path(name)} is damaged: remove it and run the study again.") from None


def run_study(
    study: Study,
    results: Results,
    *,
    workers: int,
    device: str = "cpu",
    say: Callable[[str], None],
    live: Callable[[str], None] = lambda text: None,
    checkpoint_every: float = 15.0,
) -> bool:
    """Train every run that has no record yet. Returns whether anything was left to do.

    All rungs but the largest first, longest first; then the largest are predicted, on disk, and trained.
    """
    runs = study.runs(data_hashes(study))
    results.begin(study, runs)
    missing = [run for run in runs if not results.done(run.key)]
    if not missing:
        return False
    from equiscale.train.worker import TimeAll, TrainOne, Worker

    with results.alone():
        say(f"{study.name}: {len(runs)} runs, {len(runs) - len(missing)} recorded, {len(missing)} to train")
        worker = Worker(results.folder, device, checkpoint_every)
        timings = results.timings()
        untimed = _one_per_rung([run for run in runs if _timed_as(run, runs) not in timings], runs)
        if untimed:
            live("timing every rung alone …")
            for event in local_processes(worker, [TimeAll(tuple(untimed))], 1):
                if event.kind == "progress":
                    live(f"timing every rung alone: round {event.value[0] + 1} of 3, {event.value[1]}")
                if event.kind == "done":
                    timings = results.add_timings(event.value)
        seconds = {run.key: timings[_timed_as(run, runs)]["step_seconds"] for run in runs}
        board = Board(results, {run.key: run for run in missing}, seconds, workers, say, live)
        last = {run.key for run in largest(runs)}
        shared = device != "cpu" and workers > 1

        def climb(chosen: list[RunSpec]) -> None:
            chosen = sorted(chosen, key=lambda run: -seconds[run.key] * run.steps)
            items = [TrainOne(run, seconds[run.key], shared) for run in chosen]
            for event in local_processes(worker, items, workers):
                board.on(event)

        climb([run for run in missing if run.key not in last])
        if last and not results.predictions():
            predictions = predict(results, [run for run in runs if run.key in last], timings, runs)
            results.add_predictions(predictions)
            for prediction in predictions:
                if prediction["validation"] == "molecules":
                    say(prediction["text"])
        climb([run for run in missing if run.key in last])
        board.end()
    return True


def retime(results: Results, *, device: str = "cpu", live: Callable[[str], None]) -> str:
    """Time every rung again, alone, and put the new medians into the records: for a machine that was busy before.

    Only clock fields change. Refused on other hardware than the records were made on.
    """
    from equiscale.run import save
    from equiscale.train.provenance import hardware
    from equiscale.train.worker import TimeAll, Worker

    records = results.records()
    here, there = hardware(device), {r.provenance.get("hardware", "") for r in records}
    if there - {here}:
        raise InputError(f"the records were made on {', '.join(sorted(there))}, this is {here}: time them there.")
    runs = [r.spec for r in records]
    with results.alone():
        for event in local_processes(Worker(results.folder, device), [TimeAll(tuple(_one_per_rung(runs, runs)))], 1):
            if event.kind == "progress":
                live(f"timing every rung alone: round {event.value[0] + 1} of 3, {event.value[1]}")
            if event.kind == "done":
                before, timings = results.timings(), results.add_timings(event.value)
        lines = []
        for record in records:
            name = _timed_as(record.spec, runs)
            save(replace(record, step_seconds=timings[name]["step_seconds"]), results.folder)
            if name == record.spec.key:
                old = before.get(name, {}).get("step_seconds")
                was = "" if old is None else f" (before: {1e3 * old:.2f})"
                lines.append(f"  {record.spec!s:<24}{1e3 * timings[name]['step_seconds']:8.2f} ms a step{was}")
    live("")
    return "\n".join(lines)


def predict(
    results: Results, last: list[RunSpec], timings: dict[str, dict[str, float]], runs: list[RunSpec]
) -> list[dict[str, Any]]:
    """What the smaller rungs say of each architecture's largest, for each validation set, before it is trained."""
    rows, _ = table(results.records())
    predictions = []
    for run in {r.model.kind: r for r in last}.values():
        timing = timings[_timed_as(run, runs)]
        atoms = run.steps * run.optim.batch_structures * timing["atoms"]
        for validation in Sets:
            try:
                made = predict_largest(
                    rows,
                    run.model.kind,
                    width=run.model.width,
                    N=timing["parameters"],
                    D=atoms,
                    validation=validation,
                )
            except ValueError as error:  # too few rungs learned: the report says that there was no prediction
                predictions.append({"architecture": run.model.kind, "validation": validation, "text": str(error)})
                continue
            predictions.append({**made.to_dict(), "validation": validation})
    return predictions


def _timed_as(run: RunSpec, runs: list[RunSpec]) -> str:
    """The run whose timing stands for this one: seeds of one rung take equally long."""
    return next(r.key for r in runs if r.model == run.model and r.optim == run.optim and r.data == run.data)


def _one_per_rung(chosen: list[RunSpec], runs: list[RunSpec]) -> list[RunSpec]:
    wanted = {_timed_as(run, runs) for run in chosen}
    return [run for run in runs if run.key in wanted]


class Board:
    """Live progress with a time estimate, for the terminal and for `equiscale status`."""

    def __init__(self, results, missing, seconds, workers, say, live):
        self.results, self.missing, self.seconds, self.workers = results, missing, seconds, workers
        self.say, self.live = say, live
        self.steps = dict.fromkeys(missing, 0)
        self.losses: dict[str, float] = {}
        self.finished: set[str] = set()
        self.running: dict[str, float] = {}
        self.written = 0.0
        self.started = time.monotonic()

    def on(self, event: Event) -> None:
        key = event.item.spec.key
        if event.kind == "started":
            self.running[key] = time.monotonic()
        elif event.kind == "progress":
            self.steps[key] = event.value.step
            if event.value.loss is not None:
                self.losses[key] = event.value.loss
        elif event.kind == "died":
            self.say(f"  {event.item}: its process died ({event.value}); it goes on from its checkpoint")
        elif event.kind == "done":
            self.finished.add(key)
            self.steps[key] = self.missing[key].steps
            record = load(self.results.folder / f"{key}.json")
            took = time.monotonic() - self.running.pop(key)
            what = "" if record.status == "ok" else f"  [{record.status}: {record.reason}]"
            self.say(
                f"  {event.item!s:<22} N {record.parameters:>9,}  L {record.final_molecules.loss:.4f}"
                f"  {took:5.0f} s  ({len(self.finished)}/{len(self.missing)}, {self.left()} left){what}"
            )
        self.show()

    def left(self) -> str:
        work = [
            (self.missing[k].steps - self.steps[k]) * self.seconds[k] for k in self.missing if k not in self.finished
        ]
        # The longest run bounds the time from below, however many workers there are.
        return duration(EVALUATION_SHARE * max(sum(work) / self.workers, max(work, default=0.0)))

    def show(self) -> None:
        parts = [
            f"{self.missing[k].model.kind} w={self.missing[k].model.width} {self.steps[k]}/{self.missing[k].steps}"
            + (f" L={self.losses[k]:.3f}" if k in self.losses else "")
            for k in self.running
        ]
        self.live(f"{len(self.finished)}/{len(self.missing)} done, {self.left()} left | " + " | ".join(parts))
        if time.monotonic() - self.written > 2:
            self.written = time.monotonic()
            about = {
                "running": {k: self.steps[k] for k in self.running},
                "left": self.left(),
                "at": time.time(),
            }
            partial = self.results.folder / "progress.partial"
            try:
                partial.write_text(json.dumps(about))
                partial.replace(self.results.folder / "progress.json")
            except OSError:
                pass  # only a convenience for `status`; records are what counts

    def end(self) -> None:
        (self.results.folder / "progress.json").unlink(missing_ok=True)
        self.live("")


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def facts(results: Results, records: list[RunRecord], dropped: list[dict[str, Any]]) -> dict[str, Any]:
    """What the report says besides the table: data, baselines, machine, predictions, tuning."""
    study = results.study()
    first = records[0]
    spec = first.spec
    kinds = sorted({r.spec.model.kind for r in records})
    trivial = {
        name: {
            part: getattr(getattr(first, f"trivial_{name}"), part)
            for part in ("loss", "energy_loss", "force_loss", "energy_mae", "force_mae")
        }
        for name in Sets
    }
    atoms = [r.curve[-1].atoms for r in records if r.curve]
    return {
        "study": study.name,
        "title": study.title,
        "description": study.description,
        "data": {
            "name": spec.data.name,
            "hash": spec.data.content_hash,
            "label": data_label(spec.data.name),
            "num_train": spec.data.structures,
            "atoms": max(atoms, default=0),
            "epochs": spec.data.epochs,
            "augment": spec.data.augment,
        },
        "trivial": trivial,
        "sigma": first.sigma,
        "mu": first.mu,
        "machine": first.provenance.get("hardware", "unknown"),
        "hardware": sorted({r.provenance.get("hardware", "unknown") for r in records}),
        "versions": {k: v for k, v in first.provenance.items() if k != "hardware"},
        "batch_size": {k: _first(records, k).spec.optim.batch_structures for k in kinds},
        "learning_rate": {k: _first(records, k).spec.optim.learning_rate for k in kinds},
        "base_width": {k: _first(records, k).spec.optim.base_width for k in kinds},
        "width_rule": {k: _first(records, k).spec.optim.width_rule for k in kinds},
        "config": {k: json.loads(to_json(RunRecord, _first(records, k)))["spec"]["model"] for k in kinds},
        "final": {
            r.spec.key: {
                "status": r.status,
                "reason": r.reason,
                "molecules": asdict(r.final_molecules),
                "conformers": asdict(r.final_conformers),
                "step_seconds": r.step_seconds,
                "shared_device": r.shared_device,
            }
            for r in records
        },
        "D_max": float(max(atoms, default=0)),
        "exclude_below": study.exclude_below,
        "runs_declared": len(results.declared()["runs"]),
        "runs_recorded": len(records),
        "dropped": dropped,
        "predictions": results.predictions(),
        "tuning": results.tuning(),
    }


def _made(prediction: dict[str, Any], validation: str) -> bool:
    return prediction["validation"] == validation and "loss" in prediction


def _of_set(prediction: dict[str, Any]) -> dict[str, Any]:
    """A prediction as the laws know it: which set it is of is ours."""
    return {k: v for k, v in prediction.items() if k != "validation"}


def data_label(name: str) -> str:
    """The level of theory that labels a data set, where it is known."""
    return "GFN2-xTB" if name == "builtin" else "as labelled in the file"


def _first(records: list[RunRecord], kind: str) -> RunRecord:
    return next(r for r in records if r.spec.model.kind == kind)


def analyses(results: Results, **options: Any) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """(table, facts, analysis per validation set) of a results folder; InputError where nothing is recorded."""
    from equiscale.laws import analyse

    records = results.records()
    if not records:
        raise InputError(f"{results.folder} holds no record yet: `equiscale run` its study first.")
    rows, dropped = table(records)
    if not rows:
        raise InputError(f"every run in {results.folder} diverged: lower the learning rate and run again.")
    about = facts(results, records, dropped)
    losses = load_losses(results.folder, [r.spec.key for r in records])
    options.setdefault("exclude_below", about["exclude_below"])
    made = {}
    for name in Sets:
        own = {**about, "predictions": [_of_set(p) for p in about["predictions"] if _made(p, name)]}
        made[name] = analyse(rows, own, validation=name, losses=losses, **options)
    return rows, about, made


def status(results: Results) -> str:
    """One line per run: recorded, running or waiting; for another terminal while a study runs, or afterwards."""
    about = results.declared()
    study = results.study()
    live = results.live()
    fresh = live and time.time() - live["at"] < 60
    lines = []
    for run, key in zip((r for ladder in study.ladders for r in ladder.runs()), about["runs"]):
        if results.done(key):
            record = load(results.folder / f"{key}.json")
            state = f"recorded  L {record.final_molecules.loss:.4f}" + (
                "" if record.status == "ok" else f"  {record.status}: {record.reason}"
            )
        elif fresh and key in live["running"]:
            state = f"running   step {live['running'][key]} of {run.steps}"
        elif (results.folder / f"{key}.ckpt" / "unfinished.pt").exists():
            state = "stopped   goes on from its checkpoint"
        else:
            state = "waiting"
        lines.append(f"  {run!s:<24} {key}  {state}")
    done = sum(results.done(key) for key in about["runs"])
    head = f"{study.name}: {done} of {len(about['runs'])} runs recorded"
    return "\n".join([head + (f", about {live['left']} left" if fresh else ""), *lines])


def train_one(
    study: Study,
    results: Results,
    *,
    architecture: str | None,
    width: int,
    seed: int,
    device: str,
    live: Callable[[str], None],
) -> str:
    """Train one run of a study in this process; its record is the study's."""
    runs = study.runs(data_hashes(study))
    chosen = [r for r in runs if r.model.width == width and r.seed == seed and architecture in (None, r.model.kind)]
    if len(chosen) != 1:
        there = ", ".join(str(r) for r in runs)
        what = "no run" if not chosen else "several runs"
        raise InputError(f"the study {study.name!r} has {what} with width {width} and seed {seed}; it has: {there}.")
    results.begin(study, runs)
    run = chosen[0]
    if not results.done(run.key):
        from equiscale.train.worker import TrainOne, Worker

        def tell(p: Any) -> None:
            live(f"{run}: step {p.step} of {p.steps}" + ("" if p.loss is None else f", L {p.loss:.3f}"))

        Worker(results.folder, device)(TrainOne(run, results.timings().get(run.key, {}).get("step_seconds")), tell)
        live("")
    record = load(results.folder / f"{run.key}.json")
    m, c = record.final_molecules, record.final_conformers
    return (
        f"{run}: {record.status}{': ' + record.reason if record.reason else ''}\n"
        f"  N {record.parameters:,}, D {record.curve[-1].atoms:,} atoms, C {record.curve[-1].flops_model:.3g} FLOP\n"
        f"  new molecules   L {m.loss:.4f}  energy {m.energy_mae:.1f} meV/atom  forces {m.force_mae:.0f} meV/Å\n"
        f"  new conformers  L {c.loss:.4f}  energy {c.energy_mae:.1f} meV/atom  forces {c.force_mae:.0f} meV/Å\n"
        f"  weights: {results.folder / (run.key + '.ckpt')}"
    )
