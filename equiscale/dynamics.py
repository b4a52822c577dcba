"""Whether a potential conserves energy: a short run at constant energy, its drift and its fluctuation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from jaxtyping import Float

from equiscale.calculator import Calculator
from equiscale.data.builtin import builtin
from equiscale.errors import InputError
from equiscale.predict import TrainedPotential

EXPLODED = 100_000.0
"""Kelvin. Hotter than this a run has left chemistry: it is ended and said to have exploded."""


@dataclass(frozen=True, eq=False)
class Drift:
    """Total energy (potential plus kinetic) along a run. An integrator's own error is a fluctuation ∝ timestep²; what
    the forces do not conserve is a drift that a smaller timestep does not cure.
    """

    status: Literal["ok", "exploded"]
    forces: Literal["direct", "conservative"]
    smooth: bool  # as the potential's config declares
    atoms: int
    steps: int  # done
    timestep_fs: float
    temperature_K: float  # asked for, of the first velocities
    mean_temperature_K: float
    drift_meV_per_atom_per_ps: float  # slope of the straight line through the total energy
    fluctuation_meV_per_atom: float  # rms about that line
    largest_change_meV_per_atom: float  # from the first step's
    energies: Float[np.ndarray, " steps_and_1"]  # total, eV

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "energies": self.energies.tolist()}

    def __str__(self) -> str:
        ps = self.steps * self.timestep_fs / 1e3
        what = f"{self.forces} forces, {'smooth' if self.smooth else 'not smooth'}"
        text = (
            f"{self.atoms} atoms, {self.steps:,} steps of {self.timestep_fs:g} fs ({ps:g} ps), {what}, "
            f"mean temperature {self.mean_temperature_K:.0f} K\n"
            f"  drift of the total energy  {self.drift_meV_per_atom_per_ps:+.4g} meV/atom/ps\n"
            f"  fluctuation about it       {self.fluctuation_meV_per_atom:.4g} meV/atom\n"
            f"  largest change             {self.largest_change_meV_per_atom:.4g} meV/atom"
        )
        if self.status == "exploded":
            text += f"\nwarning: the run exploded after {self.steps} steps: the figures are of what went before."
        if self.forces == "direct":
            text += "\nDirect forces are no gradient: nothing makes them conserve energy."
        return text


def energy_drift(
    trained: TrainedPotential,
    atoms: Any,
    *,
    steps: int = 2000,
    timestep: float = 0.5,
    temperature: float = 300.0,
    seed: int = 0,
    tell: Callable[[int], None] = lambda step: None,
    predict: Callable[[Any], Any] | None = None,
) -> Drift:
    """Velocity Verlet from ``atoms`` (ASE's; not changed), whose first velocities are drawn at ``temperature`` (K).

    ``timestep``: fs. The centre of mass rests; a molecule does not turn. A start that is far from a minimum heats up:
    relax it first where the mean temperature matters. ``predict``: what is made of the potential and asked instead of
    it, such as its average over rotations.
    """
    for name, value, least in (("steps", steps, 10), ("timestep", timestep, 0), ("temperature", temperature, 0)):
        if not least <= value < np.inf or (name == "timestep" and value == 0):
            raise InputError(f"{name} must be {'at least 10' if least else 'a positive number'}, not {value:g}.")
    atoms = atoms.copy()
    atoms.set_constraint()  # a fixed atom takes up momentum, not energy: the fit is of all atoms
    atoms.calc = Calculator(predict or trained)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=np.random.default_rng(seed))
    if len(atoms) > 1:
        Stationary(atoms)
        if not atoms.pbc.any():
            ZeroRotation(atoms)
    total, kelvin = [atoms.get_total_energy()], [atoms.get_temperature()]
    integrator = VelocityVerlet(atoms, timestep=timestep * units.fs)
    status: Literal["ok", "exploded"] = "ok"
    for step in range(1, steps + 1):
        integrator.run(1)
        now, heat = atoms.get_total_energy(), atoms.get_temperature()
        if not (np.isfinite(now) and heat < EXPLODED):
            status = "exploded"
            break
        total.append(now)
        kelvin.append(heat)
        tell(step)
    energies = np.array(total)
    per_atom = 1e3 * (energies - energies[0]) / len(atoms)
    ps = np.arange(len(energies)) * timestep / 1e3
    slope, offset = np.polyfit(ps, per_atom, 1) if len(energies) > 1 else (np.nan, np.nan)
    return Drift(
        status,
        trained.model.forces,
        bool(trained.model.smooth),
        len(atoms),
        len(energies) - 1,
        timestep,
        temperature,
        float(np.mean(kelvin)),
        float(slope),
        float(np.sqrt(np.mean((per_atom - slope * ps - offset) ** 2))),
        float(np.abs(per_atom).max()),
        energies,
    )


def start(trained: TrainedPotential, path: str | None = None, index: int = 0) -> tuple[Any, str]:
    """ASE's atoms to begin with, and what they are in words: a structure of any file that ASE reads, or without one the
    first new molecule of the built-in set whose elements the potential knows.
    """
    if path is None:
        store = builtin()
        known = set(trained.elements)
        for s in store.where("molecules"):
            structure = store[s]
            if known.issuperset(structure.numbers.tolist()):
                return Atoms(structure.numbers, structure.positions), f"{structure.group} of the built-in set"
        raise InputError("no molecule of the built-in set has only elements the potential knows: give a structure.")
    try:
        atoms = read(path, index=index)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: give a file with a structure.") from None
    except Exception as error:  # ASE's parsers raise whatever they trip over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} has no structure {index} that can be read ({reason[:200]}).") from None
    return atoms, f"structure {index} of {path}"
