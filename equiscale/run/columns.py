"""Many records as plain columns: what laws and figures read."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np

from equiscale.run.record import Evaluation, RunRecord, Sets, SymmetryPoint

ABOUT = ("run", "architecture", "width", "seed")
LOOK = ("step", "structures", "atoms", "unique_atoms", "flops_model", "flops_executed", "train_loss")
CLOCK = ("seconds_train", "seconds_total")
LOSSES = ("loss", "energy_loss", "force_loss", "atom_loss", "energy_mae", "force_mae")
FIGURES = {
    "mse_total": "total",
    "mse_mean": "mean",
    "mse_equiv": "equiv",
    "mse_equiv_error": "equiv_error",
    "mse_size": "size",
    "percent": "percent",
    "percent_error": "percent_error",
    "loss_tracked": "loss",
    "loss_mean": "loss_mean",
    "gradient_mean": "gradient_mean",
    "gradient_equiv": "gradient_equiv",
    "gradient_cosine": "gradient_cosine",
    "head": "head",
}
"""Columns of a tracked point, and the fields of ``SymmetryPoint`` that they hold."""


def table(records: Iterable[RunRecord]) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """One row per evaluation of every run that did not diverge and began with fresh weights, and the other runs, each
    with its reason. Where a run was tracked, with the figures of ``symmetry_table``; nan where there are none.
    """
    kept, dropped = _chosen(records)
    looks = [e for record in kept for e in record.curve]
    if not looks:
        return {}, dropped
    of_run = _of_runs(kept, [len(record.curve) for record in kept])
    seen = _of_looks(looks)
    step = seen["step"].astype(int)
    columns = {
        **{name: of_run[name] for name in (*ABOUT, "depth")},
        "step": step,
        "N": of_run["N"],
        "N_body": of_run["N_body"],
        "D": seen["atoms"],
        "unique_atoms": seen["unique_atoms"],
        "structures": seen["structures"].astype(int),
        "C": seen["flops_model"],
        "C_executed": seen["flops_executed"],
        "H_train": step * of_run["step_seconds"] / 3600,
        "H_train_measured": seen["seconds_train"] / 3600,
        "H_total": seen["seconds_total"] / 3600,
        "train_loss": seen["train_loss"],
        **{f"{part}_{name}": seen[f"{part}_{name}"] for name in Sets for part in LOSSES},
    }
    if any(record.symmetry for record in kept):
        points: list[SymmetryPoint | None] = []
        for record in kept:
            at = {p.step: p for p in record.symmetry}
            points += [at.get(e.step) for e in record.curve]
        columns |= _figures(points)
    return columns, dropped


def symmetry_table(records: Iterable[RunRecord]) -> dict[str, np.ndarray]:
    """One row per tracked point of the runs that ``table`` has: the loss decomposition by step.

    ``mse_…``: squared force error per component and its parts; ``relative``: L_equiv over ``mse_size``, the mean
    squared prediction; ``loss_tracked``, ``loss_mean``: eq. 1 and that of the twirled potential, on the same
    structures. What was not measured is nan.
    """
    kept = _chosen(records)[0]
    points = [p for record in kept for p in record.symmetry]
    if not points:
        return {}
    of_run = _of_runs(kept, [len(record.symmetry) for record in kept])
    step = np.array([p.step for p in points])
    return {
        **{name: of_run[name] for name in ABOUT},
        "step": step,
        "structures": np.array([p.structures for p in points]),
        "N": of_run["N"],
        "N_body": of_run["N_body"],
        "D": np.array([float(p.atoms) for p in points]),
        "C": np.array([p.flops_model for p in points]),
        "H_train": step * of_run["step_seconds"] / 3600,
        **_figures(points),
    }


def _chosen(records: Iterable[RunRecord]) -> tuple[list[RunRecord], list[dict[str, Any]]]:
    kept, dropped = [], []
    for record in records:
        if record.status == "diverged":
            dropped.append({**_about(record), "reason": f"diverged: {record.reason}"})
        elif record.spec.start is not None:
            reason = "it starts from another run's weights: its compute is not that of a run from scratch"
            dropped.append({**_about(record), "reason": reason})
        else:
            kept.append(record)
    return kept, dropped


def _about(record: RunRecord) -> dict[str, Any]:
    spec = record.spec
    return {"run": spec.key, "architecture": spec.architecture, "width": spec.model.width, "seed": spec.seed}


def _of_runs(kept: list[RunRecord], rows: list[int]) -> dict[str, np.ndarray]:
    """What is one value a run, each repeated for its ``rows``: a key is a hash, too dear to be taken row by row."""
    about = [_about(record) for record in kept]
    one = {
        **{name: [a[name] for a in about] for name in ABOUT},
        "depth": [record.spec.model.depth for record in kept],
        "N": [float(record.parameters) for record in kept],
        "N_body": [float(record.parameters_body) for record in kept],
        "step_seconds": [_step_seconds(record) for record in kept],
    }
    return {name: np.repeat(values, rows) for name, values in one.items()}


def _step_seconds(record: RunRecord) -> float:
    """The median step; nan where the rung was not timed, or the run shared its device."""
    return math.nan if record.step_seconds is None or record.shared_device else record.step_seconds


def _of_looks(looks: Sequence[Evaluation]) -> dict[str, np.ndarray]:
    """Every number of every evaluation, as floats. Read object by object: field by field takes twice as long, as
    hundreds of megabytes pass through the processor's cache for each."""
    of_look, of_clock, of_set = attrgetter(*LOOK), attrgetter(*CLOCK), attrgetter(*LOSSES)

    def parts() -> Iterator[tuple[float, ...]]:
        for e in looks:
            yield of_look(e)
            yield of_clock(e.clock)
            yield of_set(e.molecules)
            yield of_set(e.conformers)

    names = [*LOOK, *CLOCK, *(f"{part}_{name}" for name in Sets for part in LOSSES)]
    flat = np.fromiter(chain.from_iterable(parts()), float, len(looks) * len(names))
    return dict(zip(names, flat.reshape(len(looks), len(names)).T.copy()))


def _figures(points: Sequence[SymmetryPoint | None]) -> dict[str, np.ndarray]:
    read, nothing = attrgetter(*FIGURES.values()), (None,) * len(FIGURES)
    values = np.array([nothing if point is None else read(point) for point in points], float)  # None becomes nan
    columns = dict(zip(FIGURES, values.T.copy()))
    equiv, size = columns["mse_equiv"], columns["mse_size"]
    relative = np.divide(equiv, size, out=np.full(len(points), math.nan), where=size != 0)
    return {**columns, "relative": relative}
