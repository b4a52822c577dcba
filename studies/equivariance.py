"""How equivariance is learned: percent of the loss from broken symmetry along training (the second paper's fig. 2).

An MPNN and EScAIP, 3,750 steps each, against the data's size (15,000 structures, 5,000, and 500 at batch 1), the batch,
the model's size, the optimiser and the learning rate; with the gradients' ratio (its fig. 7) and EScAIP's head. On two
cores 20 minutes. EQUISCALE_PRESET: laptop, smoke, gpu (longer, larger, on the whole set).
"""

from dataclasses import replace

from equiscale.ladder import Ladder, Study, preset
from equiscale.models import EScAIPConfig, ModelConfig, MPNNConfig
from equiscale.run import DataSpec, EvalSpec, OptimSpec, Tracking

PRESETS = {  # structures, a quarter, few; widths of the MPNN, of EScAIP
    "laptop": (15_000, 5_000, 500, (24, 48, 96), (8, 16, 32)),
    "smoke": (64, 16, 8, (4, 8, 16), (8, 16, 32)),
    "gpu": (38_976, 5_000, 500, (64, 128, 256), (32, 64, 128)),
}
PRESET = preset(*PRESETS)
ALL, FIFTH, FEW, MPNN_WIDTHS, ESCAIP_WIDTHS = PRESETS[PRESET]

ELEMENTS = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)  # those of the built-in set
MPNN = MPNNConfig(depth=5, num_radial=32, elements=ELEMENTS)
ESCAIP = EScAIPConfig(depth=2, cutoff=6.0, elements=ELEMENTS, num_radial=32)
LOOKS = EvalSpec(symmetry=Tracking(gradients=True))


def ladders(model: ModelConfig, widths: tuple[int, ...], rate: float) -> list[Ladder]:
    # The rates are of a base width; here every variant is at its own width's best guess, so that one thing changes.
    base = OptimSpec(learning_rate=rate, base_width=widths[1], batch_structures=4)
    data, steps = DataSpec("builtin", structures=ALL), ALL // 4

    def one(variant: str, data: DataSpec = data, **optim) -> Ladder:
        return Ladder(model, widths[1:2], data, replace(base, **optim), LOOKS, variant=variant)

    return [
        Ladder(model, widths, data, base, LOOKS),
        one(f"{FIFTH} structures", replace(data, structures=FIFTH, epochs=ALL // FIFTH)),
        one(f"{FEW} structures, batch 1", replace(data, structures=FEW, epochs=steps // FEW), batch_structures=1),
        one("batch 16", batch_structures=16),
        one("adamw", optimizer="adamw", learning_rate=rate / 10),
        one("adamw, rate / 4", optimizer="adamw", learning_rate=rate / 40),
        one("sgd", optimizer="sgd", learning_rate=rate),
        one("rate / 4", learning_rate=rate / 4),
        one("rate x 4", learning_rate=rate * 4),
    ]


STUDY = Study(
    name="equivariance" if PRESET == "laptop" else f"equivariance-{PRESET}",
    title="How equivariance is learned",
    ladders=(*ladders(MPNN, MPNN_WIDTHS, 2e-2), *ladders(ESCAIP, ESCAIP_WIDTHS, 1e-2)),
)
