"""What part of a loss is broken symmetry: by run, element and size; and what averaging over rotations makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from equiscale.measure.found import Found, Part
from equiscale.report import style
from equiscale.report.drawing import Axis, Band, Drawing, Key, Line, Mark, Note, Panel, Points, absent, shared_axes

MEAN, EQUIV = style.SERIES[0], style.SERIES[1]
APART = len(style.SERIES)  # runs that colours of their own tell apart
UNIT = {"squared": " ((eV/Å)²)", "force": " (eV/Å)", "energy": " ((eV/atom)²)"}


def decomposition_figure(found: Sequence[tuple[str, Found]]) -> Drawing:
    """Stacked bars of L_mean and L_equiv with the percentage of the latter: one per run, or one per element and per
    size of a single model; of L_equiv alone where there are no labels.
    """
    title = "What part of the loss is broken symmetry"
    if not found:
        return absent("symmetry", title, "no model was measured.")
    first = found[0][1]
    if len(found) > 1:
        panels = [_bars("Runs", {name: f.whole for name, f in found}, first)]
    else:
        panels = [
            _bars(name, {"all": first.whole, **parts}, first)
            for name, parts in (("By element", first.by_element), ("By atoms in the structure", first.by_size))
            if parts
        ]
    keys = (
        Key("mean", "L_mean, of the average over rotations", MEAN, "band"),
        Key("equiv", "L_equiv, of broken symmetry", EQUIV, "band"),
    )
    text = f"% are L_equiv / L with {style.share(0.95)} intervals" if first.labelled else "there are no labels"
    caption = (
        f"{style.count(first.structures)} structures of {first.data}; {first.moves}, {first.sampler}, "
        f"{first.estimator}; {text}."
    )
    if len(found) == 1:
        caption = f"{first.model}. {caption}"
    return Drawing("symmetry", title, caption, tuple(panels), keys, columns=len(panels))


def _bars(title: str, parts: Mapping[str, Part], found: Found) -> Panel:
    names = list(parts)
    ticks = tuple((float(len(names) - 1 - i), name) for i, name in enumerate(names))
    marks: list[Mark] = []
    ends = [p.equiv.value if p.total is None else p.total.value for p in parts.values()]
    largest = max((e for e in ends if np.isfinite(e)), default=1.0) or 1.0
    for (place, _), part, end in zip(ticks, parts.values(), ends):
        middle = 0.0 if part.mean is None else max(part.mean.value, 0.0)
        low, high = [place - 0.32] * 2, [place + 0.32] * 2
        if part.mean is not None:
            marks.append(Band([0.0, middle], low, high, MEAN, "mean", 0.75))
        marks.append(Band([middle, max(end, middle)], low, high, EQUIV, "equiv", 0.95))
        marks.append(Note(max(end, middle) + 0.02 * largest, place, _words(part)))
    quantity = "L" if found.labelled else "L_equiv"
    room = 1.75 if found.labelled else 1.3
    x = Axis(f"{quantity}{UNIT.get(found.loss, '')}", False, 0.0, room * largest)
    return Panel(x, Axis("", False, -0.6, len(names) - 0.4, ticks), tuple(marks), title)


def _words(part: Part) -> str:
    if part.percent is None:
        return style.number(part.equiv.value, 2)
    words = f"{style.number(part.percent.value, 2)}{style.SPACE}%"
    if part.percent_low is None or abs(part.percent.value) < 1e-4:
        return words
    return f"{words} {style.interval(part.percent_low, part.percent_high, 2)}"


def averages_figure(found: Sequence[tuple[str, Found]]) -> Drawing:
    """The loss of an average over M rotations: measured with standard errors of its distance from the law, and the law
    L_mean + L_equiv / M. Relative to L_mean, so that runs share an axis.
    """
    title = "What averaging over rotations reaches"
    there = [(name, f) for name, f in found if f.averages]
    if not there:
        return absent("averages", title, "no averages were measured: ask for them, as in --averages 1,2,4,8,16,32.")
    families: dict[str, list[tuple[str, Found]]] = {}
    for name, f in there:
        families.setdefault(str(f.about.get("architecture", "")) if len(there) > APART else "", []).append((name, f))
    looks = style.apart(families)
    panels, keys = [], list[Key]()
    for family, own in families.items():
        marks: list[Mark] = []
        if family or len(own) > APART:  # shades of one hue, in the order of runs: of widths
            base = looks[family].hue if family else style.SERIES[0]
            paints = [style.shade_of(base, i / max(len(own) - 1, 1)) for i in range(len(own))]
            key = [family or "runs"] * len(own)
            ends = (own[0][0].removeprefix(family).strip(), own[-1][0].removeprefix(family).strip())
            label = style.name_of(family) if family else "runs"
            keys.append(Key(key[0], label, base, "shades", colours=tuple(paints), ends=ends))
            shapes = ["circle"] * len(own)
        else:
            paints, key, shapes = list(style.SERIES), [name for name, _ in own], list(style.SERIES_SYMBOLS)
            keys += [Key(n, n, paints[i], "line", symbol=shapes[i]) for i, n in enumerate(key)]
        for i, (name, f) in enumerate(own):
            marks += _average_marks(name, f, paints[i], key[i], shapes[i])
        x = Axis("rotations averaged over, M")
        head = style.name_of(family) if family else ""
        panels.append(Panel(x, Axis("L above L_mean (%)", log=False), tuple(marks), head))
    exact = there[0][1].averages[0].exact
    caption = (
        f"{there[0][1].loss} loss of the average over M rotations, above that of the average over all of them. Lines: "
        f"L_mean + L_equiv / M from {there[0][1].rotations} rotations, "
        f"{'exact' if exact else 'the leading order only'} for this loss; points: measured with other rotations; bars: "
        "one standard error of their distance from the line."
    )
    return Drawing("averages", title, caption, shared_axes(panels), tuple(keys))


def _average_marks(name: str, f: Found, colour: str, key: str, shape: str) -> list[Mark]:
    """The law as a line, and what was measured as points."""
    w = f.whole
    assert w.mean is not None
    floor = w.mean.value
    m = np.array([float(a.rotations) for a in f.averages])
    curve = np.geomspace(m.min(), m.max(), 100)
    measured = np.array([a.measured.value for a in f.averages])
    error = np.array([a.deviation.error or 0.0 for a in f.averages])
    y, e = 100 * (measured / floor - 1), 100 * error / floor
    hover = [
        f"<b>{name}</b><br>M = {a.rotations}: {a.measured}<br>law {a.predicted}, difference {a.deviation}"
        for a in f.averages
    ]
    return [
        Line(curve, 100 * w.equiv.value / curve / floor, colour, key),
        Points(m, y, colour, key, shape, low=y - e, high=y + e, hover=hover),
    ]
