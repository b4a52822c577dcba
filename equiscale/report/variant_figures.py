"""Variants of one architecture side by side: degrees of eSEN (fig. 4), vector channels of EGNN (fig. 11), pairs that
differ in symmetry alone."""

from __future__ import annotations

import numpy as np

from equiscale.report import style
from equiscale.report.drawing import Axis, Drawing, Key, Line, Mark, Panel, Points, absent, shared_axes
from equiscale.report.frontier_figures import loss_axis
from equiscale.report.material import Material

TITLE = "Variants of one architecture: loss at the end against compute"


def kind_of(architecture: str) -> str:
    """The architecture of a variant: the name's first word."""
    return str(architecture).partition(" ")[0]


def variants(material: Material) -> Drawing:
    """One panel per architecture of which there are several variants; a point per rung, at its run's end."""
    families: dict[str, list[str]] = {}
    for name in material.architectures:
        families.setdefault(kind_of(name), []).append(name)
    panels, keys = [], []
    for kind, names in families.items():
        if len(names) < 2:
            continue
        marks: list[Mark] = []
        for name in names:
            ends: dict[int, list[tuple[float, float]]] = {}
            for curve in material.of_architecture(name):
                end = float(curve["C"][-1]), curve.last(material.loss)
                if end[1] > 0:
                    ends.setdefault(curve.width, []).append(end)
            if not ends:
                continue
            widths = sorted(ends)
            x = [float(np.median([c for c, _ in ends[w]])) for w in widths]
            y = [float(np.median([loss for _, loss in ends[w]])) for w in widths]
            text = [f"<b>{style.name_of(name)}</b> w = {w}<br>L = {style.number(v)}" for w, v in zip(widths, y)]
            marks.append(Line(x, y, style.hue(name), name, width=1.2))
            marks.append(Points(x, y, style.hue(name), name, style.symbol(name), 7, hover=text))
            keys.append(Key(name, style.name_of(name), style.hue(name), "point", symbol=style.symbol(name)))
        panels.append(Panel(Axis("C at the run's end (FLOP)"), loss_axis(material), tuple(marks), style.name_of(kind)))
    if not panels:
        return absent("variants", TITLE, "No architecture of this study has several variants.")
    caption = (
        "One point per rung, at the end of its run: the same data for all (the median over seeds where there are "
        "several). Variants differ in the named field alone. Below means better at equal compute; with few widths and "
        "one seed a difference under twice the seeds' spread is none."
    )
    return Drawing("variants", TITLE, caption, shared_axes(panels, "y"), tuple(keys))
