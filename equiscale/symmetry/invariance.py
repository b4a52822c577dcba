"""What a decomposition takes for granted of its loss and of its model, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from equiscale.errors import InputError
from equiscale.symmetry.actions import Vector
from equiscale.symmetry.groups import Group
from equiscale.symmetry.losses import Loss

if TYPE_CHECKING:
    from torch import nn

ATOMS = 5
TRIALS = 8
TOLERANCE = 1e-9  # relative: round-off is 1e-15, and a loss that varies does so by percents


def refuse_variant(loss: Loss, group: Group) -> None:
    """InputError unless l(g z, g y) = l(z, y), tried on random outputs and labels of eight structures.

    L_mean and L_equiv are of the model only if the loss has no direction of its own. The mean of |Δ| over force
    components has one, that of Δ² has none; under the octahedral group neither has.
    """
    rng = np.random.default_rng(0)
    g = group.sample(rng, TRIALS)
    n = ATOMS if g.order is None else g.order.shape[-1]
    offsets = n * np.arange(TRIALS + 1)
    forces = rng.normal(size=(2, TRIALS, n, 3))
    turned = Vector()(g, forces)
    energy = rng.normal(size=(2, TRIALS))
    (z, y), (gz, gy) = (
        [{"energy": e, "forces": f.reshape(-1, 3)} for e, f in zip(energy, both)] for both in (forces, turned)
    )
    before, after = loss(z, y, offsets), loss(gz, gy, offsets)
    if not np.allclose(before, after, rtol=TOLERANCE, atol=0):
        change = np.max(np.abs(after / before - 1))
        raise InputError(
            f"the {loss.name} loss changes by up to {change:.0%} when predictions and labels move together under "
            f"{group!r}, so that what it decomposes is not the model's alone: take one that does not, such as squared."
        )


def refuse_training(module: nn.Module) -> None:
    """InputError if the module, or a part of it, is in training mode."""
    if any(part.training for part in module.modules()):
        raise InputError(
            "the potential is in training mode, in which dropout would count as broken symmetry: call its eval() first."
        )
