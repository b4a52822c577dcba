"""From a study's table, whatever made it, to the rows of one architecture that a law may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from equiscale.laws.allocation import PerAtom, linear_cost, measured_cost
from equiscale.laws.results import Dropped, Rung

Table = Mapping[str, np.ndarray]
NEEDED = ("run", "architecture", "width", "N", "D", "C")
FLAT = 0.10  # kappa is flat when every width lies this close to their geometric mean


def columns(table: Table, loss: str) -> dict[str, np.ndarray]:
    """The table with what is optional filled in; a missing column is one sentence."""
    missing = [name for name in (*NEEDED, loss) if name not in table]
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {', '.join(sorted(table))}.")
    out = {name: np.asarray(value) for name, value in table.items()}
    rows = len(out["run"])
    for name, value in out.items():
        if len(value) != rows:
            raise ValueError(f"column {name!r} has {len(value)} rows and 'run' {rows}: they must agree.")
    for name in ("N", "D", "C", loss):
        out[name] = out[name].astype(float)
    out.setdefault("seed", np.zeros(rows, int))
    out.setdefault("step", out["D"])
    out.setdefault("N_body", out["N"])
    for name in ("C_executed", "H_train"):
        out.setdefault(name, np.full(rows, np.nan))
    out.setdefault("structures", np.full(rows, np.nan))
    return out


@dataclass(frozen=True)
class Rows:
    """One architecture: its usable rows, before the exclusion by D (`keep` applies it)."""

    name: str
    columns: dict[str, np.ndarray]
    loss: str  # the column that is fitted
    dropped: tuple[Dropped, ...]

    def __len__(self) -> int:
        return len(self.columns["run"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @property
    def y(self) -> np.ndarray:
        return self.columns[self.loss]

    @property
    def x(self) -> dict[str, np.ndarray]:
        return {"N": self.columns["N"], "D": self.columns["D"]}

    def where(self, mask: np.ndarray) -> Rows:
        return Rows(self.name, {k: v[mask] for k, v in self.columns.items()}, self.loss, self.dropped)

    def above(self, d_min: float) -> Rows:
        """Exclusion is by D alone, never by the loss: a cut in the response would bend the exponents."""
        return self.where(self.columns["D"] >= d_min * (1 - 1e-9))


def rows_of(table: Mapping[str, np.ndarray], architecture: str, loss: str) -> Rows:
    """Rows that cannot enter any fit are named, not lost."""
    mine = {k: v[table["architecture"] == architecture] for k, v in table.items()}
    dropped: list[Dropped] = []
    good = np.ones(len(mine["run"]), bool)
    for name in ("N", "D", "C", loss):
        bad = good & (~np.isfinite(mine[name]) | (mine[name] <= 0))
        if bad.any():
            runs = ", ".join(sorted({str(r) for r in mine["run"][bad]})[:3])
            dropped.append(Dropped(runs, int(bad.sum()), f"{name} is not a finite positive number"))
            good &= ~bad
    seen: set[tuple[str, float]] = set()
    for i in np.flatnonzero(good):
        key = (str(mine["run"][i]), float(mine["D"][i]))
        if key in seen:
            good[i] = False
        seen.add(key)
    twice = int(len(good) - good.sum()) - sum(d.rows for d in dropped)
    if twice:
        dropped.append(Dropped(architecture, twice, "the same run at the same D a second time"))
    return Rows(architecture, {k: v[good] for k, v in mine.items()}, loss, tuple(dropped))


def rungs_of(rows: Rows) -> tuple[Rung, ...]:
    out = []
    for width in np.unique(rows["width"]):
        r = rows.where(rows["width"] == width)
        last = last_rows(r)
        n, d = float(np.median(r["N"])), r["D"]
        hours, timed = r["H_train"] / d, np.isfinite(r["H_train"])
        per_atom = float(np.median(r["C"] / d))
        out.append(
            Rung(
                width=int(width),
                N=n,
                N_body=float(np.median(r["N_body"])),
                kappa=per_atom / (3 * n),
                flops_per_atom=per_atom,
                executed_per_atom=float(np.median(r["C_executed"] / d)),
                hours_per_atom=float(np.median(hours[timed])) if timed.any() else float("nan"),
                seeds=len(np.unique(r["run"])),
                D_max=float(d.max()),
                C_max=float(r["C"].max()),
                H_max=float(r["H_train"][timed].max()) if timed.any() else float("nan"),
                loss=float(np.exp(np.log(r.y[last]).mean())),
            )
        )
    return tuple(out)


def last_rows(rows: Rows) -> np.ndarray:
    """Row numbers of each run's last evaluation."""
    runs = np.unique(rows["run"])
    found = [np.flatnonzero(rows["run"] == run) for run in runs]
    return np.array([i[rows["D"][i].argmax()] for i in found], int)


def costs(rungs: tuple[Rung, ...]) -> tuple[PerAtom, bool, float]:
    """FLOP per atom as a function of ln N, whether kappa is flat, and its geometric mean."""
    kappa = np.array([r.kappa for r in rungs])
    mean = float(np.exp(np.log(kappa).mean()))
    flat = bool((np.abs(kappa / mean - 1) <= FLAT).all())
    if flat:
        return linear_cost(mean), True, mean
    return (
        measured_cost(np.array([r.N for r in rungs]), 3 * kappa * np.array([r.N for r in rungs])),
        False,
        mean,
    )


def other_cost(rungs: tuple[Rung, ...], column: str) -> PerAtom | None:
    """Executed FLOP ("executed_per_atom") or hours ("hours_per_atom") per atom, None where not recorded."""
    values = np.array([getattr(r, column) for r in rungs], float)
    good = np.isfinite(values) & (values > 0)
    if good.sum() < 2:
        return None
    least = 1.0 if column == "hours_per_atom" else -np.inf
    return measured_cost(np.array([r.N for r in rungs])[good], values[good], least_slope=least)
