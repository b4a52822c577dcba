"""What the translation part of the symmetry is worth: an MPNN on relative vectors, on absolute positions too, and on
positions about the centroid too (fig. 15 of the scaling paper). Structures of the built-in set lie within 1 Å of the
origin, at random. Five minutes on two cores. EQUISCALE_PRESET: laptop, smoke, gpu.
"""

from dataclasses import replace

from equiscale.ladder import Ladder, Study, preset
from equiscale.models import MPNNConfig
from equiscale.run import DataSpec, EvalSpec, OptimSpec, Tracking

PRESETS = {  # structures, widths, seeds at the ends
    "laptop": (16_000, (12, 20, 34, 56, 90, 144), ()),
    "smoke": (32, (4, 8), ()),
    "gpu": (38_976, (34, 56, 90, 144, 230, 360, 576), (1, 2)),
}
PRESET = preset(*PRESETS)
STRUCTURES, WIDTHS, SEEDS = PRESETS[PRESET]

DATA = DataSpec("builtin", structures=STRUCTURES)
OPTIM = OptimSpec(learning_rate=2e-2, base_width=32, batch_structures=4)
LOOKS = EvalSpec(symmetry=Tracking())
RELATIVE = MPNNConfig(depth=5, num_radial=32, elements=(1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53))

STUDY = Study(
    name="translation" if PRESET == "laptop" else f"translation-{PRESET}",
    title="Relative, absolute, and absolute positions about the centroid",
    ladders=tuple(
        Ladder(model, WIDTHS, DATA, OPTIM, LOOKS, extra_seeds=SEEDS)
        for model in (RELATIVE, replace(RELATIVE, translation_invariant=False), replace(RELATIVE, centered=True))
    ),
)
