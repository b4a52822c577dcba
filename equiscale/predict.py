"""From per-atom outputs to energies and forces: the only file that knows where forces come from."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from equiscale.config import from_json, to_json
from equiscale.data.references import References
from equiscale.data.store import Store
from equiscale.data.structure import Structure
from equiscale.errors import InputError
from equiscale.files import write_atomically
from equiscale.graph import AtomGraph, Prediction, sum_by
from equiscale.models import ModelConfig
from equiscale.models.base import Potential, graph_for


def predict(potential: Potential, graph: AtomGraph, *, create_graph: bool = False) -> Prediction:
    """Energies per structure, and forces per atom from the head if there is one, else minus the energy's gradient.

    In the potential's own (normalised) units. ``create_graph`` keeps what a loss on conservative forces needs.
    """
    if potential.config.forces == "direct":
        out = potential(graph)
        assert out.force is not None
        return Prediction(sum_by(graph.structure, out.energy, graph.num_structures), out.force)
    with torch.enable_grad():
        graph = replace(graph, positions=graph.positions.detach().requires_grad_())
        energy = sum_by(graph.structure, potential(graph).energy, graph.num_structures)
        if not energy.requires_grad or not len(graph.receiver):  # lone atoms: the energy knows no position
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

    def __call__(self, structures: Sequence[Structure]) -> Prediction:
        """Total energies (eV, float64) per structure and forces (eV/Å, float64) per atom."""
        weight = next(self.potential.parameters())
        model = self.model
        graph = graph_for(model, structures, dtype=weight.dtype, device=weight.device)
        inference = torch.no_grad() if model.forces == "direct" else torch.enable_grad()
        with inference:
            out = predict(self.potential, graph)
        energy, forces = self.references.denormalise(
            Store.from_structures([replace(s, energy=0.0, forces=np.zeros((len(s), 3))) for s in structures]),
            out.energy.detach().double().cpu().numpy(),
            out.forces.detach().double().cpu().numpy(),
        )
        return Prediction(torch.from_numpy(energy), torch.from_numpy(forces))

    def save(self, folder: Path) -> None:
        """Write ``potential.json`` and ``weights.pt`` (tensors only) into ``folder``."""
        buffer = io.BytesIO()
        torch.save({k: v.detach().cpu() for k, v in self.potential.state_dict().items()}, buffer)
        write_atomically(folder / "weights.pt", buffer.getvalue())
        about = {
            "model": json.loads(to_json(ModelConfig, self.model)),
            "references": self.references.to_dict(),
            "dtype": str(next(self.potential.parameters()).dtype).removeprefix("torch."),
            "units": "eV, angstrom",
        }
        write_atomically(folder / "potential.json", json.dumps(about, indent=1).encode())

    @staticmethod
    def load(folder: str | Path, device: str = "cpu") -> TrainedPotential:
        """Load a checkpoint folder; executes no code that it holds (tensors and JSON only)."""
        folder = Path(folder)
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
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"{folder}: potential.json and weights.pt do not describe one potential ({type(error).__name__}): "
                "copy the folder again, or train the run again."
            ) from None
        return TrainedPotential(potential.to(device).eval(), model, references)
