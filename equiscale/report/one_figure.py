"""One figure, one file: .svg, .pdf and .png for a paper (matplotlib), .html for a look (plotly, self-contained)."""

from __future__ import annotations

import os
from pathlib import Path

from equiscale.errors import InputError
from equiscale.report import printed
from equiscale.report.drawing import Drawing
from equiscale.report.page import single

COLUMN, PAGE = 3.4, 7.0  # inches: a column of a two-column paper, and both
DATES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # same table, same bytes
ENDINGS = ("svg", "pdf", "png", "html")
DPI = 200
LONG = 18  # letters


def figure_path(path: Path | str) -> Path:
    """A figure's path, checked before anything is computed: its ending is known and its folder is there."""
    path = Path(path)
    ending = path.suffix.lower().lstrip(".")
    if ending not in ENDINGS:
        raise InputError(f"{path.name!r} names no kind of figure: let it end in .svg, .pdf, .png or .html.")
    if not path.parent.is_dir():
        raise InputError(f"The folder {str(path.parent)!r} is not there: make it, or name another for {path.name!r}.")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder: name a file for the figure.")
    return path


def write_figure(figure: Drawing, path: Path | str, *, width: float | None = None) -> Path:
    """Write a figure as its path's ending says; the same figure gives the same bytes.

    width, in inches, is of the printed kinds: 3.4 stacks panels in one column of a paper, 7 sets them across the page;
    None: a single panel in a column, more or one with long names across the page. InputError in one sentence where it
    cannot be written.
    """
    path = figure_path(path)
    if not figure.panels:
        raise InputError(f"There is no figure to write: {figure.missing}")
    width = width or (PAGE if len(figure.panels) > 1 or _has_long_names(figure) else COLUMN)
    if not 2 <= width <= 40:
        raise InputError(f"A figure {width:g} inches wide cannot be read: 3.4 is a column, 7 a page.")
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix.lower()}")
    try:
        if path.suffix.lower() == ".html":
            part.write_text(single(figure), encoding="utf-8")
        else:
            _print(figure, part, width)
        part.replace(path)  # nobody meets half a figure
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"The figure could not be written to {path}: {error.strerror or error}.") from error
    return path


def _has_long_names(figure: Drawing) -> bool:
    """Ticks that would leave a column nothing for the panel."""
    return any(len(name) > LONG for panel in figure.panels for _, name in panel.y.ticks)


def _print(figure: Drawing, path: Path, width: float) -> None:
    drawn = printed.draw(figure, width, notes=True)
    import matplotlib as mpl  # there, as the figure was drawn

    with mpl.rc_context(fname=printed.STYLE):
        drawn.savefig(path, dpi=DPI, metadata=DATES.get(path.suffix[1:]))
