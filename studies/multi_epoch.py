"""Few structures many times: a tenth of the built-in set for ten epochs (fig. 8 and 9 of the scaling paper).

A tenth by structure (one or two conformers of every molecule) and by molecule (all conformers of a tenth), without and
with rotation augmentation, for the MPNN; eSEN beside it; and the whole set once, which costs the same. On two cores
25 minutes. EQUISCALE_PRESET: laptop, smoke, gpu (which goes to forty epochs).
"""

from equiscale.ladder import Ladder, Study, preset
from equiscale.models import ESENConfig, ModelConfig, MPNNConfig
from equiscale.run import DataSpec, EvalSpec, OptimSpec, Tracking

PRESETS = {  # structures of the tenth, epochs, widths of the MPNN, of eSEN
    "laptop": (3_896, 10, (12, 34, 90), (4,)),
    "smoke": (16, 2, (4, 8), (2, 3)),
    "gpu": (3_896, 40, (34, 56, 90, 144, 230, 360), (4, 6, 10, 16, 24)),
}
PRESET = preset(*PRESETS)
TENTH, EPOCHS, WIDTHS, ESEN_WIDTHS = PRESETS[PRESET]

INPUT = dict(elements=(1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53), num_radial=32)
MPNN = MPNNConfig(depth=5, **INPUT)
ESEN = ESENConfig(depth=2, lmax=2, mmax=2, hidden=16, envelope="polynomial", **INPUT)


def ladder(model: ModelConfig, variant: str, **data) -> Ladder:
    esen = model is ESEN
    optim = OptimSpec(learning_rate=2e-2, base_width=6 if esen else 32, batch_structures=4)
    looks = EvalSpec(symmetry=None if esen else Tracking())
    return Ladder(model, ESEN_WIDTHS if esen else WIDTHS, DataSpec("builtin", **data), optim, looks, variant=variant)


def repeated(model: ModelConfig, subset: str, augment: bool = False) -> Ladder:
    variant = f"{EPOCHS} epochs of {subset}"
    return ladder(model, variant, structures=TENTH, epochs=EPOCHS, subset=subset, augment=augment)


STUDY = Study(
    name="multi-epoch" if PRESET == "laptop" else f"multi-epoch-{PRESET}",
    title="Ten epochs of a tenth of the data",
    ladders=(
        ladder(MPNN, "once", structures=min(38_976, TENTH * EPOCHS)),
        *(repeated(MPNN, subset, augment) for subset in ("structures", "molecules") for augment in (False, True)),
        *(repeated(ESEN, subset) for subset in ("structures", "molecules")),
    ),
)
