"""The command line: one short function per command; a user's mistake is one sentence and exit code 2.

    making     data make; inspecting: data inspect     training  tune, train, dry-run, run, time, status
    trained    evaluate, fine-tune, nve                 laws      report, fit, plan, laws
    curves     frontier, isoflop, approaches            choosing  compare, extrapolate
    further    suggest, design                          contrasts specifications, multipliers, gap
    averaging  averages                                 exponents  exponents
    packing    data pack, data verify, data export     runs      a user's table and law, as arguments
    symmetry   symmetry: any model                      dynamics   dynamics: symmetry during training
    landscape  landscape: Hessians and planes
    arguments  what several commands take               terminal  what is printed, and where else it goes

What a command needs is imported inside its function: `--help` loads nothing heavy.
"""

import argparse
import shlex
import sys

import equiscale
from equiscale.cli import (
    averaging,
    choosing,
    contrasts,
    curves,
    data,
    dynamics,
    exponents,
    further,
    landscape,
    laws,
    symmetry,
    trained,
    training,
)
from equiscale.cli.terminal import Terminated
from equiscale.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns 0; 2 for a mistake of the user (one sentence on stderr); 130 after Ctrl-C.

    75 after SIGTERM or SIGUSR1: what was running saved, and the command can be queued again.
    """
    arguments = _parser().parse_args(argv)
    arguments.same_command = f"`equiscale {shlex.join(sys.argv[1:] if argv is None else argv)}`"
    try:
        if isinstance(workers := getattr(arguments, "workers", 1), int) and workers < 1:
            raise InputError(f"--workers must be at least 1, not {workers}.")
        return arguments.command(arguments) or 0
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt as stop:
        print("\nstopped; what was recorded is kept, and the same command goes on from there.", file=sys.stderr)
        return 75 if isinstance(stop, Terminated) else 130
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
    for group in (
        data,
        training,
        trained,
        symmetry,
        landscape,
        laws,
        curves,
        choosing,
        further,
        contrasts,
        averaging,
        exponents,
        dynamics,
    ):
        group.add(commands)
    return parser
