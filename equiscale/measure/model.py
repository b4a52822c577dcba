"""What is measured: anything that maps structures to energies and forces, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from equiscale.data.making.labels import ask, calculators
from equiscale.data.store import Store
from equiscale.errors import InputError
from equiscale.models.base import graph_for
from equiscale.predict import TrainedPotential, predict
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.graphs import turn_store, twisted_predictions
from equiscale.symmetry.invariance import refuse_training


@dataclass(frozen=True, eq=False)
class Predicted:
    """eV and eV/Å, float64; leading axes are those of the elements that were undone. None: no energy is predicted."""

    energy: Float[np.ndarray, "*m structures"] | None
    forces: Float[np.ndarray, "*m atoms 3"]

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """By name, as losses take them."""
        return {"forces": self.forces} | ({} if self.energy is None else {"energy": self.energy})


class Model(Protocol):
    """Structures in, energies and forces out; labels are not looked at."""

    @property
    def name(self) -> str: ...

    def __call__(self, structures: Store) -> Predicted: ...

    def twisted(self, structures: Store, g: Elements) -> Predicted:
        """ρ(g)⁻¹ f(ρ(g) x) for elements [M, structures], with axis M first."""
        ...


class Failed(InputError):
    """A model has no answer for one of the structures that it was given."""

    def __init__(self, structure: int, reason: str):
        super().__init__(reason)
        self.structure, self.reason = structure, reason


def through_structures(model: Callable[[Store], Predicted], structures: Store, g: Elements) -> Predicted:
    """The twisted predictions of any model: copies of the structures are turned, predictions turned back."""
    m, n = g.shape
    many = structures.take(np.tile(np.arange(n), m))
    flat = Elements(
        g.matrix.reshape(-1, 3, 3),
        None if g.shift is None else g.shift.reshape(-1, 3),
        None if g.order is None else g.order.reshape(m * n, -1),
    )
    turned = turn_store(flat, many, labels=False)
    try:
        out = model(turned)
    except Failed as error:
        raise Failed(error.structure % n, error.reason) from None
    back = turn_store(flat.inverse(), replace(turned, forces=out.forces))
    energy = None if out.energy is None else out.energy.reshape(m, n)
    return Predicted(energy, back.forces.reshape(m, -1, 3))


class Checkpoint:
    """A trained potential of ours. Copies keep their structure's edges: see ``symmetry.graphs``."""

    def __init__(self, trained: TrainedPotential):
        refuse_training(trained.potential)
        self.trained = trained

    @property
    def name(self) -> str:
        model = self.trained.model
        return f"{model.kind} w={model.width}, {model.forces} forces"

    @property
    def single(self) -> bool:
        """Whether it computes in less than double precision."""
        return next(self.trained.potential.parameters()).dtype != torch.float64

    def __call__(self, structures: Store) -> Predicted:
        out = self.trained(structures)
        return Predicted(out.energy.numpy(), out.forces.numpy())

    def twisted(self, structures: Store, g: Elements) -> Predicted:
        if g.order is not None:  # an order of atoms is also one of edges
            return through_structures(self, structures, g)
        trained = self.trained
        trained.refuse_unknown(structures.elements)
        weight = next(trained.potential.parameters())
        graph = graph_for(trained.model, structures, dtype=weight.dtype, device=weight.device)
        with torch.set_grad_enabled(trained.model.forces != "direct"):
            out = twisted_predictions(partial(predict, trained.potential, frames=trained.frames), graph, g)
        energy, forces = (x.detach().double().cpu().numpy() for x in (out.energy, out.forces))
        return Predicted(*trained.references.denormalise(structures, energy, forces))


class Calculator:
    """An ASE calculator. Each structure is computed afresh: what it keeps of the one before is forgotten first."""

    def __init__(self, ready: Callable[[int, int], Any], name: str):
        """``ready``: of charge and multiplicity, the calculator's instance."""
        self.ready, self.name = ready, name
        try:
            made = ready(0, 1)
        except Exception as error:  # another's constructor may raise anything
            raise InputError(
                f"the calculator {name} cannot be made ({type(error).__name__}: {' '.join(str(error).split())[:200]}): "
                "give its arguments as --arg NAME=VALUE."
            ) from None
        can = getattr(made, "implemented_properties", ())
        if "forces" not in can:
            has = f"only {', '.join(can)}" if len(can) else "none that ASE names"
            raise InputError(f"the calculator {name} has no forces, {has}: symmetry is measured on forces.")

    def __call__(self, structures: Store) -> Predicted:
        energy, forces = [], []
        for s, one in enumerate(structures):
            found = ask(
                self.ready(one.charge, one.spin),
                one.numbers,
                one.positions,
                one.charge,
                one.spin,
                one.cell,
                afresh=True,
            )
            if isinstance(found, str):
                hint = "" if one.cell is None else "; its cell is turned with it, which some calculators do not take"
                raise Failed(s, found + hint)
            energy.append(found[0])
            forces.append(found[1])
        return Predicted(np.array(energy), np.concatenate(forces))

    def twisted(self, structures: Store, g: Elements) -> Predicted:
        return through_structures(self, structures, g)


class Function:
    """A Python function of a store: (energies or None, forces), or an object that has both by name."""

    def __init__(self, function: Callable[[Store], Any], name: str = ""):
        if getattr(function, "training", False):
            raise InputError(
                "the model is in training mode, where dropout changes what it predicts: call .eval() first."
            )
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)

    def __call__(self, structures: Store) -> Predicted:
        out = self.function(structures)
        if isinstance(out, tuple) and len(out) == 2:
            energy, forces = out
        elif isinstance(out, Mapping):
            energy, forces = out.get("energy"), out.get("forces")
        else:
            energy, forces = getattr(out, "energy", None), getattr(out, "forces", None)
        if forces is None:
            raise InputError(f"{self.name} returns no forces: return (energies or None, forces), eV and eV/Å.")
        found = Predicted(None if energy is None else _array(energy), _array(forces))
        count, atoms = len(structures), structures.atoms
        if found.forces.shape != (atoms, 3) or (found.energy is not None and found.energy.shape != (count,)):
            raise InputError(
                f"{self.name} returns arrays of a wrong shape: {count} energies and {atoms} × 3 forces are due."
            )
        return found

    def twisted(self, structures: Store, g: Elements) -> Predicted:
        return through_structures(self, structures, g)


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, np.float64)


def is_calculator(text: str) -> bool:
    """Whether a word names an ASE calculator as module:Class, and no file."""
    return ":" in text and not Path(text).exists()


def as_model(
    source: Any,
    arguments: Mapping[str, Any] | None = None,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    folder: str = "",
) -> Model:
    """A model from a checkpoint's path, a calculator's "module:Class" (constructed with ``arguments``; the module may
    lie in ``folder``), a ``TrainedPotential``, an instance of an ASE calculator, a function of a store, or a model.
    """
    if isinstance(source, str) and is_calculator(source):
        if device != "cpu" or dtype is not None:
            raise InputError("--device and --dtype are a checkpoint's: give a calculator its own as --arg NAME=VALUE.")
        return Calculator(calculators(source, dict(arguments or {}), folder), source.rpartition(":")[2])
    if arguments:
        raise InputError("--arg is for a calculator's constructor: a checkpoint takes --device and --dtype.")
    if isinstance(source, str | Path):
        return Checkpoint(TrainedPotential.load(source, device, dtype))
    if isinstance(source, TrainedPotential):
        return Checkpoint(source)
    if hasattr(source, "twisted"):
        return source
    if hasattr(source, "get_potential_energy"):
        return Calculator(lambda charge, spin: source, type(source).__name__)
    if callable(source):
        return Function(source)
    raise InputError(f"a {type(source).__name__} is no model: give a checkpoint, an ASE calculator or a function.")
