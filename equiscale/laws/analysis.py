"""From a study's table to its laws: `analyse`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from equiscale.laws.allocation import allocate
from equiscale.laws.frontier import Frontier, frontier
from equiscale.laws.noise_floor import difference_floor, noise_floors
from equiscale.laws.pairs import gammas, pair
from equiscale.laws.results import Analysis, Architecture, Dropped, Freshness, Noise, Rung, Score, Surface
from equiscale.laws.surfaces import (
    Losses,
    cutoffs,
    from_plateau,
    predict_from,
    prediction_from_dict,
    score,
    surface,
)
from equiscale.laws.table import Rows, Table, columns, costs, last_rows, rows_of, rungs_of
from equiscale.laws.uncertainty import simulate

BETA = ("beta", "gamma", "a", "b", "G", "F_c")  # withheld where D is limited by molecules

PLATEAU = 0.9


def analyse(
    table: Table,
    facts: Mapping[str, Any] | None = None,
    *,
    validation: str = "molecules",
    exclude_below: float = 0.03,
    floor: str = "zero",
    objective: str = "huber",
    selector: str = "running_minimum",
    resamples: int = 200,
    seed: int = 0,
    losses: Losses | None = None,
) -> Analysis:
    """Every law of every architecture in the table, with intervals and with what may not be concluded.

    exclude_below: rows with D under this fraction of the table's largest D enter no fit, the same for all
    architectures. losses: per-structure validation losses per run (`molecule_shift`), for intervals over runs
    × validation molecules.
    """
    if not 0 <= exclude_below < 1:
        raise ValueError(f"exclude_below is {exclude_below}: it is a fraction of the largest D, from 0 to below 1.")
    facts = facts or {}
    name = f"loss_{validation}"
    table = columns(table, name)
    if not len(table["run"]):
        raise ValueError("the table has no rows: no run has been recorded yet.")
    d_max = float(np.nanmax(table["D"]))
    settings = {
        "validation": validation,
        "exclude_below": exclude_below,
        "D_min": exclude_below * d_max,
        "floor": floor,
        "objective": objective,
        "selector": selector,
        "resamples": resamples,
        "seed": seed,
    }
    names = list(dict.fromkeys(str(a) for a in table["architecture"]))
    # Architectures' runs are independent, so are their draws (with one seed for all, differences would seem certain);
    # their validation molecules are the same, and so is that seed.
    found = {a: _architecture(table, a, d_max, settings, facts, losses, seed + 7919 * i) for i, a in enumerate(names)}
    ways = {a: gammas(table, a, d_max) for a in names} if len(names) > 1 else {}
    floors = noise_floors(found.values())
    pairs = tuple(
        pair(found[a], found[b], ways[a], ways[b], difference_floor(floors[a], floors[b]))
        for a, b in combinations(names, 2)
        if ok(found, a, b)
    )
    ratio = table["D"] / table["structures"]
    return Analysis(
        settings=settings,
        facts=dict(facts),
        architectures=found,
        pairs=pairs,
        trivial=_trivial(facts, validation),
        atoms_per_structure=float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else float("nan"),
        warnings=_warnings(found, len(names)) + shared_devices(facts),
    )


def _trivial(facts: Mapping[str, Any], validation: str) -> float | None:
    loss = ((facts.get("trivial") or {}).get(validation) or {}).get("loss")
    return None if loss is None else float(loss)


def ok(found: Mapping[str, Architecture], *names: str) -> bool:
    return all(found[name].rungs for name in names)


def _warnings(found: Mapping[str, Architecture], count: int) -> tuple[str, ...]:
    out = []
    if count < 2:
        out.append("one architecture only: nothing to compare it with.")
    tops = {a.name: a.C_range[1] for a in found.values() if a.rungs}
    if tops and max(tops.values()) > 10 * min(tops.values()):
        out.append(
            "the architectures' largest compute differs more than tenfold: compare them where both have records."
        )
    return tuple(out)


def shared_devices(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What is said of runs that trained beside others on one device: their H_train is missing from the table."""
    final = (facts.get("final") or {}).values()
    count = sum(isinstance(run, Mapping) and bool(run.get("shared_device")) for run in final)
    if not count:
        return ()
    runs = f"{count} run{' shared its' if count == 1 else 's shared their'} device with others"
    return (f"{runs}: no law in hours has them.",)


def _architecture(
    table: Table,
    name: str,
    d_max: float,
    settings: dict[str, Any],
    facts: Mapping[str, Any],
    losses: Losses | None,
    seed: int,
) -> Architecture:
    everything = rows_of(table, name, f"loss_{settings['validation']}")
    rows = everything.above(settings["D_min"])
    dropped = list(everything.dropped)
    if len(everything) > len(rows):
        reason = f"D below {settings['exclude_below']:.0%} of the largest D ({settings['D_min']:.3g} atoms)"
        dropped.append(Dropped("early evaluations", len(everything) - len(rows), reason))
    for run in facts.get("dropped") or ():
        if run.get("architecture") == name:
            what = f"width {run.get('width')}, seed {run.get('seed')}"
            dropped.append(Dropped(what, 0, str(run.get("reason", "dropped"))))
    rungs = rungs_of(rows) if len(rows) else ()
    warnings: list[str] = [] if rungs else [f"no row of {name} is left to fit."]
    noise, fresh = _noise(rows), freshness(rows, table, name)
    limited = fresh.verdict == "molecule-limited"
    if limited:
        warnings.append(f"{fresh.text} No β is given.")
    cost, flat, kappa = costs(rungs) if rungs else (None, False, float("nan"))
    options: dict[str, Any] = {k: settings[k] for k in ("objective", "resamples")} | {"seed": seed}
    main, free = None, None
    try:
        main = surface(
            rows,
            floor=settings["floor"],
            kappa=kappa if flat else None,
            losses=losses,
            validation=settings["validation"],
            molecule_seed=settings["seed"],
            **options,
        )
        warnings += main.warnings
        free = main if settings["floor"] == "free" else surface(rows, floor="free", compare=False, **options)
    except ValueError as error:
        warnings.append(f"no surface of {name}: {error}" if main is None else f"no surface with a free floor: {error}")
    trivial = _trivial(facts, settings["validation"])
    off = from_plateau(everything, trivial, **options) if main is not None else None
    if limited:
        main, free, off = _withhold(main), _withhold(free), _withhold(off)
    span = (float(rows["C"].min()), float(rows["C"].max())) if rungs else (float("nan"), float("nan"))
    hours = rows["H_train"][np.isfinite(rows["H_train"])] if rungs else np.array([])
    warnings += _short(rungs, span, flat)
    stuck = [str(r.width) for r in rungs if trivial and r.loss > PLATEAU * trivial]
    if stuck:
        warnings.append(
            f"width {', '.join(stuck)} ended above {PLATEAU:.0%} of the trivial predictor's loss: it hardly learned, "
            "and is data all the same."
        )
    made = Architecture(
        name=name,
        rungs=rungs,
        rows_used=len(rows),
        dropped=tuple(dropped),
        D_min=settings["D_min"],
        C_range=span,
        H_range=(float(hours.min()), float(hours.max())) if len(hours) else (float("nan"), float("nan")),
        kappa={r.width: r.kappa for r in rungs},
        kappa_flat=flat,
        surface=main,
        surface_free=free,
        surface_plateau=off,
        frontiers=_frontiers(rows, main, settings, seed) if rungs else {},
        cutoffs=() if limited else cutoffs(everything, d_max, floor=settings["floor"], **options | {"resamples": 100}),
        allocation=None,
        held_out=_held_out(rows, rungs, settings, facts),
        held_out_plateau=None if off is None else _held_out_plateau(everything, rungs, settings, facts, trivial),
        noise=noise,
        freshness=fresh,
        warnings=tuple(dict.fromkeys(warnings)),
    )
    if made.believed is None or cost is None:
        return made
    way = "closed form" if flat else "numerical"
    return replace(made, allocation=allocate(made.believed.fit.values, made.believed.draws, cost, way, span))


def _withhold(found: Surface | None) -> Surface | None:
    if found is None:
        return None
    values = {**found.__dict__, "estimates": {k: v for k, v in found.estimates.items() if k not in BETA}}
    return Surface(**values)


def _short(rungs: tuple[Rung, ...], span: tuple[float, float], flat: bool) -> list[str]:
    if not rungs:
        return []
    out = []
    sizes = np.log10([r.N for r in rungs])
    if len(rungs) < 6:
        out.append(
            f"{len(rungs)} widths: under the 6 that a frontier wants, and its intervals hold less often than they say."
        )
    if np.ptp(sizes) < 1.2:
        out.append(f"N spans {np.ptp(sizes):.2g} decades: a short ladder, its exponents are local slopes.")
    if np.log10(span[1] / span[0]) < 2:
        out.append(f"compute spans {np.log10(span[1] / span[0]):.2g} decades: exponents hold over these only.")
    if not flat:
        k = [r.kappa for r in rungs]
        out.append(
            f"kappa runs from {min(k):.3g} to {max(k):.3g} over the ladder: N*(C) and D*(C) are solved numerically."
        )
    return out


def _frontiers(rows: Rows, found: Surface | None, settings: dict[str, Any], seed: int) -> dict[str, Frontier]:
    simulated, method = None, ""
    if found is not None:
        simulated = simulate(found.fit, rows.x, rows.y, rows["run"], settings["resamples"], seed + 1)
        method = f"random run effect around the surface, recentred, {settings['resamples']} draws"
    out = {}
    for cost in ("C", "C_executed", "H_train"):
        value = rows[cost].astype(float)
        known = np.isfinite(value) & (value > 0)
        # Hours are missing of runs that were not timed or shared their device: the others' frontier stands without.
        if not (known.any() if cost == "H_train" else known.all()):
            continue
        out[cost] = frontier(
            value[known],
            rows.y[known],
            rows["width"][known],
            rows["step"][known],
            name=cost,
            parameters=rows["N"][known],
            selector=settings["selector"],
            floor=settings["floor"],
            objective=settings["objective"],
            simulated=None if simulated is None else simulated[:, known],
            interval_method=method,
        )
    return out


def _noise(rows: Rows) -> Noise:
    last = last_rows(rows) if len(rows) else np.array([], int)
    squares, degrees, widths = 0.0, 0, []
    for width in np.unique(rows["width"]) if len(rows) else ():
        y = np.log(rows.y[last[rows["width"][last] == width]])
        if len(y) > 1:
            squares += float(((y - y.mean()) ** 2).sum())
            degrees += len(y) - 1
            widths.append(int(width))
    if not degrees:
        return Noise(None, 0, (), "no rung was trained with two seeds: the noise floor is not measured.")
    std = float(np.sqrt(squares / degrees))
    text = f"seeds differ by {std:.1%} in L (standard deviation of ln L, {degrees} degrees of freedom)."
    return Noise(std, degrees, tuple(widths), text)


def freshness(rows: Rows, table: Table, name: str) -> Freshness:
    """Slopes on the largest rung over the last third of ln D: conformers falling while molecules flatten."""
    if not len(rows) or "loss_molecules" not in table or "loss_conformers" not in table:
        return Freshness("unknown", None, None, None, "one validation set only: molecules cannot be told from frames.")
    r = rows.where(rows["width"] == rows["width"].max())
    a, b = r["loss_molecules"].astype(float), r["loss_conformers"].astype(float)
    x = np.log(r["D"])
    late = x >= x.max() - np.ptp(x) / 3
    good = late & np.isfinite(a) & np.isfinite(b) & (a > 0) & (b > 0)
    if len(np.unique(x[good])) < 3:
        return Freshness("unknown", None, None, None, "too few late evaluations to compare the two validation sets.")
    slope_a = float(np.polyfit(x[good], np.log(a[good]), 1)[0])
    slope_b = float(np.polyfit(x[good], np.log(b[good]), 1)[0])
    end = good & (x == x[good].max())
    gap = float(np.exp(np.log(a[end] / b[end]).mean()))
    limited = slope_b < -0.03 and slope_a > 0.4 * slope_b
    verdict = "molecule-limited" if limited else "not molecule-limited"
    text = (
        f"{name}, largest rung: new molecules {gap:.2f} × the loss on new conformers; over the last third of ln D "
        f"ln L falls by {-slope_a:.2g} (molecules) and {-slope_b:.2g} (conformers) per unit of ln D: {verdict}."
    )
    return Freshness(verdict, gap, slope_a, slope_b, text)


def _held_out(rows: Rows, rungs: tuple[Rung, ...], settings: dict[str, Any], facts: Mapping[str, Any]) -> Score | None:
    """What was written before the largest rung was trained, else the largest rung left out of a fit now."""
    if len(rungs) < 4:
        return None
    top = rungs[-1]
    for record in facts.get("predictions") or ():
        if _foretold(record, rows.name, top, "sum_power"):
            return score(prediction_from_dict(record), top.loss)
    options = {k: settings[k] for k in ("floor", "objective", "resamples", "seed")}
    try:
        rest = rows.where(rows["width"] != top.width)
        return score(predict_from(rest, width=top.width, N=top.N, D=top.D_max, **options), top.loss)
    except ValueError:
        return None


def _foretold(record: Mapping[str, Any], name: str, top: Rung, law: str) -> bool:
    """Whether a prediction on disk is this law's of this rung; those of before laws were named are sums of powers."""
    return (record["architecture"], record["width"], record.get("law", "sum_power")) == (name, top.width, law)


def _held_out_plateau(
    everything: Rows,
    rungs: tuple[Rung, ...],
    settings: dict[str, Any],
    facts: Mapping[str, Any],
    trivial: float | None,
) -> Score | None:
    """The largest rung by the law with a plateau, which sees every row of the others."""
    if len(rungs) < 4:
        return None
    top = rungs[-1]
    for record in facts.get("predictions") or ():
        if _foretold(record, everything.name, top, "plateau"):
            return score(prediction_from_dict(record), top.loss)
    rest = everything.where(everything["width"] != top.width)
    options = {k: settings[k] for k in ("objective", "resamples", "seed")}
    found = from_plateau(rest, trivial, **options)
    if found is None:
        return None
    made = predict_from(rest, width=top.width, N=top.N, D=top.D_max, floor="zero", found=found, **options)
    return score(made, top.loss)
