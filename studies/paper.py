"""The scaling paper's four ladders, tables 3 to 6, on OMol25's 34 million neutral structures: 48 runs of one epoch.

For GPUs; docs/clusters.md plans it, and nobody has run it. EQUISCALE_STORE names the packed store, which
`equiscale data pack FOLDER_OF_ASELMDB STORE` makes; some 60,000 structures of it are held out. Widths, depths, batches,
the rate and its rule are the paper's. It does not say at which width the rate was found: base widths are those of the
tables whose N is nearest to its "approximately one million".
"""

import os

from equiscale.ladder import Ladder, Study
from equiscale.models import EGNNConfig, ESENConfig, GemNetOCConfig, ModelConfig, MPNNConfig
from equiscale.run import DataSpec, OptimSpec

DATA = DataSpec(os.environ.get("EQUISCALE_STORE", "omol25-neutral"), structures=33_900_000)


def ladder(model: ModelConfig, widths: tuple[int, ...], base: int, batch: int = 64) -> Ladder:
    return Ladder(model, widths, DATA, OptimSpec(1e-3, base, "paper", batch_structures=batch))


STUDY = Study(
    name="paper",
    title="Four ladders on OMol25",
    ladders=(
        ladder(
            MPNNConfig(),
            (128, 256, 320, 375, 441, 517, 607, 712, 835, 1150, 1349, 1583, 1857, 2179, 2557),
            base=256,
        ),
        ladder(EGNNConfig(), (32, 48, 56, 64, 81, 102, 120, 160, 200, 300, 500, 600, 721, 800), base=102, batch=128),
        ladder(GemNetOCConfig(), (32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 204), base=64),
        ladder(ESENConfig(), (4, 8, 10, 12, 16, 20, 32), base=10),
    ),
)
