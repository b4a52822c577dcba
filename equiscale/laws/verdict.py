"""Five lines in words, for the end of a study and the top of its report.

Only what a study of this size can carry: local exponents with their range and interval, no difference under two noise
floors, no crossing beyond ten times the records, no cause, no agreement with anybody's numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from equiscale.laws.noise_floor import Floor, difference_floor, noise_floors
from equiscale.laws.results import Analysis, Architecture, Pair

FEW = 4  # ladders of which everything is said in one sentence


def verdict(analysis: Analysis) -> list[str]:
    found = list(analysis.architectures.values())
    plain = plain_ladder(a.name for a in found)
    remedy = _remedy(analysis, plain) if plain else None
    chosen = remedy or max(analysis.pairs, key=lambda p: abs(p.difference or 0.0), default=None)
    return [
        _records(analysis, found),
        _of_variants(remedy, plain, found) + _best(analysis, chosen, found),
        _exponents(found) if plain else "Exponents: " + "; ".join(_exponent(a) for a in found) + ".",
        _crossing(analysis, chosen),
        _trust(analysis, found),
    ]


def plain_ladder(names: Iterable[str]) -> str:
    """The plain one of ladders that are all variants of one architecture (a name's first word); "" of others."""
    names = list(names)
    plain = [name for name in names if " " not in name]
    return plain[0] if len({name.partition(" ")[0] for name in names}) == 1 and plain and len(names) > 1 else ""


def _remedy(analysis: Analysis, plain: str) -> Pair | None:
    """The plain ladder with the variant that is the best against it at the compute that both have records of."""
    shares: list[tuple[float, int]] = []
    for i, pair in enumerate(analysis.pairs):
        at = _at_common(pair, analysis) if plain in (pair.first, pair.second) else None
        if at is not None:
            other = pair.second if pair.first == plain else pair.first
            shares.append((at[1][other] / at[1][plain], i))
    return analysis.pairs[min(shares)[1]] if shares else None


def _of_variants(remedy: Pair | None, plain: str, found: list[Architecture]) -> str:
    """That the pair was chosen, and among how many: the best of several looks better than it is."""
    if remedy is None or len(found) < 3:
        return ""
    best = remedy.second if remedy.first == plain else remedy.first
    return f"Of {len(found) - 1} variants {best} is the best beside {plain} at equal compute. "


def _records(analysis: Analysis, found: list[Architecture]) -> str:
    facts = analysis.facts
    label = (facts.get("data") or {}).get("label", "")
    ladders = ", ".join(f"{a.name} {len(a.rungs)} widths, {sum(r.seeds for r in a.rungs)} runs" for a in found)
    tops = [a.C_range[1] for a in found if a.rungs]
    text = f"Records: {ladders}"
    if tops:
        text += f"; training compute up to {max(tops):.2g} FLOP"
    text += f"; labels {label}" if label else ""
    if analysis.trivial and tops:
        best = min(r.loss for a in found for r in a.rungs)
        text += f"; the best loss is {best / analysis.trivial:.0%} of the trivial predictor's"
    return text + "."


def _at_common(pair: Pair, analysis: Analysis) -> tuple[float, dict[str, float]] | None:
    """The least loss that each has reached by the compute that both have records of."""
    both = {name: analysis.architectures[name].frontiers.get("C") for name in (pair.first, pair.second)}
    common = min(analysis.architectures[name].C_range[1] for name in both)
    losses: dict[str, float] = {}
    for name, f in both.items():
        if f is None or not len(f.x) or f.x[0] > common:
            return None
        losses[name] = float(np.exp(np.interp(np.log(common), np.log(f.x), np.log(f.loss))))
    return common, losses


def _best(analysis: Analysis, pair: Pair | None, found: list[Architecture]) -> str:
    if pair is None:
        a = found[0]
        best = min((r.loss for r in a.rungs), default=float("nan"))
        return f"{a.name} alone was trained, its best loss is {best:.3g}: there is nothing to compare it with."
    at = _at_common(pair, analysis)
    if at is None:
        return f"{pair.first} and {pair.second} have no compute in common: their losses are not compared."
    common, losses = at
    low, high = sorted(losses, key=lambda name: losses[name])
    gap = float(np.log(losses[high] / losses[low]))
    floors = noise_floors(found)
    first, second = floors[low], floors[high]
    floor = difference_floor(first, second)
    where = f"With up to {common:.2g} FLOP, which both have records of,"
    numbers = f"{low} reached {losses[low]:.3g} and {high} {losses[high]:.3g}"
    if first is None or second is None or not floor:
        return (
            f"{where} {numbers}; no rung was repeated and no ladder has the four runs that tell a noise floor, so no "
            "difference is claimed."
        )
    # Two floors by the method; three where no seed was repeated, since a fit tells its own noise from few runs.
    needed, count = (2, "two") if first.seeds and second.seeds else (3, "three")
    source = f"{floor:.1%}, from {_source(first, second)}"
    if gap < needed * floor:
        return f"{where} {numbers}, not told apart: less than {count} noise floors of a difference ({source})."
    return f"{where} {numbers}: {low} is lower here, by {gap / floor:.1f} noise floors of a difference ({source})."


def _source(first: Floor, second: Floor) -> str:
    if first.seeds and second.seeds:
        text = "seeds"
    elif first.seeds or second.seeds:
        text = "seeds and a fit, as not all repeat a rung"
    else:
        text = "the fits, as no rung was repeated"
    pooled = max(first.of, second.of, key=len)
    return text + (
        f", pooled over {len(pooled)} ladders where a ladder tells none of its own" if len(pooled) > 1 else ""
    )


def _exponents(found: list[Architecture]) -> str:
    """Of many variants, one number a ladder and its interval; those without one are counted."""
    if len(found) <= FEW:
        return "Exponents: " + "; ".join(_exponent(a) for a in found) + "."
    told = [
        (a, gamma)
        for a in found
        if a.surface is not None
        and (gamma := a.surface.estimates.get("gamma")) is not None
        and gamma.interval is not None
    ]
    rest = len(found) - len(told)
    more = f"{rest} {'ladders have' if rest > 1 else 'ladder has'} none that can be told with an interval"
    if not told:
        return f"Exponents: {more}."
    low, high = min(a.C_range[0] for a, _ in told), max(a.C_range[1] for a, _ in told)
    parts = []
    for a, gamma in told:
        off = None if a.surface_plateau is None else a.surface_plateau.estimates.get("gamma")
        parts.append(f"{a.name} {gamma}" + (f", {off} off the plateau" if off is not None else ""))
    text = f"Exponents: local γ by surfaces, each over its own records within [{low:.2g}, {high:.2g}] FLOP: "
    return text + "; ".join(parts) + (f"; {more}." if rest else ".")


def _exponent(a: Architecture) -> str:
    if a.freshness.verdict == "molecule-limited":
        return f"{a.name} is molecule-limited, no β and no γ are given"
    if a.surface is None:
        return f"{a.name} has too few rows or widths for a law"
    span = f"over [{a.C_range[0]:.2g}, {a.C_range[1]:.2g}] FLOP"
    text = f"{a.name} has the local exponent γ = {a.surface.estimates['gamma']} {span} (surface)"
    if a.surface_plateau is not None and "gamma" in a.surface_plateau.estimates:
        text += f", {a.surface_plateau.estimates['gamma']} off the trivial predictor's plateau"
    f = a.frontiers.get("C")
    if f is not None and f.fit is not None and f.range is not None:
        text += f", {f.estimates['gamma']} over [{f.range[0]:.2g}, {f.range[1]:.2g}] (frontier)"
    return text


def _crossing(analysis: Analysis, pair: Pair | None) -> str:
    if pair is None:
        return "Crossings: none to look for with one architecture."
    text = f"Comparison: {pair.claim}"
    cross = pair.crossings.get("surface")
    if cross is not None:
        text += " Frontiers: " + cross.text
    more = len(analysis.pairs) - 1
    return text + (f" ({more} more pairs in the report.)" if more else "")


def _trust(analysis: Analysis, found: list[Architecture]) -> str:
    scores = [(a, a.held_out) for a in found if a.held_out is not None]
    if scores:
        parts = ", ".join(
            f"{s.prediction.architecture} {s.relative_error:.1%} off"
            f" ({'inside' if s.inside else 'outside'} its interval"
            + (f"; {a.held_out_plateau.relative_error:.1%} with the plateau in the law)" if a.held_out_plateau else ")")
            for a, s in scores
        )
        text = f"Largest rung, predicted from the smaller ones: {parts}."
    else:
        text = "The largest rung could not be predicted from the smaller ones."
    doubts = [a.name for a in found if a.surface is not None and a.surface.warnings]
    if doubts:
        text += f" The fits of {', '.join(doubts)} carry warnings."
    return text + " These are slopes of this study in its range: no asymptotic law, and no cause, follows from them."
