"""What every figure and table starts from: the table cut into curves, the facts, and the analyses."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from equiscale.errors import InputError
from equiscale.laws.noise_floor import Floor, noise_floors
from equiscale.laws.results import Analysis, Architecture, Surface
from equiscale.report import style
from equiscale.report.drawing import Key, Mark, Rule, Strip
from equiscale.report.tracks import Track

BRIEF = {"molecules": "new molecules", "conformers": "new conformers"}
SETS = {"molecules": "new molecules", "conformers": "new conformers of training molecules"}
NEEDED = ("run", "architecture", "width", "N", "D", "C")


@dataclass(frozen=True)
class Curve:
    """One run: its rows of the table by D ascending. A column the table lacks reads as nan."""

    run: str
    architecture: str
    width: int
    seed: int
    N: float
    columns: Mapping[str, np.ndarray] = field(repr=False)

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column] if column in self.columns else np.full(len(self.columns["D"]), np.nan)

    def at(self, column: str, D: float) -> float:
        """The column at D atoms seen, by linear interpolation of logarithms; nan outside the run."""
        x, y = self["D"], self[column]
        keep = (x > 0) & (y > 0)
        if not keep.any() or not x[keep][0] * 0.999 <= D <= x[keep][-1] * 1.001:
            return math.nan
        return float(np.exp(np.interp(math.log(D), np.log(x[keep]), np.log(y[keep]))))

    def last(self, column: str) -> float:
        values = self[column][np.isfinite(self[column])]
        return float(values[-1]) if len(values) else math.nan


@dataclass(frozen=True)
class Material:
    """A study as the report reads it. `analyses` by validation set; laws are shown for the first of them."""

    table: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    analyses: Mapping[str, Analysis]
    tracks: tuple[Track, ...] = ()

    @classmethod
    def of(
        cls, table: Mapping[str, Any], facts: Mapping[str, Any] | None, analyses: Any, tracks: Sequence[Track] = ()
    ) -> Material:
        """From what a user hands over: one analysis, or one per validation set."""
        if isinstance(analyses, Analysis):
            analyses = {str(analyses.settings.get("validation", "molecules")): analyses}
        lacking = [c for c in NEEDED if c not in table]
        if lacking:
            raise InputError(f"The table has no column {', '.join(lacking)}: a report needs {', '.join(NEEDED)}.")
        if not analyses:
            raise InputError("There is no analysis to report on: pass that of at least one validation set.")
        ordered = {k: _withheld(analyses[k]) for k in sorted(analyses, key=lambda k: (k != "molecules", k))}
        return cls({k: np.asarray(v) for k, v in table.items()}, facts or {}, ordered, tuple(tracks))

    @property
    def set(self) -> str:
        """The validation set whose fits are shown."""
        return next(iter(self.analyses))

    @property
    def main(self) -> Analysis:
        return self.analyses[self.set]

    @property
    def other(self) -> tuple[str, Analysis] | None:
        """The validation set that stands beside, if there is one."""
        rest = list(self.analyses.items())[1:]
        return rest[0] if rest else None

    @property
    def loss(self) -> str:
        """The loss column of the main set."""
        return f"loss_{self.set}"

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        """All runs, by architecture, N and seed."""
        runs, result = np.asarray(self.table["run"]).astype(str), []
        for run in dict.fromkeys(runs.tolist()):
            rows = np.flatnonzero(runs == run)
            rows = rows[np.argsort(np.asarray(self.table["D"], float)[rows], kind="stable")]
            columns = {k: np.asarray(v)[rows].astype(float) for k, v in self.table.items() if _numeric(v)}
            seed = int(columns["seed"][0]) if "seed" in columns else 0
            name = str(np.asarray(self.table["architecture"])[rows[0]])
            result.append(Curve(run, name, int(columns["width"][0]), seed, float(columns["N"][0]), columns))
        return tuple(sorted(result, key=lambda c: (style.rank(c.architecture), c.N, c.seed)))

    @cached_property
    def architectures(self) -> tuple[str, ...]:
        """In the order of the paper's main table, then by name."""
        names = set(self.main.architectures) | {c.architecture for c in self.curves}
        return tuple(sorted(names, key=style.rank))

    def laws(self, architecture: str) -> Architecture | None:
        return self.main.architectures.get(architecture)

    def of_architecture(self, architecture: str) -> tuple[Curve, ...]:
        return tuple(c for c in self.curves if c.architecture == architecture)

    def trivial(self, part: str = "loss", validation: str = "") -> float | None:
        """The trivial predictor's loss: per-element energies and zero force."""
        validation = validation or self.set
        given = self.facts.get("trivial")
        value = style.finite((given.get(validation) or {}).get(part)) if isinstance(given, Mapping) else None
        if value is None and part == "loss" and validation in self.analyses:
            value = style.finite(self.analyses[validation].trivial)
        return value

    @cached_property
    def floors(self) -> Mapping[str, Floor | None]:
        return noise_floors(self.main.architectures.values())

    def scatter(self, architecture: str, column: str) -> float | None:
        """The noise floor's standard deviation of ln(column): over seeds, else of L what fits or other ladders tell
        (`noise_floors`)."""
        seeds = self.noise(architecture, column)
        floor = self.floors.get(architecture)
        if seeds or column != self.loss or floor is None:
            return seeds
        return style.finite(floor.run) or None

    def noise(self, architecture: str, column: str) -> float | None:
        """Standard deviation of ln(column) over seeds at the last evaluation, pooled over rungs with two or more."""
        laws = self.laws(architecture)
        if column == self.loss and laws is not None and style.finite(laws.noise.std) is not None:
            return style.finite(laws.noise.std)
        ends: dict[int, list[float]] = {}
        for curve in self.of_architecture(architecture):
            value = curve.last(column)
            if value > 0:
                ends.setdefault(curve.width, []).append(math.log(value))
        several = [v for v in ends.values() if len(v) > 1]
        degrees = sum(len(v) - 1 for v in several)
        return math.sqrt(sum(np.var(v) * len(v) for v in several) / degrees) if degrees else None


def _withheld(analysis: Analysis) -> Analysis:
    """Where new molecules are the limit a slope in D says nothing: no β, and no γ or D*(C) from one."""
    limited = {n: a for n, a in analysis.architectures.items() if a.freshness.verdict == "molecule-limited"}
    if not limited:
        return analysis
    reason = "molecule-limited: no exponent is given."
    bare = {
        name: replace(
            laws,
            allocation=None,
            cutoffs=(),
            frontiers={k: replace(f, fit=None, estimates={}, reason=reason) for k, f in laws.frontiers.items()},
        )
        for name, laws in limited.items()
    }
    return replace(analysis, architectures={**analysis.architectures, **bare})


def drawn_surface(laws: Architecture | None) -> Surface | None:
    """The surface as far as it may be drawn: one whose β was withheld may not."""
    return laws.surface if laws is not None and laws.surface is not None and "beta" in laws.surface.estimates else None


def _numeric(values: Any) -> bool:
    return np.asarray(values).dtype.kind in "iufb"


def shades(curves: tuple[Curve, ...]) -> dict[float, str]:
    """The colour of each size of one architecture."""
    if not curves:
        return {}
    return {
        n: style.shade(curves[0].architecture, 0.08 + 0.92 * p) for n, p in style.places([c.N for c in curves]).items()
    }


def shade_key(architecture: str, curves: tuple[Curve, ...]) -> Key:
    """The legend entry of an architecture whose sizes are shades."""
    colours = shades(curves)
    sizes = sorted(colours)
    ends = (style.short(sizes[0]), style.short(sizes[-1])) if sizes else ("", "")
    label = style.name_of(architecture)
    if len(sizes) < 2:
        return Key(architecture, label, style.hue(architecture), kind="line")
    key = Key(architecture, f"{label}, N", style.hue(architecture), kind="shades", ends=ends)
    return Key(**{**key.__dict__, "colours": tuple(colours[n] for n in sizes)})


def describe(curve: Curve, row: int, column: str) -> str:
    """One evaluation in words, for the reader who points at it (plotly's pseudo-HTML, escaped)."""
    name = html.escape(style.name_of(curve.architecture))
    lines = [f"<b>{name}</b> w = {curve.width}, seed {curve.seed}"]
    lines.append(f"N = {style.short(curve.N)} · D = {style.short(curve['D'][row])} atoms")
    lines.append(f"C = {style.number(curve['C'][row])} FLOP")
    hours = curve["H_train"][row]
    if math.isfinite(hours):
        lines[-1] += f" · H = {style.number(hours)} h"
    lines.append(f"{_column_name(column)} = {style.number(curve[column][row])}")
    return "<br>".join(lines)


def _column_name(column: str) -> str:
    part, _, rest = column.partition("_loss_") if "_loss_" in column else ("", "", column)
    return f"{part} part of L" if part else "L" if rest.startswith("loss") else rest


def reference_marks(material: Material, column: str, architectures: tuple[str, ...], part: str = "loss") -> list[Mark]:
    """The two lines of every loss figure: the trivial predictor, and the noise floor about the least loss."""
    marks: list[Mark] = []
    validation = column.rsplit("_", 1)[-1]
    trivial = material.trivial(part, validation)
    if trivial is not None and trivial > 0:
        text = f"trivial predictor {style.number(trivial)}"
        marks.append(Rule(trivial, "y", style.QUIET, "dash", "trivial", text, side="right", above=True))
    ends = [v for c in material.curves if c.architecture in architectures for v in c[column] if v > 0]
    spreads = [(s, a) for a in architectures if (s := material.scatter(a, column))]
    if ends and spreads:
        best, (spread, whose) = min(ends), max(spreads)
        low, high = best * math.exp(-2 * spread), best * math.exp(2 * spread)
        # Of a study that repeats the rungs of some ladders only, each panel says what its strip is.
        mixed = len({bool(material.noise(a, column)) for a in material.architectures}) > 1
        of = f" ({'over seeds' if material.noise(whose, column) else 'between runs'})" if mixed else ""
        text = f"2 noise floors{of}: ±{style.percent(2 * spread)}"
        marks.append(Strip(low, high, "y", style.QUIET, "noise", text, opacity=0.2))
    return marks


def reference_keys(material: Material, column: str, part: str = "loss") -> tuple[Key, ...]:
    """Their legend entries: of what there is to draw."""
    keys = []
    if material.trivial(part, column.rsplit("_", 1)[-1]) is not None:
        keys.append(Key("trivial", "trivial predictor", style.QUIET, "line", "dash"))
    told = [a for a in material.architectures if material.scatter(a, column)]
    if told:
        repeated = [bool(material.noise(a, column)) for a in told]
        source = "over seeds" if all(repeated) else "between runs"
        if any(repeated) and not all(repeated):
            source = "over seeds; of ladders with one seed, between runs"
        keys.append(Key("noise", f"two noise floors about the least loss (s.d. {source})", style.QUIET, "band"))
    return tuple(keys)


def reference_notes(material: Material, column: str, part: str = "loss") -> tuple[str, ...]:
    """What of the two lines is missing, in words."""
    notes = []
    if material.trivial(part, column.rsplit("_", 1)[-1]) is None:
        notes.append("The trivial predictor's loss is not in the records, so its line is missing.")
    alone = [a for a in material.architectures if not material.noise(a, column)]
    floors = material.floors if column == material.loss else {}
    told = {a: floor for a in alone if material.scatter(a, column) and (floor := floors.get(a))}
    fitted = [a for a, floor in told.items() if floor.of == (a,)]
    pooled = [a for a in told if a not in fitted]
    silent = [a for a in alone if a not in told]
    once = "no rung was trained with two seeds or more"
    if fitted:
        text = f"{once}, so it is the scatter between runs that the surface fit found"
        notes.append(f"Noise floor of {_names(fitted)}: {text}.")
    if pooled:
        floor = told[pooled[0]]
        text = "over seeds" if floor.seeds else "between runs"
        which = f"it is the scatter {text} of {_names(floor.of)}, pooled"
        notes.append(f"Noise floor of {_names(pooled)}: {once}, and a fit to so few runs tells none, so {which}.")
    if silent and column == material.loss:
        notes.append(f"No noise floor for {_names(silent)}: {once}, and no fit to four runs or more tells it.")
    elif silent:
        notes.append(f"No noise floor for {_names(silent)}: {once}.")
    return tuple(notes)


def _names(architectures: Sequence[str]) -> str:
    return ", ".join(style.name_of(a) for a in architectures)
