"""The report: one HTML file that opens offline, and every figure as SVG, PDF and PNG beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiscale.errors import InputError, need
from equiscale.laws.results import Analysis
from equiscale.laws.verdict import verdict
from equiscale.report import interactive, printed, run_tables, style, tables
from equiscale.report.drawing import Drawing, Key
from equiscale.report.dynamics_tables import symmetry_ends
from equiscale.report.figures import drawings
from equiscale.report.material import SETS, Material
from equiscale.report.sheet import Sheet
from equiscale.report.tracks import Track

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """A heading, a sentence or two, and the figures and tables under it by id."""

    id: str
    title: str
    lead: str
    items: tuple[str, ...]


SECTIONS = (
    Section(
        "compute",
        "Loss against compute",
        "The least loss that a budget buys, and the local law it follows where rungs hand over to one another.",
        ("frontier-flops", "compute-laws", "exponents", "crossings", "multipliers", "frontier-hours", "hour-laws"),
    ),
    Section(
        "size-and-data",
        "Size and data",
        "One surface L(N, D) per architecture, fitted to all its rungs at once, and the "
        "division of a budget that follows from it.",
        ("loss-data", "loss-size", "surface-laws", "fit-quality", "kappa", "allocation"),
    ),
    Section(
        "trust",
        "How far to trust it",
        "What happens to the numbers when they are asked for in another way.",
        ("variants", "remedies", "cutoffs", "specifications", "prediction", "predictions", "gap", "warnings"),
    ),
    Section(
        "parts-of-the-loss", "Energy and force", "The two terms of the loss, learned at different speeds.", ("parts",)
    ),
    Section(
        "broken-symmetry",
        "Broken symmetry during training",
        "How much of the squared force error would be gone if predictions were averaged over all rotations: a few per "
        "cent or less say that symmetry is not what limits a potential. The percentage also depends on two other "
        "things, an output still near zero at the start and how far the rest of the loss has fallen at the end, so "
        "read it beside the error relative to the output.",
        ("symmetry-percent", "symmetry-parts", "symmetry-ends", "symmetry-gradients", "symmetry-head"),
    ),
    Section(
        "runs-and-records",
        "Runs",
        "What was trained, what it cost, what it reached, and what was left out.",
        ("rungs", "runs", "dropped", "tuning"),
    ),
    Section(
        "set-up",
        "Data and machine",
        "What the losses were measured on, and the hours with.",
        ("data-card", "models", "machine"),
    ),
)


def sheets(material: Material) -> dict[str, Sheet]:
    """Every table of the report by id."""
    made = (
        tables.compute_laws(material),
        tables.hour_laws(material),
        tables.crossings(material),
        tables.multipliers(material),
        tables.surface_laws(material),
        tables.fit_quality(material),
        tables.cutoffs(material),
        tables.predictions(material),
        run_tables.rungs(material),
        run_tables.runs(material),
        run_tables.dropped(material),
        run_tables.tuning(material),
        run_tables.data(material),
        run_tables.models(material),
        run_tables.machine(material),
    )
    tracked = (symmetry_ends(material.tracks),) if material.tracks else ()
    return {s.id: s for s in (*made, *tracked)}


def sections(material: Material) -> tuple[Section, ...]:
    """Those that this study has something for: symmetry where it was tracked."""
    return tuple(s for s in SECTIONS if s.id != "broken-symmetry" or material.tracks)


def write(
    table: Mapping[str, Any],
    facts: Mapping[str, Any] | None,
    analyses: Analysis | Mapping[str, Analysis],
    folder: Path | str,
    tracks: Sequence[Track] = (),
) -> Path:
    """Write `<folder>/report.html` and `<folder>/figures/*`; returns the page's path.

    `analyses` is one analysis or one per validation set; laws are shown for "molecules" where it is there. What the
    records do not hold is said in the page, in the place where it would stand; of `tracks`, runs whose symmetry was
    measured in training, there is a section where there are any.
    """
    folder = Path(folder)
    material = Material.of(table, facts, analyses, tracks)
    made = drawings(material)
    text = render(material, made)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for drawing in made.values():
            printed.save(drawing, folder / "figures")
        path = folder / "report.html"
        part = folder / f".report.html.{os.getpid()}"
        part.write_text(text, encoding="utf-8")
        part.replace(path)  # a reader never meets half a page
    except OSError as error:
        raise InputError(f"The report could not be written to {folder}: {error.strerror or error}.") from error
    return path


def render(material: Material, made: Mapping[str, Drawing] | None = None) -> str:
    """The page as text."""
    made = drawings(material) if made is None else made
    looks = style.apart(material.architectures)
    return _template("page.html").render(
        study=str(material.facts.get("study") or "a study"),
        title=str(material.facts.get("title") or material.facts.get("study") or "a study"),
        description=str(material.facts.get("description") or ""),
        names=[(style.name_of(a), look.hue) for a, look in looks.items()],
        hues={a: look.hue for a, look in looks.items()},
        glance=glance(material),
        verdict=_verdict(material),
        sections=sections(material),
        figures={d.id: _figure(d) for d in made.values()},
        figure_numbers={id: i + 1 for i, id in enumerate(_order(made))},
        tables=sheets(material),
        table_numbers={id: i + 1 for i, id in enumerate(_order(sheets(material)))},
        warnings=[("" if who == "study" else style.name_of(who), text) for who, text in run_tables.warnings(material)],
        set_name=SETS.get(material.set, material.set),
        plotly=interactive.script() if any(d.panels for d in made.values()) else "",
        **_assets(),
    )


def single(drawing: Drawing) -> str:
    """A page with one figure and nothing else."""
    return _template("figure.html").render(figure=_figure(drawing), plotly=interactive.script(), **_assets())


def _template(name: str) -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise need("report", error) from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"formula": formula, "headed": headed}
    return environment.get_template(name)


def _assets() -> dict[str, str]:
    return {name: (HERE / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}


_SUBSCRIPT = re.compile(r"\b([LFCH])_(inf|c|h|min|max|mean|equiv)\b")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]\d+)\b")
_ARCHITECTURE = re.compile(rf"(?<![\w/.-])(?:{'|'.join(style.NAMES)})(?![\w/.-]*\w)")
_EXPONENT = re.compile(r"\^(−?(?:[α-ω]|[\d.]*\d))")


def formula(text: object) -> Any:
    """A sentence as it is printed: C_max, D^−β, 3e+11 and `egnn` are set as people write them. Escaped first."""
    import markupsafe

    safe = str(markupsafe.escape(text))
    safe = _SCIENTIFIC.sub(lambda m: f"{m[1]}{style.SPACE}×{style.SPACE}{style.power(int(m[2]))}", safe)
    safe = _ARCHITECTURE.sub(lambda m: style.name_of(m[0]), safe)
    safe = _SUBSCRIPT.sub(lambda m: f"{m[1]}<sub>{'∞' if m[2] == 'inf' else m[2]}</sub>", safe)
    return markupsafe.Markup(_EXPONENT.sub(r"<sup>\1</sup>", safe))


def headed(text: str) -> Any:
    """A sentence whose first words, up to a colon, name its subject: those are set in bold."""
    import markupsafe

    head, _, rest = text.partition(": ")
    if not rest or len(head) > 48 or any(c.isdigit() for c in head):
        return formula(text)
    return markupsafe.Markup("<b>{}:</b> {}").format(formula(head), formula(rest))


def _order(known: Mapping[str, Any]) -> list[str]:
    placed = ["summary", *(item for section in SECTIONS for item in section.items)]
    return [i for i in placed if i in known]


def _verdict(material: Material) -> list[str]:
    if not material.main.architectures:
        return ["No verdict: no architecture has a run that was finished."]
    try:
        return list(verdict(material.main))
    except ValueError as error:
        return [f"No verdict: {error}"]


def glance(material: Material) -> list[tuple[str, str]]:
    """The study in a few numbers, for the page's head."""

    def reach(column: str, spoken: Any, unit: str) -> str:
        ends = [c.last(column) for c in material.curves if c.last(column) > 0]
        return f"{spoken(min(ends))} – {spoken(max(ends))}{unit}" if ends else style.NO_VALUE

    facts = material.facts.get("data")
    card = facts if isinstance(facts, Mapping) else {}
    result = [("Data", str(card.get("name") or style.NO_VALUE)), ("Labels", str(card.get("label") or style.NO_VALUE))]
    result.append(
        ("Runs", f"{len(material.curves)} of {len({(c.architecture, c.width) for c in material.curves})} sizes")
    )
    sizes = [c.N for c in material.curves]
    result.append(("Parameters", f"{style.short(min(sizes))} – {style.short(max(sizes))}" if sizes else style.NO_VALUE))
    result.append(("Compute per run", reach("C", style.number, " FLOP")))
    result.append(("Time per run", reach("H_train", _minutes, "")))
    return result


def _minutes(hours: float) -> str:
    if hours >= 1:
        return f"{style.number(hours, 2)} h"
    return f"{style.number(60 * hours, 2)} min" if hours >= 1 / 60 else f"{style.number(3600 * hours, 2)} s"


# --- figures for the template ----------------------------------------------------------------------------------


def _figure(drawing: Drawing) -> dict[str, Any]:
    """What the template needs of a drawing; the plots' data as JSON that cannot end its script element."""
    plots, drawn = [], set()
    for i, (panel, figure) in enumerate(zip(drawing.panels, interactive.draw(drawing))):
        data = figure.to_json().replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        drawn |= {str(trace.meta) for trace in figure.data}
        rows = len(panel.y.ticks)
        plots.append(
            {
                "id": f"plot-{drawing.id}-{i}",
                "title": panel.title,
                "colour": panel.colour,
                "y": panel.y.label,
                "data": data,
                "height": 70 + 19 * sum(1 + t.count("\n") for _, t in panel.y.ticks)
                if rows > 4
                else 190
                if rows
                else 330,
            }
        )
    return {
        "drawing": drawing,
        "plots": plots,
        "keys": [{"key": k, "live": k.name in drawn, "swatch": _swatch(k)} for k in drawing.legend],
    }


def _swatch(key: Key) -> str:
    """A legend entry's mark as SVG; colours are ours, so nothing of a user's enters it."""
    width, mark = 26, ""
    if key.kind in ("shades", "scale") and key.colours:
        width, step = 44, 44 / len(key.colours)
        for i, colour in enumerate(key.colours):
            mark += f'<rect x="{i * step:.2f}" y="3" width="{step + 0.3:.2f}" height="8" fill="{colour}"/>'
    elif key.kind == "band":
        mark = f'<rect y="2" width="26" height="10" fill="{key.colour}" opacity=".25"/>'
    elif key.kind == "point":
        width, mark = 16, _marker(key)
    else:
        dash = {"dash": ' stroke-dasharray="5 3"', "dot": ' stroke-dasharray="1.5 3"'}.get(key.dash, "")
        mark = f'<path d="M0 7H26" stroke="{key.colour}" stroke-width="2"{dash}/>'
    return f'<svg width="{width}" height="14" aria-hidden="true">{mark}</svg>'


_SHAPES = {
    "circle": "M8 3a4 4 0 1 0 .01 0z",
    "square": "M4.5 3.5h7v7h-7z",
    "diamond": "M8 2l5 5l-5 5l-5-5z",
    "triangle-up": "M8 2.5l4.6 8H3.4z",
    "triangle-down": "M8 11.5l4.6-8H3.4z",
    "line-ns": "M8 1v12",
    "hexagon": "M8 2l4.3 2.5v5L8 12 3.7 9.5v-5z",
    "pentagon": "M8 2l4.7 3.4-1.8 5.6H5.1L3.3 5.4z",
    "x": "M5.5 2L8 4.5 10.5 2 13 4.5 10.5 7 13 9.5 10.5 12 8 9.5 5.5 12 3 9.5 5.5 7 3 4.5z",
    "triangle-left": "M3.5 7l8-4.6v9.2z",
    "triangle-right": "M12.5 7l-8-4.6v9.2z",
    "star": "M8 1.5l1.6 3.6 3.9.4-2.9 2.6.8 3.9L8 10l-3.4 2 .8-3.9-2.9-2.6 3.9-.4z",
    "cross": "M6.3 2.5h3.4v2.8h2.8v3.4H9.7v2.8H6.3V8.7H3.5V5.3h2.8z",
}


def _marker(key: Key) -> str:
    fill = key.colour if key.filled else "none"
    path = _SHAPES.get(key.symbol, _SHAPES["circle"])
    return f'<path d="{path}" fill="{fill}" stroke="{key.colour}" stroke-width="1.4"/>'
