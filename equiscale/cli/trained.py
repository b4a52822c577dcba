"""evaluate, fine-tune, nve: what is done with a trained rung."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from equiscale.cli.arguments import add_keys, command, reader
from equiscale.cli.terminal import live, say, terminate_like_interrupt, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from equiscale.cli.arguments import Commands
    from equiscale.measure.wrappers import Averaged
    from equiscale.predict import TrainedPotential


def add(commands: "Commands") -> None:
    evaluate = command(
        commands, "evaluate", _evaluate, "errors of a trained rung on the built-in set or on a file of yours"
    )
    evaluate.add_argument("checkpoint", help="a run's folder, results/<study>/<key>.ckpt")
    evaluate.add_argument("data", nargs="?", default="builtin", help="builtin, or an extxyz file")
    evaluate.add_argument(
        "--part",
        choices=("molecules", "conformers", "train", "test", "all"),
        help="of the split (default: molecules of the built-in set, all of a file)",
    )
    evaluate.add_argument("--device", default="cpu")
    evaluate.add_argument("--atoms", type=int, default=4096, help="of a batch: bounds the memory (default: 4096)")
    evaluate.add_argument(
        "--average", metavar="ELEMENTS", help="over rotations at test time: T, O, I (12, 24, 60 passes), random:8"
    )
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    add_keys(evaluate, blocks=True)
    tuned = command(
        commands, "fine-tune", _fine_tune, "train a rung on: on other data, or with forces from its energy's gradient"
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
    add_keys(tuned, blocks=True)
    nve = command(commands, "nve", _nve, "whether a trained rung conserves energy: a short run of molecular dynamics")
    nve.add_argument("checkpoint", help="a run's folder, results/<study>/<key>.ckpt")
    nve.add_argument("structure", nargs="?", help="a file that ASE reads (default: a molecule of the built-in set)")
    nve.add_argument("--index", type=int, default=0, help="which structure of the file (default: the first)")
    nve.add_argument("--steps", type=int, default=2000)
    nve.add_argument("--timestep", type=float, default=0.5, help="fs (default: 0.5)")
    nve.add_argument("--temperature", type=float, default=300.0, help="K, of the first velocities (default: 300)")
    nve.add_argument("--seed", type=int, default=0, help="of the first velocities")
    nve.add_argument("--dtype", choices=("float32", "float64"), help="to compute in (default: the checkpoint's)")
    nve.add_argument(
        "--average", metavar="ELEMENTS", help="over rotations at each step: T, O, I (12, 24, 60 passes), random:8"
    )
    nve.add_argument("--device", default="cpu")
    nve.add_argument("--json", type=Path, metavar="FILE", help="write the figures and energies there too")


def _evaluate(a: argparse.Namespace) -> None:
    from equiscale.evaluate import evaluated

    text, figures = evaluated(a.checkpoint, a.data, part=a.part, keys=reader(a), device=a.device, atoms=a.atoms,
                              live=live, made_of=_averaging(a.average))  # fmt: skip
    live("")
    print(text)
    write_json(a.json, figures)


def _averaging(elements: str | None) -> "Callable[[TrainedPotential], Averaged] | None":
    """What is made of a checkpoint where its average over rotations is wanted."""
    if elements is None:
        return None
    from equiscale.measure.wrappers import averaged

    return lambda trained: averaged(trained, elements)


def _fine_tune(a: argparse.Namespace) -> None:
    from equiscale.fine_tune import fine_tune

    terminate_like_interrupt()
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
            keys=reader(a),
            device=a.device,
            say=say,
            live=live,
            checkpoint_every=a.checkpoint_every,
        )
    )


def _nve(a: argparse.Namespace) -> None:
    from equiscale.dynamics import energy_drift, start
    from equiscale.predict import TrainedPotential

    trained = TrainedPotential.load(a.checkpoint, a.device, a.dtype)
    atoms, what = start(trained, a.structure, a.index)
    made_of = _averaging(a.average)
    predict = None if made_of is None else made_of(trained)
    what += "" if predict is None else f", {predict.name}"
    tell = lambda step: live(f"step {step} of {a.steps}") if step % 20 == 0 else None  # noqa: E731
    drift = energy_drift(trained, atoms, steps=a.steps, timestep=a.timestep, temperature=a.temperature, seed=a.seed,
                         predict=predict, tell=tell)  # fmt: skip
    live("")
    print(f"{what}: {drift}")
    write_json(a.json, {"structure": what, **drift.to_dict()})
