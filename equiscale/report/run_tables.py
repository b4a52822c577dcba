"""Tables of what was run: rungs, runs, what was dropped, tuning, data, machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from equiscale.report import style
from equiscale.report.material import SETS, Curve, Material
from equiscale.report.sheet import Cell, Column, Sheet, architecture, sheet
from equiscale.report.style import NO_VALUE, count, finite, name_of, number, short


def rungs(material: Material) -> Sheet:
    """One row per size, over its seeds."""
    rows: list[list[Cell | str]] = []
    for name in material.architectures:
        laws = material.laws(name)
        for r in laws.rungs if laws else ():
            rows.append(
                [
                    architecture(name),
                    str(r.width),
                    count(r.N),
                    count(r.N_body),
                    number(r.kappa),
                    number(r.executed_per_atom / r.flops_per_atom if r.flops_per_atom else None),
                    str(r.seeds),
                    short(r.D_max),
                    number(r.C_max),
                    number(r.H_max),
                    number(r.loss),
                ]
            )
    columns: list[Column | str] = [
        Column("Architecture", words=True),
        "Width",
        "N",
        Column("N", "body alone"),
        "κ",
        Column("C executed", "/ C"),
        "Seeds",
        Column("D", "atoms"),
        Column("C", "FLOP"),
        Column("H", "hours"),
        "L",
    ]
    return sheet(
        "rungs",
        "The ladders",
        columns,
        rows,
        missing="" if rows else "The analysis lists no rungs.",
        caption="Means over seeds, at the last evaluation. Body: without embedding and radial-basis weights.",
    )


def runs(material: Material) -> Sheet:
    """One row per run, at its last evaluation."""
    sets = [s for s in SETS if any(math.isfinite(c.last(f"loss_{s}")) for c in material.curves)]
    columns: list[Column | str] = [
        Column("Architecture", words=True),
        "Width",
        "Seed",
        "N",
        Column("D", "atoms"),
        "κ",
        Column("C", "FLOP"),
        Column("H", "hours"),
    ]
    for mark in "ab"[: len(sets)]:
        columns += [
            Column("L", f"({mark})"),
            Column("Energy", f"({mark}) meV/atom"),
            Column("Force", f"({mark}) meV/Å"),
        ]
    rows = [_run(c, sets) for c in material.curves]
    caption = "; ".join(f"({'ab'[i]}) {SETS[s]}" for i, s in enumerate(sets))
    return sheet(
        "runs",
        "Every run at its last evaluation",
        columns,
        rows,
        long=True,
        caption=f"Errors are means, of the energy per atom and of the length of the force error. {caption}.",
        missing="" if rows else "The table has no rows: no run has been finished.",
    )


def _run(curve: Curve, sets: Sequence[str]) -> list[Cell | str]:
    N, D, C = curve.N, curve.last("D"), curve.last("C")
    kappa = C / (3 * N * D) if N * D > 0 else math.nan
    row: list[Cell | str] = [architecture(curve.architecture), str(curve.width), str(curve.seed), count(N), short(D)]
    row += [number(kappa), number(C), number(curve.last("H_train"))]
    for s in sets:
        row += [number(curve.last(f"{part}_{s}")) for part in ("loss", "energy_mae", "force_mae")]
    return row


def dropped(material: Material) -> Sheet:
    """Runs that diverged, rows no fit saw, and why."""
    rows: list[list[Cell | str]] = []
    reasons = {str(d.get("reason")) for d in material.facts.get("dropped") or () if isinstance(d, Mapping)}
    for d in material.facts.get("dropped") or ():
        if isinstance(d, Mapping):
            what = f"run {d.get('run', '')}, width {d.get('width', NO_VALUE)}, seed {d.get('seed', NO_VALUE)}"
            rows.append(
                [architecture(str(d.get("architecture", NO_VALUE))), what, NO_VALUE, str(d.get("reason", NO_VALUE))]
            )
        else:
            rows.append([NO_VALUE, str(d), NO_VALUE, NO_VALUE])
    for name in material.architectures:
        laws = material.laws(name)
        for d in laws.dropped if laws else ():
            if d.rows or d.reason not in reasons:  # a diverged run is in both lists
                rows.append([architecture(name), d.what, str(d.rows), d.reason])
    columns: list[Column | str] = [
        Column("Architecture", words=True),
        Column("What", words=True),
        "Rows",
        Column("Why", words=True),
    ]
    return sheet(
        "dropped",
        "What was left out, and why",
        columns,
        rows,
        missing="" if rows else "Nothing was left out: no run diverged and every row entered the fits.",
    )


# --- facts: nested mappings as rows of words -------------------------------------------------------------------

WORDS = {
    "num_train": "structures in the training part",
    "num_molecules": "validation, new molecules: structures",
    "num_conformers": "validation, new conformers: structures",
    "num_test": "structures in the test part",
    "num_structures": "structures in all",
    "atoms": "atoms in the training part",
    "hash": "content hash",
    "label": "labels by",
    "name": "name",
    "licence": "licence",
    "license": "licence",
    "method": "method",
    "units": "units",
    "sigma": "σ of the normalisation (eV)",
    "mu": "μ of the normalisation (eV)",
    "batch_size": "structures per step",
    "learning_rates": "learning rate",
    "learning_rate": "learning rate",
    "D_max": "largest D (atoms)",
    "machine": "machine",
    "versions": "version",
    "energy_loss": "energy part",
    "force_loss": "force part",
    "loss": "L",
    "molecules": "new molecules",
    "conformers": "new conformers",
    "trivial": "trivial predictor",
    "energy_mae": "energy (meV/atom)",
    "force_mae": "force (meV/Å)",
    "base_width": "width that was tuned",
    "width_rule": "rule for other widths",
    "exclude_below": "rows enter fits from this share of D",
    "augment": "rotation augmentation",
    "cpu": "processor",
    "gpu": "accelerator",
    "cores": "cores",
    "memory": "memory",
    "threads": "threads",
    "os": "system",
    "device": "device",
    "elements": "elements",
    "orientation": "orientation",
    "num_molecules_train": "training molecules",
}
DATA = (
    "data",
    "trivial",
    "sigma",
    "mu",
    "batch_size",
    "learning_rates",
    "learning_rate",
    "base_width",
    "width_rule",
    "D_max",
    "exclude_below",
    "runs_declared",
    "runs_recorded",
)
MACHINE = ("machine", "hardware", "implementation", "launch", "versions", "commit")


def words(name: object) -> str:
    """A field's name for people."""
    text = str(name)
    return WORDS.get(text) or (name_of(text) if text in style.NAMES else text.replace("_", " "))


def flatten(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """A nested fact as (name, text) rows: no JSON reaches the page."""
    if isinstance(value, Mapping):
        return [row for k, v in value.items() for row in flatten(v, (*path, words(k)))]
    if isinstance(value, list | tuple):
        if all(not isinstance(v, Mapping | list | tuple) for v in value):
            return [(" · ".join(path), ", ".join(_text(v) for v in value) or NO_VALUE)]
        return [row for i, v in enumerate(value) for row in flatten(v, (*path, str(i + 1)))]
    return [(" · ".join(path), _text(value))]


def _text(value: Any) -> str:
    if value is None or value == "":
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    x = finite(value)
    if x is None:
        return NO_VALUE if isinstance(value, float) else str(value)
    if x == round(x) and abs(x) < 1e15:
        return count(x)
    text = number(x)  # a declared 0.003 is exact: zeros behind it would feign a measurement
    return text.rstrip("0") if "." in text and "×" not in text and float(f"{x:.2e}") == x else text


def _facts(material: Material, id: str, title: str, names: Sequence[str], missing: str) -> Sheet:
    rows: list[list[Cell | str]] = []
    for name in names:
        value = material.facts.get(name)
        if (
            value is None
            or value == {}
            or value == []
            or (name == "hardware" and value == [material.facts.get("machine")])
        ):
            continue
        path = () if name == "data" and isinstance(value, Mapping) else (words(name),)
        rows += [[Cell(a), Cell(b)] for a, b in flatten(value, path)]
    return sheet(id, title, [Column("", words=True), Column("", words=True)], rows, missing="" if rows else missing)


def data(material: Material) -> Sheet:
    return _facts(material, "data-card", "Data and training", DATA, "The records say nothing of the data set.")


def machine(material: Material) -> Sheet:
    missing = "The records do not say on what machine the runs were made."
    return _facts(material, "machine", "Machine and versions", MACHINE, missing)


def models(material: Material) -> Sheet:
    """Every architecture's settings, side by side; the width is the ladder's dial."""
    given = material.facts.get("config")
    config = {k: v for k, v in given.items() if isinstance(v, Mapping)} if isinstance(given, Mapping) else {}
    names = sorted(config, key=style.rank)
    flat = {n: dict(flatten({k: v for k, v in config[n].items() if k not in ("width", "kind")})) for n in names}
    fields = list(dict.fromkeys(f for n in names for f in flat[n]))
    rows: list[list[Cell | str]] = [[f, *(flat[n].get(f, NO_VALUE) for n in names)] for f in fields]
    columns: list[Column | str] = [Column("Setting", words=True), *(Column(name_of(n), words=True) for n in names)]
    missing = "" if rows else "The records do not hold the architectures' settings."
    return sheet("models", "The architectures as they were trained", columns, rows, missing=missing)


PROBES = {"grid": "rate × batch", "depths": "depth"}


def tuning(material: Material) -> Sheet:
    """The rate × batch grid and the depth probe of every architecture, as they were recorded."""
    record = material.facts.get("tuning")
    missing = "No tuning is on record: rates, batch and depth are the study's as declared."
    if not record:
        return sheet("tuning", "Tuning", [], [], missing=missing)
    tried: list[tuple[str, str, Mapping[str, Any]]] = []
    sentences: list[str] = []
    for name, found in record.items() if isinstance(record, Mapping) else ():
        if isinstance(found, Mapping):
            tried += [(str(name), p, r) for p in PROBES for r in found.get(p) or () if isinstance(r, Mapping)]
            sentences += [str(t).rstrip(".") + "." for t in found.get("text") or ()]
    if not tried:
        return _facts(material, "tuning", "Tuning", ("tuning",), missing)
    rows: list[list[Cell | str]] = []
    for name, probe, r in tried:
        numbers = [_text(r.get(k)) for k in ("rate", "batch", "depth", "width", "structures")]
        losses = [number(r.get("early")), number(r.get("late"))]
        rows.append(
            [architecture(name), PROBES[probe], *numbers, number(r.get("flops")), *losses, _text(r.get("status"))]
        )
    columns: list[Column | str] = [
        Column("Architecture", words=True),
        Column("Probe", words=True),
        "Rate",
        "Batch",
        "Depth",
        "Width",
        "Structures",
        Column("C", "FLOP"),
        Column("L", "at D/8"),
        Column("L", "at D"),
        "Status",
    ]
    return sheet("tuning", "Tuning", columns, rows, caption=" ".join(sentences), long=len(rows) > 24)


def several_devices(material: Material) -> tuple[str, ...]:
    """What is said of runs that several devices trained together: whose seconds theirs are."""
    final = (material.facts.get("final") or {}).values()
    count = sum(isinstance(run, Mapping) and run.get("ranks", 1) > 1 for run in final)
    if not count:
        return ()
    return (
        f"{count} run{'s were' if count > 1 else ' was'} trained on several devices: their measured seconds are "
        "those of all together; laws in hours have the step of one device alone, where it was timed.",
    )


def warnings(material: Material) -> tuple[tuple[str, str], ...]:
    """(whose, sentence), each once: of the study, of each architecture, of its fits, of the other validation set."""
    found: list[tuple[str, str]] = [("study", w) for w in material.main.warnings]
    for name in material.architectures:
        laws = material.laws(name)
        if laws is None:
            found.append((name, "It is in the table but not in the analysis."))
            continue
        found += [(name, w) for w in laws.warnings]
        for surface in (laws.surface, laws.surface_free):
            if surface is not None:
                found += [(name, w) for w in (*surface.fit.warnings, *surface.warnings)]
        for frontier in laws.frontiers.values():
            if frontier.fit is not None:
                found += [(name, w) for w in frontier.fit.warnings]
    found += [("study", w) for w in several_devices(material)]
    if material.other is None:
        found.append(("study", f"Laws are fitted on one validation set only ({SETS.get(material.set, material.set)})."))
    return tuple(dict.fromkeys(found))
