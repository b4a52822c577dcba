"""Loss against compute and against hours: the summary (fig. 1 of the paper) and the frontiers (fig. 3)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from equiscale.laws.frontier import Frontier
from equiscale.report import style
from equiscale.report.drawing import Axis, Band, Drawing, Key, Line, Mark, Panel, Points, absent, shared_axes
from equiscale.report.material import (
    SETS,
    Curve,
    Material,
    describe,
    reference_keys,
    reference_marks,
    reference_notes,
    shade_key,
    shades,
)

COSTS = {
    "C": "training compute C (FLOP, published formulation)",
    "C_executed": "training compute executed (FLOP)",
    "H_train": "training time H (hours here, steps alone)",
}
POINTS = 60


def loss_axis(material: Material) -> Axis:
    return Axis(f"validation loss L, {SETS.get(material.set, material.set)}")


def summary(material: Material) -> Drawing:
    """All architectures in one pair of axes, against FLOP and against hours."""
    panels = []
    for cost, title in (("C", "In compute"), ("H_train", "In hours on this device")):
        if not _measured(material.curves, cost):
            continue
        marks: list[Mark] = reference_marks(material, material.loss, material.architectures)
        for name in material.architectures:
            curves = material.of_architecture(name)
            colour = style.mix(style.hue(name), "#ffffff", 0.55)
            marks += [_whole(c, cost, material.loss, colour, name, 0.75) for c in curves]
        for name in material.architectures:
            frontier = _frontier(material, name, cost)
            if frontier is not None:
                marks += frontier_marks(frontier, name, material, name, limits=True)
        panels.append(Panel(Axis(COSTS[cost]), loss_axis(material), tuple(marks), title))
    title = "Loss against compute, all architectures"
    if not panels:
        return absent("summary", title, "No run has both a cost and a loss.")
    hours = () if len(panels) == 2 else ("The records hold no hours of training, so the right half is missing.",)
    keys = [Key(a, style.name_of(a), style.hue(a), "point", symbol=style.symbol(a)) for a in material.architectures]
    caption = (
        "Thin lines: every run. Markers: the frontier, the least loss at a given cost; grey ones are owned "
        "by the smallest or the largest rung, so they are not fitted. Thick line: the fitted local law "
        "over the range of the hand-overs; dotted: the same law outside it, which is no result. Losses "
        "belong to this data set and these labels only."
    )
    return Drawing(
        "summary",
        title,
        caption,
        shared_axes(panels, "y"),
        (*keys, *_law_keys(), *reference_keys(material, material.loss)),
        notes=hours + reference_notes(material, material.loss),
    )


def frontier(material: Material, cost: str = "C") -> Drawing:
    """One panel per architecture: every run shaded by size, the frontier, its fit, and what was left out."""
    name = {"C": "frontier-flops", "H_train": "frontier-hours"}.get(cost, "frontier-executed")
    title = {"C": "The frontier in compute", "H_train": "The frontier in hours"}.get(
        cost, "The frontier in executed FLOP"
    )
    if not _measured(material.curves, cost):
        return absent(name, title, "The records hold no such cost: no step of these runs was timed.")
    panels, keys, notes = [], [], []
    for architecture in material.architectures:
        curves = material.of_architecture(architecture)
        laws, found = material.laws(architecture), _frontier(material, architecture, cost)
        marks: list[Mark] = reference_marks(material, material.loss, (architecture,))
        colours = shades(curves)
        for curve in curves:
            marks += _split(curve, cost, material.loss, colours[curve.N], architecture, laws.D_min if laws else 0.0)
        if cost == "C" and laws is not None and laws.allocation is not None:
            marks += _surface_frontier(laws.allocation, architecture)
        if found is not None:
            marks += frontier_marks(found, architecture, material, "frontier")
            if found.fit is None:
                notes.append(f"{style.name_of(architecture)}: {found.reason or 'no frontier exponent.'}")
        panels.append(
            Panel(
                Axis(COSTS[cost]),
                loss_axis(material),
                tuple(marks),
                style.name_of(architecture),
                style.hue(architecture),
            )
        )
        keys.append(shade_key(architecture, curves))
    extra: tuple[Key, ...] = (
        Key("frontier", "frontier, fitted over the hand-overs", style.INK, "point", symbol="circle"),
        Key("grey", "smallest or largest rung: not fitted", style.DROPPED, "point", filled=False),
        Key("hand-over", "hand-over", style.INK, "point", symbol="line-ns", filled=False),
        Key("beyond", "outside the range: no result", style.INK, "line", "dot"),
        Key("excluded", "early rows, excluded by D", style.DROPPED, "line"),
    )
    if cost == "C":
        extra += (Key("surface", "surface fit at N*(C), D*(C)", style.INK, "line", "dash"),)
    caption = (
        "Each line is one run, light to dark from the smallest to the largest rung. The exponent is local: "
        "it belongs to the compute between the first and the last hand-over and to no other. The band "
        "about the thick line follows from the 95 % interval of the slope, turned about the middle of that "
        "range."
    )
    if cost == "C":
        caption += (
            " Dashed: the loss of the surface fit at its best division of each budget, with the band of its draws."
        )
    return Drawing(
        name,
        title,
        caption,
        shared_axes(panels),
        (*keys, *extra, *reference_keys(material, material.loss)),
        notes=tuple(notes) + reference_notes(material, material.loss),
    )


def frontier_marks(
    found: Frontier, architecture: str, material: Material, key: str, limits: bool = False
) -> list[Mark]:
    """Points, hand-overs and the law of one frontier. With `limits` the law stays inside its data."""
    x, loss, dropped = (np.asarray(v) for v in (found.x, found.loss, found.dropped))
    if not len(x):
        return []
    hue, symbol = style.hue(architecture), style.symbol(architecture)
    name = style.name_of(architecture)
    unit = "h" if found.cost.startswith("H") else "FLOP"
    text = [
        f"<b>{name}</b> frontier, w = {int(w)}<br>{style.number(c)} {unit}<br>L = {style.number(v)}"
        for c, v, w in zip(x, loss, found.width)
    ]
    grey = style.DROPPED
    used = ~dropped.astype(bool)
    where = np.flatnonzero(~used)
    marks: list[Mark] = [
        Points(
            x[where],
            loss[where],
            grey,
            "grey" if key == "frontier" else key,
            symbol,
            4.5,
            False,
            hover=[text[i] for i in where],
        )
    ]
    where = np.flatnonzero(used)
    pale = style.mix(hue, "#ffffff", 0.25)
    marks.append(Points(x[where], loss[where], pale, key, symbol, 6.5, hover=[text[i] for i in where]))
    marks += _law(found, architecture, key, float(x.min()), float(x.max()) * (1 if limits else 10))
    handovers = np.asarray(found.handovers, float)
    if len(handovers) and not limits:
        heights = np.exp(np.interp(np.log(handovers), np.log(x), np.log(loss)))
        texts = [f"hand-over at {style.number(c)} {unit}" for c in handovers]
        marks.append(Points(handovers, heights, style.INK, "hand-over", "line-ns", 13, False, hover=texts))
    return marks


def _law(found: Frontier, architecture: str, key: str, first: float, last: float) -> list[Mark]:
    if found.fit is None or found.range is None or not 0 < found.range[0] < found.range[1]:
        return []
    low, high = found.range
    colour = style.mix(style.hue(architecture), "#000000", 0.4)
    inside = np.geomspace(low, high, POINTS)
    curve = _evaluate(found, inside)
    marks: list[Mark] = []
    gamma = found.estimates.get("gamma")
    if gamma is not None and gamma.interval is not None:
        turn = np.abs(np.log(inside / math.sqrt(low * high)))
        up = np.exp(turn * max(gamma.interval.high - gamma.value, 0))
        down = np.exp(turn * max(gamma.value - gamma.interval.low, 0))
        upper = np.where(inside < math.sqrt(low * high), up, down)
        lower = np.where(inside < math.sqrt(low * high), down, up)
        marks.append(Band(inside, curve / lower, curve * upper, style.hue(architecture), key, 0.2))
    text = f"<b>{style.name_of(architecture)}</b>, fit"
    if gamma is not None:
        text += f"<br>local exponent γ = {_estimate(gamma)}<br>over {style.interval(low, high)}"
    marks.append(Line(inside, curve, colour, key, "solid", 1.4, hover=[text] * POINTS))
    for a, b in ((min(first, low), low), (high, max(last, high))):
        if b > 1.01 * a:
            beyond = np.geomspace(a, b, 20)
            marks.append(
                Line(beyond, _evaluate(found, beyond), colour, "beyond" if key == "frontier" else key, "dot", 1.5)
            )
    return marks


def _surface_frontier(allocation: Any, architecture: str) -> list[Mark]:
    """L*(C) of the surface with its pointwise band: dashed inside the records, dotted beyond."""
    colour, inside = style.mix(style.hue(architecture), "#000000", 0.55), np.asarray(allocation.inside, bool)
    C, loss = np.asarray(allocation.C, float), np.asarray(allocation.loss, float)
    marks: list[Mark] = [Band(C, allocation.loss_low, allocation.loss_high, colour, "surface", 0.10)]
    marks.append(Line(C[inside], loss[inside], colour, "surface", "dash", 1.3))
    beyond = ~inside | np.append(~inside[1:], False)  # joined to the last point inside
    marks.append(Line(C[beyond], np.where(beyond, loss, np.nan)[beyond], colour, "surface", "dot", 1.3))
    return marks


def _evaluate(found: Frontier, x: np.ndarray) -> np.ndarray:
    return np.asarray(found.fit(**{found.fit.law.variables[0]: x}), float)  # type: ignore[union-attr, misc]


def _estimate(estimate: Any) -> str:
    within = estimate.interval
    return style.number(estimate.value) + (f" {style.interval(within.low, within.high)}" if within else "")


def _law_keys() -> tuple[Key, ...]:
    return (
        Key("grey", "grey: not fitted", style.DROPPED, "point", filled=False, note=True),
        Key("beyond", "outside the range: no result", style.INK, "line", "dot", note=True),
    )


def _frontier(material: Material, architecture: str, cost: str) -> Frontier | None:
    laws = material.laws(architecture)
    return laws.frontiers.get(cost) if laws else None


def _measured(curves: tuple[Curve, ...], cost: str) -> bool:
    return any((c[cost] > 0).any() for c in curves)


def _whole(curve: Curve, cost: str, column: str, colour: str, key: str, width: float) -> Line:
    keep = np.flatnonzero((curve[cost] > 0) & (curve[column] > 0))
    texts = [describe(curve, int(i), column) for i in keep]
    return Line(curve[cost][keep], curve[column][keep], colour, key, "solid", width, hover=texts)


def _split(curve: Curve, cost: str, column: str, colour: str, key: str, D_min: float) -> list[Mark]:
    """A run's line, grey up to the first row that enters the fits."""
    keep = np.flatnonzero((curve[cost] > 0) & (curve[column] > 0))
    x, y, early = curve[cost][keep], curve[column][keep], curve["D"][keep] < D_min
    texts = [describe(curve, int(i), column) for i in keep]
    first = int(early.sum())
    result: list[Mark] = []
    if first:
        result.append(
            Line(x[: first + 1], y[: first + 1], style.DROPPED, "excluded", "solid", 1.0, 0.7, texts[: first + 1])
        )
    if first < len(x):
        result.append(Line(x[first:], y[first:], colour, key, "solid", 1.5, hover=texts[first:]))
    return result
