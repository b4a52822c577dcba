"""A measurement for a person: tables in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from equiscale.measure.found import Extremes, Found, Part
from equiscale.symmetry.decomposition import Figure

ROUND_OFF = 1e-10  # a square: what single precision leaves of an equivariant model is below


def describe(found: Found) -> str:
    """One model."""
    lines = [f"{found.model}, on {found.data}: {found.structures:,} structures, {found.atoms:,} atoms"]
    lines[0] += f" of {found.groups:,} molecules" if found.groups > 1 else ""
    lines[0] += f"; {found.left:,} without labels left out" if found.left else ""
    lines[0] += f"; {found.isolated:,} isolated atoms left out" if found.isolated else ""
    lines += [how(found), ""]
    lines += [f"{label:<26s}{value}" for label, value in _rows(found)]
    if not found.labelled:
        lines += ["", "no labels: L, L_mean and the percentage need them, L_equiv and the relative error do not."]
    if found.averages:
        lines += ["", *_averages(found)]
    if found.degrees:
        lines += ["", *_degrees(found.degrees)]
    if found.by_element:
        lines += ["", *_parts("element", "atoms", found.by_element, found.labelled)]
    if found.by_size:
        lines += ["", *_parts("atoms in it", "structures", found.by_size, found.labelled)]
    return "\n".join(line.rstrip() for line in lines)


def how(found: Found) -> str:
    """By which elements, with which estimator, at which cost."""
    return (
        f"{found.moves}; {found.sampler} ({found.rotations} each), {found.estimator}; {found.loss} loss, {found.unit}; "
        f"{found.forward_passes:,} forward passes of one structure, {found.seconds:.1f} s"
    )


def table(found: Sequence[tuple[str, Found]]) -> str:
    """Several models on the same structures, one row each."""
    first = found[0][1]
    wide = max(len(name) for name, _ in found) + 2
    heads = ("L", "L_mean", "L_equiv", "% of L", "95 %", "relative", "spread, meV/atom", "torque, eV")
    widths = (11, 11, 12, 11, 24, 12, 18, 12)
    lines = [
        f"{first.data}: {first.structures:,} structures, {first.atoms:,} atoms, the same for all; {first.moves}; "
        f"{first.sampler} ({first.rotations} each), {first.estimator}; {first.loss} loss",
        "",
        f"{'':<{wide}s}" + "".join(f"{h:>{w}s}" for h, w in zip(heads, widths)),
    ]
    for name, f in found:
        w, spread = f.whole, f.energy_spread_meV_per_atom
        cells = [
            *(_number(x) for x in (w.total, w.mean, w.equiv)),
            "" if w.percent is None else f"{w.percent.value:.3g}",
            _interval(w),
            _number(w.relative),
            "" if spread is None else f"{spread.mean:.3g}",
            "" if f.torque is None else f"{f.torque.mean:.3g}",
        ]
        lines.append(f"{name:<{wide}s}" + "".join(f"{c:>{w}s}" for c, w in zip(cells, widths)))
    passes, seconds = sum(f.forward_passes for _, f in found), sum(f.seconds for _, f in found)
    lines += ["", f"{passes:,} forward passes of one structure, {seconds:.1f} s"]
    return "\n".join(line.rstrip() for line in lines)


def _rows(found: Found) -> list[tuple[str, str]]:
    w = found.whole
    rows: list[tuple[str, str]] = []
    if w.total is not None and w.mean is not None and w.percent is not None:
        rows += [
            ("L", str(w.total)),
            ("L_mean", f"{w.mean}   (of the average over all {found.moves})"),
            ("L_equiv", f"{w.equiv}   (what broken symmetry adds)"),
            ("percent of L", f"{w.percent} %" + (f"   95 %: {_interval(w)}" if _interval(w) else "")),
        ]
    else:
        rows.append(("L_equiv", str(w.equiv)))
    rows.append(("relative error", f"{w.relative}   ({_relative(found)})"))
    if found.lie:
        bound, rough = found.lie["bound"], found.lie["roughness"]
        above = f"L_equiv is no more; mean l(l + 1) {rough['value']:.3g}" if rough else "L_equiv is no more"
        rows.append(("bound by Lie derivatives", f"{Figure(**bound)}   ({above})"))
    if found.energy_spread_meV and found.energy_spread_meV_per_atom:
        rows += [
            ("energy spread, meV", _pair(found.energy_spread_meV, None)),
            ("energy spread, meV/atom", _pair(found.energy_spread_meV_per_atom, None)),
        ]
    if found.torque:
        rows.append(("net torque, eV", _pair(found.torque, found.torque_of_labels)))
    rows.append(("net force, eV/Å", _pair(found.net_force, found.net_force_of_labels)))
    if found.about.get("undecided_frames"):
        many = f"{found.about['undecided_frames']:,} structures"
        rows.append(("undecided frames", f"{many}, whose forces may still not turn with them"))
    return rows


def _relative(found: Found) -> str:
    """What the relative error is: total energies are of any size, so that beside them nothing is round-off."""
    if found.loss in ("energy", "study"):
        return "L_equiv over the predictions' own size, total energies with it"
    if found.whole.relative.value < ROUND_OFF:
        return "round-off"
    return f"L_equiv over the predictions' mean {'length' if found.loss == 'force' else 'square'}"


def _pair(own: Extremes, labels: Extremes | None) -> str:
    beside = "" if labels is None else f"; of the labels mean {labels.mean:.3g}, largest {labels.max:.3g}"
    return f"mean {own.mean:.3g}, largest {own.max:.3g}{beside}"


def _averages(found: Found) -> list[str]:
    law = "exactly" if found.averages[0].exact else "to leading order"
    lines = [
        f"the average over M rotations, whose loss is L_mean + L_equiv / M {law}:",
        f"{'M':>6s}{'measured':>24s}{'predicted':>24s}{'difference':>24s}",
    ]
    for a in found.averages:
        lines.append(f"{a.rotations:>6d}{a.measured!s:>24s}{a.predicted!s:>24s}{a.deviation!s:>24s}")
    return lines


def _degrees(d: dict[str, Any]) -> list[str]:
    named = {**{f"l = {l}": share for l, share in d["share"].items()}, "higher": d["beyond"]}
    cells = ["" if f["value"] is None else f"{100 * f['value']:.3g}" for f in named.values()]
    errors = ["" if f["error"] is None else f"± {100 * f['error']:.2g}" for f in named.values()]
    return [
        f"{'':<26s}" + "".join(f"{name:>12s}" for name in named),
        f"{'percent of L_equiv':<26s}" + "".join(f"{cell:>12s}" for cell in cells),
        f"{'':<26s}" + "".join(f"{error:>12s}" for error in errors),
    ]


def _parts(name: str, count: str, parts: dict[str, Part], labelled: bool) -> list[str]:
    heads = ["L", "L_mean", "L_equiv", "% of L", "95 %"] if labelled else ["L_equiv"]
    widths = [12, 12, 12, 11, 24] if labelled else [12]
    lines = [
        f"{name:<14s}{count:>12s}" + "".join(f"{h:>{w}s}" for h, w in zip([*heads, "relative"], [*widths, 12])),
    ]
    for key, p in parts.items():
        cells = [_number(p.total), _number(p.mean), _number(p.equiv)] if labelled else [_number(p.equiv)]
        if labelled:
            cells += ["" if p.percent is None else f"{p.percent.value:.3g}", _interval(p)]
        cells.append(_number(p.relative))
        lines.append(f"{key:<14s}{p.count:>12,}" + "".join(f"{c:>{w}s}" for c, w in zip(cells, [*widths, 12])))
    return lines


def _number(f: Figure | None) -> str:
    return "" if f is None else f"{f.value:.4g}"


def _interval(p: Part) -> str:
    return "" if p.percent_low is None or p.percent_high is None else f"{p.percent_low:.3g} to {p.percent_high:.3g}"
