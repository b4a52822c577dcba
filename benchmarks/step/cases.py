"""What is measured: architectures and widths, what each is held against, and the structures that they are given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from models.literal import LiteralEGNN, LiteralMPNN
from models.literal_escaip import LiteralEScAIP
from models.literal_gemnet import LiteralGemNetOC

from equiscale.data.structure import Structure
from equiscale.models import (
    EGNNConfig,
    EScAIPConfig,
    ESENConfig,
    GemNetOCConfig,
    MPNNConfig,
    TransformerConfig,
)

LITERAL = {"egnn": LiteralEGNN, "mpnn": LiteralMPNN, "escaip": LiteralEScAIP, "gemnet_oc": LiteralGemNetOC}
"""Implementations of our own that follow the papers' formulas term by term (tests/models)."""

SIZES = (17, 18, 19, 19, 20, 20, 21, 21, 21, 22, 22, 23, 23, 23, 23, 23)
"""Atoms per structure of the batch: 335 in all."""

DENSITY = 0.12  # atoms per Å³, about an organic solid's; the batch then has 6,538 edges within 6 Å, 19.5 per atom


@dataclass(frozen=True)
class Case:
    name: str
    config: Any  # one of ModelConfig
    reference: dict | None = (
        None  # what the reference's process builds (serve.py); None: there is no such implementation
    )
    speed: float | None = None  # times the other's speed, at least
    memory: float | None = None  # of the other's peak, at most

    @property
    def architecture(self) -> str:
        return self.config.kind


def _esen(width: int, speed: float, **fields) -> Case:
    """The reference's 2.x always has the envelope."""
    config = ESENConfig(width=width, envelope="polynomial", **fields)
    sizes = {k: getattr(config, k) for k in ("width", "depth", "lmax", "mmax", "hidden", "num_radial")}
    return Case(f"lmax {config.lmax} C={width}", config, {"version": "2.24.0", **sizes}, speed)


def _gemnet(width: int, speed: float, quadruplets: bool = False) -> Case:
    config = GemNetOCConfig(width=width, cutoff=6.0, max_neighbors=30, quadruplets=quadruplets)
    asked = {"version": "1.10.0", "width": width, "depth": config.depth, "quadruplets": quadruplets}
    return Case(f"{'quadruplets ' * quadruplets}w={width}", config, asked, speed)


def _escaip(width: int) -> Case:
    sizes = {"distance_channels": 128, "order_channels": 32, "element_channels": 64}
    config = EScAIPConfig(width=width, depth=4, cutoff=6.0, max_neighbors=30, num_radial=128, **sizes)
    return Case(f"w={width}", config, {"version": "2.24.0", "width": width, "depth": 4, "heads": config.heads}, 1.8)


EGNN = {32: (None, None), 64: (1.3, 0.7), 128: (None, 0.7), 256: (1.6, 0.7), 800: (1.8, 0.7)}

CASES = [
    *(_esen(width, speed) for width, speed in ((4, 2.5), (8, 2.2), (32, 1.2))),
    _esen(16, 2.5, lmax=2, depth=2, hidden=16, num_radial=64),
    *(_gemnet(width, speed) for width, speed in ((32, 2.0), (64, 1.6), (128, 1.3))),
    *(_gemnet(width, 5.0, quadruplets=True) for width in (32, 64)),
    *(_escaip(width) for width in (64, 128)),
    *(Case(f"w={w}", EGNNConfig(width=w), None, *wanted) for w, wanted in EGNN.items()),
    *(Case(f"w={w}", MPNNConfig(width=w), None, 1.5) for w in (128, 256, 512)),
    *(Case(f"w={w}", TransformerConfig(width=w)) for w in (64, 256)),
]

SCALING = [
    ESENConfig(width=4, depth=4),
    GemNetOCConfig(width=32, cutoff=6.0, max_neighbors=30),
    replace(_escaip(64).config, depth=2),
    EGNNConfig(width=32),
    MPNNConfig(width=128),
]
"""One small potential of every architecture with a cutoff, 6 Å and 30 neighbours each."""

SCALING_ATOMS = (20, 50, 100, 200, 500, 1000, 2000)


def cluster(atoms: int, rng: np.random.Generator) -> Structure:
    """Uniform in a ball at ``DENSITY``, no two atoms nearer than 0.95 Å; random labels, in normalised units."""
    radius = (3 * atoms / (4 * np.pi * DENSITY)) ** (1 / 3)
    positions = np.zeros((0, 3))
    while len(positions) < atoms:
        x = rng.uniform(-radius, radius, 3)
        if np.linalg.norm(x) < radius and (np.linalg.norm(positions - x, axis=1) > 0.95).all():
            positions = np.vstack([positions, x])
    numbers = rng.choice([1, 6, 7, 8, 9, 16], atoms, p=[0.55, 0.30, 0.06, 0.06, 0.02, 0.01])
    return Structure(numbers, positions, float(rng.normal()), rng.normal(size=(atoms, 3)))


def batch() -> list[Structure]:
    rng = np.random.default_rng(2)
    return [cluster(n, rng) for n in SIZES]
