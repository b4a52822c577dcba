"""The state of a run that is not finished: from it a killed run goes on bit for bit on the same hardware."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from equiscale.errors import InputError
from equiscale.files import write_atomically
from equiscale.train.memory import out_of_memory
from equiscale.train.ranks import Ranks


@dataclass
class State:
    """Everything the loop carries from step to step besides weights and the optimiser."""

    step: int = 0
    structures: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds_train: float = 0.0
    seconds_total: float = 0.0
    seconds_wall: float = 0.0  # the others are of devices: of all ranks together
    ranks: int = 1  # most at a time
    max_gradient_norm: float = 0.0
    clipped_steps: int = 0
    since: list[float] = field(default_factory=list)  # loss of each step since the last look
    curve: list[str] = field(default_factory=list)  # evaluations as JSON
    symmetry: list[str] = field(default_factory=list)  # tracked points as JSON
    per_structure: dict[str, list[list[float]]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)  # of the log
    log: list[list[float]] = field(default_factory=list)  # one row a step

    def add(self, done: dict[str, float]) -> float:
        """Count one step in; its gradient norm."""
        done = dict(done)
        self.step += 1
        self.structures += int(done.pop("structures"))
        self.tokens += int(done.pop("tokens"))
        self.flops += done.pop("flops")
        self.since.append(done["loss"])
        self.columns = ["step", *done]
        self.log.append([float(self.step), *done.values()])
        return done["gradient_norm"]


def write(path: Path, model: nn.Module, optimizer: Any, state: State) -> None:
    """Weights as they train (not the averaged ones), the optimiser's state, and ``state``; all or nothing."""
    write_atomically(path, _written(model, optimizer, state), within=path.parents[1])


def shared(ranks: Ranks, model: nn.Module, optimizer: Any, state: State) -> State:
    """What rank 0 has, on every rank: only it need see the file, and processors may round a fresh fit differently."""
    content = ranks.told(_written(model, optimizer, state) if ranks.leads and ranks.world > 1 else None)
    if ranks.leads:
        return state
    device = next(model.parameters()).device
    return _restored(torch.load(io.BytesIO(content), map_location=device, weights_only=True), model, optimizer)


def _written(model: nn.Module, optimizer: Any, state: State) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": vars(state)}, buffer)
    return buffer.getvalue()


def _restored(saved: dict[str, Any], model: nn.Module, optimizer: Any) -> State:
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return State(**saved["state"])


def read(path: Path, model: nn.Module, optimizer: Any, device: torch.device) -> State | None:
    """Restore into ``model`` and ``optimizer``; None where there is nothing to restore. Executes no code.

    InputError for what is damaged or of another version; of a folder that cannot be read, the system's own error.
    """
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:  # written atomically: not of a kill
        if out_of_memory(error):
            raise
        raise InputError(f"{path} is not a checkpoint of ours: remove it, and the run begins again.") from None
    try:
        return _restored(saved, model, optimizer)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise InputError(
            f"{path} is of another version of equiscale: go on with that one, or remove it and the run begins again."
        ) from None
