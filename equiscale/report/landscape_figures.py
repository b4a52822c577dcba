"""Loss landscapes: contours of L, L_mean and L_equiv on the same plane, with how quadratic and how rough each is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from equiscale.errors import need
from equiscale.report.drawing import Axis, Drawing, Mark, Panel, Points
from equiscale.report.drawing import Line as Curve
from equiscale.report.style import INK, NO_VALUE, number, scaled

if TYPE_CHECKING:
    from equiscale.measure.landscape import Landscape, View

NAMES = ("L", "L_mean", "L_equiv")
LEVELS = 12


def landscape_figure(found: Landscape) -> Drawing:
    """One row of three panels for each plane."""
    panels = [panel for view in found.views for panel in _row(found, view)]
    caption = (
        "Contours of the squared force error and its two parts at equal steps between each panel's least (light) and "
        "greatest (dark) value, on one grid; the cross is the checkpoint. R² is of the best quadratic; roughness is "
        "the neighbours' squared difference over the variance, 2 for white noise; κ is the condition number of the "
        "Hessian above its round-off."
    )
    notes = tuple(
        f"Row {i + 1}: {view.axes[0]} across, {view.axes[1]} up; rotations "
        + ("drawn anew at every point." if view.redrawn else "the same at every point.")
        for i, view in enumerate(found.views)
    )
    title = f"Loss landscape of {found.size} parameters, {found.model}"
    return Drawing("loss-landscape", title, caption, tuple(panels), columns=3, notes=notes)


def _row(found: Landscape, view: View) -> list[Panel]:
    steps = view.plane.steps
    low, high = float(steps[0]), float(steps[-1])
    panels = []
    for k, name in enumerate(NAMES):
        r2, rough, kappa = view.plane.r2[k], view.plane.roughness[k], found.spectra[k].condition
        figures = [f"R² {r2:.4f}" if np.isfinite(r2) else f"R² {NO_VALUE}", f"roughness {number(rough, 2)}"]
        if kappa is not None:
            figures.append(f"κ {number(kappa, 2)}")
        marks: list[Mark] = [*_contours(steps, view.plane.values[k])]
        marks.append(Points([0.0], [0.0], INK, symbol="cross", size=9))
        x = Axis(", ".join(figures), log=False, low=low, high=high)
        y = Axis("step along the second axis" if k == 0 else "", log=False, low=low, high=high)
        title = name + (", rotations redrawn" if view.redrawn else "")
        panels.append(Panel(x, y, tuple(marks), title, beside=k > 0))
    return panels


def _contours(steps: np.ndarray, values: np.ndarray) -> list[Curve]:
    """One line per level, with gaps between its pieces."""
    try:
        from contourpy import contour_generator
    except ImportError as error:  # comes with matplotlib
        raise need("report", error) from None
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return []
    made = contour_generator(steps, steps, values.T)
    curves = []
    gap = np.full((1, 2), np.nan)
    for i in range(LEVELS):
        place = (i + 0.5) / LEVELS
        pieces = [np.concatenate([np.asarray(p), gap]) for p in made.lines(low + place * (high - low)) if len(p)]
        if pieces:
            xy = np.concatenate(pieces)
            curves.append(Curve(xy[:, 0], xy[:, 1], scaled(place), width=1.3))
    return curves
