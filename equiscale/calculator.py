"""A trained potential as an ASE calculator: relaxations, molecular dynamics, and all else that ASE drives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from equiscale.data.sources import CHARGE_KEYS, SPIN_KEYS, unlabelled
from equiscale.errors import InputError, need
from equiscale.predict import TrainedPotential

try:
    from ase.calculators.calculator import Calculator as ASECalculator
    from ase.calculators.calculator import all_changes
except ImportError as error:
    raise need("train", error) from error


class Calculator(ASECalculator):
    """Energy (eV; ``free_energy`` is the same) and forces (eV/Å) of a checkpoint.

    ``checkpoint``: its folder; or a ``TrainedPotential``, or another function of a list of structures, such as
    ``measure.Averaged``, which are used as they are. ``dtype``: "float64" computes in
    double precision, for tight relaxations and small time steps. The total charge and the spin multiplicity are
    ``atoms.info["charge"]`` and ``atoms.info["spin"]`` (0 and 1 where absent); only a potential with ``charge_spin``
    sees them. Cells are periodic in all three directions or not at all. There is no stress.

    Raises InputError for elements the potential does not know, a cell that is periodic in some directions only, and a
    periodic cell where the potential has no cutoff.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces"]  # type: ignore[misc]

    def __init__(
        self,
        checkpoint: str | Path | TrainedPotential | Callable[[Any], Any],
        device: str = "cpu",
        dtype: str | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.trained: Callable[[Any], Any]
        if callable(checkpoint):
            if device != "cpu" or dtype is not None:
                raise InputError("a TrainedPotential is where it is: give device and dtype to TrainedPotential.load.")
            self.trained = checkpoint
        else:
            self.trained = TrainedPotential.load(checkpoint, device, dtype)

    def check_state(self, atoms: Any, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation. ASE does not look at ``info``, where charge and spin are."""
        changes = list(super().check_state(atoms, tol))
        if self.atoms is not None and _info(self.atoms) != _info(atoms):
            changes.append("info")
        return changes

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        """One structure. Everything is computed at once."""
        super().calculate(atoms, properties, system_changes)
        if not len(self.atoms):
            raise InputError("there are no atoms to calculate.")
        out = self.trained([unlabelled(self.atoms, "the structure")])
        energy = float(out.energy[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": np.asarray(out.forces)}


def _info(atoms: Any) -> list[Any]:
    return [atoms.info.get(key) for key in (*CHARGE_KEYS, *SPIN_KEYS)]
