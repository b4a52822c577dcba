"""Does the best rate stay within a factor of two over a ladder? Trains its smallest and largest rung at several rates.

    python benchmarks/width_rule.py studies/laptop.py egnn

One seed, a quarter of the ladder's structures, rates times 1/4 ... 4 of the study's; prints L on new molecules at four
looks. Records go to a temporary folder and are thrown away. One thread.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from equiscale.data.sources import load
from equiscale.ladder import load_study
from equiscale.run import EvalSpec, reader_options
from equiscale.train.record import train

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def main(path: str, architecture: str) -> None:
    torch.set_num_threads(1)
    (ladder,) = (ladder for ladder in load_study(path).ladders if ladder.model.kind == architecture)
    store = load(ladder.data.name, **reader_options(ladder.data))
    base = ladder.runs()[0]
    for width in (ladder.widths[0], ladder.widths[-1]):
        for factor in FACTORS:
            spec = replace(
                base,
                model=replace(base.model, width=width),
                data=replace(base.data, structures=base.data.structures // 4),
                optim=replace(base.optim, learning_rate=factor * base.optim.learning_rate),
                evaluation=EvalSpec(log_points=0, linear_points=4),
                seed=77,
            )
            with tempfile.TemporaryDirectory() as folder:
                record = train(spec, store, Path(folder))
            looks = "  ".join(f"{e.molecules.loss:.4f}" for e in record.curve)
            print(f"{architecture} w={width} rate {spec.optim.learning_rate:g}: {record.status}  {looks}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
