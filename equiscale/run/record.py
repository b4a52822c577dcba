"""What came of a run: its record, and where it and the files beside it lie."""

import json
import math
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from equiscale.config import config, config_of_many, from_json, later, to_json
from equiscale.errors import InputError
from equiscale.files import write_atomically
from equiscale.run.spec import SCHEMA, RunSpec

Status = Literal["ok", "did not learn", "diverged"]

Sets = ("molecules", "conformers")
"""The two validation sets: new molecules, and new conformers of training molecules."""


@config_of_many
class Losses:
    """Figures of one validation set. L is eq. 1: the mean over structures of per-structure means, normalised."""

    loss: float
    energy_loss: float
    force_loss: float
    atom_loss: float  # L with every atom, not every structure, weighing the same
    energy_mae: float  # meV/atom
    force_mae: float  # meV/Å, mean over structures of the mean norm of the force error

    @property
    def finite(self) -> bool:
        return all(math.isfinite(x) for x in (self.loss, self.energy_loss, self.force_loss))


@config_of_many
class Clock:
    """What a second run on the same machine would not repeat to the bit."""

    seconds_train: float = 0.0  # training steps alone, as they were: two processes side by side vary
    seconds_total: float = 0.0  # loading and validation included


@config_of_many
class Evaluation:
    """One look at a run."""

    step: int
    structures: int
    atoms: int
    unique_atoms: int
    flops_model: float  # 3 x forward FLOPs of the published formulation
    flops_executed: float
    train_loss: float  # mean over the steps since the last look
    molecules: Losses
    conformers: Losses
    clock: Clock = Clock()


@config_of_many
class SymmetryPoint:
    """The loss decomposition at one step, of the weights as a look evaluates them, on ``Tracking.structures``.

    Squared force error per component, normalised units, mean over structures: L = L_mean + L_equiv exactly. Errors are
    standard errors over structures. Eq. 1's pair is to leading order in the error of its own jackknife.
    """

    step: int
    structures: int  # seen
    atoms: int
    flops_model: float
    total: float
    mean: float  # of the twirled potential
    equiv: float  # equivariance error
    equiv_error: float
    percent: float  # of the loss from equivariance error
    percent_error: float
    size: float  # mean squared predicted force component: L_equiv of a potential that says nothing is 0, too
    loss: float  # eq. 1
    loss_mean: float  # eq. 1 of the twirled potential
    gradient_mean: float | None = None  # squared norm of the gradient of L_mean, unbiased: may be negative
    gradient_equiv: float | None = None
    gradient_cosine: float | None = None  # of the angle between the two
    head: float | None = None  # squared distance of a free EScAIP head from the equivariant ones, ‖W - W̄‖²
    seconds: float = 0.0  # that the look took


@config
class RunRecord:
    """What came of a run: the curve, the end, what it cost, and where it ran."""

    spec: RunSpec
    status: Status
    reason: str  # why the status is not "ok"
    parameters: int
    parameters_body: int  # without embedding and radial-basis weights
    curve: tuple[Evaluation, ...]
    final_molecules: Losses  # on every structure of the set
    final_conformers: Losses
    trivial_molecules: Losses  # per-element energies and zero force
    trivial_conformers: Losses
    mu: float  # eV
    sigma: float  # eV
    max_gradient_norm: float
    clipped_steps: int
    step_seconds: float | None = None  # median step, the rung timed alone; None: it was not
    shared_device: bool = False  # other runs used the device at the same time: unfit for laws in measured hours
    provenance: dict[str, str] = field(default_factory=dict)
    symmetry: tuple[SymmetryPoint, ...] = later(())

    def without_clock(self) -> dict[str, Any]:
        """The record less clock times and provenance: what an undisturbed run and a resumed one share to the bit."""
        record = json.loads(to_json(RunRecord, self))
        for evaluation in record["curve"]:
            del evaluation["clock"]
        for point in record.get("symmetry", ()):
            del point["seconds"]
        for name in ("step_seconds", "provenance"):
            del record[name]
        return record


def save(record: RunRecord, folder: Path) -> Path:
    """Write ``<key>.json``, last and atomically: the commit point of a run."""
    path = folder / f"{record.spec.key}.json"
    write_atomically(path, to_json(RunRecord, record), within=folder)
    return path


def load(path: Path) -> RunRecord:
    """One record; raises InputError for another version or a damaged file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    try:
        record = from_json(RunRecord, text, str(path))
        version = record.spec.schema_version
    except InputError:
        # Parsed once more only here, which halves the time of a good one: another version may have other fields.
        version = _version(path, text)
        if version == SCHEMA:
            raise
    if version != SCHEMA:
        raise InputError(
            f"{path} has schema version {version}, this equiscale reads {SCHEMA}: use the equiscale that wrote it, "
            "or another results folder."
        )
    return record


def _version(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)["spec"]["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not a run record: remove it, and `equiscale run` trains that run again.") from None


def losses_path(folder: Path, key: str) -> Path:
    """Per-structure validation losses of a run, at every evaluation."""
    return folder / f"{key}.losses.npz"


def checkpoint_path(folder: Path, key: str) -> Path:
    """The folder of a run's weights."""
    return folder / f"{key}.ckpt"


def start_path(folder: Path, key: str) -> Path:
    """Where the weights lie that a run begins with, until it is recorded."""
    return checkpoint_path(folder, key) / "start"


def load_losses(folder: Path, keys: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Per-structure losses of those runs that have them: steps [T], molecules [T, S_a], conformers [T, S_b], groups."""
    out = {}
    for key in keys:
        path = losses_path(folder, key)
        if path.exists():
            with np.load(path) as file:
                out[key] = {name: file[name] for name in file.files}
    return out
