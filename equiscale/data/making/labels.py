"""Who labels: GFN2-xTB, or any ASE calculator that a user names. Failures are reasons in words."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from equiscale.errors import InputError, need

Label = tuple[float, np.ndarray] | str
"""(energy in eV, forces in eV/Å), or why there is none."""
Labeller = Callable[[Int[np.ndarray, " atoms"], Float[np.ndarray, "atoms 3"], int, int], Label]


def labeller(calculator: str, options: dict[str, Any], folder: str = "") -> Labeller:
    """A function of numbers, positions (Å), charge and multiplicity. ``folder`` is where the user's module may lie.

    Options that are "{charge}" or "{spin}" are replaced by the structure's, for calculators that take them as
    arguments; both are in ``atoms.info`` too. InputError where the class cannot be imported.
    """
    if calculator == "gfn2":
        return _gfn2
    ready = calculators(calculator, options, folder)

    def label(numbers: np.ndarray, positions: np.ndarray, charge: int, spin: int) -> Label:
        try:
            made = ready(charge, spin)
        except Exception as error:  # as in ``ask``
            return _reason(error)
        found = ask(made, numbers, positions, charge, spin)
        if isinstance(found, str):
            ready.cache_clear()  # what failed may be left in a state of its own
        return found

    return label


def calculators(calculator: str, options: dict[str, Any], folder: str = "") -> Any:
    """A function of charge and multiplicity that makes the calculator and keeps it (``functools.cache``)."""
    made = class_of(calculator, folder)

    @cache
    def ready(charge: int, spin: int) -> Any:
        return made(**_filled(options, {"{charge}": charge, "{spin}": spin}))

    return ready


def ask(
    calculator: Any,
    numbers: Int[np.ndarray, " atoms"],
    positions: Float[np.ndarray, "atoms 3"],
    charge: int,
    spin: int,
    cell: Float[np.ndarray, "3 3"] | None = None,
    afresh: bool = False,
) -> Label:
    """One structure by an ASE calculator. ``afresh``: what it keeps of the structure before is forgotten first."""
    try:
        from ase import Atoms
    except ImportError as error:
        raise need("train", error) from error
    try:
        if afresh and hasattr(calculator, "reset"):
            calculator.reset()
        about = {"charge": charge, "spin": spin}
        atoms = Atoms(numbers, positions, cell=cell, pbc=cell is not None, info=about, calculator=calculator)
        energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces(), np.float64)
    except Exception as error:  # a user's code may raise anything: it is a reason, and the next structure's turn
        return _reason(error)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        return "energy or forces are not finite"
    return energy, forces


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def class_of(calculator: str, folder: str = "") -> Any:
    """The class of "module:Class"; a module that lies in ``folder`` is found too."""
    module, _, name = calculator.partition(":")
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InputError(f"the calculator {calculator} cannot be imported ({error}).") from None
    except AttributeError:
        raise InputError(f"the module {module} has no {name}: name the calculator as module:Class.") from None


def _filled(options: Any, values: dict[str, int]) -> Any:
    if isinstance(options, dict):
        return {k: _filled(v, values) for k, v in options.items()}
    return values.get(options, options) if isinstance(options, str) else options


def _gfn2(numbers: np.ndarray, positions: np.ndarray, charge: int, spin: int) -> Label:
    from equiscale.data.label import gfn2

    found = gfn2(numbers, positions, charge, spin)
    return "GFN2-xTB did not converge, or atoms collide" if found is None else found


@contextmanager
def own_folder() -> Iterator[None]:
    """A folder that is removed afterwards as the working directory: calculators of programs write files."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="label-") as scratch:
        os.chdir(scratch)
        try:
            yield
        finally:
            os.chdir(before)
