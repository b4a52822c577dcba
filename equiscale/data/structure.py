"""One labelled configuration of atoms, and the one place where units are converted.

Inside the package everything is eV and Å; readers convert on the way in with ``to_eV`` and ``to_angstrom``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from equiscale.errors import InputError

HARTREE = 27.211386245988  # eV, CODATA 2018
BOHR = 0.529177210903  # Å, CODATA 2018

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "hartree": HARTREE,
    "kcal/mol": 0.0433641153087705,
    "kJ/mol": 0.010364269656262174,
}
LENGTH_UNITS = {"angstrom": 1.0, "bohr": BOHR, "nm": 10.0}

SYMBOLS = (  # noqa: SIM905
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr "
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu "
    "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr"
).split()


def to_eV(value, unit: str = "eV"):
    """Energies in ``unit`` (or forces' energy part) as eV."""
    return value * _factor(ENERGY_UNITS, unit)


def to_angstrom(value, unit: str = "angstrom"):
    """Lengths in ``unit`` as Å."""
    return value * _factor(LENGTH_UNITS, unit)


def to_eV_per_angstrom(value, energy_unit: str = "eV", length_unit: str = "angstrom"):
    """Forces (not gradients: a gradient's sign is the reader's to turn) as eV/Å."""
    return value * (_factor(ENERGY_UNITS, energy_unit) / _factor(LENGTH_UNITS, length_unit))


def _factor(units: dict[str, float], unit: str) -> float:
    if unit not in units:
        raise InputError(f"unit {unit!r} is not known; use one of {', '.join(units)}.")
    return units[unit]


@dataclass(frozen=True)
class Structure:
    """One labelled configuration of atoms: Å, eV, eV/Å; ``None`` where there is no label or no cell.

    ``cell`` holds lattice vectors as rows, periodic in all three; ``spin`` is the multiplicity; ``group``
    names the molecule, which is what a split keeps together.
    """

    numbers: Int[np.ndarray, " atoms"]
    positions: Float[np.ndarray, "atoms 3"]
    energy: float | None = None
    forces: Float[np.ndarray, "atoms 3"] | None = None
    cell: Float[np.ndarray, "3 3"] | None = None
    charge: int = 0
    spin: int = 1
    group: str = ""

    def __len__(self) -> int:
        return len(self.numbers)
