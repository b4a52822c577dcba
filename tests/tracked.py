"""Records with tracked points whose dip is known, for the tests of the figures, the page and the command."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from runs import tiny_spec

from equiscale.models import EScAIPConfig, ModelConfig, MPNNConfig
from equiscale.run import Evaluation, Losses, Remedy, RunRecord, RunSpec, SymmetryPoint

STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
DIP = 200
ESCAIP = EScAIPConfig(width=16, depth=2, cutoff=5.0, elements=(1, 6, 7, 8), num_radial=8)
MPNN = MPNNConfig(width=8, depth=2, cutoff=5.0, elements=(1, 6, 7, 8), num_radial=8)


def points(
    size: float = 1.0, noise: float = 0.03, seed: int = 0, head: bool = False, gradients: bool = True, rise: float = 1.0
) -> tuple[SymmetryPoint, ...]:
    """Percent falls from 40 to a dip at step 200 and rises by ``rise`` times its least; L_mean falls on."""
    rng = np.random.default_rng(seed)
    out = []
    for step in STEPS:
        mean = 1.0 / (1 + step / 150) ** 0.5
        percent = 40 / size / (1 + step / 2) ** 1.2
        if step > DIP:
            percent = 40 / size / (1 + DIP / 2) ** 1.2 * (1 + rise * np.log(step / DIP) / np.log(STEPS[-1] / DIP))
        percent *= np.exp(noise * rng.normal())
        ratio = percent / (100 - percent)
        equiv = ratio * mean
        given = dict(gradient_mean=mean, gradient_equiv=mean * ratio**0.8 * np.exp(noise * rng.normal()))
        out.append(
            SymmetryPoint(
                step=step,
                structures=4 * step,
                atoms=40 * step,
                flops_model=1e6 * step,
                total=mean + equiv,
                mean=mean,
                equiv=equiv,
                equiv_error=0.1 * equiv,
                percent=percent,
                percent_error=0.05 * percent,
                size=0.01 + 1 - mean,
                loss=1.4 * mean**0.5 + equiv,
                loss_mean=1.4 * mean**0.5,
                **(dict(given, gradient_cosine=0.3 * float(np.tanh(rng.normal()))) if gradients else {}),
                head=0.5 * equiv**0.98 if head else None,
            )
        )
    return tuple(out)


def record(spec: RunSpec, symmetry: tuple[SymmetryPoint, ...] = (), loss: float = 0.5) -> RunRecord:
    """A finished run of ``spec`` with a made-up curve."""
    N = 100.0 * spec.model.width**2
    curve = []
    for step in STEPS[4:]:
        D, C = 40 * step, 6 * N * 40 * step
        value = loss * ((N / 1e4) ** -0.2 + (D / 1e4) ** -0.3)
        losses = Losses(value, value / 4, 3 * value / 4, value, 5 * value, 100 * value)
        curve.append(Evaluation(step, 4 * step, D, D, C, C, value, losses, losses))
    end, trivial = curve[-1].molecules, Losses(3.0, 0.6, 2.4, 3.0, 15.0, 300.0)
    return RunRecord(
        spec, "ok", "", int(N), int(0.8 * N), tuple(curve), end, end, trivial, trivial, 0.0, 1.0, 1.0, 0, 0.01,
        symmetry=symmetry,
    )  # fmt: skip


def spec(model: ModelConfig = MPNN, width: int = 8, seed: int = 0, **more) -> RunSpec:
    return replace(tiny_spec(), model=replace(model, width=width), seed=seed, **more)


def study() -> list[RunRecord]:
    """Two architectures at three widths each, one of them with a head."""
    out = []
    for i, width in enumerate((8, 16, 32)):
        out.append(record(spec(MPNN, width), points(size=width / 8, seed=i)))
        out.append(record(spec(ESCAIP, width), points(size=8 * width, seed=10 + i, head=True)))
    return out


def remedies() -> list[RunRecord]:
    """Five ladders of one architecture at two widths."""
    plain = spec()
    ways = (
        {},
        {"remedy": Remedy("symmetry")},
        {"data": replace(plain.data, augment=True)},
        {"variant": "batch=16"},
        {"remedy": Remedy(frames="average")},
    )
    return [
        record(spec(width=width, **way), points(size=1 + 2 * i, seed=i), loss=0.5 + 0.05 * i)
        for i, way in enumerate(ways)
        for width in (8, 16)
    ]
