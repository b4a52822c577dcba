"""What a study will cost, one line per rung, before anything is trained."""

from collections.abc import Callable

from equiscale.errors import InputError
from equiscale.ladder import Study
from equiscale.launch import local_processes, result
from equiscale.probe import GIB, available_memory
from equiscale.probe.forecast import Forecast, forecast, together
from equiscale.probe.study import Prober, rungs_of
from equiscale.progress import EVALUATION_SHARE, duration
from equiscale.results import Results
from equiscale.study import data_hashes


def dry_run(study: Study, results: Results, workers: int, live: Callable[[str], None]) -> str:
    """N, D, κ, FLOPs and estimated time of every rung. Times a few steps of each, trains nothing, writes nothing."""
    from equiscale.train.worker import TimeAll, Worker

    runs = study.runs(data_hashes(study))
    rungs = {(r.model, r.optim, r.data, r.remedy): r for r in reversed(runs)}  # the first seed stands for its rung
    live("timing a few steps of every rung …")
    chosen = tuple(r for r in runs if r in rungs.values())
    timings = result(local_processes(Worker(results.folder), [TimeAll(chosen)], 1))
    live("")
    head = (
        f"{'architecture':<24}{'width':>6}{'depth':>6}{'seeds':>6}{'N':>12}{'body':>12}{'D (atoms)':>12}{'steps':>8}"
        f"{'kappa':>8}{'C (FLOP)':>11}{'ms/step':>9}{'time':>9}"
    )
    lines, total, longest = [head], 0.0, 0.0
    for run in chosen:
        t = timings[run.key]
        mine = run.model, run.optim, run.data, run.remedy
        seeds = sum((r.model, r.optim, r.data, r.remedy) == mine for r in runs)
        atoms = run.steps * run.optim.batch_structures * t.atoms
        seconds = EVALUATION_SHARE * run.steps * t.step_seconds
        total, longest = total + seeds * seconds, max(longest, seconds)
        lines.append(
            f"{run.architecture:<24}{run.model.width:>6}{run.model.depth:>6}{seeds:>6}{t.parameters:>12,}"
            f"{t.parameters_body:>12,}{atoms:>12,.0f}{run.steps:>8,}{t.flops_per_atom / t.parameters:>8.1f}"
            f"{3 * t.flops_per_atom * atoms:>11.2e}{1e3 * t.step_seconds:>9.1f}{duration(seconds):>9}"
        )
    wall = max(total / workers, longest)
    done = sum(results.done(run.key) for run in runs)
    lines.append(
        f"{len(runs)} runs ({done} recorded already), {duration(total)} of one thread, "
        f"about {duration(wall)} with {workers} worker{'s' if workers > 1 else ''}."
    )
    lines.append("C is 3 × forward FLOPs of the published formulation; times are medians of timed steps, alone.")
    return "\n".join(lines)


def probe(
    study: Study,
    results: Results,
    *,
    workers: int,
    device: str = "cpu",
    everything: bool = False,
    again: bool = False,
    memory: float | None = None,
    say: Callable[[str], None],
    live: Callable[[str], None],
) -> Forecast:
    """Measure the ends of every ladder (``everything``: every rung) on the device, and say what the study takes there.

    ``memory``: GiB to plan with instead of the device's, or the machine's for all workers. What was measured lies in
    the results folder and is not measured ``again`` unless that is asked for.
    """
    if memory is not None and not 0 < memory < float("inf"):
        raise InputError(f"--memory is in GiB and must be positive, not {memory:g}.")
    ladders = rungs_of(study, data_hashes(study))
    if (results.folder / "study.json").exists() and (name := results.declared()["study"]["name"]) != study.name:
        raise InputError(f"{results.folder} holds the study {name!r}, not {study.name!r}: choose another folder.")
    here = available_memory() if device == "cpu" else None
    prober = Prober(ladders, results, device, say, live, here)
    prober.ends(everything, again)
    limit = round(memory * GIB) if memory is not None else _memory(prober)
    if limit is None:
        raise InputError("this system does not say how much memory there is: give --memory in GiB.")
    done = sum(results.done(run.key) for ladder in ladders for rung in ladder for run in rung.runs)
    return forecast(ladders, prober, workers=workers, limit=limit, done=done)


def _memory(prober: Prober) -> int | None:
    """Bytes that the device, or the machine, has for all workers."""
    if prober.device == "cpu":
        return available_memory()
    limits = [found.limit for found in prober.kept.found.values() if found.limit is not None]
    return max(limits, default=None)


def automatic_workers(study: Study, results: Results, device: str, cores: int) -> tuple[int, str]:
    """How many runs to train at once, and why: as many as a probe found to fit, one for each core at most on a CPU.

    Without a probe one run at a time on a GPU: nothing is known of its memory.
    """
    silent: Callable[[str], None] = lambda text: None  # noqa: E731
    ladders = rungs_of(study, data_hashes(study))
    prober = Prober(ladders, results, device, silent, silent)
    limit = _memory(prober)
    lines = () if limit is None else forecast(ladders, prober, workers=1, limit=limit, tries=False).lines
    if limit is None or any(line.need is None for line in lines):
        if device == "cpu":
            return cores, f"{cores} workers, one for each core"
        return 1, f"1 worker: {results.folder} holds no probe of every ladder on {device} (`dry-run --probe`)"
    fit = max(1, together(lines, limit))
    if device == "cpu" and fit >= cores:
        return cores, f"{cores} workers, one for each core"
    return fit, f"{fit} worker{'s' if fit > 1 else ''}: so many of the probed runs fit at once"
