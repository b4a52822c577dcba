"""Running a study: rungs timed, runs trained by a launcher, the largest rung predicted before it trains."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from equiscale.claim import Busy
from equiscale.errors import InputError, need
from equiscale.ladder import Study, largest
from equiscale.launch import Failed, Launcher, Local, Waiting, result, shared
from equiscale.laws import predict_largest
from equiscale.probe.forecast import run_seconds
from equiscale.progress import Board
from equiscale.results import Results
from equiscale.run import RunRecord, RunSpec, Sets, Source, checkpoint_path, load, reader_options, table


def data_hashes(study: Study) -> dict[Source, str]:
    """Content hash of every data set of the study; the built-in set's is on its card, so nothing is loaded for it."""
    try:
        from equiscale.data.builtin import card
        from equiscale.data.sources import load as load_data
    except ImportError as error:
        raise need("train", error) from None
    hashes: dict[Source, str] = {}
    for ladder in study.ladders:
        name, source = ladder.data.name, ladder.data.source
        if source not in hashes:
            hashes[source] = (
                card()["content_hash"]
                if name == "builtin"
                else load_data(name, **reader_options(ladder.data)).content_hash
            )
    return hashes


def run_study(
    study: Study,
    results: Results,
    *,
    launcher: Launcher,
    device: str = "cpu",
    say: Callable[[str], None],
    live: Callable[[str], None] = lambda text: None,
    checkpoint_every: float = 15.0,
    ahead: bool | None = None,
    again: str = "the same command",
) -> bool:
    """Train every run that has no record yet. Returns whether anything was left to do.

    Longest first; a ladder's largest rung once the ladder's others are done and it is predicted, on disk. A run that
    fails does not stop the others: at the end InputError names what failed, and the command that tries it ``again``.
    """
    runs = study.runs(data_hashes(study))
    results.begin(study, runs)
    missing = [run for run in runs if not results.done(run.key)]
    if not missing:
        return False
    from equiscale.train.worker import TimeAll, TrainOne, Worker

    with results.alone():
        say(f"{study.name}: {len(runs)} runs, {len(runs) - len(missing)} recorded, {len(missing)} to train")
        worker = Worker.of(results.folder, runs, device, checkpoint_every, ahead)
        timings = results.timings()
        untimed = _one_per_rung([run for run in runs if _timed_as(run, runs) not in timings], runs)
        if untimed:
            live("timing every rung alone …")
            # A mistake that concerns every rung, such as missing data, shows here and ends the study at once.
            timings = results.add_timings(result(launcher(worker, [TimeAll(tuple(untimed))]), _timing(live)))
        seconds = {run.key: timings[_timed_as(run, runs)]["step_seconds"] for run in runs}
        board = Board(results, {run.key: run for run in missing}, seconds, lambda: launcher.workers, say, live)
        expected = run_seconds(results, device, runs, seconds)
        crowded = device != "cpu" and launcher.workers > 1 and not getattr(launcher, "device_each", False)
        failed = Failed(lambda item, text: results.add_error(item.spec.key, text))

        def item(run: RunSpec) -> TrainOne:
            timing = timings[_timed_as(run, runs)]
            return TrainOne(run, _alone(timing), crowded, timing.get("hardware", ""))

        def foretell(last: list[RunSpec]) -> None:
            new = _unpredicted(results, last)
            if new and results.records():
                predictions = predict(results, new, timings, runs)
                results.add_predictions(results.predictions() + predictions)
                for prediction in predictions:
                    if prediction["validation"] == "molecules":
                        say(prediction["text"])

        climb = _Climb(runs, missing, item, lambda item: -expected[item.spec.key], foretell)
        try:
            for event in failed.watch(shared(launcher, worker, climb.waiting, results.claim, results.recorded)):
                board.on(event)
                if event.kind == "done":
                    results.drop_error(event.item.spec.key)
                if event.kind in ("done", "failed"):
                    climb.ended(event.item.spec)
        finally:
            board.end()
        failed.refuse(len(missing), again)
    return True


class _Climb:
    """Runs that are missing, as they may begin: a ladder's largest when its others have ended and it is foretold."""

    def __init__(
        self,
        runs: list[RunSpec],
        missing: list[RunSpec],
        item: Callable[[RunSpec], Any],
        order: Callable[[Any], float],
        foretell: Callable[[list[RunSpec]], None],
    ):
        self.waiting = Waiting()
        self.item, self.order, self.foretell = item, order, foretell
        self._last: dict[str, list[RunSpec]] = {}  # by ladder
        for run in largest(runs):
            self._last.setdefault(run.architecture, []).append(run)
        last = {run.key for run in largest(runs)}
        self._missing = {run.key for run in missing}
        self._before: dict[str, set[str]] = {run.architecture: set() for run in runs}
        for run in missing:
            if run.key not in last:
                self._before[run.architecture].add(run.key)
        self._put([run for run in missing if run.key not in last])
        for name in [name for name, before in self._before.items() if not before]:
            self._end(name)

    def ended(self, run: RunSpec) -> None:
        before = self._before[run.architecture]
        if run.key in before:
            before.discard(run.key)
            if not before:
                self._end(run.architecture)

    def _end(self, name: str) -> None:
        """The ladder's rungs below the largest have ended."""
        if new := [run for run in self._last.get(name, ()) if run.key in self._missing]:
            self.foretell(self._last[name])
            self._put(new)

    def _put(self, runs: list[RunSpec]) -> None:
        self.waiting += [self.item(run) for run in runs]
        self.waiting.sort(key=self.order)


def _timing(live: Callable[[str], None]) -> Callable[[Any], None]:
    return lambda told: live(f"timing every rung alone: round {told[0] + 1} of 3, {told[1]}")


def _unpredicted(results: Results, last: list[RunSpec]) -> list[RunSpec]:
    """Runs of largest rungs that have no prediction, as long as none of the rung's runs has been trained."""
    known = {(p["architecture"], p["width"]) for p in results.predictions()}
    seen = {(r.architecture, r.model.width) for r in last if results.done(r.key)}
    return [r for r in last if (r.architecture, r.model.width) not in known | seen]


def retime(results: Results, *, device: str = "cpu", ahead: bool | None = None, live: Callable[[str], None]) -> str:
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
    worker = Worker(results.folder, device, ahead=ahead)
    with results.alone():
        before = results.timings()
        timings = results.add_timings(
            result(Local(1)(worker, [TimeAll(tuple(_one_per_rung(runs, runs)))]), _timing(live))
        )
        lines = []
        for record in records:
            name = _timed_as(record.spec, runs)
            if _alone(timings[name]) is None:
                lines.append(f"  {record.spec!s:<24} does not fit into memory here: its record stays as it is")
                continue
            save(replace(record, step_seconds=timings[name]["step_seconds"]), results.folder)
            if name == record.spec.key:
                old = before.get(name, {}).get("step_seconds")
                was = "" if old is None else f" (before: {1e3 * old:.2f})"
                lines.append(f"  {record.spec!s:<24}{1e3 * timings[name]['step_seconds']:8.2f} ms a step{was}")
    live("")
    return "\n".join(lines)


def predict(
    results: Results, last: list[RunSpec], timings: dict[str, dict[str, Any]], runs: list[RunSpec]
) -> list[dict[str, Any]]:
    """What the smaller rungs say of each architecture's largest, for each validation set, before it is trained."""
    records = results.records()
    rows, _ = table(records)
    predictions = []
    for run in {r.architecture: r for r in last}.values():
        timing = timings[_timed_as(run, runs)]
        atoms = run.steps * run.optim.batch_structures * timing["atoms"]
        for validation, law in product(Sets, ("sum_power", "plateau")):
            try:
                made = predict_largest(
                    rows,
                    run.architecture,
                    width=run.model.width,
                    N=timing["parameters"],
                    D=atoms,
                    validation=validation,
                    law=law,
                    trivial=getattr(records[0], f"trivial_{validation}").loss,
                )
            except ValueError as error:  # too few rungs learned: the report says that there was no prediction
                about = {"architecture": run.architecture, "width": run.model.width, "validation": validation}
                if law == "sum_power":  # a ladder without a plateau is nothing to be told of
                    predictions.append({**about, "text": str(error)})
                continue
            predictions.append({**made.to_dict(), "validation": validation})
    return predictions


def _timed_as(run: RunSpec, runs: list[RunSpec]) -> str:
    """The run whose timing stands for this one: seeds of one rung take equally long."""
    return next(r.key for r in runs if _timed_parts(r) == _timed_parts(run))


def _alone(timing: dict[str, Any]) -> float | None:
    """A rung's median step, timed alone; None where it was not, or did not fit and is estimated."""
    return timing.get("step_seconds") if timing.get("fits", True) else None


def _timed_parts(run: RunSpec) -> tuple[Any, ...]:
    return run.model, run.optim, run.data, run.remedy, run.dtype


def _one_per_rung(chosen: list[RunSpec], runs: list[RunSpec]) -> list[RunSpec]:
    wanted = {_timed_as(run, runs) for run in chosen}
    return [run for run in runs if run.key in wanted]


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
    chosen = [
        r
        for r in runs
        if r.model.width == width and r.seed == seed and architecture in (None, r.model.kind, r.architecture)
    ]
    if len(chosen) != 1:
        there = ", ".join(str(r) for r in runs)
        what = "no run" if not chosen else "several runs"
        raise InputError(f"the study {study.name!r} has {what} with width {width} and seed {seed}; it has: {there}.")
    results.begin(study, runs)
    run = chosen[0]
    if not results.done(run.key):
        from equiscale.train.worker import TrainOne, Worker, refuse_lone_atoms, refuse_unknown_elements

        def tell(p: Any) -> None:
            live(f"{run}: step {p.step} of {p.steps}" + ("" if p.loss is None else f", L {p.loss:.3f}"))

        worker = Worker(results.folder, device)
        store, _ = worker.data(run.data)  # `run` checks this when it times the rungs
        refuse_lone_atoms(store, run.model.cutoff, run.data.name)
        refuse_unknown_elements(store, run.model.elements, run)
        timing = results.timings().get(run.key, {})
        got = worker(TrainOne(run, _alone(timing), timed_on=timing.get("hardware", "")), tell)
        if isinstance(got, Busy):
            raise InputError(f"{run} is trained by {got.holder}: wait for it, or stop it.")
        live("")
    return told(load(results.folder / f"{run.key}.json"), results.folder)


def told(record: RunRecord, folder: Path) -> str:
    """One run's outcome for a person: status, size and compute, both validation sets, where the weights are."""
    m, c = record.final_molecules, record.final_conformers
    at = f", D {record.curve[-1].atoms:,} atoms, C {record.curve[-1].flops_model:.3g} FLOP" if record.curve else ""
    return (
        f"{record.spec}: {record.status}{': ' + record.reason if record.reason else ''}\n"
        f"  N {record.parameters:,}{at}\n"
        f"  new molecules   L {m.loss:.4f}  energy {m.energy_mae:.1f} meV/atom  forces {m.force_mae:.0f} meV/Å\n"
        f"  new conformers  L {c.loss:.4f}  energy {c.energy_mae:.1f} meV/atom  forces {c.force_mae:.0f} meV/Å"
        + ("" if record.status == "diverged" else f"\n  weights: {checkpoint_path(folder, record.spec.key)}")
    )
