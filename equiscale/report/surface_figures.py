"""L against N and D with the surface fit (fig. 5), kappa and C against ND (fig. 2), N*(C) and D*(C) (fig. 6)."""

from __future__ import annotations

import math

import numpy as np

from equiscale.laws.results import Architecture
from equiscale.report import style
from equiscale.report.drawing import (
    Axis,
    Band,
    Drawing,
    Key,
    Line,
    Mark,
    Note,
    Panel,
    Points,
    absent,
    shared_axes,
)
from equiscale.report.frontier_figures import loss_axis
from equiscale.report.material import (
    Curve,
    Material,
    describe,
    drawn_surface,
    reference_keys,
    reference_marks,
    reference_notes,
    shade_key,
    shades,
)

FRACTIONS = (0.03, 0.1, 0.3, 1.0)  # of D_max, at which L is shown against N
N_AXIS = Axis("trainable parameters N")
FITTED = (
    Key("surface", "surface fit, inside the records", style.INK, "line", "dash"),
    Key("beyond", "surface fit, outside", style.INK, "line", "dot"),
)
OPEN = Key("excluded", "excluded by D: not fitted", style.DROPPED, "point", filled=False)


def loss_against_data(material: Material) -> Drawing:
    """One line per size: what more data brings at fixed N."""
    panels, keys, notes = [], [], []
    for name in material.architectures:
        curves, laws = material.of_architecture(name), material.laws(name)
        colours, marks = shades(curves), reference_marks(material, material.loss, (name,))
        surface = drawn_surface(laws)
        if surface is None:
            notes.append(_no_surface(name, laws))
        start = laws.D_min if laws else 0.0
        for curve in curves:
            marks += _measured(curve, material.loss, colours[curve.N], name, start)
        for N, colour in colours.items():
            if surface is not None:
                ends = [c["D"][-1] for c in curves if c.N == N]
                low, high = max(start, 1.0), max(ends)
                marks += _law(lambda D, n=N, fit=surface.fit: fit(N=n, D=D), low, high, 2 * high, colour)
        panels.append(
            Panel(
                Axis("atoms seen in training D"),
                loss_axis(material),
                tuple(marks),
                style.name_of(name),
                style.hue(name),
            )
        )
        keys.append(shade_key(name, curves))
    if not any(c[material.loss].size for c in material.curves):
        return absent("loss-data", "Loss against data, at fixed size", "No run has a loss on this validation set.")
    caption = (
        "Markers: evaluations of every run (open and grey: early ones, excluded by the same share of D for "
        "all architectures). Lines: one surface L = A N^−α + B D^−β fitted to all rungs together, at each "
        "rung's N."
    )
    return Drawing(
        "loss-data",
        "Loss against data, at fixed size",
        caption,
        shared_axes(panels),
        (*keys, *FITTED, OPEN, *reference_keys(material, material.loss)),
        notes=tuple(notes) + reference_notes(material, material.loss),
    )


def loss_against_size(material: Material) -> Drawing:
    """One line per amount of data: what more parameters bring at fixed D."""
    title, panels, notes, keys = "Loss against size, at fixed data", [], [], []
    for name in material.architectures:
        curves, laws = material.of_architecture(name), material.laws(name)
        if len({c.N for c in curves}) < 2:
            notes.append(f"{style.name_of(name)} has a single size, so there is no dependence on N to show.")
            continue
        marks = reference_marks(material, material.loss, (name,))
        surface = drawn_surface(laws)
        if surface is None:
            notes.append(_no_surface(name, laws))
        D_max = max(float(c["D"][-1]) for c in curves)
        sizes = sorted({c.N for c in curves})
        colours = []
        for place, fraction in zip(np.linspace(0.1, 1, len(FRACTIONS)), FRACTIONS):
            D, colour = fraction * D_max, style.shade(name, float(place))
            colours.append(colour)
            points = [(N, _mean([c.at(material.loss, D) for c in curves if c.N == N])) for N in sizes]
            points = [(N, v) for N, v in points if math.isfinite(v)]
            texts = [
                f"<b>{style.name_of(name)}</b> at D = {style.short(D)} atoms<br>N = {style.short(N)}<br>L = "
                f"{style.number(v)}"
                for N, v in points
            ]
            x, y = [p[0] for p in points], [p[1] for p in points]
            marks.append(Points(x, y, colour, name, style.symbol(name), 7, hover=texts))
            if surface is not None:
                marks += _law(lambda N, d=D, fit=surface.fit: fit(N=N, D=d), sizes[0], sizes[-1], 2 * sizes[-1], colour)
            if points:
                end = float(surface.fit(N=2 * sizes[-1], D=D)) if surface is not None else y[-1]
                marks.append(Note((2.1 if surface is not None else 1.1) * x[-1], end, style.share(fraction), colour))
        sizes_axis = Axis(N_AXIS.label, low=0.8 * sizes[0], high=4 * sizes[-1])  # room for the notes
        panels.append(Panel(sizes_axis, loss_axis(material), tuple(marks), style.name_of(name), style.hue(name)))
        ends = (style.short(FRACTIONS[0] * D_max), style.short(D_max))
        keys.append(
            Key(name, f"{style.name_of(name)}, D", style.hue(name), "shades", colours=tuple(colours), ends=ends)
        )
    if not panels:
        return absent("loss-size", title, "Every architecture has a single size: a dependence on N needs two or more.")
    caption = (
        "Markers: the runs' loss at 3, 10, 30 and 100 % of the largest D (log-log interpolation between "
        "evaluations, geometric mean over seeds), as the small numbers say. Lines: the same surface as "
        "above, at these D."
    )
    return Drawing(
        "loss-size",
        title,
        caption,
        shared_axes(panels),
        (*keys, *FITTED, *reference_keys(material, material.loss)),
        notes=tuple(notes) + reference_notes(material, material.loss),
    )


def kappa(material: Material) -> Drawing:
    """kappa against N, and C against ND with C = 3 kappa N D."""
    ratio: list[Mark] = []
    total: list[Mark] = []
    for name in material.architectures:
        curves, hue, mark = material.of_architecture(name), style.hue(name), style.symbol(name)
        usable = [c for c in curves if c["C"][-1] > 0 and c["D"][-1] > 0]
        if not usable:
            continue
        sizes = sorted({c.N for c in usable})
        values = [_mean([c["C"][-1] / (3 * c.N * c["D"][-1]) for c in usable if c.N == N]) for N in sizes]
        texts = [
            f"<b>{style.name_of(name)}</b> N = {style.short(N)}<br>κ = {style.number(k)}" for N, k in zip(sizes, values)
        ]
        ratio += [Line(sizes, values, style.mix(hue, "#ffffff", 0.4), name, width=1.2)]
        ratio += [Points(sizes, values, hue, name, mark, 8, hover=texts)]
        x = np.array([c.N * c["D"][-1] for c in usable])
        y = np.array([c["C"][-1] for c in usable])
        texts = [describe(c, len(c["D"]) - 1, "C").rsplit("<br>", 1)[0] for c in usable]
        middle = _mean(values)
        line = np.array([x.min() / 2, x.max() * 2])
        total.append(Line(line, 3 * middle * line, style.mix(hue, "#ffffff", 0.4), name, "solid", 1.2))
        total.append(Points(x, y, hue, name, mark, 7, hover=texts))
    title = "Forward FLOP per atom and parameter"
    if not ratio:
        return absent("kappa", title, "No run has its FLOP recorded, so κ = C / (3 N D) is unknown.")
    panels = (
        Panel(N_AXIS, Axis("κ = C / (3 N D)", low=_floor(ratio)), tuple(ratio), "κ over the ladder"),
        Panel(Axis("N × D (parameters × atoms)"), Axis("training compute C (FLOP)"), tuple(total), "C against N D"),
    )
    keys = tuple(
        Key(a, style.name_of(a), style.hue(a), "point", symbol=style.symbol(a)) for a in material.architectures
    )
    caption = (
        "FLOP of the published formulation, counted on real batches. Where κ is not flat within 10 % over "
        "the ladder, N*(C) and D*(C) come from the measured FLOP per atom and not from a closed form. "
        "Right, lines: C = 3 κ N D with the ladder's geometric mean of κ."
    )
    return Drawing("kappa", title, caption, panels, keys)


def allocation(material: Material) -> Drawing:
    """N*(C) and D*(C) with their bands: solid inside the records, dotted beyond."""
    title = "How a budget is best divided"
    size: list[Mark] = []
    data: list[Mark] = []
    notes, keys = [], []
    for name in material.architectures:
        laws = material.laws(name)
        curve = laws.allocation if laws else None
        if curve is None:
            notes.append(f"No N*(C), D*(C) for {style.name_of(name)}. " + _no_surface(name, laws))
            continue
        keys.append(Key(name, f"{style.name_of(name)} ({curve.method})", style.hue(name)))
        C, inside = np.asarray(curve.C, float), np.asarray(curve.inside, bool)
        beyond = ~inside | np.append(~inside[1:], False)
        for marks, value, low, high, unit in (
            (size, curve.N, curve.N_low, curve.N_high, "N*"),
            (data, curve.D, curve.D_low, curve.D_high, "D*"),
        ):
            value = np.asarray(value, float)
            texts = [
                f"<b>{style.name_of(name)}</b><br>C = {style.number(c)} FLOP<br>{unit} = {style.short(v)} "
                f"[{style.short(a)}, {style.short(b)}]"
                for c, v, a, b in zip(C, value, low, high)
            ]
            marks.append(Band(C, low, high, style.hue(name), name, 0.16))
            marks.append(
                Line(
                    C[inside],
                    value[inside],
                    style.hue(name),
                    name,
                    "solid",
                    2.2,
                    hover=[t for t, i in zip(texts, inside) if i],
                )
            )
            marks.append(
                Line(
                    C[beyond],
                    value[beyond],
                    style.hue(name),
                    name,
                    "dot",
                    1.5,
                    hover=[t for t, i in zip(texts, beyond) if i],
                )
            )
    if not keys:
        return absent(
            "allocation", title, "No architecture has a surface fit, so there is no best division of a budget."
        )
    budget = Axis("budget C (FLOP, published formulation)")
    panels = (
        Panel(budget, Axis("N*, parameters"), tuple(size), "Size"),
        Panel(budget, Axis("D*, atoms seen"), tuple(data), "Data"),
    )
    caption = (
        "N* and D* minimise the fitted surface at fixed C; bands are 95 % intervals of its draws. Dotted: "
        "beyond the largest compute in the records, up to ten times it and no further."
    )
    keys.append(Key("beyond", "beyond the records", style.INK, "line", "dot", note=True))
    return Drawing("allocation", title, caption, panels, tuple(keys), notes=tuple(notes))


def _mean(values: list[float]) -> float:
    """Geometric."""
    usable = [v for v in values if math.isfinite(v) and v > 0]
    return math.exp(sum(map(math.log, usable)) / len(usable)) if usable else math.nan


def _floor(marks: list[Mark]) -> float:
    """Where a kappa axis starts: at 1, or lower where a value is."""
    return min(1.0, 0.8 * min(float(np.min(m.y)) for m in marks if isinstance(m, Points)))


def _no_surface(name: str, laws: Architecture | None) -> str:
    """Why there is none, in the words of the analysis where it has some."""
    if laws is not None and laws.freshness.verdict == "molecule-limited":
        return f"No surface is drawn for {style.name_of(name)}: it is molecule-limited, so no β is given."
    reason = next((w for w in (laws.warnings if laws else ()) if "surface" in w), "")
    return f"No surface fit for {style.name_of(name)}" + (f": {reason}" if reason else ".")


def _law(law, low: float, high: float, end: float, colour: str) -> list[Mark]:
    """A law of one variable: dashed from low to high, dotted on to the end."""
    result: list[Mark] = []
    for first, last, dash, key in ((low, high, "dash", "surface"), (high, end, "dot", "beyond")):
        if last > first > 0:
            x = np.geomspace(first, last, 24)
            result.append(Line(x, np.asarray(law(x), float), colour, key, dash, 1.4))
    return result


def _measured(curve: Curve, column: str, colour: str, key: str, D_min: float) -> list[Mark]:
    """A run's evaluations: those that enter the fits, and the excluded ones in grey."""
    keep = np.flatnonzero((curve["D"] > 0) & (curve[column] > 0))
    early = curve["D"][keep] < D_min
    result: list[Mark] = []
    for where, paint, name, filled in (
        (keep[~early], colour, key, True),
        (keep[early], style.DROPPED, "excluded", False),
    ):
        texts = [describe(curve, int(i), column) for i in where]
        x, y = curve["D"][where], curve[column][where]
        result.append(
            Points(x, y, paint, name, style.symbol(curve.architecture), 5 if filled else 4.5, filled, 0.9, hover=texts)
        )
    return result
