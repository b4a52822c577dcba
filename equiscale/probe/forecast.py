"""From what a probe found to hours, memory and advice, rung by rung and in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from equiscale.launch.packing import MARGIN, how_many_fit
from equiscale.probe.budget import look_need, need
from equiscale.probe.figures import Found, Kept, path_of
from equiscale.probe.machine import GIB
from equiscale.probe.study import Fit, Prober, Rung, between, fitting, kept_figures
from equiscale.progress import EVALUATION_SHARE, duration
from equiscale.results import Results
from equiscale.run import RunSpec

BUSY = 0.8
"""Of a core: with less the probe says that other work ran beside it."""


@dataclass(frozen=True)
class Line:
    """One rung. ``how``: measured | between (two measured rungs) | unknown; ``fit`` of measured ones only."""

    rung: Rung
    how: str
    parameters: int | None
    step_seconds: float | None
    seconds: float | None  # of one run, looks and tracking included
    share: float | None  # of it that is not training steps
    need: int | None  # bytes of a process
    fit: Fit | None
    advice: str = ""


@dataclass(frozen=True)
class Forecast:
    lines: tuple[Line, ...]
    device: str
    hardware: str
    workers: int
    limit: int  # bytes of the device, or of the machine for all workers
    core_share: float | None  # the least that a measured rung had of a core
    done: int  # runs that are recorded

    @property
    def each(self) -> int:
        """Bytes that a worker may take."""
        return self.limit // self.workers

    def device_seconds(self) -> float:
        """Of all runs, one after another; rungs of unknown time left out."""
        return sum(len(x.rung.runs) * (x.seconds or 0.0) for x in self.lines)

    def wall_seconds(self) -> float:
        """With the workers: each takes the longest run that is left."""
        busy = [0.0] * self.workers
        for seconds in sorted((x.seconds or 0.0 for x in self.lines for _ in x.rung.runs), reverse=True):
            busy[busy.index(min(busy))] += seconds
        return max(busy)

    def text(self) -> str:
        head = (
            f"{'architecture':<24}{'width':>6}{'seeds':>6}{'N':>12}{'steps':>9}{'ms/step':>9}{'a run':>9}"
            f"{'looks':>7}{'hours':>9}{'GiB':>7}  "
        )
        out = [head.rstrip()]
        for x in self.lines:
            spec = x.rung.spec
            hours = None if x.seconds is None else len(x.rung.runs) * x.seconds / 3600
            out.append(
                f"{spec.architecture:<24}{spec.model.width:>6}{len(x.rung.runs):>6}{_or(x.parameters, ','):>12}"
                f"{spec.steps:>9,}{_or(x.step_seconds and 1e3 * x.step_seconds, '.1f'):>9}"
                f"{'?' if x.seconds is None else duration(x.seconds):>9}{_or(x.share, '.0%'):>7}{_or(hours, '.3g'):>9}"
                f"{_or(x.need and x.need / GIB, '.2f'):>7}  {self._state(x)}"
            )
        runs = sum(len(x.rung.runs) for x in self.lines)
        unknown = sum(len(x.rung.runs) for x in self.lines if x.seconds is None)
        unit = "core" if self.device == "cpu" else "device"
        least = "at least " if unknown else ""
        out.append(
            f"{runs} runs ({self.done} recorded already): {least}{self.device_seconds() / 3600:.3g} {unit}-hours, "
            f"{least}{duration(self.wall_seconds())} with {_workers(self.workers)} on {self.hardware}."
        )
        if unknown:
            out.append(f"{unknown} runs have no time: their rung, or an end of their ladder, was not measured.")
        out.append(
            f"Memory: {self.limit / GIB:.3g} GiB, {self.each / GIB:.3g} for each worker, of which {MARGIN:.0%} are "
            "planned with. GiB is a process at its worst, on the largest batch of the order. looks: the part of a "
            "run's time that is no training step."
        )
        if self.core_share is not None and self.core_share < BUSY:
            out.append(
                f"The machine was busy: a rung's steps had {self.core_share:.0%} of a core, and alone they take about "
                "that part of their time. `--again` measures again."
            )
        if self.device != "cpu" and (fit := together(self.lines, self.limit)) > 1:
            out.append(f"{fit} of these runs fit on the device together: `--workers {fit}`.")
        return "\n".join([*out, *(x.advice for x in self.lines if x.advice)])

    def _state(self, line: Line) -> str:
        if line.fit is not None:
            return line.how if line.fit.fits else "does not fit"
        return line.how + (": does not fit" if (line.need or 0) > MARGIN * self.each else "")

    def to_dict(self) -> dict[str, Any]:
        rows = [
            {
                "key": x.rung.spec.key,
                "architecture": x.rung.spec.architecture,
                "width": x.rung.spec.model.width,
                "seeds": len(x.rung.runs),
                "steps": x.rung.spec.steps,
                "how": x.how,
                "parameters": x.parameters,
                "step_seconds": x.step_seconds,
                "run_seconds": x.seconds,
                "share_of_looks": x.share,
                "memory": x.need,
                "fits": None if x.fit is None else x.fit.fits,
                "atom_budget": None if x.fit is None else x.fit.budget,
                "advice": x.advice,
            }
            for x in self.lines
        ]
        return {
            "device": self.device,
            "hardware": self.hardware,
            "workers": self.workers,
            "memory": self.limit,
            "core_share": self.core_share,
            "device_hours": self.device_seconds() / 3600,
            "wall_hours": self.wall_seconds() / 3600,
            "fit_together": together(self.lines, self.limit),
            "runs": sum(len(x.rung.runs) for x in self.lines),
            "recorded": self.done,
            "rungs": rows,
        }


def together(lines: Sequence[Line], limit: int) -> int:
    """How many of these runs fit on the device at once; one of unknown memory takes all of it."""
    items = [(float(x.need or limit), x.seconds or 0.0) for x in lines for _ in x.rung.runs]
    return how_many_fit(items, limit)


def forecast(
    ladders: list[list[Rung]], prober: Prober, *, workers: int, limit: int, done: int = 0, tries: bool = True
) -> Forecast:
    """From what is kept; with ``tries``, a rung that does not fit is measured with a smaller batch (``fitting``)."""
    lines, kept = [], prober.kept
    tried = prober if tries else None
    for ladder in ladders:
        known = {r.spec.key: kept.found[r.spec.key] for r in ladder if r.spec.key in kept.found}
        fits = {
            r.spec.key: fitting(r, known[r.spec.key], limit // workers, tried) for r in ladder if r.spec.key in known
        }
        # A rung that ran out of memory takes the time that it took with the batch that fits.
        times = {key: fits[key].found or found if found.step_seconds is None else found for key, found in known.items()}
        for rung in ladder:
            lines.append(_line(rung, ladder, times, fits, kept, limit // workers))
    shares = [kept.found[r.spec.key].core_share for ladder in ladders for r in ladder if r.spec.key in kept.found]
    least = min((share for share in shares if share is not None), default=None)
    return Forecast(tuple(lines), prober.device, kept.device, workers, limit, least, done)


def _line(rung: Rung, ladder: list[Rung], times: dict[str, Found], fits: dict[str, Fit], kept: Kept, each: int) -> Line:
    spec = rung.spec
    size = kept.sizes.get(spec.key)
    parameters = None if size is None else size.parameters
    if spec.key in fits:
        found, fit = times[spec.key], fits[spec.key]
        seconds = found.seconds(spec)
        return Line(
            rung, "measured" if found.step_seconds is not None else "unknown", parameters, found.step_seconds, seconds,
            _share(found, spec), fit.need, fit, _advice(rung, found, fit, each),
        )  # fmt: skip
    place = ladder.index(rung)
    timed = [key for key, found in times.items() if found.step_seconds is not None]
    low = next((r for r in reversed(ladder[:place]) if r.spec.key in timed), None)
    high = next((r for r in ladder[place + 1 :] if r.spec.key in timed), None)
    if size is None or low is None or high is None:
        return Line(rung, "unknown", parameters, None, None, None, None, None)
    a, b = kept.sizes[low.spec.key].flops_per_atom, kept.sizes[high.spec.key].flops_per_atom
    share = (size.flops_per_atom - a) / (b - a) if b > a else 1.0
    found = between(times[low.spec.key], times[high.spec.key], share)
    needs = [need(times[r.spec.key]) for r in (low, high)]
    a_need, b_need = needs
    memory = None if a_need is None or b_need is None else round(a_need + share * (b_need - a_need))
    return Line(rung, "between", parameters, found.step_seconds, found.seconds(spec), _share(found, spec), memory, None)


def _share(found: Found, spec: RunSpec) -> float | None:
    seconds = found.seconds(spec)
    return None if not seconds or found.step_seconds is None else 1 - spec.steps * found.step_seconds / seconds


def _advice(rung: Rung, found: Found, fit: Fit, each: int) -> str:
    """One sentence, with the line to put into the study."""
    if fit.fits:
        return ""
    if found.ended and not found.memory_ran_out and fit.budget is None:
        return f"{rung} was not measured: {found.ended}."
    has = f"a worker may take {MARGIN * each / GIB:.3g} GiB"
    takes = "ran out of memory" if fit.need is None else f"takes {fit.need / GIB:.3g} GiB"
    if fit.budget is None:
        looks = look_need(found) + found.base
        if looks > MARGIN * each:
            return (
                f"{rung} {takes} and {has}: its looks alone take {looks / GIB:.3g} GiB, which no batch changes; use "
                "fewer workers or a larger device."
            )
        return (
            f"{rung} {takes} and {has}: no atom budget makes it fit; use fewer workers or a larger device, or leave "
            f"width {rung.spec.model.width} out of `widths`."
        )
    known = "" if fit.budget_need is None else (
        f" ({fit.budget_need / GIB:.3g} GiB, {'modelled' if fit.found is None else 'measured'})"
    )  # fmt: skip
    return (
        f"{rung} {takes} and {has}: it fits with `OptimSpec(..., atom_budget={fit.budget})`{known}, which changes "
        "rounding only; put it into the ladder's `optim`."
    )


def run_seconds(results: Results, device: str, runs: list[RunSpec], steps: dict[str, float]) -> dict[str, float]:
    """How long each run takes, by its key: as probed, looks included, or else by the seconds of its ``steps``."""
    out = {run.key: EVALUATION_SHARE * run.steps * steps[run.key] for run in runs}
    if path_of(results.folder).exists():
        found = kept_figures(results.folder, device).found
        for run in runs:
            # Seeds of one rung take equally long, and the first was probed.
            own = next((found[r.key] for r in runs if r.key in found and replace(r, seed=run.seed) == run), None)
            if own is not None and (seconds := own.seconds(run)) is not None:
                out[run.key] = seconds
    return out


def _or(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"
