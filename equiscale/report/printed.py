"""A drawing for a paper: one matplotlib figure with all panels, saved as SVG, PDF and PNG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from equiscale.errors import need
from equiscale.report.drawing import Axis, Band, Drawing, Key, Line, Note, Panel, Points, Rule, Strip, extent
from equiscale.report.style import QUIET, log_ticks

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
}


def draw(drawing: Drawing) -> Any:
    """The drawing as a `matplotlib.figure.Figure`, in our own style; global settings stay as they are."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise need("report", error) from None
    with mpl.rc_context(fname=STYLE):
        panels = drawing.panels
        columns = min(drawing.columns, len(panels))
        rows = math.ceil(len(panels) / columns)
        heights = [_height(panels[i * columns]) for i in range(rows)]
        legend = 0.17 * (1 + len(drawing.legend) // 4)
        figure = Figure(figsize=(WIDTH[columns], sum(heights) + legend))
        axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False, height_ratios=heights)).ravel()
        for panel, ax in zip(panels, axes):
            _panel(ax, panel)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        handles = [_handle(k) for k in drawing.legend]
        if handles:
            labels = [_key_label(k) for k in drawing.legend]
            columns = _legend_columns(labels, WIDTH[columns])
            figure.legend(handles, labels, loc="outside upper left", ncols=columns, handler_map=_handlers())
        figure.canvas.draw_idle()
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


def _height(panel: Panel) -> float:
    rows = len(panel.y.ticks)
    return 2.3 if not rows else 0.55 + (0.25 if rows <= 6 else 0.14) * rows


def _panel(ax: Any, panel: Panel) -> None:
    for mark in panel.marks:
        _mark(ax, panel, mark)
    for name, axis in (("x", panel.x), ("y", panel.y)):
        _axis(ax, name, axis, *extent(panel, name))
    ax.set_title(panel.title, color=panel.colour)


def _axis(ax: Any, name: str, axis: Axis, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    getattr(ax, f"set_{name}scale")("log" if axis.log else "linear")
    getattr(ax, f"set_{name}lim")(low, high)
    getattr(ax, f"set_{name}label")(axis.label)
    ticks = axis.ticks or (tuple(log_ticks(low, high)) if axis.log else ())
    spine = getattr(ax, f"{name}axis")
    if ticks:
        if axis.log and not axis.ticks:
            ticks = _thinned(ticks, math.log(high / low))
        spine.set_major_locator(FixedLocator([v for v, _ in ticks]))
        spine.set_ticklabels([_superscripts(t) for _, t in ticks])
        spine.set_minor_locator(NullLocator())
        spine.set_minor_formatter(NullFormatter())


def _thinned(ticks: tuple[tuple[float, str], ...], span: float) -> tuple[tuple[float, str], ...]:
    """Fewer labels where they would touch: at least a fourteenth of the axis apart."""
    kept: list[tuple[float, str]] = []
    for tick in ticks:
        if not kept or math.log(tick[0] / kept[-1][0]) >= span / 14:
            kept.append(tick)
    return tuple(kept)


_PLAIN = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def _superscripts(text: str) -> str:
    """10⁻³ as mathtext: raised glyphs of a font differ in size, and some fonts lack them."""
    head, raised = text.rstrip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹"), ""
    raised = text[len(head) :].translate(_PLAIN)
    return f"${head.replace('×', chr(92) + 'times')}^{{{raised}}}$" if raised else _plain(text)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # a study's name is not mathematics


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
        ax.text(mark.x, mark.y, _plain(mark.text), color=mark.colour, ha=mark.anchor, va="center", size=6.5)


def _points(ax: Any, mark: Points) -> None:
    face = mark.colour if mark.filled else "none"
    edge = {"markeredgecolor": "white" if mark.filled else mark.colour, "markeredgewidth": 0.4 if mark.filled else 0.8}
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
        _plain(mark.text),
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
        rows = math.ceil(len(labels) / columns)
        longest = [max(map(len, labels[i : i + rows])) for i in range(0, len(labels), rows)]
        if sum(0.58 + 0.06 * n for n in longest) <= width:
            return columns
    return 1


def _key_label(key: Key) -> str:
    return _plain(f"{key.label} ({key.ends[0]} – {key.ends[1]})" if key.kind == "shades" and key.ends[0] else key.label)


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
