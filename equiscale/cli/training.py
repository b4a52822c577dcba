"""tune, train, dry-run, run, time, status: from a study file to a folder of records."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from equiscale.cli.arguments import add_results, command, results_of
from equiscale.cli.laws import write_report
from equiscale.cli.runs import emit
from equiscale.cli.terminal import live, say, terminate_like_interrupt
from equiscale.errors import InputError

if TYPE_CHECKING:
    from equiscale.cli.arguments import Commands
    from equiscale.ladder import Study
    from equiscale.launch import Launcher
    from equiscale.results import Results


AUTO = "auto"  # as many workers as a probe finds to fit


def add(commands: "Commands") -> None:
    tune = command(commands, "tune", _tune, "find the learning rate, batch and depth of a study's architectures")
    _add_study(tune)
    _add_running(tune)
    train = command(commands, "train", _train, "train one run of a study, in this process or in several ranks")
    _add_study(train)
    train.add_argument("--architecture", help="which ladder, where there are several")
    train.add_argument("--width", type=int, required=True)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="cpu")
    train.add_argument("--ranks", type=int, help="processes that train it together (default: as torchrun or srun say)")
    dry = command(commands, "dry-run", _dry_run, "what a study will cost, before anything is trained")
    _add_study(dry)
    text = "runs at the same time, which share the device of a probe (default: one for each core; on a GPU one)"
    dry.add_argument("--workers", type=int, help=text)
    _add_probe(dry)
    run = command(commands, "run", _run, "train a study, or what is missing of it; ends with the report")
    _add_study(run)
    _add_running(run, auto=True)
    run.add_argument("--checkpoint-every", type=float, default=15.0, metavar="SECONDS", help="default: 15")
    _add_loading(run)
    run.add_argument("--no-report", action="store_true", help="train only")
    retime = command(commands, "time", _time, "time every rung of a results folder again, alone, for the laws in hours")
    add_results(retime)
    retime.add_argument("--device", default="cpu")
    _add_loading(retime)
    add_results(command(commands, "status", _status, "how far a study is"))


def _add_probe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--probe",
        action="store_true",
        help="a few steps of each ladder's smallest and largest rung on the device: memory, hours, what does not fit",
    )
    parser.add_argument("--device", default="cpu", help="of the probe: cpu or cuda")
    parser.add_argument("--all", action="store_true", help="probe every rung")
    parser.add_argument("--again", action="store_true", help="probe again what is kept in the results folder")
    parser.add_argument("--memory", type=float, metavar="GIB", help="plan with so much, not with what the device has")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="of the probe: JSON alone, or to FILE beside the text"
    )


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, help="a Python file that sets STUDY")
    parser.add_argument("--results", type=Path, help="results folder (default: results/<name of the study>)")


def _add_running(parser: argparse.ArgumentParser, auto: bool = False) -> None:
    text = "runs at the same time (default: one for each core; on ray as many as the cluster has room for)"
    text += "; auto: as many as a probe found to fit on this machine's device" if auto else ""
    parser.add_argument("--workers", type=_auto if auto else int, help=text)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--on",
        default="local",
        metavar="ENGINE",
        help="local (default), ray or ray://HOST:PORT (a Ray cluster), slurm (a job array)",
    )
    text = "runs on each GPU of the cluster (default: 1); more are marked, and laws in hours leave them out"
    parser.add_argument("--per-gpu", type=int, metavar="K", help=text)
    text = "partition, time, gpus, mem, …; may be repeated"
    parser.add_argument("--slurm", action="append", default=[], metavar="KEY=VALUE", help=text)


def _auto(workers: str) -> int | str:
    return AUTO if workers == AUTO else int(workers)


def _add_loading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--load-ahead",
        action=argparse.BooleanOptionalAction,
        help="make each batch in a thread while the step before it runs; changes no result (default: on a GPU only)",
    )


def _open(a: argparse.Namespace) -> "tuple[Study, Results]":
    """The study of a study file, and its results folder."""
    from equiscale.ladder import load_study
    from equiscale.results import Results

    study = load_study(a.study)
    return study, Results(a.results or Path("results") / study.name)


def _launcher(a: argparse.Namespace, results: "Results") -> "Launcher":
    from equiscale.launch import chosen

    launcher = chosen(a.on, a.workers, results.folder, device=a.device, per_gpu=a.per_gpu, slurm=a.slurm)
    if where := getattr(launcher, "where", None):
        say(f"on {where()}")
    return launcher


def _tune(a: argparse.Namespace) -> None:
    from equiscale.tune import tune

    study, results = _open(a)
    launcher = _launcher(a, results)
    terminate_like_interrupt()
    print(tune(study, results, launcher=launcher, device=a.device, say=say, live=live, again=a.same_command))


def _train(a: argparse.Namespace) -> None:
    if a.ranks is not None and a.ranks < 1:
        raise InputError(f"--ranks must be at least 1, not {a.ranks}.")
    # What a launcher started as one of several; `--ranks 1` trains alone all the same.
    started = "RANK" in os.environ or "SLURM_STEP_ID" in os.environ
    if a.ranks == 1 or (a.ranks is None and not started):
        _train_one(a)
        return
    from equiscale.train import distributed

    if not started:
        options = ("results", "architecture", "width", "seed", "device")
        given = [(f"--{name}", str(getattr(a, name))) for name in options if getattr(a, name) is not None]
        words = ["train", str(a.study), *(word for pair in given for word in pair)]
        code = distributed.told(lambda: distributed.start(words, a.ranks, a.device))
    else:
        code = distributed.told(lambda: distributed.take_part(lambda: _train_one(a), a.device, a.ranks))
    if code:
        raise SystemExit(code)


def _train_one(a: argparse.Namespace) -> None:
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
            live=live,
        )
    )


def _dry_run(a: argparse.Namespace) -> None:
    from equiscale.dry_run import dry_run, probe

    study, results = _open(a)
    cores = os.cpu_count() or 1
    if a.probe:
        terminate_like_interrupt()
        found = probe(
            study,
            results,
            workers=a.workers or (cores if a.device == "cpu" else 1),
            device=a.device,
            everything=a.all,
            again=a.again,
            memory=a.memory,
            say=say if a.json != "-" else lambda text: None,
            live=live if a.json != "-" else lambda text: None,
        )
        emit(a, found.text(), found.to_dict())
        return
    if alone := [f"--{n}" for n in ("all", "again", "memory", "json") if getattr(a, n) not in (None, False)]:
        raise InputError(f"{alone[0]} is of a probe: give --probe, too.")
    if a.device != "cpu":
        raise InputError("a plain dry run times steps on the processor: for another device give --probe, too.")
    print(dry_run(study, results, a.workers or cores, live))


def _run(a: argparse.Namespace) -> None:
    from equiscale.study import run_study

    study, results = _open(a)
    if a.workers == AUTO:
        if a.on != "local":
            raise InputError("--workers auto is for --on local: elsewhere give a number, or none.")
        from equiscale.dry_run import automatic_workers

        a.workers, why = automatic_workers(study, results, a.device, os.cpu_count() or 1)
        say(why)
    launcher = _launcher(a, results)
    terminate_like_interrupt()
    page = results.folder / "report.html"
    trained = run_study(
        study,
        results,
        launcher=launcher,
        device=a.device,
        say=say,
        live=live,
        checkpoint_every=a.checkpoint_every,
        ahead=a.load_ahead,
        again=a.same_command,
    )
    if not trained and (page.exists() or a.no_report):
        report = f" Report: {page}" if page.exists() else ""
        print(f"{study.name}: all {len(results.declared()['runs'])} runs are recorded, nothing to do.{report}")
    elif not a.no_report:
        write_report(results)


def _time(a: argparse.Namespace) -> None:
    from equiscale.study import retime

    print(retime(results_of(a.results), device=a.device, ahead=a.load_ahead, live=live))


def _status(a: argparse.Namespace) -> None:
    from equiscale.results import status

    print(status(results_of(a.results)))
