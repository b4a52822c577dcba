"""Tracked runs as the report reads them: the loss decomposition along each, in plain arrays."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from equiscale.laws.correlation import Correlation, log_correlation
from equiscale.laws.dips import Dip, dip
from equiscale.report import style
from equiscale.run import RunRecord, SymmetryPoint

COLUMNS = tuple(f.name for f in fields(SymmetryPoint))  # type: ignore[arg-type]  # a dataclass by `config`


@dataclass(frozen=True)
class Track:
    """One run's points by step; what a look did not measure reads as nan."""

    run: str
    architecture: str
    width: int
    seed: int
    N: float
    look: style.Look
    columns: Mapping[str, np.ndarray] = field(repr=False)

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    @property
    def relative(self) -> np.ndarray:
        """L_equiv over the mean squared prediction: what an output that is near zero does not make small."""
        return _ratio(self["equiv"], self["size"])

    @property
    def relative_error(self) -> np.ndarray:
        return _ratio(self["equiv_error"], self["size"])

    @property
    def loss_ratio(self) -> np.ndarray:
        """ε = L_equiv / L_mean by way of the percentage."""
        return _ratio(self["percent"], 100 - self["percent"])

    @property
    def gradient_ratio(self) -> np.ndarray:
        """Of squared norms; nan where the estimate of the denominator is not positive."""
        return _ratio(self["gradient_equiv"], np.where(self["gradient_mean"] > 0, self["gradient_mean"], np.nan))

    def last(self, values: np.ndarray) -> float:
        """The last finite one."""
        there = values[np.isfinite(values)]
        return float(there[-1]) if len(there) else float("nan")

    @property
    def dip(self) -> Dip:
        return dip(self["step"], self["percent"], self["percent_error"])

    @property
    def name(self) -> str:
        return f"{self.architecture} w={self.width} seed={self.seed}"

    def describe(self, row: int, *lines: str) -> str:
        """One point in words, for the reader who points at it (plotly's pseudo-HTML, escaped)."""
        head = f"<b>{html.escape(style.name_of(self.architecture))}</b> w = {self.width}, seed {self.seed}"
        step, seen = self["step"][row], self["structures"][row]
        return "<br>".join([head, f"step {style.count(step)} · {style.short(seen)} structures", *lines])


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.full(len(a), np.nan)
    np.divide(a, b, out=out, where=np.isfinite(a) & np.isfinite(b) & (b != 0))
    return out


def tracks_of(records: Iterable[RunRecord]) -> tuple[Track, ...]:
    """The tracked runs among those of a study's table, which neither diverged nor began with another run's weights."""
    found = []
    records = [r for r in records if r.status != "diverged" and r.spec.start is None]
    looks = style.apart((r.spec.architecture for r in records), markers=True)
    for record in (r for r in records if r.symmetry):
        points = sorted(record.symmetry, key=lambda p: p.step)
        columns = {
            name: np.array([np.nan if (v := getattr(p, name)) is None else v for p in points], float)
            for name in COLUMNS
        }
        spec, name = record.spec, record.spec.architecture
        size = float(record.parameters)
        found.append(Track(spec.key, name, spec.model.width, spec.seed, size, looks[name], columns))
    return tuple(sorted(found, key=lambda t: (style.rank(t.architecture), t.N, t.seed)))


def gradient_correlation(tracks: Sequence[Track]) -> Correlation:
    """‖∇L_equiv‖² / ‖∇L_mean‖² with L_equiv / L_mean (fig. 7 of the second paper): both of the same run and look."""
    measured = [(t, np.isfinite(t["gradient_mean"])) for t in tracks]
    return _correlation([(t, t.loss_ratio[m], t.gradient_ratio[m]) for t, m in measured])


def head_correlation(tracks: Sequence[Track]) -> Correlation:
    """‖W - W̄‖² of a free EScAIP head with L_equiv."""
    measured = [(t, np.isfinite(t["head"])) for t in tracks]
    return _correlation([(t, t["head"][m], t["equiv"][m]) for t, m in measured])


def _correlation(parts: Sequence[tuple[Track, np.ndarray, np.ndarray]]) -> Correlation:
    parts = [p for p in parts if len(p[1])]
    x, y = (np.concatenate([p[i] for p in parts]) if parts else np.zeros(0) for i in (1, 2))
    names = [p[0].name for p in parts for _ in p[1]]
    return log_correlation(x, y, names)


def measured(tracks: Sequence[Track], column: str) -> tuple[Track, ...]:
    """Those tracks that have a column at all."""
    return tuple(t for t in tracks if np.isfinite(t[column]).any())


def by_architecture(tracks: Sequence[Track]) -> dict[str, tuple[Track, ...]]:
    """By the name that tables give, variants apart."""
    names = dict.fromkeys(t.architecture for t in tracks)
    return {name: tuple(t for t in tracks if t.architecture == name) for name in names}
