"""symmetry: how symmetric a model is."""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiscale.cli.arguments import add_keys, command, reader, results_of
from equiscale.cli.runs import add_output, check_figure, draw, emit
from equiscale.cli.terminal import live
from equiscale.errors import InputError

if TYPE_CHECKING:
    from equiscale.cli.arguments import Commands
    from equiscale.measure.decompose import Options
    from equiscale.measure.found import Found
    from equiscale.measure.model import Model
    from equiscale.run import RunRecord


def add(commands: "Commands") -> None:
    _add_symmetry(commands)


def _add_symmetry(commands: "Commands") -> None:
    measured = command(
        commands, "symmetry", _symmetry, "how symmetric a model is: a checkpoint, all of a study, or an ASE calculator"
    )
    measured.add_argument(
        "model", help="a run's folder (.ckpt), a results folder or study, or a calculator as module:Class"
    )
    measured.add_argument("data", nargs="?", help="builtin, a packed store, or an extxyz file, labelled or not")
    measured.add_argument(
        "--part",
        choices=("molecules", "conformers", "train", "test", "all"),
        help="of the split (default: molecules of the built-in set, all of a file)",
    )
    measured.add_argument(
        "--structures", type=int, default=256, metavar="N", help="spread over the data (default: 256; 0: all)"
    )
    measured.add_argument(
        "--rotations",
        default="random:10",
        metavar="SAMPLER",
        help="random:M, a design T, O, I (T*2: two), lebedev:L, superfibonacci:N (default: random:10)",
    )
    measured.add_argument("--reflections", action="store_true", help="too: O(3) instead of SO(3)")
    measured.add_argument("--translations", type=float, metavar="SCALE", help="too: shifts of this deviation in Å")
    measured.add_argument("--permutations", action="store_true", help="too: the order of the atoms")
    measured.add_argument(
        "--loss",
        choices=("squared", "force", "study", "energy"),
        default="squared",
        help="squared force error, its length, eq. 1 of a study, squared energy error (default: squared)",
    )
    measured.add_argument(
        "--averages", metavar="M,M,...", help="the loss of averages over M rotations, as in 1,2,4,8,16,32"
    )
    measured.add_argument("--degrees", type=int, default=0, metavar="L", help="of which angular degrees, up to l = L")
    measured.add_argument("--lie", action="store_true", help="an upper bound by Lie derivatives: 12 passes more")
    measured.add_argument(
        "--arg", action="append", default=[], metavar="NAME=VALUE", help="of a calculator's constructor; repeatable"
    )
    measured.add_argument("--device", default="cpu")
    measured.add_argument("--dtype", choices=("float32", "float64"), help="to compute in (default: the checkpoint's)")
    measured.add_argument("--atoms", type=int, default=8192, help="of a batch with its copies: bounds the memory")
    measured.add_argument("--seed", type=int, default=0, help="of the rotations")
    add_keys(measured, blocks=True)
    add_output(measured)


def _symmetry(a: argparse.Namespace) -> None:
    check_figure(a)
    from equiscale.measure.decompose import Options
    from equiscale.measure.moves import Moves

    options = Options(
        sampler=a.rotations,
        moves=Moves(a.reflections, a.translations, a.permutations),
        loss=a.loss,
        averages=_counts(a.averages),
        degrees=a.degrees,
        lie=a.lie,
        atoms=a.atoms,
        seed=a.seed,
    )
    runs = _runs(a)
    found = _of_model(a, options) if runs is None else _of_runs(a, options, runs)
    _show(a, found, several=runs is not None)


def _of_model(a: argparse.Namespace, options: "Options") -> "list[tuple[str, Found]]":
    from equiscale.measure.model import as_model

    model = as_model(a.model, _arguments(a.arg), device=a.device, dtype=a.dtype, folder=os.getcwd())
    found = _measured(a, model, options, a.data or "builtin", reader(a))
    return [(model.name, _of_record(found, _record_beside(Path(a.model))))]


def _of_runs(a: argparse.Namespace, options: "Options", runs: Any) -> "list[tuple[str, Found]]":
    """All runs of a study on the same structures: those of their own data where nobody names others."""
    from equiscale.measure.model import as_model
    from equiscale.run import checkpoint_path

    if a.arg:
        raise InputError("--arg is for a calculator's constructor: a checkpoint takes --device and --dtype.")
    there = [r for r in runs.records() if (checkpoint_path(runs.folder, r.spec.key) / "potential.json").exists()]
    if not there:
        raise InputError(f"{runs.folder} holds no checkpoint: `equiscale run` its study first.")
    sources = {r.spec.data.source for r in there}
    if a.data is None and len(sources) > 1:
        raise InputError(f"the runs in {runs.folder} are of several data sets: name the one to measure on.")
    data, keys = (next(iter(sources))[0], dict(next(iter(sources))[1])) if a.data is None else (a.data, reader(a))
    part = "molecules" if a.part is None and a.data is None else a.part
    found = []
    for record in there:
        model = as_model(checkpoint_path(runs.folder, record.spec.key), device=a.device, dtype=a.dtype)
        found.append((str(record.spec), _of_record(_measured(a, model, options, data, keys, part), record)))
    return found


def _record_beside(checkpoint: Path) -> "RunRecord | None":
    """The record <key>.json beside <key>.ckpt: what `equiscale averages` needs of a run is in it."""
    from equiscale.run import load

    name = checkpoint.resolve().name.removesuffix(".json").removesuffix(".ckpt")
    path = checkpoint.resolve().parent / f"{name}.json"
    if not path.is_file():
        return None
    try:
        record = load(path)
    except InputError:  # some other file: a checkpoint may lie anywhere
        return None
    return record if record.spec.key == name else None


def _of_record(found: "Found", record: "RunRecord | None") -> "Found":
    if record is None or not record.curve:
        return found
    spec = record.spec
    about = {
        "key": spec.key,
        "run": str(spec),
        "architecture": spec.architecture,
        "width": spec.model.width,
        "seed": spec.seed,
        "N": record.parameters,
        "D": record.curve[-1].atoms,
    }
    return replace(found, about={**found.about, **about})


def _measured(
    a: argparse.Namespace, model: "Model", options: "Options", data: str, keys: dict[str, Any], part: str | None = None
) -> "Found":
    from equiscale.measure.decompose import measure
    from equiscale.measure.structures import choose
    from equiscale.symmetry.losses import named

    needed = named(options.loss).outputs if isinstance(options.loss, str) else options.loss.outputs
    chosen = choose(data, a.structures or None, needed=needed, part=part or a.part, **keys)
    said = live if a.json != "-" else lambda text: None
    found = measure(model, chosen, options, lambda n: said(f"{model.name}: {n:,} of {len(chosen):,} structures …"))
    said("")
    return found


def _show(a: argparse.Namespace, found: "list[tuple[str, Found]]", several: bool) -> None:
    from equiscale.measure.text import describe, table

    if several:
        emit(a, table(found), {"runs": [{"run": name, **f.to_dict()} for name, f in found]})
    else:
        emit(a, describe(found[0][1]), found[0][1].to_dict())
    if a.figure is not None:
        from equiscale.report.symmetry_figures import averages_figure, decomposition_figure

        draw(a, lambda: averages_figure(found) if a.averages else decomposition_figure(found))


def _runs(a: argparse.Namespace) -> Any:
    """The study's results, where the model's word is one."""
    path = Path(a.model)
    if path.suffix == ".py" or any((p / "study.json").exists() for p in (path, Path("results") / path)):
        return results_of(path)
    return None


def _counts(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(word) for word in text.split(",")})) if text else ()
    except ValueError:
        raise InputError(f"--averages are whole numbers with commas between them, not {text!r}.") from None


def _arguments(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; a value that is JSON is read as it, any other is text."""
    made: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise InputError(f"--arg is NAME=VALUE, not {text!r}.")
        try:
            made[name] = json.loads(value)
        except ValueError:
            made[name] = value
    return made
