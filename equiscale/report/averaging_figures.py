"""Averaging over rotations at test time: loss against their number, and what it does to the exponent of size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from equiscale.laws.averaging import AveragedRun
from equiscale.laws.size_exponent import AtFloor, SizeExponent
from equiscale.report import style
from equiscale.report.drawing import Axis, Drawing, Key, Line, Mark, Panel, Points, Rule, Strip, absent
from equiscale.report.sizes import Sizes, spoken

ONE, MANY = style.SERIES[0], style.SERIES[1]  # the loss, and that of the average
LOOKS = ((ONE, "one", "circle"), (MANY, "many", "square"))


def averages_figure(found: Sequence[AveragedRun], sizes: Mapping[str, SizeExponent]) -> Drawing:
    """L against M with the law; then for each architecture L against N with eq. 24, and alpha against L_D."""
    title = "Averaging over rotations at test time"
    if not found:
        return absent("averages", title, "no average was measured.")
    # Rows of three first.
    names = sorted(dict.fromkeys(run.architecture for run in found), key=lambda name: name not in sizes)
    several = len(names) > 1
    known = all(np.isfinite(run.N) for run in found)
    classes = Sizes.of("N", np.array([run.N for run in found])) if known and len(found) > 1 else None
    panels: list[Panel] = []
    for name in names:
        rows = [i for i, run in enumerate(found) if run.architecture == name]
        head = style.name_of(name) if several else "Loss of the average"
        panels.append(_against_rotations([found[i] for i in rows], classes, rows, head))
        if name in sizes:
            panels += [_against_size(sizes[name]), _against_floor(sizes[name])]
    keys = [Key("runs", "runs", ONE, "point")] if classes is None else list(classes.keys())
    if sizes:
        one = next(iter(sizes.values()))
        keys += [
            Key("one", f"L, {one.names[0]}", ONE, "point"),
            Key("many", f"L, {one.names[1]}", MANY, "point", symbol="square"),
            Key("chosen", "L_D of the lines", style.QUIET, "line", "dash"),
            Key("allowed", "L_D that the rungs allow", style.QUIET, "band"),
        ]
    caption = (
        "Lines on the left: L_mean + L_equiv / M"
        + (", exact for squared error" if all(r.exact for r in found) else ", the leading order in 1 / M")
        + "; bars: one standard error, of the distance from the line where that was measured."
        + (
            " Middle: L − L_D = A N^−α at one D, the lines with the L_D that is marked on the right, where α is shown "
            "for every L_D; pale: what the rungs do not allow; filled: L_D given, open: fitted."
            if sizes
            else ""
        )
    )
    notes = tuple(f"{style.name_of(name)}: {made.text}" if name else made.text for name, made in sizes.items())
    return Drawing("averages", title, caption, tuple(panels), tuple(keys), columns=min(3, len(panels)), notes=notes)


def _against_rotations(found: Sequence[AveragedRun], classes: Sizes | None, rows: Sequence[int], title: str) -> Panel:
    """A colour for each size where it is known; rows: those of the classes."""
    marks: list[Mark] = []
    for row, run in zip(rows, found, strict=True):
        index = None if classes is None else int(classes.classes[row])
        colour = ONE if classes is None or index is None else classes.colour(index)
        key = "runs" if classes is None or index is None else classes.key(index)
        line = np.geomspace(1, max(2.0, 1.5 * run.rotations.max()), 60)
        marks.append(Line(line, run.law(line), colour, key, width=1.4))
        marks.append(Rule(run.law.mean, colour=style.mix(colour, "#ffffff", 0.5), dash="dot"))
        errors = run.errors if run.deviation_errors is None else run.deviation_errors
        low = high = None
        if errors is not None:
            low, high = run.losses - errors, run.losses + errors
        texts = [
            f"<b>{run.run}</b><br>M = {m:g}: {style.number(y)}<br>{d:+.2%} off the law"
            for m, y, d in zip(run.rotations, run.losses, run.check().deviations, strict=True)
        ]
        marks.append(Points(run.rotations, run.losses, colour, key, size=5.5, low=low, high=high, hover=texts))
    label = "loss" if any(run.loss == "unknown" for run in found) else f"loss ({found[0].loss})"
    most = max(run.rotations.max() for run in found)
    ticks = tuple((float(2**k), f"{2**k}") for k in range(0, int(np.log2(most)) + 2, 1 if most <= 64 else 2))
    return Panel(Axis("rotations M", ticks=ticks), Axis(label), tuple(marks), title)


def _main(made: SizeExponent) -> AtFloor | None:
    return made.given[0] if made.given else made.fitted


def _against_size(made: SizeExponent) -> Panel:
    """Both losses and their fits, which bend on these axes: L - L_D is the power."""
    marks: list[Mark] = []
    line = np.geomspace(made.N.min() / 1.2, made.N.max() * 1.2, 60)
    main = _main(made)
    for (colour, key, symbol), loss, side in zip(LOOKS, (made.loss, made.averaged), ("first", "second"), strict=True):
        if main is not None:
            fit = getattr(main.changes, side)
            marks.append(Line(line, fit(N=line), colour, key, width=1.6))
        texts = [f"N = {spoken(n)}<br>loss {style.number(y)}" for n, y in zip(made.N, loss, strict=True)]
        marks.append(Points(made.N, loss, colour, key, symbol, 6.0, hover=texts))
    return Panel(Axis("N (parameters)"), Axis("loss"), tuple(marks), "Loss against size")


def _against_floor(made: SizeExponent) -> Panel:
    """alpha along L_D; what is not allowed is pale."""
    marks: list[Mark] = []
    top, bottom = 0.0, min(float(p.alpha.min()) for p in made.profiles)
    for (colour, key, _), p in zip(LOOKS, made.profiles, strict=True):
        low, high = p.allowed
        inside = (p.floor >= low) & (p.floor <= high)
        marks.append(Strip(low, high, "x", colour, "allowed", opacity=0.10))
        marks.append(Line(p.floor, p.alpha, style.mix(colour, "#ffffff", 0.55), key, width=1.2))
        grid = np.union1d(p.floor[inside], [low, high])
        alpha = np.interp(grid, p.floor, p.alpha)
        texts = [f"L_D = {f:.4g}<br>α = {a:.3g}" for f, a in zip(grid, alpha, strict=True)]
        marks.append(Line(grid, alpha, colour, key, width=2.2, hover=texts))
        top = max(top, float(alpha.max()))
    every = (*made.given, *([made.fitted] if made.fitted else []))
    for one in every:
        for (colour, key, symbol), floor, value in zip(
            LOOKS, one.floors, (one.alpha.first, one.alpha.second), strict=True
        ):
            i = value.interval
            bar = {} if i is None else {"low": [i.low], "high": [i.high]}
            text = f"L_D = {floor:.4g} {'given' if one.given else 'fitted'}<br>α = {value}"
            marks.append(Points([floor], [value.value], colour, key, symbol, 6.5, one.given, hover=[text], **bar))  # type: ignore[arg-type]
            top = max(top, value.value if i is None else min(i.high, 2 * value.value))
            bottom = min(bottom, value.value if i is None else max(i.low, value.value / 2))
    main = _main(made)
    if main is not None:
        marks += [Rule(f, "x", key="chosen") for f in dict.fromkeys(main.floors)]
    y = Axis("α", False, 0.9 * bottom, 1.08 * top)
    return Panel(Axis("L_D", False), y, tuple(marks), "α hangs on L_D")
