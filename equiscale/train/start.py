"""Beginning with another run's weights: what may differ, what is copied by name, and what is left behind."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from equiscale.data.packed import Packed
from equiscale.data.references import References, fit_references
from equiscale.data.store import Store
from equiscale.errors import InputError
from equiscale.models import ModelConfig
from equiscale.models.base import Potential
from equiscale.predict import TrainedPotential
from equiscale.run import RunSpec, Start, start_path

MAKE_REFERENCES = ("references", "table", "scale")
"""Fields of a run's data that say how references and σ are made: a run that starts from weights has theirs."""


FRAMES = {
    "none": "without frames",
    "canonical": "in canonical frames",
    "average": "in four frames",
    "average8": "in eight frames",
}


def started(spec: RunSpec, origin: TrainedPotential, *, refit: bool = False) -> RunSpec:
    """The spec of a run that begins with the weights of ``origin``; ``refit``: with references of its own data."""
    return replace(spec, start=Start(origin.content_hash, "data" if refit else "checkpoint"))


def references(spec: RunSpec, origin: TrainedPotential, store: Store | Packed) -> References:
    """Those of the checkpoint; or fitted to the new data by least squares, with the checkpoint's σ: it scales forces,
    and weights that were trained with one σ are wrong with another.
    """
    assert spec.start is not None
    if spec.start.references == "checkpoint":
        return origin.references
    return replace(fit_references(store), sigma=origin.references.sigma, scale=origin.references.scale)


def turned(model: ModelConfig, forces: str | None) -> ModelConfig:
    """The config with its forces from elsewhere (None: as they are); an envelope where a gradient needs one."""
    changes: dict[str, Any] = {"forces": forces or model.forces}
    if changes["forces"] == "conservative" and getattr(model, "envelope", "") == "none":
        changes["envelope"] = "polynomial"
    return replace(model, **changes)


def warnings(before: ModelConfig, after: ModelConfig) -> list[str]:
    """What a person should know before a potential is trained on with its forces from elsewhere."""
    said = []
    if getattr(before, "envelope", "") != getattr(after, "envelope", ""):
        said.append(
            f"the {before.kind} was trained without an envelope and a gradient needs one: putting it in changes the "
            "function that the weights describe, so the run begins worse than the checkpoint ended"
        )
    if after.forces == "conservative" and not after.smooth:
        said.append(
            f"this {after.kind} is not smooth (mean aggregation or a neighbour cap): its energy jumps where an atom "
            "crosses the cutoff, and forces cannot follow a jump"
        )
    return said


def place(origin: TrainedPotential, spec: RunSpec, folder: Path) -> None:
    """Put the weights where ``train`` looks for them; refuse a spec that they cannot begin. Doing it twice is once."""
    copied(origin, spec.model.build(), spec)
    path = start_path(folder, spec.key)
    if not (path / "potential.json").exists():
        origin.save(path)  # potential.json is written last


def begin(spec: RunSpec, folder: Path) -> TrainedPotential | None:
    """The weights that a run begins with; None where they are fresh. InputError where they are not there."""
    if spec.start is None:
        return None
    path = start_path(folder, spec.key)
    if not (path / "potential.json").exists():
        raise InputError(f"{path} holds no weights to start from: give `equiscale fine-tune` its checkpoint again.")
    origin = TrainedPotential.load(path)
    if origin.content_hash != spec.start.content_hash:
        raise InputError(f"{path} holds other weights than the run starts from: remove it and fine-tune again.")
    return origin


def copied(origin: TrainedPotential, potential: Potential, spec: RunSpec) -> list[str]:
    """Copy weights by name into ``potential``; the names that it has no use for (a force head, say).

    InputError where the two are not one architecture of one size, where the checkpoint lacks a tensor, or where the
    spec asks for references of its own.
    """
    if spec.frames != origin.frames:
        asked, had = FRAMES[spec.frames], FRAMES[origin.frames]
        raise InputError(
            f"the checkpoint was trained {had} and the run is to be {asked}: a run keeps what it starts from."
        )
    refuse_other(origin.model, spec)
    theirs, ours = origin.potential.state_dict(), potential.state_dict()
    if missing := sorted(set(ours) - set(theirs)):
        raise InputError(
            f"a {spec.model.forces} {spec.model.kind} needs weights that the {origin.model.forces} one has not "
            f"({', '.join(missing)}): it cannot start from them."
        )
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])
    return sorted(set(theirs) - set(ours))


def refuse_other(model: ModelConfig, spec: RunSpec) -> None:
    """InputError where more differs than where the forces come from."""
    if spec.model.kind != model.kind:
        raise InputError(f"the checkpoint is of architecture {model.kind!r}, the run of {spec.model.kind!r}.")
    allowed, fresh = turned(model, spec.model.forces), type(spec.data)()
    other = [f.name for f in fields(spec.model) if getattr(spec.model, f.name) != getattr(allowed, f.name)]
    if other:
        raise InputError(
            f"the run's {model.kind} differs from the checkpoint's in {', '.join(other)}: a run that starts from "
            "weights may change where its forces come from, nothing else."
        )
    if other := [name for name in MAKE_REFERENCES if getattr(spec.data, name) != getattr(fresh, name)]:
        raise InputError(
            f"a run that starts from weights takes their σ and references: leave {', '.join(other)} unset."
        )
