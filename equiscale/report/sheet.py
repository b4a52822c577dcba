"""A table as the page prints it: text, small print beside it, and nothing that a library would draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from equiscale.laws.uncertainty import Estimate
from equiscale.report import style
from equiscale.report.style import NO_VALUE, interval, name_of, number


@dataclass(frozen=True)
class Cell:
    """Text, and beside it in small print the interval or a remark. `tone` names an architecture's dot, or "quiet"."""

    text: str
    aside: str = ""
    tone: str = ""
    span: int = 1  # rows


@dataclass(frozen=True)
class Column:
    name: str
    unit: str = ""
    words: bool = False  # left-aligned and wrapped


@dataclass(frozen=True)
class Sheet:
    """A table. `missing` says in a sentence why it has no rows; `long` lets the page give it a frame that scrolls."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    missing: str = ""
    long: bool = False


def sheet(
    id: str, title: str, columns: Sequence[Column | str], rows: Sequence[Sequence[Cell | str]], **more: Any
) -> Sheet:
    """A table from plain strings where nothing else is needed."""
    heads = tuple(c if isinstance(c, Column) else Column(c) for c in columns)
    cells = tuple(tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
    if not rows and not more.get("missing"):
        more["missing"] = "There is nothing to list."
    return Sheet(id, title, heads, cells, **more)


def estimate(value: Estimate | None, note: str = "") -> Cell:
    """A number with its interval beside it."""
    if value is None or style.finite(value.value) is None:
        return Cell(NO_VALUE, note, "quiet")
    within = value.interval
    return Cell(number(value.value), interval(within.low, within.high) if within else note)


def architecture(name: str, span: int = 1) -> Cell:
    return Cell(name_of(name), tone=name, span=span)
