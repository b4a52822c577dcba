"""Exponents beside the paper's, and the difference of gamma over every way to ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from equiscale.laws.paper import PAPER
from equiscale.laws.results import Pair, Specification
from equiscale.laws.uncertainty import Estimate
from equiscale.laws.verdict import plain_ladder
from equiscale.report import style
from equiscale.report.drawing import Axis, Drawing, Key, Mark, Panel, Points, Rule, Strip, absent
from equiscale.report.material import BRIEF, Material

# quantity, how it is read from our laws, and from the paper's
ROWS: tuple[tuple[str, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    ("γ, frontier", lambda a: _of(a.frontiers.get("C"), "gamma"), lambda p: p.frontier.get("gamma")),
    ("γ, surface", lambda a: _of(a.surface, "gamma"), lambda p: p.surface.get("gamma")),
    ("α (size)", lambda a: _of(a.surface, "alpha"), lambda p: p.surface.get("alpha")),
    ("β (data)", lambda a: _of(a.surface, "beta"), lambda p: p.surface.get("beta")),
)


def _of(source: Any, name: str) -> Estimate | None:
    return source.estimates.get(name) if source is not None else None


def exponents(material: Material) -> Drawing:
    """One row per exponent: ours over our range, the paper's over its own."""
    title, panels = "Local exponents, and the paper's at its scale", []
    largest = [0.0]
    for name in material.architectures:
        laws, paper = material.laws(name), PAPER.get(name)
        ticks = tuple((float(len(ROWS) - i), label) for i, (label, *_) in enumerate(ROWS))
        marks: list[Mark] = []
        for (place, label), (_, ours, theirs) in zip(ticks, ROWS):
            mine = ours(laws) if laws is not None else None
            pairs = ((mine, 0.13, True, "ours"), (theirs(paper) if paper else None, -0.17, False, "paper"))
            for estimate, shift, filled, key in pairs:
                if estimate is None or style.finite(estimate.value) is None:
                    continue
                marks.append(_dot(name, label, estimate, place + shift, filled, key))
                largest.append(estimate.interval.high if estimate.interval else estimate.value)
        y = Axis("", log=False, low=0.4, high=len(ROWS) + 0.6, ticks=ticks)
        panels.append(Panel(Axis("local exponent", log=False), y, tuple(marks), style.name_of(name), style.hue(name)))
    if not any(p.marks for p in panels):
        return absent("exponents", title, "No law could be fitted and the paper has none of these architectures.")
    high = 1.06 * min(max(largest), 1.6)
    panels = [
        Panel(Axis("local exponent", log=False, low=0, high=high), p.y, p.marks, p.title, p.colour) for p in panels
    ]
    ranges = [
        f"{style.name_of(n)} C in {style.interval(*laws.C_range)} FLOP"
        for n in material.architectures
        if (laws := material.laws(n)) is not None
    ]
    caption = (
        f"Filled: ours, local exponents over our range ({'; '.join(ranges)}). Open: the paper's (tables 1 "
        "and 7), at far larger compute, on other data and other labels. They stand side by side to be "
        "looked at; that the ranges overlap or not is no test of either. Lines are 95 % intervals."
    )
    keys = (Key("ours", "ours", style.INK, "point"), Key("paper", "the paper's", style.INK, "point", filled=False))
    return Drawing("exponents", title, caption, tuple(panels), keys)


def _dot(name: str, label: str, estimate: Estimate, place: float, filled: bool, key: str) -> Points:
    within = estimate.interval
    text = (
        f"<b>{style.name_of(name)}</b>, {'ours' if filled else 'the paper'}<br>{label} = {style.number(estimate.value)}"
    )
    text += f" {style.interval(within.low, within.high)}" if within else " (no interval)"
    low, high = ([within.low], [within.high]) if within else (None, None)
    colour = style.hue(name)
    return Points(
        [estimate.value],
        [place],
        colour,
        key,
        style.symbol(name),
        9,
        filled,
        low=low,
        high=high,
        sideways=True,
        hover=[text],
    )


# --- the difference of gamma over specifications ---------------------------------------------------------------

METHODS = {"surface": "surface", "plateau": "surface off a plateau", "frontier": "frontier"}
PARTS = {"loss": "L", "energy_loss": "energy part", "force_loss": "force part"}
CHOICES: tuple[tuple[str, Callable[[Specification], str]], ...] = (
    ("method", lambda s: METHODS.get(s.method, s.method)),
    ("loss", lambda s: PARTS.get(s.part, s.part)),
    ("set", lambda s: BRIEF.get(s.validation, s.validation)),
    ("window", lambda s: f"D ≥ {style.share(s.window)}"),
    ("floor", lambda s: "without a floor" if s.floor == "zero" else "floor free"),
    ("objective", lambda s: {"huber": "Huber", "lad": "LAD"}.get(s.objective, s.objective)),
)


def specifications(material: Material) -> Drawing:
    """A specification curve per pair: the differences in order above, the choices behind each below. Of variants of one
    architecture those with the plain one, as all pairs of many are a figure that nobody reads."""
    title, panels, words, notes = "Is the difference of exponents there however one asks?", [], [], []
    plain = plain_ladder(material.main.architectures)
    shown = [p for p in material.main.pairs if not plain or plain in (p.first, p.second)]
    for pair in shown:
        usable = sorted((s for s in pair.specifications if style.finite(s.delta) is not None), key=lambda s: s.delta)
        names = f"{style.name_of(pair.second)} − {style.name_of(pair.first)}"
        if not usable:
            notes.append(f"{names}: no way of asking gave both exponents.")
            continue
        words.append(pair.claim)
        panels += [_differences(pair, usable, names), _choices(usable)]
    if rest := len(material.main.pairs) - len(shown):
        which = "the other pair, of two variants, is" if rest == 1 else f"the other {rest} pairs, of two variants, are"
        notes.append(f"Each variant beside the plain one; {which} in what `equiscale fit --json` prints.")
    if not panels:
        reason = notes[0] if notes else "A difference needs two architectures in one study."
        return absent("specifications", title, reason)
    caption = (
        "Each dot is the difference of the two local exponents γ under one specification: which rows, "
        "which loss, which validation set, with or without a floor, which objective, frontier or surface. "
        "The marks below it say which. "
        "A difference is worded as one only where its sign is the same in at least 95 % of them. " + " ".join(words)
    )
    keys = (
        Key("positive", "second larger", style.INK, "point"),
        Key("negative", "first larger", style.INK, "point", filled=False),
        Key("default", "default specification, 95 % interval", style.QUIET, "band"),
    )
    return Drawing("specifications", title, caption.strip(), tuple(panels), keys, columns=1, notes=tuple(notes))


def _differences(pair: Pair, ordered: list[Specification], names: str) -> Panel:
    marks: list[Mark] = [Rule(0.0, "y", style.INK, "solid")]
    default = pair.delta_gamma
    if default is not None and default.interval is not None:
        marks.insert(0, Strip(default.interval.low, default.interval.high, "y", style.QUIET, "default"))
    for positive in (True, False):
        chosen = [(i + 1, s) for i, s in enumerate(ordered) if (s.delta >= 0) == positive]
        colour = style.hue(pair.second if positive else pair.first)
        texts = [
            "<br>".join([f"<b>Δγ = {style.signed(s.delta)}</b>", *(name_choice(s) for _, name_choice in CHOICES)])
            for _, s in chosen
        ]
        marks.append(
            Points(
                [i for i, _ in chosen],
                [s.delta for _, s in chosen],
                colour,
                "positive" if positive else "negative",
                "circle",
                6,
                positive,
                hover=texts,
            )
        )
    x = Axis("specifications, ordered by Δγ", log=False, low=0, high=len(ordered) + 1)
    return Panel(x, Axis("Δγ, difference of local exponents", log=False), tuple(marks), names)


def _choices(ordered: list[Specification]) -> Panel:
    heights: dict[str, float] = {}  # from the top downwards, a little air between the questions
    level = 0.0
    for _, choice in CHOICES:
        for label in sorted({choice(s) for s in ordered}, key=lambda t: (len(t), t)):
            level -= 1.0
            heights[label] = level
        level -= 0.45
    x, y = [], []
    for i, specification in enumerate(ordered):
        for _, choice in CHOICES:
            x.append(i + 1.0)
            y.append(heights[choice(specification)])
    ticks = tuple((height, label) for label, height in heights.items())
    axis = Axis("", log=False, low=level, high=-0.3, ticks=ticks)
    marks = (Points(x, y, style.mix(style.INK, "#ffffff", 0.25), "", "line-ns", 7, False),)
    return Panel(Axis("specifications, in the same order", log=False, low=0, high=len(ordered) + 1), axis, marks)
