"""The figures of a comparison, and the running sums that they are made of."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class EnergyErrors:
    """Predicted minus labelled energy, over structures."""

    structures: int
    energy_mae_meV_per_atom: float
    energy_rmse_meV_per_atom: float
    energy_bias_meV_per_atom: float  # the mean with its sign: references of another level of theory show here
    energy_mae_meV: float  # of the total
    energy_rmse_meV: float


@dataclass(frozen=True)
class ForceErrors:
    """Predicted minus labelled force, every atom weighing the same."""

    atoms: int
    force_mae_meV_per_angstrom: float  # of a component
    force_rmse_meV_per_angstrom: float  # of a component
    force_error_norm_meV_per_angstrom: float  # mean length of an atom's force error
    force_cosine: float | None  # mean cosine between an atom's two forces, where both have a length
    force_cosine_atoms: int


@dataclass(frozen=True)
class Loss:
    """L of eq. 1 in the checkpoint's normalisation, dimensionless, over structures that have both labels."""

    structures: int
    loss: float
    energy_loss: float
    force_loss: float


@dataclass(frozen=True)
class Errors:
    """One group of structures; None where it has no such labels."""

    structures: int  # with a label of either kind
    energy: EnergyErrors | None
    forces: ForceErrors | None
    loss: Loss | None


@dataclass(frozen=True)
class Assessment:
    """What `evaluate` found."""

    structures: int
    atoms: int
    with_energy: int  # structures
    with_forces: int  # structures
    potential: Errors
    trivial: Errors  # the same data against per-element energies and zero force
    by_element: dict[str, ForceErrors]
    by_size: dict[str, Errors]  # "11-20" atoms

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @property
    def found(self) -> str:
        """Which labels there were, in words."""
        n = f"{self.structures:,}"
        return f"found energy in {self.with_energy:,}/{n}, forces in {self.with_forces:,}/{n} structures"


@dataclass
class Sums:
    """Running sums of one group; everything in eV, eV/Å and float64."""

    structures: int = 0
    energies: int = 0
    per_atom: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))  # Σ |e|, e², e of Δe/n
    total: Float[np.ndarray, " 2"] = field(default_factory=lambda: np.zeros(2))  # Σ |e|, e²
    atoms: int = 0
    component: Float[np.ndarray, " 2"] = field(default_factory=lambda: np.zeros(2))  # Σ |f|, f² of components
    length: float = 0.0
    cosine: float = 0.0
    cosines: int = 0
    losses: int = 0
    loss: Float[np.ndarray, " 2"] = field(default_factory=lambda: np.zeros(2))  # Σ energy part, force part

    def add_energies(self, error: Float[np.ndarray, " n"], size: Float[np.ndarray, " n"]) -> None:
        each = error / size
        self.energies += len(error)
        self.per_atom += np.abs(each).sum(), np.square(each).sum(), each.sum()
        self.total += np.abs(error).sum(), np.square(error).sum()

    def add_forces(self, predicted: Float[np.ndarray, "n 3"], labelled: Float[np.ndarray, "n 3"]) -> None:
        error = predicted - labelled
        self.atoms += len(error)
        self.component += np.abs(error).sum(), np.square(error).sum()
        self.length += np.linalg.norm(error, axis=1).sum()
        lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(labelled, axis=1)
        both = lengths > 0
        self.cosine += ((predicted * labelled).sum(1)[both] / lengths[both]).sum()
        self.cosines += int(both.sum())

    def add_losses(self, energy: Float[np.ndarray, " n"], force: Float[np.ndarray, " n"]) -> None:
        self.losses += len(energy)
        self.loss += energy.sum(), force.sum()

    def forces(self) -> ForceErrors | None:
        n = self.atoms
        if not n:
            return None
        mae, square = self.component / (3 * n)
        cosine = float(self.cosine / self.cosines) if self.cosines else None
        return ForceErrors(
            n, 1e3 * float(mae), 1e3 * math.sqrt(square), 1e3 * float(self.length) / n, cosine, self.cosines
        )

    def errors(self) -> Errors:
        energy = loss = None
        if n := self.energies:
            mae, square, bias = self.per_atom / n
            total, total_square = self.total / n
            energy = EnergyErrors(
                n,
                1e3 * float(mae),
                1e3 * math.sqrt(square),
                1e3 * float(bias),
                1e3 * float(total),
                1e3 * math.sqrt(total_square),
            )
        if n := self.losses:
            e, f = (float(x) for x in self.loss / n)
            loss = Loss(n, e + f, e, f)
        return Errors(self.structures, energy, self.forces(), loss)
