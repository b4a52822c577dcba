"""How broken symmetry goes during training: percent of the loss (figs. 2a, b, d-f of the second paper), its two parts
(fig. 2c), their gradients (fig. 7), and how far EScAIP's head is from equivariant ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from equiscale.laws.correlation import Correlation
from equiscale.report import style
from equiscale.report.drawing import Axis, Band, Drawing, Key, Line, Mark, Panel, Points, Rule, absent, shared_axes
from equiscale.report.log_edges import Edges, edge_key
from equiscale.report.tracks import Track, by_architecture, gradient_correlation, head_correlation, measured
from equiscale.report.variant_figures import kind_of

STEP = Axis("training step")
UNTRACKED = (
    "No run of this study was tracked: set EvalSpec(symmetry=Tracking()) to measure broken symmetry in training."
)
LEAST_PERCENT, LEAST_LOSS = 1e-5, 1e-10  # below: rounding of single precision, or nothing that counts
BANDS = "Bands are ± one standard error over structures."

Numbers = Callable[[Track], np.ndarray]


def percent(tracks: Sequence[Track]) -> Drawing:
    """One line per run, one shade per size."""
    title = "Percent of the loss from broken symmetry"
    if not tracks:
        return absent("symmetry-percent", title, UNTRACKED)
    edges = Edges.of([(t["step"], t["percent"], t["percent_error"]) for t in tracks], LEAST_PERCENT)
    panels = []
    for name, colour, group in grouped(tracks):
        marks: list[Mark] = []
        for track in group:
            marks += _curve(track, group, edges, lambda t: t["percent"], lambda t: t["percent_error"], "%")
        panels.append(Panel(STEP, Axis("L_equiv, percent of L"), tuple(marks), name, colour))
    caption = (
        "L_equiv / L of the squared force error: what averaging predictions over all rotations would take off it. "
        f"{BANDS} At the start a small output breaks little symmetry whatever the potential knows; at the end a "
        "falling L_mean raises the percentage though L_equiv may stand still: the parts and the relative error tell "
        "these apart."
    )
    drawn = shared_axes(panels)
    return Drawing("symmetry-percent", title, caption, drawn, (*_run_keys(tracks), *edge_key(drawn)))


def parts(tracks: Sequence[Track]) -> Drawing:
    """Left both parts of the loss, right the error relative to the output."""
    title = "The two parts of the loss, and the equivariance error relative to the output"
    if not tracks:
        return absent("symmetry-parts", title, UNTRACKED)
    losses = Edges.of([(t["step"], t[c], t["equiv_error"]) for t in tracks for c in ("mean", "equiv")], LEAST_LOSS)
    ratios = Edges.of([(t["step"], t.relative, t.relative_error) for t in tracks], LEAST_LOSS)
    left, right = [], []
    for name, colour, group in grouped(tracks):
        both: list[Mark] = []
        relative: list[Mark] = []
        for track in group:
            both += _curve(track, group, losses, lambda t: t["mean"], None, "L_mean")
            both += _curve(track, group, losses, lambda t: t["equiv"], lambda t: t["equiv_error"], "L_equiv", "dash")
            relative += _curve(track, group, ratios, lambda t: t.relative, lambda t: t.relative_error, "L_equiv / E f²")
        left.append(Panel(STEP, Axis("squared force error"), tuple(both), f"{name}, parts", colour))
        right.append(Panel(STEP, Axis("L_equiv / E f²"), tuple(relative), f"{name}, relative", colour))
    pairs = zip(shared_axes(left), shared_axes(right), strict=True)
    panels = tuple(p for pair in pairs for p in pair)
    caption = (
        "Squared force error per component in units of the labels' standard deviation: L = L_mean + L_equiv. "
        "E f² is the mean squared predicted component, so the right-hand panels are free of the output's scale. "
        f"{BANDS}"
    )
    looks = (
        Key("solid", "L_mean, of the average over rotations", style.INK, note=True),
        Key("dashed", "L_equiv, the equivariance error", style.INK, dash="dash", note=True),
    )
    return Drawing("symmetry-parts", title, caption, panels, (*_run_keys(tracks), *looks, *edge_key(panels)))


def gradients(tracks: Sequence[Track]) -> Drawing:
    """Does the gradient of broken symmetry fade with its part of the loss?"""
    title = "Gradients of the two parts of the loss"
    tracks = measured(tracks, "gradient_mean")
    if not tracks:
        reason = "No gradients were tracked: set EvalSpec(symmetry=Tracking(gradients=True))."
        return absent("symmetry-gradients", title, reason)
    edges = Edges.of([(t.loss_ratio, t.gradient_ratio, None) for t in tracks], 1e-12, 1e-12)
    times = Edges.of([(t["step"], t["step"], None) for t in tracks], 1.0)
    left, right, notes = [], [], []
    for name, colour, group in grouped(tracks):
        paired: list[Mark] = []
        angle: list[Mark] = [Rule(0.0, "y", style.QUIET, "dash")]
        for track in group:
            paint, look = _paint(track, group), _marker(track, group)
            texts = [
                track.describe(
                    i,
                    f"L_equiv / L_mean = {style.number(a)}",
                    f"gradients, squared = {style.number(b)}",
                    f"cosine = {style.number(c)}",
                )
                for i, (a, b, c) in enumerate(zip(track.loss_ratio, track.gradient_ratio, track["gradient_cosine"]))
            ]
            paired += edges.points(track.loss_ratio, track.gradient_ratio, paint, track.architecture, texts, *look)
            there = np.flatnonzero(np.isfinite(track["gradient_cosine"]))
            x, y = times.x(track["step"])[there], track["gradient_cosine"][there]
            angle.append(Line(x, y, paint, track.architecture, width=1.2))
            angle.append(Points(x, y, paint, track.architecture, *look, hover=[texts[i] for i in there]))
        left.append(
            Panel(Axis("L_equiv / L_mean"), Axis("‖∇L_equiv‖² / ‖∇L_mean‖²"), tuple(paired), name, colour)
        )  # fmt: skip
        cosine = Axis("cosine of the two gradients", log=False, low=-1.05, high=1.05)
        right.append(Panel(STEP, cosine, tuple(angle), f"{name}, angle", colour))
        notes.append(f"{name}: {said(gradient_correlation(group))}")
    panels = tuple(p for pair in zip(shared_axes(left), shared_axes(right), strict=True) for p in pair)
    caption = (
        "Left: each point is one look at one run, both of its numbers from that look. Right: the angle between the two "
        "gradients. Squared norms are unbiased estimates, so they may be negative; where that of L_mean is, there is "
        "no ratio."
    )
    keys = (*_run_keys(tracks), *edge_key(panels))
    return Drawing("symmetry-gradients", title, caption, panels, keys, notes=tuple(notes))


def head(tracks: Sequence[Track]) -> Drawing:
    """The head's distance from the equivariant heads, and the error that comes of it."""
    title = "Distance of EScAIP's head from equivariant heads, and the equivariance error"
    tracks = measured(tracks, "head")
    if not tracks:
        return absent("symmetry-head", title, "No tracked run has a free EScAIP head.")
    edges = Edges.of([(t["head"], t["equiv"], None) for t in tracks], LEAST_LOSS, 1e-15)
    panels, notes = [], []
    for name, colour, group in grouped(tracks):
        marks: list[Mark] = _slope_one([(t["head"], t["equiv"]) for t in group])
        for track in group:
            texts = [
                track.describe(i, f"‖W − W̄‖² = {style.number(a)}", f"L_equiv = {style.number(b)}")
                for i, (a, b) in enumerate(zip(track["head"], track["equiv"]))
            ]
            marks += edges.points(
                track["head"], track["equiv"], _paint(track, group), track.architecture, texts, *_marker(track, group)
            )
        panels.append(
            Panel(Axis("‖W − W̄‖², squared distance of the head"), Axis("L_equiv"), tuple(marks), name, colour)
        )
        notes.append(f"{name}: {said(head_correlation(group))}")
    caption = (
        "L_equiv of this head is a quadratic form in W − W̄ (W̄: the mean of its three columns), whose matrix the "
        "features below set: the dashed line is what a constant matrix would give."
    )
    drawn = shared_axes(panels)
    keys = (*_run_keys(tracks), Key("slope", "proportional", style.QUIET, dash="dash"), *edge_key(drawn))
    return Drawing("symmetry-head", title, caption, drawn, keys, notes=tuple(notes))


FIGURES: dict[str, Callable[[Sequence[Track]], Drawing]] = {
    "percent": percent,
    "parts": parts,
    "gradients": gradients,
    "head": head,
}


def said(found: Correlation) -> str:
    """A correlation in a sentence."""
    if not np.isfinite(found.pearson):
        return f"{found.points} points are too few, or too much alike, for a correlation."
    ends = found.pearson_interval, found.spearman_interval
    text = "in logarithms, over all points, "
    for name, value, end in zip(("Pearson", "Spearman"), (found.pearson, found.spearman), ends):
        text += f"{name} {style.number(value)}" + (f" {style.interval(*end)}" if end else "") + ", "
    text += f"{found.points} points of {found.runs} run{'s' * (found.runs > 1)}"
    text += f" ({found.method})" if found.method else " (too few for an interval)"
    alone = [p for p, _, _ in found.per_run.values() if np.isfinite(p)]
    if found.runs > 1 and alone:
        text += f"; within single runs Pearson {style.number(min(alone))} to {style.number(max(alone))}"
    if found.left_out:
        text += f"; {found.left_out} pairs without a logarithm left out"
    return f"{text}."


# --- who shares a panel, and looks -------------------------------------------------------------------------------


def grouped(tracks: Sequence[Track]) -> list[tuple[str, str, list[Track]]]:
    """Title, colour and runs of each panel: a ladder of several sizes has its own, single runs of one architecture's
    variants share one."""
    kinds: dict[str, list[Track]] = {}
    for track in tracks:
        kinds.setdefault(kind_of(track.architecture), []).append(track)
    out = []
    for kind, group in kinds.items():
        names = {name: list(own) for name, own in by_architecture(group).items()}
        single = [name for name, own in names.items() if len({t.N for t in own}) == 1]
        together = single if len(single) > 1 else []
        out += [(style.name_of(n), own[0].look.hue, own) for n, own in names.items() if n not in together]
        if together:
            title = style.name_of(kind) if len(together) == len(names) else f"{style.name_of(kind)}, variants"
            out.append((title, style.hue(kind), [t for name in together for t in names[name]]))
    return out


def _paint(track: Track, group: Sequence[Track]) -> str:
    sizes = style.places([t.N for t in group if t.architecture == track.architecture])
    return style.shade_of(track.look.hue, 0.08 + 0.92 * sizes[track.N]) if len(sizes) > 1 else track.look.hue


def _marker(track: Track, group: Sequence[Track]) -> tuple[str, float]:
    """Symbol and size: its own where variants share the panel."""
    return (track.look.symbol, 6.5) if len({t.architecture for t in group}) > 1 else ("circle", 4.5)


def _run_keys(tracks: Sequence[Track]) -> tuple[Key, ...]:
    """One entry per named architecture: its shades where it has several sizes, else its marker."""
    keys = []
    for name, own in by_architecture(tracks).items():
        look, label, sizes = own[0].look, style.name_of(name), sorted({t.N for t in own})
        if len(sizes) == 1:
            keys.append(Key(name, label, look.hue, "point", symbol=look.symbol))
            continue
        colours = tuple(style.shade_of(look.hue, 0.08 + 0.92 * p) for p in style.places(sizes).values())
        ends = (style.short(sizes[0]), style.short(sizes[-1]))
        keys.append(Key(name, f"{label}, N", look.hue, "shades", colours=colours, ends=ends))
    return tuple(keys)


def _curve(
    track: Track,
    group: Sequence[Track],
    edges: Edges,
    values: Numbers,
    errors: Numbers | None,
    what: str,
    dash: str = "solid",
) -> list[Mark]:
    """A run's line with its band and points; what has no place on the axes stands open at their edge."""
    y = values(track)
    e = errors(track) if errors else np.full(len(y), np.nan)
    paint = _paint(track, group)
    texts = [
        track.describe(i, f"{what} = {style.number(v)}" + (f" ± {style.number(s, 2)}" if np.isfinite(s) else ""))
        for i, (v, s) in enumerate(zip(y, e))
    ]
    marks: list[Mark] = []
    if errors:
        x, low, high = edges.band(track["step"], y, e)
        marks.append(Band(x, low, high, paint, track.architecture, 0.15))
    symbol, size = _marker(track, group)
    return marks + edges.curve(track["step"], y, paint, track.architecture, texts, dash, symbol, size)


def _slope_one(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Mark]:
    """y proportional to x, through the geometric means, over the range of x."""
    x, y = (np.concatenate([np.asarray(p[i], float) for p in pairs]) for i in (0, 1))
    keep = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    if keep.sum() < 2:
        return []
    ends = np.array([x[keep].min(), x[keep].max()])
    factor = float(np.exp(np.mean(np.log(y[keep] / x[keep]))))
    return [Line(ends, factor * ends, style.QUIET, "slope", "dash", 1.2)]
