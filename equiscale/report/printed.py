"""A drawing for a paper: one matplotlib figure with all panels, saved as SVG, PDF and PNG."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from equiscale.errors import need
from equiscale.report.drawing import Axis, Band, Drawing, Key, Line, Note, Panel, Points, Rule, Strip, extent
from equiscale.report.style import QUIET, SPACE, log_ticks, power

STYLE = Path(__file__).with_name("equiscale.mplstyle")
WIDTH = {1: 4.6, 2: 6.75, 3: 6.75}  # inches: a text column and the half more, or the full page
DASHES: dict[str, Any] = {"solid": "-", "dash": (0, (4, 2)), "dot": (0, (1, 1.6))}
SYMBOLS = {
    "circle": "o",
    "diamond": "D",
    "square": "s",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
    "star": "*",
    "hexagon": "h",
    "pentagon": "p",
    "x": "X",
    "line-ns": "|",
    "triangle-left": "<",
    "triangle-right": ">",
}


def draw(drawing: Drawing, width: float | None = None, notes: bool = False) -> Any:
    """The drawing as a `matplotlib.figure.Figure`, in our own style; global settings stay as they are.

    width, in inches: panels stand above one another where a single column of text is asked for (under 5). notes: what
    the data did not allow stands below, in small type."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise need("report", error) from None
    with mpl.rc_context(fname=STYLE):
        panels = drawing.panels
        columns = 1 if width is not None and width < 5 else min(drawing.columns, len(panels))
        width = width or WIDTH[columns]
        rows = math.ceil(len(panels) / columns)
        heights = [max(_height(p) for p in panels[i * columns : (i + 1) * columns]) for i in range(rows)]
        keys = [k for k in drawing.legend if k.kind != "scale"]
        across = _legend_columns([_key_label(k) for k in keys], width) if keys else 1
        legend = 0.17 * max(1 + len(keys) // 4, math.ceil(len(keys) / across))
        figure = Figure(figsize=(width, sum(heights) + legend))
        axes = _axes(figure, panels, columns, heights, drawing.columns == 1)
        for i, (panel, ax) in enumerate(zip(panels, axes)):
            _panel(ax, panel, 0.78 * width / columns)
            if panel.beside and i % columns:
                ax.set_yticklabels([])
            for key in drawing.legend:
                if key.kind == "scale" and key.name == panel.scale:
                    _bar(figure, ax, key)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        handles = [_handle(k) for k in keys]
        if handles:
            labels = [_key_label(k) for k in keys]
            figure.legend(
                handles, [_text(t) for t in labels], loc="outside upper left", ncols=across, handler_map=_handlers()
            )
        if notes and drawing.notes:
            lines = [line for note in drawing.notes for line in textwrap.wrap(note, round(19 * width))]
            figure.set_size_inches(width, sum(heights) + legend + 0.12 * len(lines))
            figure.supxlabel(_text("\n".join(lines)), x=0.01, ha="left", size=6.3, color=QUIET, linespacing=1.35)
        return figure


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write `<folder>/<id>.svg`, `.pdf` and `.png`; nothing where there is nothing to draw."""
    if not drawing.panels:
        return []
    figure, paths = draw(drawing), []
    import matplotlib as mpl  # there, as the figure was drawn

    with mpl.rc_context(fname=STYLE):
        figure.draw_without_rendering()  # lays the panels out, once for the three files
    figure.set_layout_engine("none")
    for ending in ("svg", "pdf", "png"):
        path = folder / f"{drawing.id}.{ending}"
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)  # same records, same bytes
        with mpl.rc_context(fname=STYLE):
            figure.savefig(path, metadata=dates)
        paths.append(path)
    return paths


def _axes(figure: Any, panels: Sequence[Panel], columns: int, heights: list[float], flush: bool) -> list[Any]:
    """Axes in rows. Edges are flush over all rows where panels belong above one another, and elsewhere unless the names
    of one panel's ticks would push the others in."""
    if flush or len({bool(p.y.ticks) for p in panels}) == 1:
        return list(figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights).ravel())
    out: list[Any] = []
    for i, part in enumerate(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights).ravel()):
        here = panels[i * columns : (i + 1) * columns]
        out += list(part.subplots(1, len(here), squeeze=False).ravel())
    return out


def _height(panel: Panel) -> float:
    rows = len(panel.y.ticks)
    return 2.3 if not rows else 0.55 + (0.25 if rows <= 6 else 0.14) * rows


def _panel(ax: Any, panel: Panel, width: float) -> None:
    for mark in panel.marks:
        _mark(ax, panel, mark)
    for name, axis in (("x", panel.x), ("y", panel.y)):
        _axis(ax, name, axis, *extent(panel, name), width)
    ax.set_title(_text(panel.title), color=panel.colour)


def _axis(ax: Any, name: str, axis: Axis, low: float, high: float, width: float) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    getattr(ax, f"set_{name}scale")("log" if axis.log else "linear")
    getattr(ax, f"set_{name}lim")(low, high)
    getattr(ax, f"set_{name}label")(_text(axis.label))
    ticks = axis.ticks or (tuple(log_ticks(low, high)) if axis.log else ())
    spine = getattr(ax, f"{name}axis")
    if ticks:
        if axis.log and not axis.ticks:
            ticks = _thinned(ticks, math.log(high / low), width if name == "x" else math.inf)
        spine.set_major_locator(FixedLocator([v for v, _ in ticks]))
        spine.set_ticklabels([_text(t) for _, t in ticks])
        spine.set_minor_locator(NullLocator())
        spine.set_minor_formatter(NullFormatter())


def _bar(figure: Any, ax: Any, key: Key) -> None:
    """A labelled bar of a scale's colours, beside its panel."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.ticker import FixedLocator, NullLocator

    colours = LinearSegmentedColormap.from_list(key.name, list(key.colours))
    shown = ScalarMappable(LogNorm(*key.range), colours)
    bar = figure.colorbar(shown, ax=ax, aspect=28, pad=0.03)
    ticks = log_ticks(*key.range, most=5)
    bar.ax.yaxis.set_major_locator(FixedLocator([v for v, _ in ticks]))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.set_yticklabels([_text(t) for _, t in ticks])
    bar.set_label(_text(key.label))
    bar.outline.set_linewidth(0)


def _thinned(ticks: tuple[tuple[float, str], ...], span: float, width: float) -> tuple[tuple[float, str], ...]:
    """Fewer labels where they would touch: at least a fourteenth of the axis apart, and by their length (7 pt)."""
    kept: list[tuple[float, str]] = []
    for tick in ticks:
        letters = (len(tick[1]) + len(kept[-1][1])) / 2 if kept else 0
        if not kept or math.log(tick[0] / kept[-1][0]) >= span * max(1 / 14, (0.05 * letters + 0.06) / width):
            kept.append(tick)
    return tuple(kept)


_DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_RAISED = re.compile("(10)?([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]\d+)\b")
_EXPONENT = re.compile(r"\^(−?[\w.]*\w)")
_PART = re.compile(r"\bL_(mean|equiv)\b")


def _text(text: str) -> str:
    """Text as it stands, `$` included (a study's name is not mathematics); 10⁻³ as mathtext: raised glyphs of a font
    differ in size, and some fonts lack them."""
    plain = _SCIENTIFIC.sub(lambda m: f"{m[1]}{SPACE}×{SPACE}{power(int(m[2]))}", text.replace("$", r"\$"))
    plain = _RAISED.sub(lambda m: f"${m[1] or ''}^{{{m[2].translate(_DIGITS)}}}$", plain)
    plain = _PART.sub(r"L$_{\1}$", plain)
    return _EXPONENT.sub(lambda m: f"$^{{{m[1]}}}$", plain)


def _mark(ax: Any, panel: Panel, mark: Any) -> None:
    if isinstance(mark, Line):
        style = DASHES[mark.dash]
        ax.plot(mark.x, mark.y, color=mark.colour, ls=style, lw=0.62 * mark.width, alpha=mark.opacity)
    elif isinstance(mark, Points):
        _points(ax, mark)
    elif isinstance(mark, Band):
        ax.fill_between(mark.x, mark.low, mark.high, color=mark.colour, alpha=mark.opacity, lw=0)
    elif isinstance(mark, Rule):
        draw_line = ax.axhline if mark.axis == "y" else ax.axvline
        draw_line(mark.value, color=mark.colour, ls=DASHES[mark.dash], lw=0.7, zorder=1)
        _rule_text(ax, mark, mark.value, mark.above)
    elif isinstance(mark, Strip):
        span = ax.axhspan if mark.axis == "y" else ax.axvspan
        span(mark.low, mark.high, color=mark.colour, alpha=mark.opacity, lw=0, zorder=0.5)
        _rule_text(ax, mark, mark.high, True)
    elif isinstance(mark, Note):
        ax.text(mark.x, mark.y, _text(mark.text), color=mark.colour, ha=mark.anchor, va="center", size=6.5)


def _points(ax: Any, mark: Points) -> None:
    face = mark.colour if mark.filled else "none"
    edge = {"markeredgecolor": "white" if mark.filled else mark.colour, "markeredgewidth": 0.4 if mark.filled else 0.8}
    if mark.filled and mark.size < 4:  # a white rim would leave nothing
        edge["markeredgewidth"] = 0.0
    if mark.low is not None and mark.high is not None:
        middle = np.asarray(mark.x if mark.sideways else mark.y, float)
        bars = np.abs(np.stack([middle - np.asarray(mark.low, float), np.asarray(mark.high, float) - middle]))
        side = {"xerr" if mark.sideways else "yerr": bars}
        ax.errorbar(mark.x, mark.y, fmt="none", ecolor=mark.colour, elinewidth=0.9, **side)
    marker = SYMBOLS.get(mark.symbol, "o")
    if marker == "|":
        edge = {"markeredgecolor": mark.colour, "markeredgewidth": 0.8}
    ax.plot(
        mark.x,
        mark.y,
        ls="none",
        marker=marker,
        ms=0.55 * mark.size,
        color=mark.colour,
        markerfacecolor=face,
        alpha=mark.opacity,
        **edge,
    )


def _rule_text(ax: Any, mark: Rule | Strip, value: float, above: bool) -> None:
    if not mark.text or mark.axis != "y":
        return
    x = 1.0 if mark.side == "right" else 0.01
    shift = (0, 2 if above else -2)
    ax.annotate(
        _text(mark.text),
        (x, value),
        shift,
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha=mark.side,
        va="bottom" if above else "top",
        size=6.3,
        color=QUIET,
    )


def _legend_columns(labels: list[str], width: float) -> int:
    """The most columns (filled downwards) whose longest labels fit the figure: 7 pt is about .06 inches a letter."""
    for columns in range(min(len(labels), 6), 1, -1):
        rows, longer = divmod(len(labels), columns)
        starts = [i * rows + min(i, longer) for i in range(columns + 1)]  # the first columns take what is left over
        longest = [max(map(len, labels[a:b])) for a, b in pairwise(starts)]
        if sum(0.58 + 0.06 * n for n in longest) <= width:
            return columns
    return 1


def _key_label(key: Key) -> str:
    return f"{key.label} ({key.ends[0]} – {key.ends[1]})" if key.kind == "shades" and key.ends[0] else key.label


def _handle(key: Key) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if key.kind == "band":
        return Patch(facecolor=key.colour, alpha=0.3, lw=0)
    if key.kind == "shades":
        colours = key.colours or (key.colour,)
        return tuple(Line2D([], [], color=c, lw=1.4) for c in (colours[0], colours[len(colours) // 2], colours[-1]))
    if key.kind == "point":
        face = key.colour if key.filled else "none"
        marker = SYMBOLS.get(key.symbol, "o")
        return Line2D(
            [], [], ls="none", marker=marker, ms=4, color=key.colour, markerfacecolor=face, markeredgewidth=0.8
        )
    return Line2D([], [], color=key.colour, ls=DASHES[key.dash], lw=1.1)


def _handlers() -> dict[Any, Any]:
    from matplotlib.legend_handler import HandlerTuple

    return {tuple: HandlerTuple(ndivide=None, pad=0)}
