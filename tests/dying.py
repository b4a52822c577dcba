"""What a probe's process does in the tests of how it ends; a module without torch, for it is imported there."""

from __future__ import annotations

import os
import signal
import threading

from equiscale.errors import InputError
from equiscale.probe.figures import Point, Size

MIB, GIB = 2**20, 2**30


def tells_and_dies(how: str, tell) -> str:
    tell({"points": (Point(8, 1.0, MIB),), "budgets": ((8, 1.0), (4096, 4.0)), "parameters": 7})
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "mistake":
        raise InputError("the data are not there.")
    if how == "within a message":
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        tell({"ended": "x" * 50_000_000})
    if how == "crash":
        raise ZeroDivisionError("one\ntwo")
    return how


def dies(ask, tell) -> None:
    """Of the largest width the process is killed on its largest batch; the smallest is measured."""
    width = ask.specs[0].model.width
    tell({"base": GIB, "sizes": {s.key: Size(9, s.model.width) for s in (*ask.specs, *ask.between)}})
    tell({"step_seconds": 0.01 * width, "budgets": ((8, 1.0), (16, 2.0), (4096, 4.0))})
    tell({"points": (Point(8, 1.0, 100 * MIB), Point(16, 2.0, 150 * MIB))})
    if width == 8 and ask.specs[0].optim.atom_budget > 16:
        os.kill(os.getpid(), signal.SIGKILL)
    tell({"points": (Point(8, 1.0, 100 * MIB), Point(4096, 4.0, 200 * MIB))})
