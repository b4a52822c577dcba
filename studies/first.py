"""The first study: how an unconstrained and an equivariant architecture scale on real molecules, in minutes."""

from equiscale.ladder import Ladder, Study, Tuning
from equiscale.models import EGNNConfig, MPNNConfig
from equiscale.run import DataSpec, OptimSpec

ELEMENTS = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)  # those of the built-in set
PRESET = dict(depth=4, num_radial=32, elements=ELEMENTS)
DATA = DataSpec("builtin", structures=20_000)
OPTIM = OptimSpec(learning_rate=1e-2, base_width=32, batch_structures=4)

STUDY = Study(
    name="first",
    title="Does built-in symmetry pay? A first look in ten minutes",
    ladders=(
        Ladder(MPNNConfig(**PRESET), (8, 16, 24, 32, 48, 64, 96, 128), DATA, OPTIM),
        Ladder(EGNNConfig(**PRESET), (4, 6, 9, 12, 16, 25, 36), DATA, OPTIM),
    ),
    tuning=Tuning(rates=(3e-3, 1e-2, 3e-2), batches=(4, 8), depths=(3, 4, 5)),
)
