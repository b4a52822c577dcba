"""What memory this machine has for processes that are not started yet."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes, within the limit of a container or a batch system's job; None where the system does not say."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    if not found:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):
        most = int((CGROUP / "memory.max").read_text())  # "max" is no number: no limit
        found.append(most - int((CGROUP / "memory.current").read_text()))
    return max(0, min(found)) if found else None
