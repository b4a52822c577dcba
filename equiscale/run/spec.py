"""What decides a run: its configs, the spec that is its key, and the steps at which it is looked at."""

import hashlib
import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from equiscale import models
from equiscale.config import canonical, config, later
from equiscale.errors import InputError
from equiscale.models import ModelConfig

SCHEMA = 1
"""Version of specs and records. A results folder of another version is refused, never half-read."""


@config
class DataSpec:
    """Which structures are trained on: the first ``structures`` of the training part in the seed's order."""

    name: str = "builtin"  # "builtin", or the path of an extxyz file or of a packed store's folder
    content_hash: str = ""  # of the whole store; filled in when a study is resolved
    structures: int = 0
    epochs: int = 1
    augment: bool = False  # a fresh Haar rotation for each structure each time it is seen
    scale: Literal["std", "force_rms"] = "std"
    references: Literal["least_squares", "isolated_atoms", "table"] = "least_squares"
    keys: tuple[tuple[str, str | int], ...] = ()  # options of the reader, such as ("energy_key", "REF_energy")
    # Of references="table": (atomic number, charge, eV), as ``atom_table.read_table(file).entries`` lists them.
    table: tuple[tuple[int, int, float], ...] = later(())
    # What ``structures`` counts out of the training part in the seed's order: single structures, or whole molecules.
    subset: Literal["structures", "molecules"] = later("structures")

    @property
    def source(self) -> "Source":
        """What is read, and how: two specs of one source see the same structures."""
        return self.name, self.keys


Source = tuple[str, tuple[tuple[str, str | int], ...]]


def reader_options(spec: DataSpec) -> dict[str, Any]:
    """The reader's keyword arguments."""
    return dict(spec.keys)


@config
class OptimSpec:
    """Schedule-free AdamW, and how its rate follows the width."""

    learning_rate: float = 1e-2  # at ``base_width``
    base_width: int = 32
    width_rule: Literal["mup", "paper"] = "mup"
    batch_structures: int = 4
    atom_budget: int = 4096  # cuts a step into micro-batches; changes rounding only
    edge_budget: int | None = later(None)  # likewise, by the most edges that a structure can have
    warmup_steps: int = 100
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float | None = 10.0  # norm of the whole gradient
    energy_weight: float = 1.0
    force_weight: float = 1.0
    # The other two, for studies of the optimiser: constant rate after the warm-up, the last weights are evaluated.
    optimizer: Literal["schedule_free_adamw", "adamw", "sgd"] = later("schedule_free_adamw")


@config
class Remedy:
    """What a run does about symmetry besides its architecture; it is compute, and counted.

    ``loss``, added with ``weight`` λ to eq. 1 (L is always reported without it):

    * symmetry: the mean loss of ``copies`` turned copies against turned labels (eq. 2 of the scaling paper)
    * consistency: the mean ‖f(g x) - g f(x)‖² over forces and (f(g x) - f(x))² of energies per atom, no labels
    * lie: 3 ‖L_u f‖², the derivative along a random axis u by a small turn: Σ_a ‖L_a f‖² in the mean

    ``frames``: the potential sees each structure in frames along its principal axes and is turned back: in one of the
    four right-handed ones (canonical), or averaged over all four (average) or over all eight (average8).
    """

    loss: Literal["none", "symmetry", "consistency", "lie"] = "none"
    weight: float = 1.0
    copies: int = 5
    frames: Literal["none", "canonical", "average", "average8"] = "none"

    def __post_init__(self) -> None:
        if self.loss == "none" and self.frames == "none":
            raise InputError("a remedy has a loss or frames: name one, or leave the remedy unset.")
        if self.loss != "none" and not 0 < self.weight < math.inf:
            raise InputError(f"the weight of the {self.loss} loss must be positive, not {self.weight:g}.")
        if self.loss in ("symmetry", "consistency") and self.copies < 1:
            raise InputError(f"the {self.loss} loss needs one turned copy or more, not {self.copies}.")

    @property
    def passes(self) -> int:
        """Forward passes of a training step per structure, as a multiple of a plain one's."""
        of_loss = {"none": 1, "symmetry": 1 + self.copies, "consistency": 1 + self.copies, "lie": 3}[self.loss]
        return of_loss * {"none": 1, "canonical": 1, "average": 4, "average8": 8}[self.frames]

    def __str__(self) -> str:
        plain = type(self)(loss=self.loss, frames=self.frames)
        words = [] if self.loss == "none" else [f"{self.loss} loss"]
        if words and self.loss != "lie" and self.copies != plain.copies:
            words.append(f"M={self.copies}")
        if words and self.weight != plain.weight:
            words.append(f"λ={self.weight:g}")
        if self.frames != "none":
            words.append({"canonical": "canonical frame", "average": "4 frames", "average8": "8 frames"}[self.frames])
        return " ".join(words)


@config
class Tracking:
    """The loss decomposition along a run: at steps 0, 1, 2, 5, 10, ... and wherever the run is looked at."""

    structures: int = 24  # the first of the new molecules' fixed order
    rotations: int = 2  # of each structure, anew at every look: unbiased from two on
    gradients: bool = False  # norms and angle of the gradients of the two parts, too
    gradient_structures: int = 16

    def __post_init__(self) -> None:
        if self.rotations < 2:
            raise InputError("one rotation cannot tell broken symmetry from error: track with 2 rotations or more.")
        if min(self.structures, self.gradient_structures) < 1:
            raise InputError("a loss is tracked on one structure or more; to leave it out, leave symmetry unset.")


@config
class EvalSpec:
    """When and on how much a run is looked at. Looking changes nothing in the run."""

    log_points: int = 12
    linear_points: int = 10
    structures: int = 256  # of each validation set, in the curve; the end is evaluated on all of them too
    first_fraction: float = 0.01  # of the steps, where the log-spaced points begin
    symmetry: Tracking | None = later(None)  # None: not measured during the run


@config
class Start:
    """The weights that a run begins with instead of fresh ones; σ and, as a rule, references come with them.

    The weights lie in ``<key>.ckpt/start/`` until the run is recorded: ``equiscale fine-tune`` puts them there.
    """

    content_hash: str  # of the checkpoint (``TrainedPotential.content_hash``): a content, never a path
    references: Literal["checkpoint", "data"] = "checkpoint"  # "data": fitted anew, σ as it was


@config
class RunSpec:
    """Everything that decides a run's outcome, and nothing that does not (such as the device or the folder)."""

    model: ModelConfig
    data: DataSpec
    optim: OptimSpec = OptimSpec()
    evaluation: EvalSpec = EvalSpec()
    dtype: Literal["float32", "tf32", "bf16"] = "float32"
    seed: int = 0
    schema_version: int = SCHEMA
    start: Start | None = later(None)  # None: fresh weights
    remedy: Remedy | None = later(None)
    variant: str = later("")  # what tables add to the architecture's name, where data, batch or optimiser set it apart

    @property
    def key(self) -> str:
        """Content hash: two equal specs are the same run, whoever launches them."""
        return hashlib.sha256(canonical(RunSpec, self).encode()).hexdigest()[:16]

    @property
    def steps_per_epoch(self) -> int:
        return self.data.structures // self.optim.batch_structures

    @property
    def steps(self) -> int:
        """Whole steps only: every step has the same number of structures."""
        return self.steps_per_epoch * self.data.epochs

    @property
    def passes(self) -> int:
        """Forward passes of a training step per structure."""
        return 1 if self.remedy is None else self.remedy.passes

    @property
    def frames(self) -> Literal["none", "canonical", "average", "average8"]:
        return "none" if self.remedy is None else self.remedy.frames

    @property
    def architecture(self) -> str:
        """What a ladder is named in tables: the architecture, its variant, and what it is trained with."""
        words = [models.name(self.model)]
        if self.data.augment:
            words.append("augmented")
        if self.remedy is not None:
            words.append(str(self.remedy))
        return " ".join([*words, self.variant] if self.variant else words)

    def __str__(self) -> str:
        return f"{self.architecture} w={self.model.width} seed={self.seed}"


def evaluation_steps(steps: int, spec: EvalSpec) -> list[int]:
    """Steps after which a run is looked at: log-spaced from ``first_fraction`` and linear, the last one included."""
    first = max(1.0, spec.first_fraction * steps)
    logarithmic = np.geomspace(first, steps, spec.log_points)
    linear = np.linspace(0, steps, spec.linear_points + 1)[1:]
    points = {min(steps, max(1, round(float(x)))) for x in [*logarithmic, *linear, steps]}
    return sorted(points)


def tracking_steps(steps: int, spec: EvalSpec) -> list[int]:
    """Steps after which the decomposition is measured: none, or 0, 1, 2, 5, 10, ... and those of the evaluations."""
    if spec.symmetry is None:
        return []
    decades = range(len(str(steps)))
    early = {m * 10**k for k in decades for m in (1, 2, 5)}
    return sorted({0} | {s for s in early if s < steps} | set(evaluation_steps(steps, spec)))


def resolved(spec: RunSpec, content_hash: str) -> RunSpec:
    """The spec with the hash of the data it will see, so that its key names the data's content."""
    return replace(spec, data=replace(spec.data, content_hash=content_hash))
