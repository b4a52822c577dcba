"""Losses that a decomposition can be taken of: one number per structure, of energies and forces given as arrays.

Each takes outputs z and labels y by name ("energy": [..., structures], "forces": [..., atoms, 3]), and where the
structures' atoms begin and end: ``offsets`` [structures + 1]. Leading axes (rotations) broadcast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float, Int

from equiscale.errors import InputError

Outputs = Mapping[str, np.ndarray]
"""Arrays by name: energies are invariant, forces turn."""


class Loss(Protocol):
    """``name`` is what a command line calls it; ``outputs`` are those it looks at."""

    @property
    def name(self) -> str: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    @property
    def squared(self) -> bool:
        """A sum of squares of z - y with invariant weights: what has unbiased estimators and an exact identity."""
        ...

    def __call__(self, z: Outputs, y: Outputs, offsets: Int[np.ndarray, " structures_1"]) -> np.ndarray:
        """[..., structures]"""
        ...


@dataclass(frozen=True)
class SquaredForce:
    """‖f - f'‖² / 3n: the mean over a structure's force components, (eV/Å)²."""

    name: str = "squared"
    outputs: tuple[str, ...] = ("forces",)
    squared: bool = True

    def __call__(self, z: Outputs, y: Outputs, offsets: np.ndarray) -> np.ndarray:
        return per_structure(np.square(z["forces"] - y["forces"]).sum(-1), offsets) / 3


@dataclass(frozen=True)
class ForceNorm:
    """(1/n) Σ_i ‖f_i - f'_i‖, eV/Å over ``scale``: convex, not a square."""

    scale: float = 1.0
    name: str = "force"
    outputs: tuple[str, ...] = ("forces",)
    squared: bool = False

    def __call__(self, z: Outputs, y: Outputs, offsets: np.ndarray) -> np.ndarray:
        return per_structure(np.linalg.norm(z["forces"] - y["forces"], axis=-1), offsets) / self.scale


@dataclass(frozen=True)
class Study:
    """Eq. 1 of the scaling paper: |e - e'| / n + (1/n) Σ_i ‖f_i - f'_i‖, over σ (eV; eV/Å)."""

    scale: float = 1.0
    name: str = "study"
    outputs: tuple[str, ...] = ("energy", "forces")
    squared: bool = False

    def __call__(self, z: Outputs, y: Outputs, offsets: np.ndarray) -> np.ndarray:
        energy = np.abs(z["energy"] - y["energy"]) / np.diff(offsets)
        return (energy + per_structure(np.linalg.norm(z["forces"] - y["forces"], axis=-1), offsets)) / self.scale


@dataclass(frozen=True)
class SquaredEnergy:
    """(e - e')² / n², (eV/atom)²: how far a total energy turns with its structure."""

    name: str = "energy"
    outputs: tuple[str, ...] = ("energy",)
    squared: bool = True

    def __call__(self, z: Outputs, y: Outputs, offsets: np.ndarray) -> np.ndarray:
        return np.square((z["energy"] - y["energy"]) / np.diff(offsets))


LossName = Literal["squared", "force", "study", "energy"]


def named(name: str, scale: float = 1.0) -> Loss:
    """The loss that a command line names; ``scale``: σ, of the two that are not squares."""
    losses: dict[str, Loss] = {
        loss.name: loss for loss in (SquaredForce(), SquaredEnergy(), ForceNorm(scale), Study(scale))
    }
    if name not in losses:
        raise InputError(f"no loss {name!r} to decompose: there are {', '.join(losses)}.")
    return losses[name]


def per_structure(
    values: Float[np.ndarray, "*m atoms"], offsets: Int[np.ndarray, " structures_1"]
) -> Float[np.ndarray, "*m structures"]:
    """The mean over each structure's atoms."""
    return np.add.reduceat(values, offsets[:-1], axis=-1) / np.diff(offsets)
