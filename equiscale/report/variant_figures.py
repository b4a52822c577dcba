"""Variants of one architecture side by side: degrees of eSEN (fig. 4), vector channels of EGNN (fig. 11), pairs that
differ in symmetry alone."""

from __future__ import annotations

import numpy as np

from equiscale.report import style
from equiscale.report.drawing import Axis, Drawing, Key, Line, Mark, Panel, Points, absent, shared_axes
from equiscale.report.frontier_figures import COSTS, loss_axis
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
    looks = style.apart(material.architectures)
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
            marks.append(Line(x, y, looks[name].hue, name, width=1.2))
            marks.append(Points(x, y, looks[name].hue, name, looks[name].symbol, 7, hover=text))
            keys.append(Key(name, style.name_of(name), looks[name].hue, "point", symbol=looks[name].symbol))
        panels.append(Panel(Axis("C at the run's end (FLOP)"), loss_axis(material), tuple(marks), style.name_of(kind)))
    if not panels:
        return absent("variants", TITLE, "No architecture of this study has several variants.")
    caption = (
        "One point per rung, at the end of its run: the same data for all (the median over seeds where there are "
        "several). Variants differ in the named field alone. Below means better at equal compute; with few widths and "
        "one seed a difference under twice the seeds' spread is none."
    )
    return Drawing("variants", TITLE, caption, shared_axes(panels, "y"), tuple(keys))


def remedies(material: Material) -> Drawing:
    """What a cost buys with each remedy: runs, and the least loss of each ladder so far, on the axes that they cost."""
    title = "Remedies of one architecture: the least loss at a given cost"
    families: dict[str, list[str]] = {}
    for name in material.architectures:
        families.setdefault(kind_of(name), []).append(name)
    looks = style.apart(material.architectures, markers=True)
    panels, keys, costs = [], [], []
    for cost in ("C", "H_train"):
        if any((c[cost] > 0).any() for c in material.curves):
            costs.append(cost)
    for kind, names in families.items():
        if not any(_is_remedy(n) for n in names):
            continue
        for cost in costs:
            marks = [m for n in names for m in _bought(material, n, cost, looks[n])]
            where = f"{style.name_of(kind)}, {'compute' if cost == 'C' else 'hours'}"
            panels.append(Panel(Axis(COSTS[cost]), loss_axis(material), tuple(marks), where, style.hue(kind)))
        keys += [Key(n, style.name_of(n), looks[n].hue, "point", symbol=looks[n].symbol) for n in names]
    if not panels:
        return absent("remedies", title, "No ladder of this study has a remedy.")
    caption = (
        "Thin lines: every run. Thick lines: the least loss that any rung of a ladder has reached at that cost, "
        "markers where a run ends. What a remedy costs is in the axis: more forward passes stand further right. "
        "A line ends where its ladder does, so only lines above the same cost can be compared."
    )
    return Drawing("remedies", title, caption, shared_axes(panels, "y"), tuple(keys))


def _is_remedy(architecture: str) -> bool:
    return any(word in architecture for word in style.REMEDIES if word and word != "augmented")


def _bought(material: Material, name: str, cost: str, look: style.Look) -> list[Mark]:
    """One ladder's runs and their lower envelope, which a longer run of a smaller rung never raises again."""
    curves = []
    for curve in material.of_architecture(name):
        x, y = curve[cost], curve[material.loss]
        keep = (x > 0) & (y > 0)
        if keep.any():
            curves.append((curve, x[keep], y[keep]))
    if not curves:
        return []
    pale = style.mix(look.hue, "#ffffff", 0.55)
    marks: list[Mark] = [Line(x, y, pale, name, width=0.8) for _, x, y in curves]
    grid = np.geomspace(min(x[0] for _, x, _ in curves), max(x[-1] for _, x, _ in curves), 120)
    every = [np.exp(np.interp(np.log(grid), np.log(x), np.log(y), left=np.inf)) for _, x, y in curves]
    marks.append(Line(grid, np.minimum.accumulate(np.min(every, axis=0)), look.hue, name, width=2.0))
    texts = [f"<b>{style.name_of(name)}</b> w = {c.width}<br>L = {style.number(y[-1])}" for c, _, y in curves]
    ends = [x[-1] for _, x, _ in curves], [y[-1] for _, _, y in curves]
    return [*marks, Points(*ends, look.hue, name, look.symbol, 7.5, hover=texts)]
