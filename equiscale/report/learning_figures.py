"""Energy and force parts (fig. 14), new molecules against new conformers, and the largest rung foretold."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from equiscale.laws.results import Score
from equiscale.report import style
from equiscale.report.drawing import (
    Axis,
    Drawing,
    Key,
    Line,
    Mark,
    Panel,
    Points,
    Rule,
    Strip,
    absent,
    shared_axes,
)
from equiscale.report.frontier_figures import loss_axis
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

DATA = Axis("atoms seen in training D")


def parts(material: Material) -> Drawing:
    """Energy above, force below, one column per architecture."""
    title = "Energy and force apart"
    rows: list[Panel] = []
    notes: list[str] = []
    keys = [shade_key(a, material.of_architecture(a)) for a in material.architectures]
    for part, word in (("energy_loss", "energy"), ("force_loss", "force")):
        column, row = f"{part}_{material.set}", []
        if not any((c[column] > 0).any() for c in material.curves):
            notes.append(f"The {word} part of the loss is not in the records.")
            continue
        for name in material.architectures:
            curves = material.of_architecture(name)
            marks = reference_marks(material, column, (name,), part)
            marks += [_line(c, column, shades(curves)[c.N], name) for c in curves]
            label = Axis(f"{word} part of L, {SETS.get(material.set, material.set)}")
            row.append(Panel(DATA, label, tuple(marks), f"{style.name_of(name)}, {word}", style.hue(name)))
        rows += shared_axes(row)
        notes += [n for n in reference_notes(material, column, part) if n not in notes]
    if not rows:
        return absent("parts", title, "The records hold no energy and force parts of the loss.")
    column = f"force_loss_{material.set}"
    caption = (
        "The two terms of the loss, both in units of the labels' standard deviation; the table of runs has "
        "them in meV per atom and meV/Å. How much either term counts is seen in the trivial predictor's "
        "two lines."
    )
    return Drawing(
        "parts",
        title,
        caption,
        tuple(rows),
        (*keys, *reference_keys(material, column, "force_loss")),
        columns=min(len(material.architectures), 3),
        notes=tuple(notes),
    )


def gap(material: Material) -> Drawing:
    """Do new molecules cost more than new conformers of known ones, and does that grow with data?"""
    title = "New molecules against new conformers of training molecules"
    names = ("loss_molecules", "loss_conformers")
    if not all(any((c[n] > 0).any() for c in material.curves) for n in names):
        return absent("gap", title, "The records hold the loss on one validation set only, so there is no gap to show.")
    panels, ratio = [], []
    spread = max((material.noise(a, material.loss) or 0.0 for a in material.architectures), default=0.0)
    for name in material.architectures:
        curves = material.of_architecture(name)
        marks = reference_marks(material, names[0], (name,))
        largest = [c for c in curves if curves[-1].N == c.N]
        for curve in largest:
            marks.append(_line(curve, names[0], style.hue(name), name, "solid", 2.0))
            marks.append(_line(curve, names[1], style.hue(name), name, "dash", 1.6))
        panels.append(
            Panel(
                DATA, Axis("validation loss L"), tuple(marks), f"{style.name_of(name)}, largest rung", style.hue(name)
            )
        )
        for curve in curves:
            ratio.append(_ratio(curve, names, shades(curves)[curve.N], name))
    lines: list[Mark] = [Rule(1.0, "y", style.QUIET, "dash", text="no gap", side="right", above=False)]
    if spread:
        low, high = math.exp(-2 * math.sqrt(2) * spread), math.exp(2 * math.sqrt(2) * spread)
        lines.insert(0, Strip(low, high, "y", style.QUIET, "noise", opacity=0.15))
    ratio_panel = Panel(DATA, Axis("ratio of L, molecules / conformers", log=False), (*lines, *ratio), "The gap")
    keys = [shade_key(a, material.of_architecture(a)) for a in material.architectures]
    keys += [
        Key("solid", "new molecules", style.INK, note=True),
        Key("dashed", "new conformers", style.INK, "line", "dash", note=True),
    ]
    sentences = [laws.freshness.text for a in material.architectures if (laws := material.laws(a)) is not None]
    caption = " ".join(dict.fromkeys(t for t in sentences if t))
    caption += " The grey strip in the last panel is two seed standard deviations of a ratio." if spread else ""
    return Drawing(
        "gap",
        title,
        caption.strip(),
        (*shared_axes(panels), ratio_panel),
        columns=3 if len(panels) == 2 else 2,
        keys=(*keys, *reference_keys(material, names[0])),
        notes=reference_notes(material, names[0]),
    )


def foretold(material: Material) -> Drawing:
    """The largest rung as the smaller ones foretell it, and as it came out."""
    title = "The largest rung, predicted from the smaller ones"
    panels, notes, words = [], [], []
    for name in material.architectures:
        laws = material.laws(name)
        score = laws.held_out if laws else None
        if laws is None or score is None:
            notes.append(f"No prediction for {style.name_of(name)}: it has too few smaller rungs to fit a law to.")
            continue
        written = any(
            isinstance(p, Mapping) and p.get("architecture") == name and p.get("width") == score.prediction.width
            for p in material.facts.get("predictions") or ()
        )
        when = "written down before that rung was trained" if written else "made afterwards, with that rung left out"
        words.append(f"{score.text} This prediction was {when}.")
        marks = reference_marks(material, material.loss, (name,))
        rungs = [r for r in laws.rungs if r.width != score.prediction.width and r.loss > 0]
        texts = [f"<b>w = {r.width}</b><br>N = {style.short(r.N)}<br>L = {style.number(r.loss)}" for r in rungs]
        marks.append(
            Points(
                [r.N for r in rungs],
                [r.loss for r in rungs],
                style.hue(name),
                "seen",
                style.symbol(name),
                7,
                hover=texts,
            )
        )
        marks += _forecast(score, name)
        panels.append(
            Panel(
                Axis("trainable parameters N"), loss_axis(material), tuple(marks), style.name_of(name), style.hue(name)
            )
        )
    if not panels:
        return absent("prediction", title, notes[0] if notes else "There is no architecture to predict.")
    keys = (
        Key("seen", "smaller rungs, last evaluation", style.INK, "point"),
        Key("foretold", "predicted, with interval", style.INK, "point", symbol="square", filled=False),
        Key("measured", "measured", style.INK, "point", symbol="star"),
    )
    return Drawing(
        "prediction",
        title,
        " ".join(words),
        shared_axes(panels),
        (*keys, *reference_keys(material, material.loss)),
        notes=tuple(notes) + reference_notes(material, material.loss),
    )


def _forecast(score: Score, name: str) -> list[Mark]:
    prediction, within = score.prediction, score.prediction.loss.interval
    value, N = prediction.loss.value, prediction.N
    low, high = ([within.low], [within.high]) if within else (None, None)
    text = f"<b>predicted</b>, w = {prediction.width}<br>L = {style.number(value)}"
    text += f" {style.interval(within.low, within.high)}" if within else ""
    colour = style.mix(style.hue(name), "#000000", 0.4)
    return [
        Points([N], [value], colour, "foretold", "square", 10, False, low=low, high=high, hover=[text]),
        Points(
            [N * 1.1],
            [score.measured],
            style.INK,
            "measured",
            "star",
            10,
            hover=[f"<b>measured</b>, w = {prediction.width}<br>L = {style.number(score.measured)}"],
        ),
    ]


def _line(curve: Curve, column: str, colour: str, key: str, dash: str = "solid", width: float = 1.5) -> Line:
    keep = np.flatnonzero((curve["D"] > 0) & (curve[column] > 0))
    texts = [describe(curve, int(i), column) for i in keep]
    return Line(curve["D"][keep], curve[column][keep], colour, key, dash, width, hover=texts)


def _ratio(curve: Curve, names: tuple[str, str], colour: str, key: str) -> Line:
    first, second = curve[names[0]], curve[names[1]]
    keep = np.flatnonzero((first > 0) & (second > 0) & (curve["D"] > 0))
    values = first[keep] / second[keep]
    texts = [
        f"<b>{style.name_of(curve.architecture)}</b> w = {curve.width}, seed {curve.seed}<br>"
        f"D = {style.short(d)} atoms<br>ratio = {style.number(v)}"
        for d, v in zip(curve["D"][keep], values)
    ]
    return Line(curve["D"][keep], values, colour, key, "solid", 1.3, hover=texts)
