"""Many records as plain columns: what laws and figures read."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from equiscale.run.record import Losses, RunRecord, Sets, SymmetryPoint


def table(records: Iterable[RunRecord]) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """One row per evaluation of every run that did not diverge and began with fresh weights, and the other runs, each
    with its reason. Where a run was tracked, with the figures of ``symmetry_table``; nan where there are none.
    """
    rows: list[dict[str, Any]] = []
    kept, dropped = _chosen(records)
    tracked = any(record.symmetry for record in kept)
    for record in kept:
        points = {p.step: p for p in record.symmetry}
        for e in record.curve:
            row = {
                **_about(record),
                "depth": record.spec.model.depth,
                "step": e.step,
                "N": float(record.parameters),
                "N_body": float(record.parameters_body),
                "D": float(e.atoms),
                "unique_atoms": float(e.unique_atoms),
                "structures": e.structures,
                "C": e.flops_model,
                "C_executed": e.flops_executed,
                "H_train": _hours(record, e.step),
                "H_train_measured": e.clock.seconds_train / 3600,
                "H_total": e.clock.seconds_total / 3600,
                "train_loss": e.train_loss,
            }
            for name in Sets:
                losses: Losses = getattr(e, name)
                for part in ("loss", "energy_loss", "force_loss", "atom_loss", "energy_mae", "force_mae"):
                    row[f"{part}_{name}"] = getattr(losses, part)
            rows.append({**row, **_figures(points.get(e.step))} if tracked else row)
    return _columns(rows), dropped


def symmetry_table(records: Iterable[RunRecord]) -> dict[str, np.ndarray]:
    """One row per tracked point of the runs that ``table`` has: the loss decomposition by step.

    ``mse_…``: squared force error per component and its parts; ``relative``: L_equiv over ``mse_size``, the mean
    squared prediction; ``loss_tracked``, ``loss_mean``: eq. 1 and that of the twirled potential, on the same
    structures. What was not measured is nan.
    """
    rows = [
        {
            **_about(record),
            "step": p.step,
            "structures": p.structures,
            "N": float(record.parameters),
            "N_body": float(record.parameters_body),
            "D": float(p.atoms),
            "C": p.flops_model,
            "H_train": _hours(record, p.step),
            **_figures(p),
        }
        for record in _chosen(records)[0]
        for p in record.symmetry
    ]
    return _columns(rows)


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


def _hours(record: RunRecord, steps: int) -> float:
    """Of training alone, from the median step; nan where the rung was not timed, or the run shared its device."""
    if record.step_seconds is None or record.shared_device:
        return math.nan
    return steps * record.step_seconds / 3600


def _figures(point: SymmetryPoint | None) -> dict[str, float]:
    def of(name: str) -> float:
        value = None if point is None else getattr(point, name)
        return math.nan if value is None else float(value)

    return {
        "mse_total": of("total"),
        "mse_mean": of("mean"),
        "mse_equiv": of("equiv"),
        "mse_equiv_error": of("equiv_error"),
        "mse_size": of("size"),
        "percent": of("percent"),
        "percent_error": of("percent_error"),
        "relative": of("equiv") / of("size") if of("size") else math.nan,
        "loss_tracked": of("loss"),
        "loss_mean": of("loss_mean"),
        "gradient_mean": of("gradient_mean"),
        "gradient_equiv": of("gradient_equiv"),
        "gradient_cosine": of("gradient_cosine"),
        "head": of("head"),
    }


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
