"""Tracked runs as a table: how much of the loss is broken symmetry at the end, and where it was least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equiscale.report.sheet import Cell, Column, Sheet, architecture, sheet
from equiscale.report.style import NO_VALUE, count, number, signed
from equiscale.report.tracks import Track


def symmetry_ends(tracks: Sequence[Track]) -> Sheet:
    """One row per run, at its last look."""
    rows: list[list[Cell | str]] = []
    for track in tracks:
        found = track.dip
        last, least = _value(found.last, found.last_error), _value(found.least, found.least_error)
        at = f"at step {count(found.step)}" if np.isfinite(found.step) else ""
        loss, mean = track.last(track["loss"]), track.last(track["loss_mean"])
        rows.append(
            [
                architecture(track.architecture),
                str(track.width),
                str(track.seed),
                last,
                Cell(number(track.last(track.relative), 2)),
                number(loss),
                Cell(number(mean), f"{signed(100 * (mean / loss - 1), 2)} %" if loss > 0 else ""),
                Cell(least.text, f"{least.aside} {at}".strip()),
                found.text,
            ]
        )
    columns: list[Column | str] = [
        Column("Architecture", words=True),
        "Width",
        "Seed",
        Column("Percent", "of the squared force error"),
        Column("Relative", "L_equiv / E f²"),
        Column("L", "tracked structures"),
        Column("L_mean", "and against L"),
        Column("Least percent", "after step 0"),
        Column("Since then", words=True),
    ]
    return sheet(
        "symmetry-ends",
        "Broken symmetry at the last look",
        columns,
        rows,
        long=True,
        missing="" if rows else "No run was tracked.",
        caption=(
            "± one standard error over the tracked structures. L and L_mean are eq. 1, energy and force, of the "
            "potential and of its average over rotations; the other columns are the squared force error. A rise is "
            "called one beyond the errors that the least of so many noisy points has."
        ),
    )


def _value(value: float, error: float) -> Cell:
    if not np.isfinite(value):
        return Cell(NO_VALUE, tone="quiet")
    return Cell(number(value, 2), f"± {number(error, 1)}" if np.isfinite(error) else "")
