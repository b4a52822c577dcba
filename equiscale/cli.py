"""The command line: one short function per command; a user's mistake is one sentence and exit code 2."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

import equiscale
from equiscale.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns 0; 2 for a mistake of the user (one sentence on stderr); 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        if getattr(arguments, "workers", 1) < 1:
            raise InputError(f"--workers must be at least 1, not {arguments.workers}.")
        return arguments.command(arguments) or 0
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("\nstopped; what was recorded is kept, and the same command goes on from there.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `equiscale fit … | head`
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("equiscale"):
            raise
        return _refuse(f"{error.name} is not installed: this needs `pip install 'equiscale[all]'`.")
    except OSError as error:
        return _refuse(f"{error.filename or 'a file'}: {error.strerror}; what was recorded is kept.")


def _refuse(sentence: str) -> int:
    print(f"equiscale: {sentence}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="equiscale", description="Scaling laws and symmetry of neural force fields.")
    parser.add_argument("--version", action="version", version=f"equiscale {equiscale.__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=function)
        return made

    data = commands.add_parser("data", help="make or inspect a data set").add_subparsers(dest="what", required=True)
    make = data.add_parser("make", help="make and label the built-in set again (extra: generate)")
    make.add_argument("folder", type=Path, nargs="?", default=Path("builtin"), help="where to write (default: builtin)")
    make.add_argument("--molecules", type=int, help="only so many molecules")
    make.add_argument("--frames", type=int, default=15, help="structures of a molecule")
    make.add_argument("--max-atoms", type=int, default=30, help="largest molecule, hydrogens counted")
    make.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    make.set_defaults(command=_data_make)
    inspect = data.add_parser(
        "inspect", help="counts, elements, statistics, orientation, duplicates, suspicious values"
    )
    inspect.add_argument("source", nargs="?", default="builtin", help="builtin, or an extxyz file")
    _keys(inspect)
    inspect.set_defaults(command=_data_inspect)

    tune = command("tune", _tune, "find the learning rate, batch and depth of a study's architectures")
    _study(tune)
    _running(tune)
    train = command("train", _train, "train one run of a study in this process")
    _study(train)
    train.add_argument("--architecture", help="which ladder, where there are several")
    train.add_argument("--width", type=int, required=True)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="cpu")
    dry = command("dry-run", _dry_run, "what a study will cost, before anything is trained")
    _study(dry)
    dry.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    run = command("run", _run, "train a study, or what is missing of it; ends with the report")
    _study(run)
    _running(run)
    run.add_argument("--checkpoint-every", type=float, default=15.0, metavar="SECONDS", help="default: 15")
    run.add_argument("--no-report", action="store_true", help="train only")
    retime = command("time", _time, "time every rung of a results folder again, alone, for the laws in hours")
    _results(retime)
    retime.add_argument("--device", default="cpu")
    evaluate = command("evaluate", _evaluate, "errors of a trained rung on the built-in set or on a file of yours")
    evaluate.add_argument("checkpoint", help="a run's folder, results/<study>/<key>.ckpt")
    evaluate.add_argument("data", nargs="?", default="builtin", help="builtin, or an extxyz file")
    evaluate.add_argument(
        "--part",
        choices=("molecules", "conformers", "train", "test", "all"),
        help="of the split (default: molecules of the built-in set, all of a file)",
    )
    evaluate.add_argument("--device", default="cpu")
    evaluate.add_argument("--atoms", type=int, default=4096, help="of a batch: bounds the memory (default: 4096)")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    _keys(evaluate, blocks=True)
    tuned = command(
        "fine-tune", _fine_tune, "train a rung on: on other data, or with forces from its energy's gradient"
    )
    tuned.add_argument("checkpoint", help="a run's folder, results/<study>/<key>.ckpt")
    tuned.add_argument("data", nargs="?", default="builtin", help="builtin, or an extxyz file")
    tuned.add_argument("--forces", choices=("direct", "conservative"), help="where they come from (default: as before)")
    tuned.add_argument("--refit-references", action="store_true", help="for labels of another level of theory")
    tuned.add_argument("--structures", type=int, help="of the training part (default: all)")
    tuned.add_argument("--epochs", type=int, default=1)
    tuned.add_argument("--batch", type=int, default=4, help="structures of a step (default: 4)")
    tuned.add_argument("--lr", type=float, default=1e-2, help="learning rate (default: 1e-2)")
    tuned.add_argument("--seed", type=int, default=0)
    tuned.add_argument("--out", type=Path, default=Path("results/fine-tuned"), help="default: results/fine-tuned")
    tuned.add_argument("--device", default="cpu")
    tuned.add_argument("--checkpoint-every", type=float, default=15.0, metavar="SECONDS", help="default: 15")
    _keys(tuned, blocks=True)
    nve = command("nve", _nve, "whether a trained rung conserves energy: a short run of molecular dynamics")
    nve.add_argument("checkpoint", help="a run's folder, results/<study>/<key>.ckpt")
    nve.add_argument("structure", nargs="?", help="a file that ASE reads (default: a molecule of the built-in set)")
    nve.add_argument("--index", type=int, default=0, help="which structure of the file (default: the first)")
    nve.add_argument("--steps", type=int, default=2000)
    nve.add_argument("--timestep", type=float, default=0.5, help="fs (default: 0.5)")
    nve.add_argument("--temperature", type=float, default=300.0, help="K, of the first velocities (default: 300)")
    nve.add_argument("--seed", type=int, default=0, help="of the first velocities")
    nve.add_argument("--dtype", choices=("float32", "float64"), help="to compute in (default: the checkpoint's)")
    nve.add_argument("--device", default="cpu")
    nve.add_argument("--json", type=Path, metavar="FILE", help="write the figures and energies there too")
    status = command("status", _status, "how far a study is")
    _results(status)
    report = command("report", _report, "write the report and the figures of a results folder")
    _results(report)
    fit = command("fit", _fit, "fit the laws to a results folder and print them")
    _results(fit)
    _laws(fit)
    plan = command("plan", _plan, "which architecture, width and how many structures for a budget")
    _results(plan)
    budget = plan.add_mutually_exclusive_group(required=True)
    budget.add_argument("--flops", type=float, help="training FLOPs of the published formulation")
    budget.add_argument("--hours", type=float, help="hours of training steps, on hardware that is in the records")
    plan.add_argument("--hardware", help="which hardware, where the records hold several")
    _laws(plan)
    return parser


def _study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, help="a Python file that sets STUDY")
    parser.add_argument("--results", type=Path, help="results folder (default: results/<name of the study>)")


def _running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def _results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, help="results folder, study file, or name of a study under results/")


def _laws(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--validation", choices=("molecules", "conformers"), default="molecules")
    parser.add_argument("--floor", choices=("zero", "free"), default="zero", help="L_inf exactly zero, or fitted")
    parser.add_argument("--objective", choices=("huber", "lad", "least_squares"), default="huber")
    parser.add_argument("--exclude-below", type=float, help="drop rows before this fraction of D_max")
    parser.add_argument("--resamples", type=int, default=200)


KEYS = ("energy_key", "forces_key", "charge_key", "spin_key", "group_key", "energy_unit", "length_unit")


def _keys(parser: argparse.ArgumentParser, blocks: bool = False) -> None:
    for name in KEYS:
        parser.add_argument(f"--{name.replace('_', '-')}", help=f"extxyz: {name.replace('_', ' ')}")
    if blocks:
        parser.add_argument(
            "--blocks", type=int, help="extxyz: cut a file of one molecule into so many runs to split it"
        )


def _reader(a: argparse.Namespace) -> dict[str, Any]:
    """The reader's options that were given."""
    return {k: v for k in (*KEYS, "blocks") if (v := getattr(a, k, None)) is not None}


def _data_make(a: argparse.Namespace) -> None:
    from equiscale.data.label import make

    print(make(a.folder, molecules=a.molecules, max_atoms=a.max_atoms, frames=a.frames, workers=a.workers))


def _data_inspect(a: argparse.Namespace) -> None:
    from equiscale.data.inspect import inspect
    from equiscale.data.sources import load

    print(inspect(load(a.source, whole=True, **_reader(a))))


def _open(a: argparse.Namespace) -> tuple[Any, Any]:
    """The study of a study file, and its results folder."""
    from equiscale.ladder import load_study
    from equiscale.results import Results

    study = load_study(a.study)
    return study, Results(a.results or Path("results") / study.name)


def _folder(path: Path) -> Any:
    """Results from a folder, a study file, or a study's name."""
    from equiscale.ladder import load_study
    from equiscale.results import Results

    if path.suffix == ".py":
        path = Path("results") / load_study(path).name
    elif not path.exists() and (Path("results") / path).is_dir():
        path = Path("results") / path
    return Results(path)


def _run(a: argparse.Namespace) -> None:
    from equiscale.study import run_study

    study, results = _open(a)
    _terminate_like_interrupt()
    page = results.folder / "report.html"
    trained = run_study(
        study,
        results,
        workers=a.workers,
        device=a.device,
        say=_say,
        live=_live,
        checkpoint_every=a.checkpoint_every,
    )
    if not trained and (page.exists() or a.no_report):
        report = f" Report: {page}" if page.exists() else ""
        print(f"{study.name}: all {len(results.declared()['runs'])} runs are recorded, nothing to do.{report}")
    elif not a.no_report:
        _write_report(results)


def _write_report(results: Any) -> None:
    import equiscale.report
    from equiscale.facts import analyses
    from equiscale.laws import verdict

    table, facts, made = analyses(results)
    page = equiscale.report.write(table, facts, made, results.folder)
    for line in verdict(made["molecules"]):
        print(f"  {line}")
    print(f"Report: {page}")


def _report(a: argparse.Namespace) -> None:
    _write_report(_folder(a.results))


def _status(a: argparse.Namespace) -> None:
    from equiscale.results import status

    print(status(_folder(a.results)))


def _time(a: argparse.Namespace) -> None:
    from equiscale.study import retime

    print(retime(_folder(a.results), device=a.device, live=_live))


def _dry_run(a: argparse.Namespace) -> None:
    from equiscale.dry_run import dry_run

    study, results = _open(a)
    print(dry_run(study, results, a.workers, _live))


def _tune(a: argparse.Namespace) -> None:
    from equiscale.tune import tune

    study, results = _open(a)
    _terminate_like_interrupt()
    print(tune(study, results, workers=a.workers, device=a.device, say=_say, live=_live))


def _train(a: argparse.Namespace) -> None:
    from equiscale.study import train_one

    study, results = _open(a)
    print(
        train_one(
            study,
            results,
            architecture=a.architecture,
            width=a.width,
            seed=a.seed,
            device=a.device,
            live=_live,
        )
    )


def _evaluate(a: argparse.Namespace) -> None:
    from equiscale.evaluate import evaluated

    text, figures = evaluated(a.checkpoint, a.data, part=a.part, keys=_reader(a), device=a.device, atoms=a.atoms,
                              live=_live)  # fmt: skip
    _live("")
    print(text)
    _write_json(a.json, figures)


def _fine_tune(a: argparse.Namespace) -> None:
    from equiscale.fine_tune import fine_tune

    _terminate_like_interrupt()
    print(
        fine_tune(
            a.checkpoint,
            a.data,
            a.out,
            forces=a.forces,
            structures=a.structures,
            epochs=a.epochs,
            batch=a.batch,
            rate=a.lr,
            seed=a.seed,
            refit=a.refit_references,
            keys=_reader(a),
            device=a.device,
            say=_say,
            live=_live,
            checkpoint_every=a.checkpoint_every,
        )
    )


def _nve(a: argparse.Namespace) -> None:
    from equiscale.dynamics import energy_drift, start
    from equiscale.predict import TrainedPotential

    trained = TrainedPotential.load(a.checkpoint, a.device, a.dtype)
    atoms, what = start(trained, a.structure, a.index)
    drift = energy_drift(trained, atoms, steps=a.steps, timestep=a.timestep, temperature=a.temperature, seed=a.seed,
                         tell=lambda step: _live(f"step {step} of {a.steps}") if step % 20 == 0 else None)  # fmt: skip
    _live("")
    print(f"{what}: {drift}")
    _write_json(a.json, {"structure": what, **drift.to_dict()})


def _write_json(path: Path | None, figures: dict[str, Any]) -> None:
    if path is not None:
        import json

        from equiscale.files import write_atomically

        write_atomically(path, json.dumps(figures, indent=1).encode())


def _options(a: argparse.Namespace) -> dict[str, Any]:
    if a.resamples < 1:
        raise InputError(f"--resamples must be at least 1, not {a.resamples}.")
    if a.exclude_below is not None and not 0 <= a.exclude_below < 1:
        raise InputError(f"--exclude-below is a fraction of D_max, from 0 to below 1, not {a.exclude_below:g}.")
    options = {"floor": a.floor, "objective": a.objective, "resamples": a.resamples}
    if a.exclude_below is not None:
        options["exclude_below"] = a.exclude_below
    return options


def _fit(a: argparse.Namespace) -> None:
    from equiscale.facts import analyses
    from equiscale.laws import describe

    _, _, made = analyses(_folder(a.results), **_options(a))
    print(describe(made[a.validation]))


def _plan(a: argparse.Namespace) -> None:
    from equiscale.facts import analyses
    from equiscale.laws import plan

    for name in ("flops", "hours"):
        if (budget := getattr(a, name)) is not None and not 0 < budget < float("inf"):
            raise InputError(f"--{name} must be a positive number, not {budget:g}.")
    _, _, made = analyses(_folder(a.results), **_options(a))
    try:
        print(plan(made[a.validation], flops=a.flops, hours=a.hours, hardware=a.hardware).text())
    except ValueError as error:
        raise InputError(str(error)) from None


def _say(text: str) -> None:
    """A line that stays."""
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    print(text, flush=True)


_last_live = [0.0]


def _live(text: str) -> None:
    """A line that is overwritten on a terminal, and appears every half minute in a log."""
    import time

    if sys.stdout.isatty():
        width = os.get_terminal_size().columns - 1
        print(f"\r\033[K{text[:width]}", end="", flush=True)
    elif text and time.monotonic() - _last_live[0] > 30:
        _last_live[0] = time.monotonic()
        print(f"  … {text}", flush=True)


def _terminate_like_interrupt() -> None:
    """SIGTERM (a scheduler's, a shutdown's) ends a run as Ctrl-C does: children save first."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    sys.exit(main())
