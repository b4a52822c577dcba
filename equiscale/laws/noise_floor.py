"""How far two runs of one ladder differ by chance, from what can tell it.

Seeds of one rung tell it at once. Where no rung was repeated the fit does, by the noise that it leaves between runs and
within one, if runs are left beyond its parameters: of simulated ladders with one run a width the variance between runs
has about 1, 2, 3 and 5 degrees of freedom at 4, 5, 6 and 8 runs, and .4 at 3, where it is found eight times too
large now and then (150 studies each; run noise 3 %, checkpoints' 1.5 %). So a ladder of three runs tells nothing of its
own, and has the floor of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from equiscale.laws.plain import Plain
from equiscale.laws.results import Architecture

SPENT = 3  # degrees of freedom between runs that the law takes


@dataclass(frozen=True)
class Floor(Plain):
    """The noise floor of one ladder, as a standard deviation of ln L."""

    std: float  # between two runs' losses at one evaluation
    run: float  # the part that a run's evaluations share; all of it where seeds tell it
    seeds: bool  # from rungs with several seeds, else from fits
    of: tuple[str, ...]  # the ladders that tell it: this one, or those that are pooled


def noise_floors(found: Iterable[Architecture]) -> dict[str, Floor | None]:
    """By architecture: its own seeds', else its own fit's, else that of the others pooled by degrees of freedom, over
    seeds where there are any. None where no ladder tells one."""
    found = list(found)
    seeds = {a.name: (_seeds(a), a.noise.degrees) for a in found if _seeds(a)}
    fits = {a.name: (_fit(a), _degrees(a)) for a in found if a.name not in seeds and _degrees(a) > 0 and _fit(a)}
    pooled = _pooled(seeds) or _pooled(fits)
    return {a.name: (seeds.get(a.name) or fits.get(a.name) or (pooled, 0))[0] for a in found}


def difference_floor(first: Floor | None, second: Floor | None) -> float | None:
    """The noise floor of ln L_second - ln L_first; None where one of them has none."""
    return None if first is None or second is None else float(np.hypot(first.std, second.std))


def _seeds(a: Architecture) -> Floor | None:
    std = a.noise.std
    return Floor(std, std, True, (a.name,)) if std else None


def _degrees(a: Architecture) -> int:
    return sum(r.seeds for r in a.rungs) - SPENT


def _fit(a: Architecture) -> Floor | None:
    """By the law that is believed: what bends off the other one is no noise."""
    if a.surface is None or a.believed is None:
        return None
    std = float(np.hypot(a.believed.run_noise, a.believed.checkpoint_noise))
    return Floor(std, float(a.surface.run_noise), False, (a.name,)) if np.isfinite(std) and std > 0 else None


def _pooled(known: Mapping[str, tuple[Floor | None, int]]) -> Floor | None:
    several = [(floor, degrees) for floor, degrees in known.values() if floor is not None]
    if not several:
        return None
    weights = [degrees for _, degrees in several]
    std, run = (
        float(np.sqrt(np.average([getattr(floor, name) ** 2 for floor, _ in several], weights=weights)))
        for name in ("std", "run")
    )
    return Floor(std, run, several[0][0].seeds, tuple(known))
