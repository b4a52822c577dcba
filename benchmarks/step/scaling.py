"""How forward and backward grow with the size of one structure at fixed density, 6 Å, at most 30 neighbours."""

from __future__ import annotations

import numpy as np
import torch

from equiscale.models.base import graph_for
from step.cases import SCALING_ATOMS, cluster
from step.ours import potential_step

TURNS = 3


def grow(config, device: str, turns: int = TURNS) -> list[dict]:
    """A row per size. All sizes take turns, the best of ``turns`` counts: what disturbs can only add time.

    On a CPU by processor seconds, which leave out what other processes take.
    """
    steps, clock = [], 1 if device == "cpu" else 0
    for atoms in SCALING_ATOMS:
        structures = [cluster(atoms, np.random.default_rng(atoms))]
        step = potential_step(config.build(), graph_for(config, structures, device=device), structures)
        step.backward()
        steps.append((step, max(1, 200 // atoms)))
    best = [float("inf")] * len(steps)
    for _ in range(turns):
        for k, (step, repeats) in enumerate(steps):
            best[k] = min(best[k], step.seconds(repeats, step.backward)[clock])
    rows = []
    for atoms, (step, _), seconds in zip(SCALING_ATOMS, steps, best):
        edges = step.graph.counts.edges
        rows.append({
            "architecture": config.kind, "width": config.width, "depth": config.depth, "device": device,
            "threads": torch.get_num_threads(), "atoms": atoms, "edges": edges, "ms": 1e3 * seconds,
            "us_per_atom": 1e6 * seconds / atoms, "us_per_edge": 1e6 * seconds / edges, "turns": turns,
        })  # fmt: skip
    return rows


def exponent(rows: list[dict], by: str, least: int = 100) -> float:
    """Slope of log time over log atoms (or edges), from ``least`` atoms on."""
    kept = [r for r in rows if r["atoms"] >= least]
    return float(np.polyfit(np.log([r[by] for r in kept]), np.log([r["ms"] for r in kept]), 1)[0])
