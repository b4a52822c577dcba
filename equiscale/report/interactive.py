"""A drawing for the page: one plotly figure per panel, so that panels flow as the window's width allows.

Titles, the y axis' name and the legend are the page's (HTML): they wrap, and no legend ever covers data.
"""

from __future__ import annotations

import html
import math
import re
from typing import Any

import numpy as np

from equiscale.errors import need
from equiscale.report.drawing import Axis, Band, Drawing, Line, Note, Panel, Points, Rule, Strip, extent
from equiscale.report.style import GRID, INK, QUIET, log_ticks

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
_PART = re.compile(r"\bL_(mean|equiv)\b")
DASHES = {"solid": "solid", "dash": "5px,3px", "dot": "1.5px,3px"}


def draw(drawing: Drawing) -> list[Any]:
    """One `plotly.graph_objects.Figure` per panel."""
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise need("report", error) from None
    empty = go.layout.Template()  # plotly's default template would be 7 kB in every panel
    margin = _margin(drawing)
    return [go.Figure(data=_traces(p), layout=_layout(p, margin) | {"template": empty}) for p in drawing.panels]


def _margin(drawing: Drawing) -> int:
    """Panels that stand above one another have the same left edge; others take what their own labels need."""
    longest = max((len(t) for p in drawing.panels for _, label in p.y.ticks for t in label.split("\n")), default=0)
    return 20 + round(6.3 * longest) if drawing.columns == 1 and longest else 12


def script() -> str:
    """plotly's own JavaScript, to be placed in the page once."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise need("report", error) from None
    return get_plotlyjs()


def _numbers(values: Any) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in np.asarray(values, float).ravel()]


def _fade(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def _traces(panel: Panel) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for mark in panel.marks:
        if isinstance(mark, Line):
            result.append(_line(mark))
        elif isinstance(mark, Points):
            result.append(_points(mark))
        elif isinstance(mark, Band):
            result.append(_band(mark))
    if not result:  # an empty panel still has axes
        result.append({"type": "scatter", "x": [], "y": []})
    return result


def _hover(texts: Any) -> dict[str, Any]:
    if len(texts) == 0:
        return {"hoverinfo": "skip"}
    return {"text": list(texts), "hovertemplate": "%{text}<extra></extra>"}


def _line(mark: Line) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": _numbers(mark.x),
        "y": _numbers(mark.y),
        "opacity": mark.opacity,
        "line": {"color": mark.colour, "width": mark.width, "dash": DASHES[mark.dash]},
        "meta": mark.key,
        "showlegend": False,
        **_hover(mark.hover),
    }


def _points(mark: Points) -> dict[str, Any]:
    shape = mark.symbol if mark.filled else f"{mark.symbol}-open"
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": _numbers(mark.x),
        "y": _numbers(mark.y),
        "meta": mark.key,
        "opacity": mark.opacity,
        "showlegend": False,
        **_hover(mark.hover),
        "marker": {
            "symbol": shape,
            "size": mark.size * (1.25 if "triangle" in shape else 1.0),  # triangles look small
            "color": mark.colour,
            "line": {"width": 0.8 if mark.filled else 1.6, "color": "#ffffff" if mark.filled else mark.colour},
        },
    }
    if mark.low is not None and mark.high is not None:
        middle = np.asarray(mark.x if mark.sideways else mark.y, float)
        trace["error_x" if mark.sideways else "error_y"] = {
            "type": "data",
            "symmetric": False,
            "color": mark.colour,
            "thickness": 1.6,
            "width": 0,
            "array": _numbers(np.asarray(mark.high, float) - middle),
            "arrayminus": _numbers(middle - np.asarray(mark.low, float)),
        }
    return trace


def _band(mark: Band) -> dict[str, Any]:
    keep = np.isfinite(np.asarray(mark.low, float)) & np.isfinite(np.asarray(mark.high, float))
    x, low, high = (np.asarray(v, float)[keep] for v in (mark.x, mark.low, mark.high))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": _numbers(np.concatenate([x, x[::-1]])),
        "meta": mark.key,
        "y": _numbers(np.concatenate([high, low[::-1]])),
        "fill": "toself",
        "line": {"width": 0},
        "fillcolor": _fade(mark.colour, mark.opacity),
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _layout(panel: Panel, margin: int) -> dict[str, Any]:
    shapes, notes = [], []
    for mark in panel.marks:
        if isinstance(mark, Rule):
            shapes.append(_straight(panel, mark))
            notes += _rule_text(panel, mark)
        elif isinstance(mark, Strip):
            shapes.append(_strip(panel, mark))
            notes += _rule_text(panel, mark)
        elif isinstance(mark, Note):
            at = {"x": _place(panel, "x", mark.x), "y": _place(panel, "y", mark.y)}
            notes.append(_note(mark.text, mark.colour, xanchor=mark.anchor, yanchor="middle", **at))
    named = bool(panel.y.ticks)
    return {
        "autosize": True,
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": "zoom",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12.5, "color": INK},
        "margin": {"l": margin, "r": 14, "t": 8, "b": 8, "pad": 0},
        "hoverlabel": {
            "bgcolor": "#ffffff",
            "bordercolor": "#c9ccd1",
            "align": "left",
            "font": {"family": FONT, "size": 12.5, "color": INK},
        },
        "xaxis": _axis(panel.x, *extent(panel, "x")) | _title(panel),
        "yaxis": _axis(panel.y, *extent(panel, "y")) | ({"showgrid": True} if named else {}),
        "shapes": shapes,
        "annotations": notes,
    }


def _title(panel: Panel) -> dict[str, Any]:
    text = _PART.sub(r"L<sub>\1</sub>", html.escape(panel.x.label))
    return {"title": {"text": text, "standoff": 8, "font": {"size": 12.5, "color": QUIET}}}


def _axis(axis: Axis, low: float, high: float) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": "log" if axis.log else "linear",
        "range": [math.log10(low), math.log10(high)] if axis.log else [low, high],
        "gridcolor": GRID,
        "gridwidth": 1,
        "zeroline": False,
        "showline": True,
        "linecolor": "#b9bdc3",
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "#b9bdc3",
        "automargin": True,
        "tickfont": {"color": QUIET},
    }
    if axis.ticks:
        values, labels = [v for v, _ in axis.ticks], [_lines(t) for _, t in axis.ticks]
        return result | {"tickmode": "array", "tickvals": values, "ticktext": labels, "fixedrange": True}
    if axis.log:  # the page's script renews these when a reader zooms
        ticks = log_ticks(low, high)
        return result | {"tickmode": "array", "tickvals": [v for v, _ in ticks], "ticktext": [t for _, t in ticks]}
    return result | {"nticks": 7, "tickformat": "~g"}


def _lines(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def _place(panel: Panel, axis: str, value: float) -> float:
    """Shapes take data, annotations take log10 of it."""
    return math.log10(value) if (panel.x if axis == "x" else panel.y).log else value


def _straight(panel: Panel, mark: Rule) -> dict[str, Any]:
    line = {"color": mark.colour, "width": 1.2, "dash": DASHES[mark.dash]}
    across = {"type": "line", "layer": "below", "line": line}
    if mark.axis == "y":
        return across | {"xref": "paper", "x0": 0, "x1": 1, "y0": mark.value, "y1": mark.value}
    return across | {"yref": "paper", "y0": 0, "y1": 1, "x0": mark.value, "x1": mark.value}


def _strip(panel: Panel, mark: Strip) -> dict[str, Any]:
    across = {"type": "rect", "layer": "below", "line": {"width": 0}, "fillcolor": _fade(mark.colour, mark.opacity)}
    if mark.axis == "y":
        return across | {"xref": "paper", "x0": 0, "x1": 1, "y0": mark.low, "y1": mark.high}
    return across | {"yref": "paper", "y0": 0, "y1": 1, "x0": mark.low, "x1": mark.high}


def _rule_text(panel: Panel, mark: Rule | Strip) -> list[dict[str, Any]]:
    if not mark.text or mark.axis != "y":
        return []
    value, above = (mark.value, mark.above) if isinstance(mark, Rule) else (mark.high, True)
    end = {"xref": "paper", "x": 1.0 if mark.side == "right" else 0.0, "xanchor": mark.side}
    return [_note(mark.text, QUIET, y=_place(panel, "y", value), yanchor="bottom" if above else "top", **end)]


def _note(text: str, colour: str, **where: Any) -> dict[str, Any]:
    font = {"size": 11.5, "color": colour}
    return {
        "text": _lines(text),
        "showarrow": False,
        "font": font,
        "bgcolor": "rgba(255,255,255,.7)",
        "borderpad": 1,
        **where,
    }
