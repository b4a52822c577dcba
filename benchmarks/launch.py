"""What launchers cost: beside the training of a study, of very short items, and to read what many runs left.

    python benchmarks/launch.py [overhead] [scheduling] [loading] [--on local ray] [--quick]

overhead    A study of 12 rungs of similar length, trained by ``run_study`` with 2 workers in a fresh folder. The wall
            time of its training part, from when the first rungs are given to the launcher to when the last process has
            ended, less the start, over (sum of the rungs' times / workers). A rung's time is taken in its process. The
            start is taken apart, from the call to when the processes begin their first rungs (mean over the workers,
            over all calls of the launcher); so is beginning Ray, and timing the rungs. What remains above 1 is an
            idle worker at the end, the predictions, and the launcher. A ladder's largest rung waits for the ladder's
            others, so there are two ladders that take about as long.
scheduling  1,000 items that sleep 10 ms, on 2 persistent workers: (wall - start - what the sleeps take) / items.
loading     10,000 records as those of results/laptop: ``Results.records``, ``table``, looking whether each is done, and
            ``status``. A fresh process for each time, files in the page cache.

Other work on the machine shows in wall clocks, so load averages are recorded, and processor time where one process
works. Each part that was measured replaces its own in benchmarks/results/launch.json; ``--quick`` (short rungs, few
items and records) writes nothing unless ``--out`` is given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from equiscale.config import to_json  # noqa: E402
from equiscale.errors import InputError  # noqa: E402
from equiscale.ladder import Ladder, Study, largest  # noqa: E402
from equiscale.launch import Event, Launcher, Work, chosen  # noqa: E402
from equiscale.models import EGNNConfig, MPNNConfig  # noqa: E402
from equiscale.results import Results, status  # noqa: E402
from equiscale.run import DataSpec, OptimSpec, RunRecord, table  # noqa: E402

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/launch.json"
PARTS = ("overhead", "scheduling", "loading")
WORKERS, ITEMS, NAP, RECORDS = 2, 1_000, 0.010, 10_000
RATIO, PER_ITEM, LOAD = 1.10, 5e-3, 2.0
"""Wanted: at most; seconds an item, below; seconds, below."""


@dataclass
class Span:
    """What an item returned, and when and where: ``time.monotonic`` is one clock for all processes of a machine."""

    value: Any
    begun: float
    ended: float
    process: int


class Timed:
    """A work that also says when each item began and ended in its process."""

    def __init__(self, work: Work):
        self.work = work

    def __call__(self, item: Any, tell: Callable[[Any], None]) -> Span:
        begun = time.monotonic()
        value = self.work(item, tell)
        return Span(value, begun, time.monotonic(), os.getpid())

    def __getattr__(self, name: str) -> Any:
        """Whatever else a launcher asks of a work; nothing while it is unpickled, when there is none yet."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.work, name)


def nap(item: int, tell: Callable[[Any], None]) -> None:
    time.sleep(NAP)


@dataclass
class Call:
    """One call of a launcher."""

    items: Sequence[Any]
    begun: float
    ended: float
    spans: list[tuple[Any, Span]]
    deaths: int = 0

    @property
    def start(self) -> float:
        """From the call to when a process begins its first item, mean over the workers."""
        first: dict[int, float] = {}
        for _, span in self.spans:
            first[span.process] = min(span.begun, first.get(span.process, span.begun))
        return statistics.fmean(sorted(first.values())[:WORKERS]) - self.begun

    @property
    def idle(self) -> float:
        """Seconds at the end in which a worker had nothing to do, mean over the workers."""
        last: dict[int, float] = {}
        for _, span in self.spans:
            last[span.process] = max(span.ended, last.get(span.process, span.ended))
        ends = sorted(last.values())[-WORKERS:]
        return ends[-1] - statistics.fmean(ends)


class Watched:
    """A launcher whose calls are noted."""

    def __init__(self, launcher: Launcher):
        self.launcher = launcher
        self.calls: list[Call] = []

    @property
    def workers(self) -> int:
        return self.launcher.workers

    def __call__(self, work: Work, items: Sequence[Any]) -> Iterator[Event]:
        call = Call(items, time.monotonic(), 0.0, [])
        for event in self.launcher(Timed(work), items):
            call.deaths += event.kind == "died"
            if event.kind == "done":
                call.spans.append((event.item, event.value))
                event = Event("done", event.item, event.value.value)
            yield event
        call.ended = time.monotonic()
        self.calls.append(call)


def study(quick: bool) -> Study:
    """12 rungs of 30 to 70 s each, by how busy the machine is; EGNN's steps are dearer, so it takes fewer."""
    elements = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)
    preset = {"num_radial": 32, "elements": elements}
    kinds = (
        (MPNNConfig(depth=5, **preset), (8, 12, 16, 22, 30, 42), 20_000, OptimSpec(2e-2, 32, batch_structures=4)),
        (EGNNConfig(depth=4, **preset), (4, 6, 9, 12, 16, 20), 12_000, OptimSpec(1e-2, 16, batch_structures=4)),
    )
    ladders = tuple(
        Ladder(model, widths, DataSpec("builtin", structures=structures // (20 if quick else 1)), optim)
        for model, widths, structures, optim in kinds
    )
    return Study("launchers", ladders)


@contextlib.contextmanager
def engine(on: str, folder: Path) -> Iterator[tuple[Watched, float]]:
    """The launcher, and the seconds that its engine took to begin. Ray gets a cluster of its own, and no other's."""
    begun = time.perf_counter()
    if on == "ray":
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError:
            raise InputError("ray is not installed: pip install 'equiscale[ray]'.") from None
        ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    seconds = time.perf_counter() - begun
    try:
        yield Watched(chosen(on, WORKERS, folder)), seconds
    finally:
        if on == "ray":
            ray.shutdown()


def overhead(on: str, quick: bool) -> dict[str, Any]:
    from equiscale.study import run_study

    declared = study(quick)
    with tempfile.TemporaryDirectory() as folder, engine(on, Path(folder) / "study") as (launcher, begin):
        results = Results(Path(folder) / "study")
        begun = time.monotonic()
        run_study(declared, results, launcher=launcher, say=lambda text: print(text, flush=True))
        whole = time.monotonic() - begun
        records = results.records()
    timing, *phases = launcher.calls
    seconds = {str(item): s.ended - s.begun for call in phases for item, s in call.spans}
    assert len(seconds) == len(records) == 12
    total = sum(seconds.values())
    wall, start = phases[-1].ended - phases[0].begun, sum(call.start for call in phases)
    gap = wall - sum(call.ended - call.begun for call in phases)
    return {
        "seconds_of_rungs": {name: round(s, 2) for name, s in seconds.items()},
        "last_phase": sorted(str(run) for run in largest([r.spec for r in records])),
        "sum_s": total,
        "largest_share": max(seconds.values()) / total,
        "engine_s": begin,
        "timing_s": timing.ended - timing.begun,
        "start_s": start,
        "wall_s": wall,
        "between_phases_s": gap,
        "idle_at_ends_s": sum(call.idle for call in phases),
        "whole_s": whole,
        "deaths": sum(call.deaths for call in phases),
        "ratio": (wall - start) / (total / WORKERS),
    }


def scheduling(on: str, items: int, rounds: int) -> dict[str, Any]:
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, engine(on, Path(folder)) as (launcher, begin):
        for _ in range(rounds):
            load, processor = os.getloadavg()[0], time.process_time()
            done = sum(event.kind == "done" for event in launcher(nap, list(range(items))))
            processor = time.process_time() - processor
            assert done == items
            call = launcher.calls[-1]
            last = max(span.ended for _, span in call.spans)  # ending the processes is not scheduling
            slept = sum(span.ended - span.begun for _, span in call.spans)
            lost = last - call.begun - call.start - items * NAP / WORKERS
            found.append(
                {
                    "ms_per_item": 1e3 * lost / items,
                    "ms_processor_of_launcher": 1e3 * processor / items,
                    "ms_too_long_asleep": 1e3 * (slept / items - NAP),
                    "start_s": call.start,
                    "end_s": call.ended - last,
                    "load": load,
                }
            )
            print(found[-1], flush=True)
    names = [name for name in found[0] if name != "load"]
    return {"items": items, "engine_s": begin, "rounds": found, **medians(found, *names)}


def many(folder: Path, count: int) -> None:
    """A results folder of so many runs: the rungs of results/laptop, with other seeds."""
    source = Results(ROOT / "results/laptop")
    there = {(r.spec.model.kind, r.spec.model.width): r for r in source.records()}
    seeds = tuple(range(-(-count // len(there))))
    hashes = {r.spec.data.source: r.spec.data.content_hash for r in there.values()}
    ladders = tuple(
        replace(ladder, seeds=seeds, extra_seeds=(), widths=tuple(w for w in ladder.widths if (k, w) in there))
        for ladder in source.study().ladders
        if (k := ladder.model.kind) in {kind for kind, _ in there}
    )
    made = replace(source.study(), name="many", ladders=ladders)
    runs = made.runs(hashes)
    assert len(runs) == count, f"take a multiple of {len(there)} records"
    Results(folder).begin(made, runs)
    for run in runs:  # as ``save``, which waits for the disk each time
        record = replace(there[run.model.kind, run.model.width], spec=run)
        (folder / f"{run.key}.json").write_bytes(to_json(RunRecord, record))


def read(folder: Path) -> dict[str, float]:
    """Seconds to read a results folder in this process."""
    results, found = Results(folder), {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        value = work()
        found[f"{name}_s"] = time.perf_counter() - wall
        found[f"{name}_processor_s"] = time.process_time() - processor
        return value

    keys = timed("declared", results.declared)["runs"]
    timed("done", lambda: [results.done(key) for key in keys])
    records = timed("records", results.records)
    memory = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    found["peak_MB"] = int(next(memory).split()[1]) / 1024  # of this process; getrusage's can be its parent's
    rows, _ = timed("table", lambda: table(records))
    found["rows"] = len(rows["run"])
    for clock in ("s", "processor_s"):
        found[f"both_{clock}"] = found[f"records_{clock}"] + found[f"table_{clock}"]
    timed("status", lambda: status(results))
    return found


def loading(count: int, rounds: int) -> dict[str, Any]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        many(Path(folder), count)
        size = sum(p.stat().st_size for p in Path(folder).iterdir())
        for turn in range(rounds + 1):
            load = os.getloadavg()[0]
            command = [sys.executable, __file__, "--read", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            if turn:  # the first one fills the page cache
                found.append({**json.loads(done.stdout), "load": load})
                print(found[-1], flush=True)
    names = [name for name in found[0] if name != "load"]
    return {"records": count, "bytes_per_record": size / count, **medians(found, *names), "rounds": found}


def medians(rounds: list[dict[str, float]], *names: str) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in names}


def about() -> dict[str, Any]:
    """When, where and with what."""
    from importlib.metadata import PackageNotFoundError, version

    from equiscale.train.provenance import provenance

    where = {**provenance("cpu"), "cores": os.cpu_count()}
    with contextlib.suppress(PackageNotFoundError):
        where["ray"] = version("ray")
    return {"when": datetime.now(UTC).isoformat(timespec="minutes"), "load_before": os.getloadavg(), "where": where}


def measured(a: argparse.Namespace, part: str, on: str) -> dict[str, Any]:
    if part == "overhead":
        return overhead(on, a.quick)
    if part == "scheduling":
        return scheduling(on, 50 if a.quick else ITEMS, 1 if a.quick else a.rounds)
    return loading(200 if a.quick else RECORDS, 1 if a.quick else a.rounds)


def told(part: str, on: str, found: dict[str, Any]) -> str:
    if part == "overhead":
        return (
            f"{on}: {found['wall_s']:.1f} s, {found['start_s']:.1f} s of them start, for {found['sum_s']:.1f} s of "
            f"rungs (the longest {found['largest_share']:.0%}): {found['ratio']:.3f}, wanted at most {RATIO:g}"
        )
    if part == "scheduling":
        return f"{on}: {found['ms_per_item']:.2f} ms an item, wanted below {1e3 * PER_ITEM:g}"
    both = f"{found['records_s']:.2f} s, with their table {found['both_s']:.2f} s"
    return f"{found['records']:,} records: {both}, wanted below {LOAD:g}"


def main() -> None:
    if sys.argv[1:2] == ["--read"]:
        return print(json.dumps(read(Path(sys.argv[2]))))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--on", nargs="+", choices=("local", "ray"), default=["local", "ray"])
    parser.add_argument("--rounds", type=int, default=5, help="of scheduling and loading; medians are told")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    if wrong := set(a.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(wrong))}; there are {', '.join(PARTS)}")
    out = a.out or (None if a.quick else RESULT)
    result = json.loads(out.read_text()) if out and out.exists() else {}
    for part in a.parts or PARTS:
        for on in a.on if part != "loading" else [""]:
            begun = about()
            try:
                found = measured(a, part, on)
            except InputError as error:
                print(f"{part} on {on} is left out: {error}", flush=True)
                continue
            found = {**begun, "load_after": os.getloadavg(), **found}
            print(told(part, on, found), flush=True)
            where = result.setdefault(part, {}) if on else result
            where[on or part] = found
            if out:  # after each: the next may take minutes
                out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    from launch import main as by_name  # what is sent to other processes must be found there by this name

    by_name()
