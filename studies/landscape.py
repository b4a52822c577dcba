"""Checkpoints after 500 and after 5,000 steps whose loss landscapes are measured (the second paper's fig. 1c, with
`equiscale landscape`): an MPNN and EScAIP. Five minutes on two cores. EQUISCALE_PRESET: laptop, smoke, gpu.
"""

from equiscale.ladder import Ladder, Study, preset
from equiscale.models import EScAIPConfig, ModelConfig, MPNNConfig
from equiscale.run import DataSpec, EvalSpec, OptimSpec, Tracking

PRESETS = {  # structures early and late, width of the MPNN, of EScAIP
    "laptop": (2_000, 20_000, 48, 16),
    "smoke": (8, 16, 8, 8),
    "gpu": (2_000, 38_976, 128, 128),
}
PRESET = preset(*PRESETS)
EARLY, LATE, MPNN_WIDTH, ESCAIP_WIDTH = PRESETS[PRESET]

ELEMENTS = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)  # those of the built-in set
MPNN = MPNNConfig(depth=5, num_radial=32, elements=ELEMENTS)
ESCAIP = EScAIPConfig(depth=2, cutoff=6.0, elements=ELEMENTS, num_radial=32)


def ladder(model: ModelConfig, width: int, rate: float, structures: int) -> Ladder:
    optim = OptimSpec(learning_rate=rate, base_width=width, batch_structures=4)
    data, looks = DataSpec("builtin", structures=structures), EvalSpec(symmetry=Tracking())
    return Ladder(model, (width,), data, optim, looks, variant=f"{structures // 4} steps")


STUDY = Study(
    name="landscape" if PRESET == "laptop" else f"landscape-{PRESET}",
    title="Potentials whose landscapes are measured",
    ladders=tuple(
        ladder(model, width, rate, structures)
        for model, width, rate in ((MPNN, MPNN_WIDTH, 2e-2), (ESCAIP, ESCAIP_WIDTH, 1e-2))
        for structures in (EARLY, LATE)
    ),
)
