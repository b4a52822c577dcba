"""What a probe's process is asked, and what it found, as it is kept in a results folder's ``probe.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from equiscale.config import config, from_json, to_json
from equiscale.errors import InputError
from equiscale.files import write_atomically
from equiscale.run import RunSpec, evaluation_steps, tracking_steps


@dataclass(frozen=True)
class Ask:
    """``specs``: a rung's runs, which differ in seed alone; the first is timed, the worst batch is sought in all."""

    specs: tuple[RunSpec, ...]
    device: str = "cpu"
    between: tuple[RunSpec, ...] = ()  # rungs of the ladder whose size is wanted, without a process of their own
    enforce: int | None = None  # bytes beyond the base that a CPU process may take: then it fails, and nothing else


@config
class Point:
    """Memory of a training step on the worst micro-batch that an atom budget leaves."""

    budget: int  # atoms
    work: float  # forward FLOPs of that micro-batch, of the published formulation: what activations grow with
    memory: int  # bytes beyond ``Found.base``


@config
class Found:
    """One rung. What is None was not reached: ``ended`` says why."""

    base: int = 0  # bytes of the process with its data, before the model: on a GPU what CUDA itself takes
    limit: int | None = None  # bytes that the device, or the machine, had for the process
    enforced: int | None = None  # bytes beyond ``base`` that the process was held to
    parameters: int | None = None
    flops_per_atom: float | None = None  # of all forward passes of a step
    atoms: float | None = None  # mean per structure
    step_seconds: float | None = None  # median
    core_share: float | None = None  # of a core, on a CPU: less than one where other work ran beside the probe
    start_seconds: float | None = None  # normalised data, potential, counted FLOPs
    first_look_seconds: float | None = None  # makes the validation graphs
    look_seconds: float | None = None
    final_seconds: float | None = None  # both validation sets as a whole
    track_seconds: float | None = None  # the loss decomposition, where the study tracks it
    worst_step: int | None = None
    worst_atoms: int | None = None  # of the worst step's largest micro-batch
    worst_edges: int | None = None
    budgets: tuple[tuple[int, float], ...] = ()  # (atom budget, work of its worst micro-batch), ascending
    points: tuple[Point, ...] = ()  # ascending in work
    allocated: int | None = None  # on a GPU: of the last point, what tensors took of the memory that was reserved
    look_memory: int | None = None  # bytes beyond ``base``, with the graphs of ``kept``
    kept: int = 0  # bytes of the validation graphs that a run keeps
    kept_final: int = 0  # likewise of the whole validation sets, which its end evaluates
    ended: str = ""  # why the process ended early
    memory_ran_out: bool = False

    def seconds(self, spec: RunSpec) -> float | None:
        """Of one whole run alone, looks and tracking included."""
        looks, tracks = (
            len(evaluation_steps(spec.steps, spec.evaluation)),
            len(tracking_steps(spec.steps, spec.evaluation)),
        )
        if self.step_seconds is None:
            return None
        steps = (self.start_seconds or 0.0) + spec.steps * self.step_seconds
        again = (looks - 1) * (self.look_seconds or 0.0)
        return (
            steps
            + (self.first_look_seconds or 0.0)
            + again
            + (self.final_seconds or 0.0)
            + tracks * (self.track_seconds or 0.0)
        )


@config
class Size:
    parameters: int
    flops_per_atom: float


@config
class Kept:
    """``probe.json``: figures by the run that stands for its rung, on one device with one version of torch."""

    device: str = ""
    torch: str = ""
    found: dict[str, Found] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)  # of rungs between, too


def path_of(folder: Path) -> Path:
    return folder / "probe.json"


def read(folder: Path) -> Kept | None:
    """None where nothing was probed; InputError for a damaged file."""
    path = path_of(folder)
    if not path.exists():
        return None
    try:
        return from_json(Kept, path.read_bytes(), str(path))
    except (InputError, OSError):
        raise InputError(f"{path} is damaged, or of another version: remove it and probe again.") from None


def write(folder: Path, kept: Kept) -> None:
    write_atomically(path_of(folder), to_json(Kept, kept))
