"""From per-atom outputs to energies and forces: the only file that knows where forces come from."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from equiscale.config import canonical, from_json, to_json
from equiscale.data.references import References
from equiscale.data.store import Store
from equiscale.data.structure import SYMBOLS, Structure
from equiscale.errors import InputError
from equiscale.files import write_atomically
from equiscale.graph import AtomGraph, Prediction, sum_by
from equiscale.models import ModelConfig
from equiscale.models.base import Potential, graph_for
from equiscale.symmetry.frames import framed

FrameKind = Literal["none", "canonical", "average", "average8"]


def predict(
    potential: Potential, graph: AtomGraph, *, create_graph: bool = False, frames: FrameKind = "none"
) -> Prediction:
    """Energies per structure, and forces per atom from the head if there is one, else minus the energy's gradient.

    In the potential's own (normalised) units. ``create_graph`` keeps what a loss on conservative forces needs.
    ``frames``: the potential sees structures along their principal axes (``equiscale.symmetry.frames``).
    """
    if frames != "none":
        return framed(partial(predict, potential, create_graph=create_graph), graph, frames)
    if potential.config.forces == "direct":
        out = potential(graph)
        assert out.force is not None
        return Prediction(sum_by(graph.structure, out.energy, graph.num_structures), out.force)
    with torch.enable_grad():
        graph = replace(graph, positions=graph.positions.detach().requires_grad_())
        energy = sum_by(graph.structure, potential(graph).energy, graph.num_structures)
        alone = potential.config.cutoff is not None and not len(graph.receiver)  # without a cutoff there are no edges
        if alone or not energy.requires_grad:  # the energy knows no position
            return Prediction(energy, torch.zeros_like(graph.positions))
        (gradient,) = torch.autograd.grad(energy.sum(), graph.positions, create_graph=create_graph)
    if not create_graph:
        energy = energy.detach()
    return Prediction(energy, -gradient)


@dataclass(frozen=True, eq=False)
class TrainedPotential:
    """A potential with its references and normalisation: structures in, eV and eV/Å out."""

    potential: Potential
    model: ModelConfig
    references: References
    frames: FrameKind = "none"  # that it sees structures in, and was trained in

    def __call__(self, structures: Store | Sequence[Structure]) -> Prediction:
        """Total energies (eV, float64) per structure and forces (eV/Å, float64) per atom; labels are not looked at.

        InputError for an element that the potential was not trained on.
        """
        store = structures
        if not isinstance(store, Store):
            store = Store.from_structures([replace(s, energy=0.0, forces=np.zeros((len(s), 3))) for s in structures])
        self.refuse_unknown(store.elements)
        if self.frames != "none" and store.cell is not None and store.cell.any():
            raise InputError("this potential sees structures along their principal axes: it takes molecules, no cells.")
        weight = next(self.potential.parameters())
        graph = graph_for(self.model, store, dtype=weight.dtype, device=weight.device)
        inference = torch.no_grad() if self.model.forces == "direct" else torch.enable_grad()
        with inference:
            out = predict(self.potential, graph, frames=self.frames)
        energy, forces = self.references.denormalise(
            store,
            out.energy.detach().double().cpu().numpy(),
            out.forces.detach().double().cpu().numpy(),
        )
        return Prediction(torch.from_numpy(energy), torch.from_numpy(forces))

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that the potential can be asked about: those with a reference energy and a row."""
        rows = self.model.elements
        return tuple(sorted(z for z in self.references.energies if rows is None or z in rows))

    def refuse_unknown(self, elements: Sequence[int], where: str = "a structure") -> None:
        """InputError where one of the atomic numbers is not among ``elements``; on a GPU nothing else would notice."""
        known = self.elements
        if missing := [SYMBOLS[z] for z in elements if z not in known]:
            raise InputError(
                f"{where} holds {', '.join(missing)}, which the potential was not trained on: it knows "
                f"{', '.join(SYMBOLS[z] for z in known)}."
            )

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over config, references and every tensor by name: what a run that starts from it is named after."""
        about = canonical(ModelConfig, self.model) + json.dumps(self.references.to_dict(), sort_keys=True)
        if self.frames != "none":  # as with specs: what came later is left out where it is not used
            about += self.frames
        digest = hashlib.sha256(about.encode())
        for name, tensor in sorted(self.potential.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path, within: Path | None = None) -> None:
        """Write ``potential.json`` and ``weights.pt`` (tensors only) into ``folder``; ``within``: as files are."""
        buffer = io.BytesIO()
        torch.save({k: v.detach().cpu() for k, v in self.potential.state_dict().items()}, buffer)
        write_atomically(folder / "weights.pt", buffer.getvalue(), within=within)
        about = {
            "model": json.loads(to_json(ModelConfig, self.model)),
            "references": self.references.to_dict(),
            "dtype": str(next(self.potential.parameters()).dtype).removeprefix("torch."),
            "units": "eV, angstrom",
        }
        if self.frames != "none":
            about["frames"] = self.frames
        write_atomically(folder / "potential.json", json.dumps(about, indent=1).encode(), within=within)

    @staticmethod
    def load(folder: str | Path, device: str = "cpu", dtype: str | None = None) -> TrainedPotential:
        """Load a checkpoint folder (``<key>.ckpt``); executes no code that it holds (tensors and JSON only).

        ``dtype``: to compute in, such as "float64"; without it, that of the weights.
        """
        folder = _checkpoint(Path(folder))
        refuse_missing_device(device)
        try:
            about = json.loads((folder / "potential.json").read_text())
            state = torch.load(folder / "weights.pt", map_location=device, weights_only=True)
        except FileNotFoundError as error:
            raise InputError(f"{folder} is not a checkpoint: {Path(error.filename).name} is missing.") from None
        except (pickle.UnpicklingError, ValueError, RuntimeError, EOFError, OSError):
            raise InputError(
                f"{folder} is damaged, or was not written by equiscale: copy it again, or train the run again."
            ) from None
        try:
            model = from_json(ModelConfig, json.dumps(about["model"]), f"{folder / 'potential.json'}")
            references = References.from_dict(about["references"])
            potential = model.build().to(getattr(torch, about["dtype"]))
            potential.load_state_dict(state)
            frames = about.get("frames", "none")
            if frames not in get_args(FrameKind):
                raise ValueError(frames)
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{folder}: potential.json and weights.pt do not describe one potential ({type(error).__name__}): "
                "copy the folder again, or train the run again."
            ) from None
        potential = potential.to(device, None if dtype is None else getattr(torch, dtype))
        return TrainedPotential(potential.eval(), model, references, frames)


def _checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: the folder itself, or the run's key beside its record."""
    path = path if path.name else path.resolve()  # "." has no name
    beside = path.parent / f"{path.name.removesuffix('.json')}.ckpt"
    if not path.is_dir() and beside.is_dir():
        path = beside
    if not path.exists():
        raise InputError(f"there is no checkpoint {path}: name a run's folder, results/<study>/<key>.ckpt.")
    if path.is_file():
        raise InputError(f"{path} is a file, not a checkpoint: name the folder that holds potential.json.")
    if path.is_dir() and not (path / "potential.json").exists():
        if (path / "unfinished.pt").exists():
            raise InputError(f"{path} is of a run that is not finished: give the command that trains it again.")
        if any(path.glob("*.ckpt")):
            raise InputError(f"{path} holds the checkpoints of several runs: name one of them, {path}/<key>.ckpt.")
    return path


def refuse_missing_device(name: str) -> None:
    """InputError where torch cannot use the device."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"the device {name!r} cannot be used here ({str(error).splitlines()[0].rstrip('.')}): use cpu, or cuda "
            "where there is a GPU and a torch built for it."
        ) from None
