"""exponents: those of the loss and of the loss without its broken symmetry; and the tracked rows, which `gap` reads."""

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from equiscale.cli import runs
from equiscale.cli.arguments import add_results, command, results_of
from equiscale.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from equiscale.cli.arguments import Commands
    from equiscale.laws.paired import Changes
    from equiscale.laws.results import Surface
    from equiscale.results import Results
    from equiscale.run import RunRecord

LOSSES = {"study": ("loss_tracked", "loss_mean"), "squared": ("mse_total", "mse_mean")}


def add(commands: "Commands") -> None:
    both = command(
        commands, "exponents", _exponents, "exponents of the loss, and of the loss without its broken symmetry"
    )
    add_results(both)
    both.add_argument("--architecture", help="one of them")
    add_loss(both)
    both.add_argument(
        "--law", choices=("sum-power", "plateau"), help="plateau: every D (default: sum-power, said where in doubt)"
    )
    both.add_argument("--floor", choices=("zero", "free"), default="zero", help="irreducible loss (default: zero)")
    both.add_argument("--exclude-below", type=float, metavar="FRACTION", help="of D_max (default: the study's)")
    runs.add_intervals(both)
    both.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON alone, or write it to FILE")


def add_loss(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--loss", choices=tuple(LOSSES), default="study",
        help="of a folder: eq. 1, L_mean to leading order, or squared force error, exactly (default: study)",
    )  # fmt: skip


def tracked(records: "Iterable[RunRecord]") -> "dict[str, np.ndarray]":
    """`symmetry_table` from the first training step on, which a law of D needs; empty where nothing was tracked."""
    from equiscale.run import symmetry_table

    table = symmetry_table(records)
    return {name: column[table["D"] > 0] for name, column in table.items()}


def untracked(results: "Results") -> InputError:
    """What a folder is told that knows no L_mean."""
    return InputError(
        f"no run in {results.folder} was tracked: a study whose evaluation has `symmetry=Tracking()` tells L_mean."
    )


def tracked_of(results: "Results", architecture: str | None) -> "dict[str, np.ndarray]":
    """Those rows of a folder, of one architecture where it is named; InputError where nothing was tracked."""
    table = tracked(results.records())
    if not table:
        raise untracked(results)
    if architecture is not None:
        there = sorted({str(name) for name in table["architecture"]})
        if architecture not in there:
            raise InputError(f"{results.folder} tracked no {architecture!r}: it tracked {', '.join(there)}.")
        table = {name: column[table["architecture"] == architecture] for name, column in table.items()}
    return table


def _exponents(a: argparse.Namespace) -> None:
    resampling = runs.resampling(a)
    results = results_of(a.results)
    table = tracked_of(results, a.architecture)
    least = results.study().exclude_below if a.exclude_below is None else a.exclude_below
    if not 0 <= least < 1:
        raise InputError(f"--exclude-below is a fraction of D_max, from 0 to below 1, not {least:g}.")
    made: dict[str, Changes] = {}
    left: dict[str, str] = {}
    on_plateau: list[str] = []
    limited = _limited(results)
    for name in dict.fromkeys(str(n) for n in table["architecture"]):
        mine = {k: v[table["architecture"] == name] for k, v in table.items()}
        wanted = ["alpha"] if name in limited else ["alpha", "beta", "gamma"]
        trivial = next(r for r in results.records() if r.spec.architecture == name).trivial_molecules.loss
        law = a.law or "sum-power"
        share = 0.0 if law == "plateau" and a.exclude_below is None else least  # the plateau is the beginning
        try:
            made[name] = changes_of(mine, a, law, share * float(table["D"].max()), wanted, trivial, resampling)
        except ValueError as error:
            left[name] = str(error)
    if not made:
        raise InputError(f"no exponents: {next(iter(left))}: {next(iter(left.values()))}")
    what = "eq. 1, L_mean to leading order" if a.loss == "study" else "squared force error"
    lines = [f"Exponents of L and of L_mean, L with its broken symmetry averaged out ({what}):"]
    for name, found in made.items():
        lines.append(f"{name}: {found.first.law.formula}, {found.rows} looks at {found.runs} runs")
        lines.append(found.table())
        if name in limited:
            lines.append("  - molecule-limited: losses on new molecules flatten, so no beta and no gamma are given.")
        if a.law is None and _on_plateau(results, table, name, a.loss):
            on_plateau.append(name)
            lines.append(
                "  - runs begin on the trivial predictor's plateau, by the law that the folder's analysis and "
                "`equiscale gap` take: ask for --law plateau, too, before a change is believed."
            )
    method = next(iter(made.values())).method
    lines.append(f"  Intervals: {method}. The change's is paired: what runs have in common cancels.")
    lines += [f"  {name}: no exponents: {why}" for name, why in left.items()]
    figures = {"loss": a.loss, "architectures": {name: found.to_dict() for name, found in made.items()}}
    runs.emit(
        a,
        "\n".join(lines),
        {**figures, "molecule_limited": sorted(limited & set(made)), "on_plateau": on_plateau, "without": left},
    )


def surface_of(
    results: "Results", table: "dict[str, np.ndarray]", name: str, loss: str, **options: Any
) -> "Surface | None":
    """What an analysis believes of one architecture: of eq. 1 the folder's own, of the squared error, whose exponents
    are about twice those, one of the tracked looks."""
    from equiscale.facts import analyses
    from equiscale.laws.analysis import analyse

    if loss == "study":
        made = analyses(results, sets=("molecules",), architecture=name, **options)[2]["molecules"]
    else:
        mine = {key: column[table["architecture"] == name] for key, column in table.items()}
        least = results.study().exclude_below
        made = analyse(
            {**mine, "loss_squared": mine["mse_total"]}, validation="squared", exclude_below=least, **options
        )
    return made.architectures[name].believed if name in made.architectures else None


def _on_plateau(results: "Results", table: "dict[str, np.ndarray]", name: str, loss: str) -> bool:
    """Whether the analysis believes the law with a plateau, whose exponents are other ones."""
    surface = surface_of(results, table, name, loss, resamples=20)
    return surface is not None and surface.fit.law.name == "plateau"


def _limited(results: "Results") -> set[str]:
    """Architectures whose new molecules flatten where new conformers fall: without a beta nothing that follows."""
    from equiscale.laws.analysis import freshness
    from equiscale.laws.table import columns, rows_of
    from equiscale.run import table

    rows, _ = table(results.records())
    whole = columns(rows, "loss_molecules")
    names = {str(name) for name in whole["architecture"]}
    verdicts = {name: freshness(rows_of(whole, name, "loss_molecules"), whole, name).verdict for name in names}
    return {name for name, verdict in verdicts.items() if verdict == "molecule-limited"}


def changes_of(
    mine: "dict[str, np.ndarray]",
    a: argparse.Namespace,
    law_name: str,
    least: float,
    wanted: list[str],
    trivial: float,
    resampling: dict[str, Any],
) -> "Changes":
    """Exponents of one architecture's tracked rows with D from `least` on; ValueError where they do not suffice."""
    import numpy as np

    from equiscale.laws.catalogue import law_of
    from equiscale.laws.paired import exponent_change

    first, second = LOSSES[a.loss]
    y, z = mine[first].astype(float), mine[second].astype(float)
    good = (mine["D"] >= least * (1 - 1e-9)) & np.isfinite(y) & np.isfinite(z) & (y > 0) & (z > 0)
    x = {"N": mine["N"][good], "D": mine["D"][good]}
    law = law_of(law_name, floor=a.floor)
    given = {"L0": trivial} if law_name == "plateau" and a.loss == "study" else {}
    run = mine["run"][good]
    return exponent_change(law, x, y[good], z[good], run, quantities=wanted, fixed=(given, given), **resampling)
