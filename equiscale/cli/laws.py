"""report, fit, plan, compare, frontier, isoflop, laws: from runs to laws, and from laws to a choice."""

import argparse
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from equiscale.cli import runs
from equiscale.cli.arguments import add_results, command, results_of
from equiscale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from equiscale.cli.arguments import Commands
    from equiscale.laws.reading import Reading
    from equiscale.results import Results


def add(commands: "Commands") -> None:
    add_results(command(commands, "report", _report, "write the report and the figures of a results folder"))
    fit = command(commands, "fit", _fit, "fit a law to a table of runs, or all laws of a study to its results folder")
    _add_common(fit)
    _add_decisions(fit)
    fit.add_argument("--validation", choices=("molecules", "conformers"), default="molecules", help="of a study")
    plan = command(commands, "plan", _plan, "how large a model, on how much data, for a budget")
    _add_common(plan)
    budget = plan.add_mutually_exclusive_group(required=True)
    budget.add_argument("--flops", type=float, help="training FLOPs; of a study, of the published formulation")
    budget.add_argument("--hours", type=float, help="of a study: hours of training steps, on hardware in the records")
    plan.add_argument("--hardware", help="of a study: which hardware, where the records hold several")
    plan.add_argument("--validation", choices=("molecules", "conformers"), default="molecules", help="of a study")
    _add_factor(plan)
    listed = command(commands, "laws", _laws, "the laws there are: formulas, parameters, units, sources")
    listed.add_argument("law", nargs="?", help="one of them")


def _add_common(parser: argparse.ArgumentParser) -> None:
    runs.add_table(parser)
    runs.add_law(parser)
    runs.add_intervals(parser)
    runs.add_output(parser)


def _add_decisions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget", type=float, action="append", default=[], metavar="FLOP", help="also N*, D*, L at it"
    )
    _add_factor(parser)


def _add_factor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--factor", type=float, help="k of C = k N D (default: the table's own, else 6)")
    parser.add_argument(
        "--at", action="append", default=[], metavar="NAME=VALUE", help="other variables of the law at the decision"
    )


@contextmanager
def one_sentence() -> "Iterator[None]":
    """The laws' ValueErrors are a user's mistakes here."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from None


def law_figures() -> ModuleType:
    """Loaded when something is drawn: the figures' libraries are an extra."""
    from equiscale.report import law_figures

    return law_figures


def of_study(a: argparse.Namespace) -> bool:
    """Whether all of a study's laws are asked for, and not one law of one table."""
    return not runs.asks_for_rows(a) and not runs.is_table(a.runs)


def _study_options(a: argparse.Namespace) -> dict[str, Any]:
    from equiscale.laws.objective import objective_of

    with one_sentence():
        objective = objective_of(a.objective)
    if len(objective) > 1 or objective["objective"] == "asymmetric":
        raise InputError(f"--objective {a.objective} is for one law: name it with --law, or give huber, lad or l2.")
    if a.resamples is not None and a.resamples < 1:
        raise InputError(f"--resamples must be at least 1, not {a.resamples}.")
    if a.exclude_below is not None and not 0 <= a.exclude_below < 1:
        raise InputError(f"--exclude-below is a fraction of D_max, from 0 to below 1, not {a.exclude_below:g}.")
    options = {"floor": a.floor or "zero", **objective, "resamples": a.resamples or 200}
    if a.exclude_below is not None:
        options["exclude_below"] = a.exclude_below
    return options


def write_report(results: "Results") -> None:
    """Write page and figures of a results folder, and print the verdict on its molecules."""
    import equiscale.report
    from equiscale.facts import analyses
    from equiscale.laws import verdict
    from equiscale.report.tracks import tracks_of

    table, facts, made = analyses(results)
    page = equiscale.report.write(table, facts, made, results.folder, tracks_of(results.records()))
    for line in verdict(made["molecules"]):
        print(f"  {line}")
    print(f"Report: {page}")


def _report(a: argparse.Namespace) -> None:
    write_report(results_of(a.results))


def reading_of(a: argparse.Namespace, budgets: tuple[float, ...]) -> "Reading":
    from equiscale.laws.reading import read

    with one_sentence():
        table = runs.table_of(a)
        law = runs.law_of(a, table)
        return read(
            runs.sample_of(a, table, law),
            **runs.fitting(a),
            **runs.resampling(a),
            budgets=budgets,
            factor=a.factor,
            given=runs.given_values(a.at),
        )


def _fit(a: argparse.Namespace) -> None:
    if of_study(a):
        from equiscale.facts import analyses
        from equiscale.laws import describe

        made = analyses(results_of(a.runs), sets=(a.validation,), **_study_options(a))[2][a.validation]
        runs.emit(a, describe(made), made.to_dict())
        return
    for budget in a.budget:
        _check_budget("--budget", budget)
    reading = reading_of(a, tuple(a.budget))
    runs.emit(a, reading.text(), reading.to_dict())
    runs.draw(a, lambda: law_figures().reading_figure(reading))


def _check_budget(option: str, budget: float) -> None:
    if not 0 < budget < float("inf"):
        raise InputError(f"{option} must be a positive number, not {budget:g}.")


def _plan(a: argparse.Namespace) -> None:
    for name in ("flops", "hours"):
        if (budget := getattr(a, name)) is not None:
            _check_budget(f"--{name}", budget)
    if of_study(a):
        from equiscale.facts import analyses
        from equiscale.laws import plan

        made = analyses(results_of(a.runs), sets=(a.validation,), **_study_options(a))[2][a.validation]
        with one_sentence():
            found = plan(made, flops=a.flops, hours=a.hours, hardware=a.hardware)
        runs.emit(a, found.text(), found.to_dict())
        return
    if a.flops is None:
        raise InputError("hours are planned from a study's records: of a table give --flops.")
    reading = reading_of(a, (a.flops,))
    runs.emit(a, plan_text(reading, a.flops), reading.to_dict())
    runs.draw(a, lambda: law_figures().plan_figure(reading))


def plan_text(reading: "Reading", budget: float) -> str:
    """The answer first, then what it rests on."""
    n, d, loss = (reading.decisions[f"{name}({budget:.6g})"] for name in ("N*", "D*", "L"))
    import numpy as np

    sample = reading.sample
    cost = reading.factor * sample.x["N"] * sample.x["D"] if sample.cost is None else sample.cost
    decades = float(np.log10(budget / cost.max()))
    reach = "within the table" if decades <= 0 else f"{decades:.2g} decades beyond the table"
    lines = [f"Budget {budget:.3g} FLOP ({reach}): N = {n}, D = {d}, loss {loss}."]
    if decades > 1:
        lines.append("More than ten times the table's compute: not to be relied on.")
    if not reading.sample.x["N"].min() <= n.value <= reading.sample.x["N"].max():
        lines.append("That size lies outside the sizes of the table.")
    return "\n".join([*lines, "", reading.text()])


def _laws(a: argparse.Namespace) -> None:
    from equiscale.laws import catalogue

    with one_sentence():
        print(catalogue.describe_laws() if a.law is None else catalogue.law_of(a.law).table())
