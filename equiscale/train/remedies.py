"""Training losses that make a potential more symmetric (``Remedy.loss``), from one forward pass of turned copies."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equiscale.errors import InputError
from equiscale.graph import AtomGraph, Prediction, sum_by
from equiscale.run import OptimSpec, Remedy, RunSpec
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.groups import SO3
from equiscale.train.loss import per_structure

STREAM = 3  # of the run's seed

ANGLE = 0.01
"""Radians to either side of the central difference along a random axis. In float32, of MPNNs trained for 800 steps, the
squared derivative and its gradient are within .1 % of their limits; an equivariant EGNN's term is 1e-7 ‖f‖², not 0.
Truncation grows with the angle's square (.4 % at .03), that rounding with its inverse square (1e-5 ‖f‖² at .001).
"""


def drawn(remedy: Remedy | None, structures: int, rng: np.random.Generator) -> Elements | None:
    """[copies, structures]: how a step's structures are turned, the identity first; None where nothing is."""
    if remedy is None or remedy.loss == "none":
        return None
    first = np.broadcast_to(np.eye(3), (1, structures, 3, 3))
    if remedy.loss == "lie":
        axis = rng.normal(size=(structures, 3))
        there = about(axis / np.linalg.norm(axis, axis=1, keepdims=True), ANGLE)
        return Elements(np.concatenate([first, np.stack([there, there.swapaxes(1, 2)])]))
    return Elements(np.concatenate([first, SO3().sample(rng, remedy.copies, structures).matrix]))


def about(axis: Float[np.ndarray, "*n 3"], angle: float) -> Float[np.ndarray, "*n 3 3"]:
    """Rotations by ``angle`` about unit vectors: R = 1 + sin K + (1 - cos) K², K v = u × v (Rodrigues)."""
    cross = np.cross(axis[..., None, :], np.eye(3)).swapaxes(-1, -2)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def terms(
    remedy: Remedy, optim: OptimSpec, turned_back: Prediction, label: Prediction, graph: AtomGraph
) -> Float[Tensor, " structures"]:
    """The remedy's loss of every structure, λ left out. ``turned_back``: g⁻¹ f(g x) for the copies of ``drawn``."""
    energy, forces = turned_back.energy, turned_back.forces
    if remedy.loss == "symmetry":
        # A turned copy against the turned label is the copy turned back against the label: norms do not change.
        each = [per_structure(Prediction(e, f), label, graph) for e, f in zip(energy[1:], forces[1:])]
        return torch.stack([optim.energy_weight * e + optim.force_weight * f for e, f in each]).mean(0)
    if remedy.loss == "consistency":
        differences = [squared(energy[k] - energy[0], forces[k] - forces[0], graph) for k in range(1, len(energy))]
        return torch.stack(differences).mean(0)
    slope = 1 / (2 * ANGLE)
    return 3 * squared(slope * (energy[1] - energy[2]), slope * (forces[1] - forces[2]), graph)


def squared(
    energy: Float[Tensor, " structures"], forces: Float[Tensor, "atoms 3"], graph: AtomGraph
) -> Float[Tensor, " structures"]:
    """(e / n)² + (1/n) Σ_i ‖f_i‖²."""
    size = graph.size.to(energy.dtype)
    return (energy / size).square() + sum_by(graph.structure, forces.square().sum(1), graph.num_structures) / size


def refuse(spec: RunSpec) -> None:
    """InputError for a remedy that cannot be had."""
    if spec.remedy is not None and spec.remedy.loss == "lie" and spec.dtype != "float32":
        raise InputError(
            f"the lie loss is a difference of nearly equal forces, for which {spec.dtype} has too few digits: train "
            "in float32, or choose the consistency loss."
        )
