"""averages: the law of a loss that is averaged over rotations at test time, and eq. 24."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiscale.cli import runs
from equiscale.cli.arguments import command, results_of
from equiscale.cli.laws import law_figures, one_sentence
from equiscale.errors import InputError

if TYPE_CHECKING:
    from equiscale.cli.arguments import Commands
    from equiscale.laws.averaging import AveragedRun
    from equiscale.laws.size_exponent import SizeExponent

SAME_D = 1.05  # runs whose D differ by less are of one D
SIZES = 4  # of which an exponent of size is fitted


def add(commands: "Commands") -> None:
    averages = command(
        commands, "averages", _averages, "what averaging over rotations at test time does to the loss, and to its law"
    )
    averages.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="JSON of `equiscale symmetry … --averages`, a folder of such, or a CSV with run, N, M and loss",
    )
    averages.add_argument("--results", type=Path, help="results folder that tells N and D of runs measured without")
    averages.add_argument("--architecture", help="one of them")
    averages.add_argument(
        "--rotations", type=float, metavar="M", help="of the average (default: the most, of all runs)"
    )
    averages.add_argument(
        "--floor", action="append", default=[], metavar="L_D",
        help="L_D of eq. 24, taken as given; L_D,L_D: one for each loss. May be repeated; fitted besides",
    )  # fmt: skip
    averages.add_argument("--squared", action="store_true", help="a CSV's losses are squared errors: the law is exact")
    runs.add_intervals(averages)
    runs.add_output(averages)


def _averages(a: argparse.Namespace) -> None:
    runs.check_figure(a)
    resampling = runs.resampling(a)
    with one_sentence():
        found = [run for path in a.runs for run in read_averages(path, squared=a.squared)]
        found = _joined(found, a.results or next((p for p in a.runs if (p / "study.json").is_file()), None))
        _refuse_mixture(found)
        if a.architecture is not None:
            found = chosen(found, a.architecture)
        checks = [run.check() for run in found]
        lines = [_law_table(found)]
        sizes: dict[str, SizeExponent] = {}
        left: dict[str, str] = {}
        for name in dict.fromkeys(run.architecture for run in found):
            mine = [run for run in found if run.architecture == name]
            made, why = _sizes(mine, a, resampling)
            if made is None:
                left[name or "these runs"] = why
                continue
            sizes[name] = made
            depth = f"D = {mine[0].D:.3g}" if mine[0].D == mine[0].D else "one D"
            lines.append(f"\n{name or 'Runs'}: L - L_D = A N^-alpha over {len(made.N)} runs at {depth}{why}")
            lines.append(made.table())
    lines += [f"\nNo exponent of size, {name}: {why}" for name, why in left.items()]
    if not sizes and a.floor:
        raise InputError(f"--floor is of eq. 24, which these runs do not tell: {next(iter(left.values()))}")
    figures = {
        "runs": [{**run.to_dict(), "check": check.to_dict()} for run, check in zip(found, checks, strict=True)],
        "sizes": {name: made.to_dict() for name, made in sizes.items()},
        "without_sizes": left,
    }
    runs.emit(a, "\n".join(lines), figures)
    runs.draw(a, lambda: law_figures().averages_figure(found, sizes))


def _law_table(found: "list[AveragedRun]") -> str:
    """A line a run: the two numbers, what they say, and how far the measured L(M) are off."""
    from equiscale.laws.averaging import AGREE

    width = max(3, *(len(run.run) for run in found))
    lines = [
        "L(M) = L_mean + L_equiv / M: 90 % of the gain is had at M = 10, 99 % at M = 100, whatever the potential.",
        f"  {'run':<{width}}{'N':>10}{'L(1)':>10}{'L_mean':>10}{'gain':>8}{'M within 1 %':>14}  largest deviation",
    ]
    for run in found:
        check, law = run.check(), run.law
        size = f"{run.N:.4g}" if run.N == run.N else "—"
        lines.append(
            f"  {run.run:<{width}}{size:>10}{run.at(1):>10.4g}{law.mean:>10.4g}{law.share:>8.1%}"
            f"{law.within(0.01):>14.3g}  {_deviation(check)}"
        )
    kinds = {run.exact for run in found}
    if False in kinds:
        lines.append("  Of a loss that is not squared the law is the leading order in 1 / M: its deviation is shown.")
    if True in kinds:
        scores = {run.run: run.check().p_value for run in found if run.exact}
        # A run in twenty is off by chance: the more runs, the more must speak against the law.
        bad = [name for name, p in scores.items() if p is not None and p * len(scores) < AGREE]
        verdict = f"not so in {', '.join(bad)}" if bad else "no measured point contradicts it"
        lines.append(f"  Of squared error the law is exact: {verdict}.")
    if any(run.law.fitted for run in found):
        lines.append("  L_mean and L_equiv are fitted to L(M) where nobody measured them: deviations are then smaller.")
    return "\n".join(lines)


def _deviation(check: Any) -> str:
    at = abs(check.deviations).argmax()
    score = check.scores[at]
    errors = f" ({abs(score):.1f} standard errors)" if score == score else ""
    return f"{check.largest:+.2%} at M = {check.rotations[at]:g}{errors}"


def _sizes(
    mine: "list[AveragedRun]", a: argparse.Namespace, resampling: dict[str, Any]
) -> "tuple[SizeExponent | None, str]":
    """Eq. 24 over the runs of the largest D, and what is to be said of the others; None and why where it cannot be."""
    import numpy as np

    from equiscale.laws.size_exponent import size_exponent

    known = [run for run in mine if run.N == run.N]
    if not known:
        return None, "N is not known: name the runs' folder with --results."
    depth = np.array([run.D for run in known])
    most = float(np.nanmax(depth)) if np.isfinite(depth).any() else float("nan")
    same = [run for run in known if not (np.isfinite(run.D) and most > SAME_D * run.D)]
    rotations = a.rotations
    if rotations is not None and not rotations > 1:
        raise InputError(f"--rotations {rotations:g} averages nothing: it is above one, or inf for L_mean.")
    if rotations is None:
        shared = set.intersection(*({float(m) for m in run.rotations} for run in same))
        rotations = max(shared, default=1.0)
    if not rotations > 1:
        return None, "no number of rotations above one was measured of all runs: name one with --rotations."
    pairs = [(run.N, run.at(1), run.at(rotations)) for run in same if run.at(rotations) == run.at(rotations)]
    count = len({n for n, _, _ in pairs})
    if count < SIZES:
        return None, f"{count} size{'s' * (count != 1)} with M = {rotations:g}, at least {SIZES} are needed."
    n, loss, averaged = np.array(sorted(pairs)).T
    floors = [_floor(text) for text in a.floor]
    names = ("M = 1", f"M = {rotations:g}")
    made = size_exponent(n, loss, averaged, floors=floors, names=names, **resampling)
    less = len(mine) - len(pairs)
    return made, f" ({less} runs at another D or without M = {rotations:g} left out)" if less else ""


def _floor(text: str) -> "float | tuple[float, float]":
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2):
        raise InputError(f"--floor {text!r} is not understood: give L_D, or L_D,L_D for the loss and its average.")
    return values[0] if len(values) == 1 else (values[0], values[1])


def read_averages(path: Path, *, squared: bool = False) -> "list[AveragedRun]":
    """Runs of a JSON file (`averaged_runs` says of which shape), of all such files in a folder, or of a CSV with a row
    for each run and M: run, N, M, loss, and if there error, predicted, architecture, width, D."""
    import json

    from equiscale.laws.averaging import averaged_runs

    if path.is_dir():
        found = []
        for file in sorted(path.glob("*.json")):
            try:
                data = json.loads(file.read_text())
            except (OSError, ValueError):
                continue
            if _holds_averages(data):
                found += averaged_runs(data)
        if not found:
            raise InputError(
                f"{path} holds no averages: `equiscale symmetry … --averages 1,2,4 --json FILE` writes them."
            )
        return found
    if path.suffix.lower() == ".json":
        try:
            data = json.loads(path.read_text())
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}).") from None
        except ValueError:
            raise InputError(f"{path} is damaged: measure again.") from None
        return averaged_runs(data)
    return averaged_runs({"runs": _of_table(path, "squared" if squared else "unknown")})


def _holds_averages(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    runs_of = data.get("runs")
    held = runs_of if isinstance(runs_of, list) else [data]
    return any(isinstance(run, dict) and run.get("averages") for run in held)


def _of_table(path: Path, loss: str) -> list[dict[str, Any]]:
    from equiscale.tables import numbers, read_table

    table = read_table(path)
    if missing := [name for name in ("run", "N", "M", "loss") if name not in table]:
        raise InputError(f"{path} has no column {missing[0]!r}: averages have run, N, M (rotations) and loss.")
    names = {"M": "rotations", "loss": "loss", "error": "error", "predicted": "predicted"}
    values = {ours: numbers(table, name) for name, ours in names.items() if name in table}
    about = {name: numbers(table, name) for name in ("N", "D", "width") if name in table}
    kinds = table["architecture"].astype(str) if "architecture" in table else None
    made: dict[str, dict[str, Any]] = {}
    for i, run in enumerate(str(r) for r in table["run"]):
        mine = made.setdefault(run, {"run": run, "loss": loss, "averages": []})
        mine.update({name: float(column[i]) for name, column in about.items()})
        if kinds is not None:
            mine["architecture"] = str(kinds[i])
        mine["averages"].append({name: float(column[i]) for name, column in values.items()})
    return list(made.values())


def _refuse_mixture(found: "list[AveragedRun]") -> None:
    """Losses of two kinds have no law together, and a run that is there twice would count twice."""
    if len(kinds := dict.fromkeys(run.loss for run in found)) > 1:
        raise InputError(f"the averages are of several losses ({', '.join(kinds)}): name the files of one of them.")
    known = [run.key for run in found if run.key]
    if twice := next((run for run in found if run.key and known.count(run.key) > 1), None):
        raise InputError(f"{twice.run} ({twice.key}) is there twice: name one file of it.")


def _joined(found: "list[AveragedRun]", folder: Path | None) -> "list[AveragedRun]":
    """N, D, architecture and width from the records, by the run's key or by what it is called."""
    from dataclasses import replace

    if folder is None:
        return found
    records = results_of(folder).records()
    names = [str(record.spec) for record in records]
    known = {name: record for name, record in zip(names, records) if names.count(name) == 1}
    known |= {record.spec.key: record for record in records}
    out = []
    for run in found:
        own = known.get(run.key) or known.get(run.run)
        if own is not None and own.curve:
            spec = own.spec
            run = replace(
                run, architecture=spec.architecture, width=float(spec.model.width), N=float(own.parameters),
                D=float(own.curve[-1].atoms), key=spec.key,
            )  # fmt: skip
        out.append(run)
    return out


def chosen(found: Iterable[Any], architecture: str) -> list[Any]:
    """Those of one architecture; InputError where there is none."""
    found = list(found)
    there = list(dict.fromkeys(run.architecture for run in found))
    if architecture not in there:
        others = ", ".join(name for name in there if name) or "none that is named"
        raise InputError(f"there is no architecture {architecture!r}: there is {others}.")
    return [run for run in found if run.architecture == architecture]
