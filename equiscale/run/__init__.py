"""One training run: what decides it (``RunSpec``), what came of it (``RunRecord``), and many of them as one table.

spec      DataSpec, OptimSpec, EvalSpec, RunSpec; when a run is looked at
record    Losses, Evaluation, SymmetryPoint, RunRecord; saved and loaded
columns   one row per evaluation, or per tracked point of the loss decomposition
"""

from equiscale.run.columns import (
    symmetry_table,
    table,
)
from equiscale.run.record import (
    Clock,
    Evaluation,
    Losses,
    RunRecord,
    Sets,
    Status,
    SymmetryPoint,
    checkpoint_path,
    load,
    load_losses,
    losses_path,
    save,
    start_path,
)
from equiscale.run.spec import (
    SCHEMA,
    DataSpec,
    EvalSpec,
    OptimSpec,
    Remedy,
    RunSpec,
    Source,
    Start,
    Tracking,
    evaluation_steps,
    reader_options,
    resolved,
    tracking_steps,
)

__all__ = [
    "SCHEMA",
    "Clock",
    "DataSpec",
    "EvalSpec",
    "Evaluation",
    "Losses",
    "OptimSpec",
    "Remedy",
    "RunRecord",
    "RunSpec",
    "Sets",
    "Source",
    "Start",
    "Status",
    "SymmetryPoint",
    "Tracking",
    "checkpoint_path",
    "evaluation_steps",
    "load",
    "load_losses",
    "losses_path",
    "reader_options",
    "resolved",
    "save",
    "start_path",
    "symmetry_table",
    "table",
    "tracking_steps",
]
