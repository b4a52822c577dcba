"""Energy references and the normalisation of every label: e' = (e - Σ e_ref - μ)/σ, f' = f/σ (method.md).

All in float64: totals are 1e3 to 1e6 eV, what is learned is 1e-3 of an eV.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from equiscale.data.store import Store
from equiscale.data.structure import SYMBOLS
from equiscale.errors import InputError

METHODS = ("least_squares", "isolated_atoms")
SCALES = ("std", "force_rms")


@dataclass(frozen=True)
class References:
    """Per-element energies (eV), and μ, σ (eV; σ also scales forces, in eV/Å). A value: JSON both ways."""

    energies: dict[int, float]
    mu: float
    sigma: float
    how: str = "least_squares"
    scale: str = "std"
    note: str = ""  # what a reader of the numbers should know

    def baseline(self, store: Store) -> Float[np.ndarray, " structures"]:
        """Σ e_ref + μ per structure, eV: what the trivial predictor says."""
        table = np.full(max(119, int(store.numbers.max(initial=0)) + 1), np.nan)
        for z, energy in self.energies.items():
            table[z] = energy
        missing = [int(z) for z in np.unique(store.numbers) if np.isnan(table[z])]
        if missing:
            raise InputError(
                f"there is no energy reference for {_symbols(missing)}: the references know "
                f"{_symbols(self.energies)}; "
                "add structures with that element to the training part, or give its isolated atom."
            )
        # add.reduceat would take the next structure's first atom for an empty one; checks refuse those.
        return np.add.reduceat(table[store.numbers], store.offsets[:-1]) + self.mu

    def normalise(self, store: Store) -> tuple[Float[np.ndarray, " structures"], Float[np.ndarray, "atoms 3"]]:
        """(e', f') of a store's labels, dimensionless, float64."""
        energy = (store.energy - self.baseline(store)) / self.sigma
        return energy, store.forces.astype(np.float64) / self.sigma

    def denormalise(
        self, store: Store, energy: Float[np.ndarray, " structures"], forces: Float[np.ndarray, "atoms 3"]
    ) -> tuple[Float[np.ndarray, " structures"], Float[np.ndarray, "atoms 3"]]:
        """(e', f') predicted for a store's structures, back in eV and eV/Å."""
        totals = np.asarray(energy, np.float64) * self.sigma + self.baseline(store)
        return totals, np.asarray(forces, np.float64) * self.sigma

    def trivial(self, store: Store) -> dict[str, Any]:
        """L of per-element energies and zero force: loss, energy_loss, force_loss, warning ("" for none)."""
        energy, forces = self.normalise(store)
        sizes = store.sizes
        energy_loss = float(np.mean(np.abs(energy) / sizes))
        length = np.linalg.norm(forces, axis=1)
        force_loss = float(np.mean(np.add.reduceat(length, store.offsets[:-1]) / sizes))
        warning = ""
        if force_loss == 0.0 or not 0.01 <= energy_loss / force_loss <= 1 / 3:
            warning = (
                f"the trivial loss is energy {energy_loss:.3g} : force {force_loss:.3g}, outside 1:100 to "
                "1:3: one term drowns the other; choose other references or another scale"
            )
        loss = energy_loss + force_loss
        return {"loss": loss, "energy_loss": energy_loss, "force_loss": force_loss, "warning": warning}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; element numbers become strings."""
        return {**asdict(self), "energies": {str(z): e for z, e in self.energies.items()}}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> References:
        return References(**{**values, "energies": {int(z): float(e) for z, e in values["energies"].items()}})


def fit_references(
    store: Store,
    *,
    method: str = "least_squares",
    isolated: Mapping[int, float] | None = None,
    scale: str = "std",
) -> References:
    """References of the store's training part: only part "train" is looked at, whatever else the store holds.

    ``least_squares`` fits e ≈ Σ e_ref; where compositions do not tell elements apart the solution of least
    norm is taken and the note says so. ``isolated_atoms`` takes ``isolated`` (atomic number -> eV). μ and σ
    are the mean and the standard deviation per structure of e - Σ e_ref; ``force_rms`` takes σ = rms of the
    force components instead.
    """
    for name, value, known in (("method", method, METHODS), ("scale", scale, SCALES)):
        if value not in known:
            raise InputError(f"{name} {value!r} is not known; use one of {', '.join(known)}.")
    train = store.take(store.where("train"))
    if len(train) == 0:
        raise InputError("the training part is empty: references are fitted on it.")
    notes = []
    elements, column = np.unique(train.numbers, return_inverse=True)
    owner = np.repeat(np.arange(len(train)), train.sizes)
    count = np.zeros((len(train), len(elements)))
    np.add.at(count, (owner, column.reshape(-1)), 1.0)
    if method == "isolated_atoms":
        missing = [int(z) for z in elements if z not in (isolated or {})]
        if missing:
            raise InputError(
                f"there is no isolated atom of {_symbols(missing)}: give its energy, or use method 'least_squares'."
            )
        energies = {int(z): float(e) for z, e in (isolated or {}).items()}
    else:
        solution, _, rank, _ = np.linalg.lstsq(count, train.energy.astype(np.float64), rcond=None)
        energies = {int(z): float(e) for z, e in zip(elements, solution)}
        if rank < len(elements):
            notes.append(
                f"the training compositions fix {rank} of {len(elements)} reference energies: "
                "the solution of least norm is used, single values mean nothing"
            )
    residual = train.energy - count @ np.array([energies[int(z)] for z in elements])
    mu = float(np.mean(residual))
    if scale == "std":
        sigma = float(np.std(residual))
    else:
        sigma = float(np.sqrt(np.mean(train.forces.astype(np.float64) ** 2)))
    # Below this the residual is the rounding of totals and not a scale.
    if not sigma > 1e-9 * max(1.0, float(np.abs(train.energy).max())):
        notes.append(f"the {scale} of the training part is zero ({len(train)} structures): σ = 1 is used")
        sigma = 1.0
    return References(energies, mu, sigma, method, scale, "; ".join(notes))


def _symbols(numbers) -> str:
    return ", ".join(SYMBOLS[z] if 0 < z < len(SYMBOLS) else str(z) for z in numbers)
