"""A few steps of a study's rungs on the target device: memory, hours, what does not fit and which batch would.

machine   the memory there is                  budget    memory as a function of the batch
figures   what is kept in probe.json           process   a function in a process of its own
measure   one rung, in that process (torch)    study     all of a study
forecast  from figures to hours and advice
"""

from __future__ import annotations

from equiscale.probe.machine import GIB, available_memory

__all__ = ["GIB", "available_memory"]
