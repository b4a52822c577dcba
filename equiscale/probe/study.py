"""Probing a study: which rungs, each in a process of its own, and what is kept of them in its results folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from equiscale.errors import InputError
from equiscale.ladder import Study
from equiscale.launch.packing import MARGIN
from equiscale.probe import figures
from equiscale.probe.budget import largest_that, need
from equiscale.probe.figures import Ask, Found, Kept
from equiscale.probe.process import alone
from equiscale.results import Results
from equiscale.run import RunSpec, Source, resolved


@dataclass(frozen=True)
class Rung:
    """One width of a ladder: its runs differ in seed alone, and the first stands for them."""

    ladder: int
    runs: tuple[RunSpec, ...]

    @property
    def spec(self) -> RunSpec:
        return self.runs[0]

    def __str__(self) -> str:
        return f"{self.spec.architecture} w={self.spec.model.width}"


def rungs_of(study: Study, hashes: dict[Source, str]) -> list[list[Rung]]:
    """The rungs of every ladder, smallest first."""
    study.runs(hashes)  # refuses the same run twice
    ladders = []
    for i, ladder in enumerate(study.ladders):
        by_width: dict[int, list[RunSpec]] = {}
        for run in ladder.runs():
            by_width.setdefault(run.model.width, []).append(resolved(run, hashes[run.data.source]))
        ladders.append([Rung(i, tuple(runs)) for runs in by_width.values()])
    return ladders


TRIES = 4
"""Budgets that are measured at most for a rung that does not fit."""


@dataclass(frozen=True)
class Fit:
    """Whether a rung fits, and the atom budget that does where its own does not (None: none does)."""

    fits: bool
    need: int | None  # bytes of the whole process; None: more than was there
    budget: int | None = None
    budget_need: int | None = None
    found: Found | None = None  # measured with that budget; None: modelled


def kept_figures(folder: Path, device: str) -> Kept:
    """Of this device and this torch; what was found elsewhere says nothing here."""
    from importlib.metadata import version

    where = Kept(device=_hardware(device), torch=version("torch"))
    kept = figures.read(folder)
    return kept if kept is not None and (kept.device, kept.torch) == (where.device, where.torch) else where


def _hardware(device: str) -> str:
    from equiscale.train.provenance import hardware

    if device != "cpu":  # of a processor the name is known without torch: asking again takes no time
        from equiscale.predict import refuse_missing_device

        refuse_missing_device(device)
    return hardware(device)


@dataclass
class Prober:
    """Measures rungs, each in a process of its own, and keeps every figure on disk as soon as it is there."""

    ladders: list[list[Rung]]
    results: Results
    device: str
    say: Callable[[str], None]
    live: Callable[[str], None]
    enforce: int | None = None  # bytes that a process may take beyond its data, on a CPU
    measure: Callable[..., None] | None = None  # the tests' own

    def __post_init__(self) -> None:
        self.kept = kept_figures(self.results.folder, self.device)

    def ends(self, everything: bool, again: bool) -> None:
        """The smallest and the largest rung of every ladder, or ``everything``; ``again``: also what is known."""
        if again:
            self.kept = replace(self.kept, found={}, sizes={})
        wanted = [r for ladder in self.ladders for r in (ladder if everything else (ladder[-1], *ladder[:-1][:1]))]
        for i, rung in enumerate(wanted):
            self.live(f"probing {rung} ({i + 1} of {len(wanted)}) …")
            self(rung)
        self.live("")

    def __call__(self, rung: Rung) -> Found:
        """What is known of it, or measured now. A rung that fails is told, and the others go on."""
        known = self.kept.found.get(rung.spec.key)
        if known is not None and _holds(known, self.enforce):
            return known
        measure = self.measure
        if measure is None:
            from equiscale.probe.measure import measure
        assert measure is not None
        others = tuple(r.spec for r in self.ladders[rung.ladder] if r.spec.model != rung.spec.model)
        with self.results.alone():
            fields: dict[str, Any] = {}
            ask = Ask(rung.runs, self.device, others, self.enforce)
            end = alone(measure, ask, fields.update, 1 if self.device == "cpu" else None)
            if end.kind == "refused":
                raise InputError(end.value)
            sizes = fields.pop("sizes", {})
            if end.kind in ("died", "failed"):
                fields.update(ended=end.value, memory_ran_out=end.killed)
            found = Found(**fields)
            if found.ended:
                self.say(f"  {rung}: {found.ended}")
            self.kept = replace(
                self.kept,
                found={**self.kept.found, rung.spec.key: found},
                sizes={**self.kept.sizes, **sizes},
            )
            figures.write(self.results.folder, self.kept)
        return found


def _holds(found: Found, enforce: int | None) -> bool:
    """Whether what was found needs no second look: all of it, or memory that ran out with no less than there is."""
    if not found.ended:
        return True
    if not found.memory_ran_out or (found.enforced is None) != (enforce is None):
        return False
    return found.enforced is None or enforce is None or enforce <= found.enforced


def fitting(
    rung: Rung,
    found: Found,
    limit: int,
    tried: Callable[[Rung], Found] | None,
) -> Fit:
    """Whether the rung fits into ``limit`` bytes with a margin; if not, the largest atom budget with which it does.

    It is sought on the line through the measured points. ``tried`` measures the rung with another budget: then what is
    named was seen to fit, or the next smaller budgets are tried.
    """
    room = MARGIN * limit
    whole = None if _short(found) else need(found)
    if whole is not None and whole <= room:
        return Fit(True, whole)
    work = dict(found.budgets)
    largest = max(work.values(), default=0.0)

    def modelled(budget: int) -> bool:
        n = need(found, work[budget])
        return n is not None and n <= room and not (whole is None and work[budget] >= largest)

    budgets = sorted(work) if found.points else []
    chosen = largest_that(modelled, budgets)
    if chosen is None:
        return Fit(False, whole)
    if tried is None:
        return Fit(False, whole, chosen, need(found, work[chosen]))
    for budget in [b for b in reversed(budgets) if b <= chosen][:TRIES]:
        other = tried(with_budget(rung, budget))
        taken = None if other.ended else need(other)
        if taken is not None and taken <= room:
            return Fit(False, whole, budget, taken, other)
    return Fit(False, whole)


def with_budget(rung: Rung, budget: int) -> Rung:
    """The rung as the study would declare it with this atom budget: other keys, the same results but for rounding."""
    runs = (replace(run, optim=replace(run.optim, atom_budget=budget)) for run in rung.runs)
    return Rung(rung.ladder, tuple(runs))


def _short(found: Found) -> bool:
    """Memory ran out before the largest batch was measured."""
    return found.memory_ran_out


def between(low: Found, high: Found, share: float) -> Found:
    """Figures of a rung between two measured ones, ``share`` of the way in FLOPs per atom."""

    def at(name: str) -> Any:
        a, b = getattr(low, name), getattr(high, name)
        return None if a is None or b is None else type(b)(a + share * (b - a))

    names = (
        *("base", "step_seconds", "start_seconds", "first_look_seconds", "look_seconds", "final_seconds"),
        *("track_seconds", "kept", "kept_final", "look_memory"),
    )
    return Found(limit=high.limit, **{name: at(name) for name in names})
