"""specifications, multipliers, gap: what hangs on how one asks, what equal loss costs, and what symmetry may cost."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from equiscale.cli import runs
from equiscale.cli.arguments import command, results_of
from equiscale.cli.averaging import chosen
from equiscale.cli.choosing import laws_of, widest_sample
from equiscale.cli.exponents import add_loss, surface_of, tracked, untracked
from equiscale.cli.laws import law_figures, one_sentence
from equiscale.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from equiscale.cli.arguments import Commands
    from equiscale.laws.gap import Side
    from equiscale.results import Results
    from equiscale.run import RunRecord


def add(commands: "Commands") -> None:
    many = command(commands, "specifications", _specifications, "one number under every defensible way to ask for it")
    runs.add_table(many)
    many.add_argument("--quantity", default="gamma", help="gamma or a parameter's name (default: gamma)")
    many.add_argument("--laws", help="names with commas (default: sum-power with and without floor, tied, plateau)")
    runs.add_output(many)
    cost = command(commands, "multipliers", _multipliers, "what one costs over the other at equal loss")
    for name in ("first", "second"):
        cost.add_argument(name, help="a table of runs, or FOLDER:ARCHITECTURE of a study")
    cost.add_argument("--points", type=int, default=9, help="losses, between what both have had and reached")
    cost.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON alone, or write it to FILE")
    gap = command(commands, "gap", _gap, "how much slower per step an equivariant architecture may be before it loses")
    gap.add_argument(
        "of", nargs="+", metavar="VALUE",
        help="a results folder whose runs were tracked; or three numbers: the loss of the model without built-in "
        "symmetry, that of its average over the group (test-time averaging) in the same metric, its compute exponent",
    )  # fmt: skip
    gap.usage = "equiscale gap [options] RESULTS | LOSS AVERAGED GAMMA"
    gap.add_argument("--gamma", type=float, help="of a folder: the compute exponent (default: the folder's own laws')")
    gap.add_argument("--architecture", help="of a folder: one of them")
    add_loss(gap)
    gap.add_argument("--gamma-error", type=float, default=0.0, help="standard error of the gamma that is given")
    gap.add_argument("--error", type=float, default=0.0, help="standard error of ln(loss / averaged)")
    gap.add_argument("--floor", type=float, default=0.0, help="irreducible loss E")
    gap.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON alone, or write it to FILE")


def _specifications(a: argparse.Namespace) -> None:
    from equiscale.laws.specifications import specification_curve

    with one_sentence():
        table = runs.table_of(a)
        a.laws = a.laws or "sum-power, sum-power E zero, tied, plateau"
        laws = laws_of(a, table)
        found = widest_sample(a, table, laws)
        made = specification_curve(a.quantity, laws, found.x, found.loss)
    runs.emit(a, runs.with_left_out(found, made.table()), made.to_dict())
    runs.draw(a, lambda: law_figures().specification_figure(made))


def _multipliers(a: argparse.Namespace) -> None:
    from equiscale.laws.gap import multiplier_curve

    with one_sentence():
        made = multiplier_curve(_side(a.first), _side(a.second), points=a.points)
    lines = [f"{'loss':>10}{'FLOP':>28}{'hours':>10}{'structures':>12}"]
    for m in made.multipliers:
        cells = [_cell(m.flops), _cell(m.hours), _cell(m.structures)]
        if m.flops is not None and m.flops_interval is not None:
            cells[0] += f" [{m.flops_interval.low:.3g}, {m.flops_interval.high:.3g}]"
        lines.append(f"{m.loss:>10.4g}{cells[0]:>28}{cells[1]:>10}{cells[2]:>12}")
    lines.append(f"Cost of {made.second} over cost of {made.first}. {made.text}")
    runs.emit(a, "\n".join(lines), made.to_dict())


def _cell(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g}"


def _side(text: str) -> "Side":
    """Of a table, or of an architecture of a study by the law that its analysis believes."""
    folder, colon, architecture = text.rpartition(":")
    if colon:
        from equiscale.facts import analyses
        from equiscale.laws.gap import side

        found = analyses(results_of(Path(folder)), sets=("molecules",))[2]["molecules"].architectures
        if architecture not in found:
            raise InputError(f"{folder} holds no architecture {architecture!r}: it has {', '.join(found)}.")
        return side(found[architecture])
    from equiscale.laws.fit import fit
    from equiscale.laws.forms import sum_power
    from equiscale.laws.gap import side_of
    from equiscale.laws.uncertainty import bootstrap

    name, rows, floor = runs.named_rows(text)
    table = runs.table_of(rows)
    law = sum_power(floor=floor)
    found = runs.sample_of(rows, table, law)
    fitted = fit(law, found.x, found.loss)
    draws = bootstrap(fitted, found.x, found.loss, found.clusters, sizes=found.x["N"], resamples=400)
    return side_of(name, fitted, found.x, found.loss, draws, factor=found.factor or 6.0)


def _gap(a: argparse.Namespace) -> None:
    if len(a.of) == 1:
        _gaps(a)
        return
    if a.gamma is not None or a.architecture is not None:
        raise InputError("--gamma and --architecture are of a folder's gaps: give a results folder.")
    from equiscale.laws.gap import efficiency_gap

    with one_sentence():
        loss, averaged, gamma = _three(a.of)
        made = efficiency_gap(loss, averaged, gamma, _around(gamma, a.gamma_error), error=a.error, floor=a.floor)
    runs.emit(a, made.text, made.to_dict())


def _three(words: list[str]) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != 3:
        raise InputError(f"a gap is of a results folder or of three numbers (loss, averaged, gamma), not {words}.")
    return numbers


def _around(gamma: float, error: float) -> "np.ndarray | None":
    import numpy as np

    if error < 0:
        raise InputError("--gamma-error is not negative.")
    return np.random.default_rng(0).normal(gamma, error, 4000) if error > 0 else None


# --- the gaps of a folder --------------------------------------------------------------------------------------------


def _gaps(a: argparse.Namespace) -> None:
    """k of each run's last tracked look, by the compute exponent of its architecture."""
    from equiscale.laws.gap import efficiency_gap

    if a.gamma is not None and not 0 < a.gamma < float("inf"):
        raise InputError(f"--gamma is a finite positive number, not {a.gamma:g}.")
    if a.gamma is None and a.gamma_error:
        raise InputError("--gamma-error is of a gamma that is given: add --gamma.")
    results = results_of(Path(a.of[0]))
    records = results.records()
    if a.architecture is not None:
        chosen([record.spec for record in records], a.architecture)
        records = [record for record in records if record.spec.architecture == a.architecture]
    seen = [r for r in records if r.symmetry and r.status != "diverged" and r.spec.start is None]
    if not seen:
        raise untracked(results)
    found = _exponents_of(a, results, seen)
    lines, rows = [], []
    left = {str(r.spec): _why(r) for r in records if r not in seen}
    for record in seen:
        gamma, draws = found[record.spec.architecture]
        point = record.symmetry[-1]
        pair = (point.loss, point.loss_mean) if a.loss == "study" else (point.total, point.mean)
        try:
            # ln(L / L_mean) = -ln(1 - share), and the share has its error from the structures.
            share, error = point.percent / 100, a.error
            if a.loss == "squared" and not error:
                error = point.percent_error / 100 / (1 - share) if share < 1 else 0.0
            made = efficiency_gap(*pair, gamma, draws, error=error, floor=a.floor)
        except ValueError as reason:
            left[str(record.spec)] = str(reason)
            continue
        rows.append(
            {"run": record.spec.key, "name": str(record.spec), "architecture": record.spec.architecture,
             "width": record.spec.model.width, "N": record.parameters, "D": point.atoms, **made.to_dict()}
        )  # fmt: skip
        lines.append((str(record.spec), f"{record.parameters:.4g}", f"{point.atoms:.3g}", f"{pair[0]:.4g}",
                      f"{pair[1]:.4g}", f"{made.share:.2%}", f"{made.k}"))  # fmt: skip
    if not rows:
        why = left[str(seen[0].spec)].rstrip(".")
        raise InputError(f"no run in {results.folder} tells a gap; {seen[0].spec}: {why}.")
    head = ("run", "N", "D", "L", "L_mean", "share", "k")
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
    text = ["Break-even gap k = ((L - E) / (L_mean - E))^(1 / gamma) at the last tracked look of each run:"]
    text += [
        "  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in (head, *lines)
    ]
    from equiscale.laws.uncertainty import Estimate, percentile

    exponents = {}
    for name, (gamma, draws) in found.items():
        exponents[name] = Estimate(gamma, None if draws is None else percentile(draws, method="draws of gamma"))
        text.append(f"  gamma of {name}: {exponents[name]}, {_source(a)}")
    if a.loss == "study" and not a.error:
        text.append("  Of eq. 1's L / L_mean a record has no error: intervals are of gamma alone.")
    elif a.loss == "squared":
        text.append("  Intervals are of gamma and of the share's error over structures.")
    text += [f"  no gap of {name}: {why}" for name, why in left.items()]
    figures = {"loss": a.loss, "gamma": {k: e.to_dict() for k, e in exponents.items()}, "runs": rows, "without": left}
    runs.emit(a, "\n".join(text), figures)


def _why(record: "RunRecord") -> str:
    if record.status == "diverged":
        return f"diverged: {record.reason}"
    if record.spec.start is not None:
        return "it starts from another run's weights: its compute is not that of a run from scratch."
    return "its broken symmetry was not tracked."


def _source(a: argparse.Namespace) -> str:
    if a.gamma is not None:
        return "as given"
    return "of this folder's laws" if a.loss == "study" else "of the tracked squared error's laws"


def _exponents_of(
    a: argparse.Namespace, results: "Results", seen: "list[RunRecord]"
) -> "dict[str, tuple[float, np.ndarray | None]]":
    """gamma and its draws by architecture: as given, or by the law that an analysis believes."""
    from equiscale.laws.surfaces import gamma_of

    names = list(dict.fromkeys(record.spec.architecture for record in seen))
    if a.gamma is not None:
        return {name: (a.gamma, _around(a.gamma, a.gamma_error)) for name in names}
    out: dict[str, tuple[float, np.ndarray | None]] = {}
    table = tracked(seen)
    for name in names:
        surface = surface_of(results, table, name, a.loss)
        if surface is None or "gamma" not in surface.estimates:
            raise InputError(f"the records of {name} tell no compute exponent: give it with --gamma.")
        out[name] = (surface.estimates["gamma"].value, gamma_of(surface.draws))
    return out
