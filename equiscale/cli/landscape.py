"""landscape: Hessians and planes of a loss and of its symmetric and broken parts."""

import argparse
from typing import TYPE_CHECKING

from equiscale.cli.arguments import add_keys, command, reader
from equiscale.cli.runs import add_output, check_figure, draw, emit
from equiscale.cli.terminal import live

if TYPE_CHECKING:
    from equiscale.cli.arguments import Commands


def add(commands: "Commands") -> None:
    shown = command(
        commands, "landscape", _landscape, "Hessians and planes of L, L_mean and L_equiv by some of a rung's parameters"
    )
    shown.add_argument("checkpoint", help="a run's folder, results/<study>/<key>.ckpt")
    shown.add_argument("data", nargs="?", default="builtin", help="builtin, a packed store, or a labelled extxyz file")
    shown.add_argument(
        "--part",
        choices=("molecules", "conformers", "train", "test", "all"),
        help="of the split (default: molecules of the built-in set, all of a file)",
    )
    shown.add_argument("--parameters", metavar="REGEX", help="names that it finds (default: the force head)")
    shown.add_argument("--structures", type=int, default=16, metavar="N", help="spread over the data (default: 16)")
    shown.add_argument(
        "--rotations",
        default="T",
        metavar="SAMPLER",
        help="the same for all evaluations: a number of random ones, or T, O, I, lebedev:L (default: T)",
    )
    shown.add_argument("--step", type=float, help="of the grid, in parameters (default: a hundredth of their norm)")
    shown.add_argument("--points", type=int, default=21, help="of the grid along each axis (default: 21)")
    shown.add_argument(
        "--lanczos", action="store_true", help="extreme eigenvalues alone, for more parameters than a matrix takes"
    )
    shown.add_argument(
        "--redrawn", action="store_true", help="show too what new rotations at every point do (one pass for each point)"
    )
    shown.add_argument("--device", default="cpu")
    shown.add_argument("--seed", type=int, default=0, help="of rotations and random directions")
    add_keys(shown, blocks=True)
    add_output(shown)


def _landscape(a: argparse.Namespace) -> None:
    check_figure(a)
    from equiscale.measure.landscape import landscape, structures_of
    from equiscale.measure.landscape_text import describe
    from equiscale.predict import TrainedPotential

    trained = TrainedPotential.load(a.checkpoint, a.device)
    found = landscape(
        trained,
        structures_of(a.data, a.structures, a.part, **reader(a)),
        parameters=a.parameters,
        rotations=a.rotations,
        step=a.step,
        points=a.points,
        lanczos=a.lanczos,
        redrawn=a.redrawn,
        seed=a.seed,
        live=live if a.json != "-" else lambda text: None,
    )
    if a.json != "-":
        live("")
    emit(a, describe(found), found.to_dict())
    if a.figure is not None:
        from equiscale.report.landscape_figures import landscape_figure

        draw(a, lambda: landscape_figure(found))
