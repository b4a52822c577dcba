"""Compute: of the published formulation (a formula per architecture) and of what was executed (counted)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def _added(into: Any, a: Any, b: Any, **_: Any) -> int:
    """FLOPs of a product of shapes (..., n, k) and (..., k, m) that is added to something."""
    return 2 * math.prod(a) * b[-1]


IN_PLACE: dict[Any, Any] = {torch.ops.aten.addmm_: _added, torch.ops.aten.baddbmm_: _added}
"""Products added in place: torch's counter knows them only in their other forms."""


def counted(work: Callable[[], object]) -> float:
    """FLOPs of the matrix products that ``work`` executes, forward and backward, by torch's counter."""
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        work()
    return float(counter.get_total_flops())
