"""Weights as recipes: every tensor of a reference implementation drawn again from its name, shape and law.

Numpy only: the references' own environment imports this file too (benchmarks/parity/reference.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stated:
    """A weight tensor as a recipe: its law drawn from a stream of its own, seeded by (seed, bytes of the name)."""

    name: str
    shape: tuple[int, ...]
    law: str  # "normal": loc + scale * N(0, 1); "uniform": between loc and scale
    loc: float
    scale: float

    def draw(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng([seed, *self.name.encode()])
        if self.law == "uniform":
            return rng.uniform(self.loc, self.scale, self.shape)
        return self.loc + self.scale * rng.standard_normal(self.shape)


def stated(name: str, shape: tuple[int, ...]) -> Stated:
    """The recipe for a tensor of a reference: scale factors U(0.5, 1.5), weights of norms about 1, biases about 0,
    embedding tables N(0, 1), every other weight N(0, 1/fan-in)."""
    shape = tuple(int(n) for n in shape)
    if name.endswith("scale_factor"):
        return Stated(name, shape, "uniform", 0.5, 1.5)
    if name.endswith("affine_weight") or (name.endswith("weight") and len(shape) == 1):
        return Stated(name, shape, "normal", 1.0, 0.2)
    if name.endswith("bias"):
        return Stated(name, shape, "normal", 0.0, 0.2)
    if "embedding" in name and len(shape) == 2 and "net" not in name:
        return Stated(name, shape, "normal", 0.0, 1.0)
    fan_in = shape[0] if name.startswith(("mlp_cbf", "mlp_sbf")) else shape[-1]
    return Stated(name, shape, "normal", 0.0, float(fan_in**-0.5))


def probe(seed: int, structures: int, atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of energies and forces in the one number whose gradient is compared."""
    energy = Stated("probe/energy", (structures,), "normal", 0.0, 1.0)
    forces = Stated("probe/forces", (atoms, 3), "normal", 0.0, 1.0)
    return energy.draw(seed), forces.draw(seed)
