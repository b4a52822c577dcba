"""Does symmetry pay, and which part of it? Six architectures, minimal pairs, eSEN's degrees, EGNN's vector channels.

The laptop preset: 8,000 structures of the built-in set once (2,000 updates of 4), an hour on two cores, resumable. That
is within the first transient of training, so its exponents say little; ``EQUISCALE_PRESET=long`` sees the whole set.
``smoke`` is for tests, ``gpu`` for one GPU: wider rungs, three seeds at the ends. Pairs differ in symmetry alone: same
skeleton, N and FLOPs within a few per cent.
"""

from dataclasses import replace

from equiscale.ladder import Ladder, Study, preset
from equiscale.models import (
    EGNNConfig,
    EScAIPConfig,
    ESENConfig,
    GemNetOCConfig,
    ModelConfig,
    MPNNConfig,
    TransformerConfig,
)
from equiscale.run import DataSpec, OptimSpec

PRESETS = {  # structures, how many of a ladder's widths (from the smallest), seeds at its ends
    "laptop": (8_000, 6, ()),
    "smoke": (32, 2, ()),
    "long": (38_976, 6, ()),
    "gpu": (38_976, 9, (1, 2)),
}
PRESET = preset(*PRESETS)
STRUCTURES, RUNGS, SEEDS = PRESETS[PRESET]

ELEMENTS = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)  # those of the built-in set
INPUT = dict(elements=ELEMENTS, num_radial=32)


def ladder(model: ModelConfig, widths: tuple[int, ...], rate: float, base: int, augment: bool = False) -> Ladder:
    data = DataSpec("builtin", structures=STRUCTURES, augment=augment)
    optim = OptimSpec(learning_rate=rate, base_width=base, batch_structures=4)
    return Ladder(model, widths[:RUNGS], data, optim, extra_seeds=SEEDS)


def esen(lmax: int, **fields) -> ESENConfig:
    return ESENConfig(depth=2, lmax=lmax, mmax=min(2, lmax), hidden=16, envelope="polynomial", **INPUT, **fields)


# Rates at the base width: `equiscale tune` for the first two, a pilot of four rates (docs/log.md) for the others.
MPNN_RATE, EGNN_RATE = 2e-2, 1e-2
GEMNET_RATE, ESEN_RATE, ESCAIP_RATE, TRANSFORMER_RATE = 1e-2, 2e-2, 1e-2, 3e-3

MPNN = MPNNConfig(depth=5, **INPUT)
EGNN = EGNNConfig(depth=4, **INPUT)
ESCAIP = EScAIPConfig(depth=2, cutoff=6.0, elements=ELEMENTS, num_radial=32)
GEMNET = GemNetOCConfig(depth=2, cutoff=6.0, max_neighbors=30, elements=ELEMENTS, num_radial=32)

STUDY = Study(
    name="symmetry" if PRESET == "laptop" else f"symmetry-{PRESET}",
    title="Does symmetry pay, and which part of it?",
    ladders=(
        ladder(MPNN, (12, 20, 34, 56, 90, 144, 230, 360, 576), MPNN_RATE, 32),
        ladder(MPNN, (12, 34, 90), MPNN_RATE, 32, augment=True),
        ladder(MPNNConfig(depth=5, edges="distances", **INPUT), (12, 34, 90), MPNN_RATE, 32),
        ladder(EGNN, (4, 6, 9, 16, 25, 40, 64, 100, 160), EGNN_RATE, 16),
        *(ladder(EGNNConfig(depth=4, vector_channels=e, **INPUT), (9, 16, 25), EGNN_RATE, 16) for e in (1, 2, 8)),
        ladder(GEMNET, (4, 8, 12, 20, 32, 48, 72, 108, 160), GEMNET_RATE, 8),
        ladder(esen(2), (2, 3, 4, 6, 10, 16, 24, 36, 54), ESEN_RATE, 6),
        *(ladder(esen(lmax), (3, 6, 12), ESEN_RATE, 6) for lmax in (1, 3, 4)),
        ladder(esen(2, absolute_directions=True), (3, 6, 12), ESEN_RATE, 6),
        ladder(ESCAIP, (16, 32, 48), ESCAIP_RATE, 32),
        ladder(replace(ESCAIP, force_head="tied"), (16, 32, 48), ESCAIP_RATE, 32),
        ladder(TransformerConfig(depth=4, elements=ELEMENTS), (16, 32, 64, 128), TRANSFORMER_RATE, 64),
    ),
)
