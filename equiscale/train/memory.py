"""A run that does not fit into memory: recognised, and told in one sentence."""

from __future__ import annotations

import errno
import gc
import re
from collections.abc import Callable
from typing import TypeVar

import torch

from equiscale.errors import InputError
from equiscale.run import RunSpec

T = TypeVar("T")

WORDS = ("allocate memory", "out of memory", "alloc_failed")
"""What says so of a RuntimeError: a GPU's has a class of its own, torch's on a CPU and its libraries' have not."""


class TooLarge(InputError):
    """The run does not fit into memory."""

    own = True  # of this run: of others nothing follows, so that the launcher goes on with them


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)


def asked_for(error: BaseException) -> str:
    """How much memory the failed allocation wanted, with its unit; empty where the error does not say."""
    found = re.search(r"allocate ([\d.]+) ?([KMGTPE]iB|bytes)", str(error))
    if found is None:
        return ""
    number, unit = found.groups()
    return f"{number} {unit}" if unit != "bytes" else f"{float(number) / 2**30:.3g} GiB"


def within_memory(work: Callable[[], T], spec: RunSpec, device: str) -> T:
    """What ``work``, on the run ``spec``, returns. TooLarge, one sentence, where memory runs out in it."""
    try:
        return work()
    except (MemoryError, RuntimeError, OSError) as error:
        if not out_of_memory(error):
            raise
        asked = asked_for(error)
    # Here the error is gone, and with its frames what they held: the next run of this process finds the memory free.
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    raise TooLarge(
        f"{spec} ran out of memory on {device}{f' ({asked} were asked for at once)' if asked else ''}: give "
        f"its `OptimSpec` an `atom_budget` below {spec.optim.atom_budget} (smaller pieces of a step, another rounding) "
        "or fewer `batch_structures`, or train fewer at once: `equiscale dry-run STUDY --probe` says what fits."
    )
