"""A tiny data set with labels that can be learned, and runs of seconds, for the tests of training and of studies."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from molecules import random_molecules

from equiscale.data.store import Store
from equiscale.data.structure import SYMBOLS, Structure
from equiscale.models import EGNNConfig, MPNNConfig
from equiscale.run import DataSpec, EvalSpec, OptimSpec, RunSpec

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
"""Of processes that tests start."""

ELEMENTS = (1, 6, 7, 8)
SMALL = dict(depth=2, num_radial=8, elements=ELEMENTS, cutoff=5.0)
LOOKS = EvalSpec(log_points=3, linear_points=2, structures=5, first_fraction=0.1)


def labelled(s: Structure) -> Structure:
    """Energy and forces of one Morse bond per pair of atoms, above a large energy per element (eV, Å)."""
    r = s.positions[:, None] - s.positions[None]
    d = np.linalg.norm(r, axis=-1) + np.eye(len(s))
    pair = 1 - np.eye(len(s))
    y = np.exp(-1.2 * (d - 1.0 - 0.03 * (s.numbers[:, None] + s.numbers[None])))
    energy = 0.5 * ((y * y - 2 * y) * pair).sum() - 40.0 * s.numbers.sum()
    forces = ((2.4 * (y * y - y) * pair / d)[..., None] * r).sum(1)
    return replace(s, energy=float(energy), forces=forces)


def structures(count: int = 44, low: int = 3, high: int = 7) -> list[Structure]:
    made = [labelled(s) for s in random_molecules(count, low, high, seed=21)]
    return [replace(s, group=f"m{k // 4:03d}") for k, s in enumerate(made)]


def tiny_store(train: int = 32) -> Store:
    """``train`` training structures, then 6 of each validation set; four structures a molecule."""
    part = [0] * train + [1] * 6 + [2] * 6
    return Store.from_structures(structures(len(part)), part)


def tiny_spec(kind: str = "mpnn", *, structures: int = 32, width: int = 8, seed: int = 0, **fields) -> RunSpec:
    """A run of structures / 2 steps; ``fields`` of OptimSpec, DataSpec, EvalSpec or the model go where they belong."""
    spec = RunSpec(
        {"mpnn": MPNNConfig, "egnn": EGNNConfig}[kind](width=width, **SMALL),
        DataSpec("tiny", content_hash="0" * 64, structures=structures),
        OptimSpec(batch_structures=2, base_width=8, warmup_steps=5),
        LOOKS,
        seed=seed,
    )
    for name, value in fields.items():
        for part in ("model", "data", "optim", "evaluation"):
            inner = getattr(spec, part)
            if hasattr(inner, name) and name != "structures":
                spec = replace(spec, **{part: replace(inner, **{name: value})})
                break
        else:
            spec = replace(spec, **{name: value})
    return spec


def write_extxyz(path: Path, made: list[Structure], energy: str = "energy", forces: str = "forces") -> Path:
    """As people have it; ``energy`` or ``forces`` empty leaves that label out."""
    lines = []
    for s in made:
        columns = "species:S:1:pos:R:3" + (f":{forces}:R:3" if forces else "")
        label = f"{energy}={s.energy!r} " if energy else ""
        lines += [str(len(s)), f'Properties={columns} {label}group={s.group or "g"} pbc="F F F"']
        for z, x, f in zip(s.numbers, s.positions, s.forces):
            row = [*x, *f] if forces else x
            lines.append(f"{SYMBOLS[z]} " + " ".join(f"{v:.10f}" for v in row))
    path.write_text("\n".join(lines) + "\n")
    return path


STUDY = """
from equiscale.ladder import Ladder, Study
from equiscale.models import EGNNConfig, MPNNConfig
from equiscale.run import DataSpec, EvalSpec, OptimSpec

SMALL = dict(depth=2, num_radial=8, elements=(1, 6, 7, 8), cutoff=8.0)
DATA = DataSpec({path!r}, structures={structures}, keys=(("group_key", "group"),))
OPTIM = OptimSpec(batch_structures=2, base_width=8, warmup_steps=5)
LOOKS = EvalSpec(log_points=3, linear_points=2, structures=5, first_fraction=0.1)
STUDY = Study("tiny", (
    Ladder(MPNNConfig(**SMALL), {widths}, DATA, OPTIM, LOOKS),
    Ladder(EGNNConfig(**SMALL), {widths}, DATA, OPTIM, LOOKS),
))
"""


def write_study(folder: Path, *, structures: int = 24, widths: tuple[int, ...] = (4, 8), count: int = 60) -> Path:
    """A study of two ladders on an extxyz file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    data = write_extxyz(folder / "data.xyz", globals()["structures"](count))
    path = folder / "study.py"
    path.write_text(STUDY.format(path=str(data), structures=structures, widths=widths))
    return path


def here(work, items, workers=1):
    """A launcher in this process: others take seconds to start."""
    from equiscale.launch import Event
    from equiscale.launch.events import Waiting, failure

    waiting = Waiting.of(items)
    while waiting:
        item = waiting.pop(0)
        yield Event("started", item)
        try:
            yield Event("done", item, work(item, lambda value: None))
        except Exception as error:
            yield Event("failed", item, failure(error))


def refused(capsys, *words) -> str:
    """Run a command that must be refused; its one sentence."""
    from equiscale.cli import main

    capsys.readouterr()
    assert main([str(w) for w in words]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("equiscale: ")
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1, said
    assert said.endswith((".", "!", "?")), said
    return said
