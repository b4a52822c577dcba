"""Compute: of the published formulation (a formula per architecture) and of what was executed (counted)."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode


def counted(work: Callable[[], object]) -> float:
    """FLOPs of the matrix products that ``work`` executes, forward and backward, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
