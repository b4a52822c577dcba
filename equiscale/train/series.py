"""The series beside a record: every step's training loss as Parquet, every look's per-structure losses as npz."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from equiscale.errors import need
from equiscale.files import write_atomically


def write_log(path: Path, names: list[str], rows: list[list[float]]) -> None:
    """One row per training step; the first column counts steps."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise need("train", error) from None
    values = np.array(rows, dtype=np.float64).reshape(-1, len(names))
    columns: dict[str, Any] = {name: values[:, i].astype(np.float32) for i, name in enumerate(names)}
    columns[names[0]] = values[:, 0].astype(np.int32)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    write_atomically(path, buffer.getvalue(), within=path.parent)


def write_losses(
    path: Path, *, steps: list[int], losses: dict[str, list[list[float]]], groups: dict[str, np.ndarray]
) -> None:
    """Per-structure losses [evaluations, structures] of both sets, with each structure's molecule."""
    arrays: dict[str, Any] = {"steps": np.array(steps, dtype=np.int64)}
    for name, group in groups.items():  # a run may diverge before its first look: no rows
        arrays[name] = np.array(losses.get(name, []), dtype=np.float32).reshape(len(steps), len(group))
        arrays[f"group_{name}"] = np.asarray(group)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue(), within=path.parent)
