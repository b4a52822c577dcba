"""A transformer without symmetry and without locality (fig. 16 of the scaling paper): does it learn at all?

Absolute coordinates as the paper has them, about the centroid, with rotation augmentation, and a ten times larger
batch. Seven minutes on two cores. EQUISCALE_PRESET: laptop, smoke, gpu.
"""

from dataclasses import replace

from equiscale.ladder import Ladder, Study, preset
from equiscale.models import TransformerConfig
from equiscale.run import DataSpec, EvalSpec, OptimSpec, Tracking

PRESETS = {  # structures, widths
    "laptop": (38_976, (16, 32, 64, 128)),
    "smoke": (80, (8, 16)),
    "gpu": (38_976, (64, 128, 256, 512)),
}
PRESET = preset(*PRESETS)
STRUCTURES, WIDTHS = PRESETS[PRESET]

PLAIN = TransformerConfig(depth=4, elements=(1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53))
CENTERED = replace(PLAIN, centered=True)
LOOKS = EvalSpec(symmetry=Tracking())


def ladder(model: TransformerConfig, batch: int = 4, variant: str = "", augment: bool = False) -> Ladder:
    widths = WIDTHS if batch == 4 and not augment else WIDTHS[1:3]
    data = DataSpec("builtin", structures=STRUCTURES, augment=augment)
    # the best of a pilot's four rates (docs/log.md)
    optim = OptimSpec(learning_rate=3e-3, base_width=64, batch_structures=batch)
    return Ladder(model, widths, data, optim, LOOKS, variant=variant)


STUDY = Study(
    name="transformer" if PRESET == "laptop" else f"transformer-{PRESET}",
    title="A plain transformer on atoms",
    ladders=(
        ladder(PLAIN),
        ladder(CENTERED, variant="centered"),
        ladder(CENTERED, variant="centered", augment=True),
        ladder(CENTERED, 40, "centered batch 40"),
    ),
)
