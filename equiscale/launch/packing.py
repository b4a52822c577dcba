"""How many runs fit on one device at the same time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from equiscale.errors import InputError

MARGIN = 0.9
"""Of a device's memory that is planned with: allocators fragment, and a probe sees a few steps of many."""


def how_many_fit(
    items: Sequence[tuple[float, float]], memory: float, *, most: int | None = None, margin: float = MARGIN
) -> int:
    """How many of ``items``, (memory, seconds) each, may run at once on a device of this ``memory`` (the same unit).

    Any of them may meet any other, so the largest must fit beside each other. No more than shorten the whole: it takes
    as long as its longest item at least. ``most``: no more than these. 0: the largest does not fit alone.
    """
    for need, seconds in items:
        if not (math.isfinite(need) and need >= 0 and math.isfinite(seconds) and seconds >= 0):
            raise InputError(f"memory and seconds must be numbers from 0 on, not {need:g} and {seconds:g}.")
    if most is not None and most < 1:
        raise InputError(f"at least one must be allowed to run, not {most}.")
    needs = sorted((need for need, _ in items), reverse=True)
    room, fitting = margin * memory, 0
    for need in needs:
        room -= need
        if room < 0:
            break
        fitting += 1
    longest = max((seconds for _, seconds in items), default=0.0)
    useful = math.ceil(sum(seconds for _, seconds in items) / longest - 1e-9) if longest else len(items)
    return min(fitting, useful, len(items) if most is None else most)
