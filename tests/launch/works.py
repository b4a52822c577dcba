"""Functions that launchers call in the tests; a module of its own, since processes import it by name."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from equiscale.errors import InputError


def echo(item, tell):
    return item


def awkward(item, tell):
    """What an item says happens to it."""
    if item == "input":
        raise InputError("this is wrong: do that.")
    if item == "disk":
        raise OSError(28, "No space left on device", "some/file")
    if item == "bug":
        return [][int(item == "bug")]
    if item == "death":
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def once(item, tell):
    """Dies at the first call for an item (a path), succeeds at the second."""
    path = Path(item)
    if not path.exists():
        path.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return "second"


@dataclass(frozen=True)
class Step:
    """What a run tells, as far as launchers look at it."""

    step: int


def creeps(item, tell):
    """Is killed at every step and goes on from there; done after ten."""
    path = Path(item)
    step = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(step))
    tell(Step(step))
    if step < 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return step


def ends_later(item, tell):
    """Notes its process; that of an item named "b" ends by itself once its result is sent."""
    path = Path(item)
    path.write_text(str(os.getpid()))
    if path.name == "b":
        threading.Timer(0.2, os._exit, (0,)).start()
    return path.name


def dies_while_it_tells(item, tell):
    """At the first call for an item (a path) it is killed in the middle of a large message."""
    path = Path(item)
    if not path.exists():
        path.write_text(str(os.getpid()))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        tell(bytes(50_000_000))
    return "second"


def long(item, tell):
    """Tells how often it was called, until it is stopped; notes beside the item that it ended in order."""
    path = Path(item)
    path.write_text(str(os.getpid()))
    try:
        for step in range(2000):
            time.sleep(0.02)
            tell(step)
    finally:
        path.with_suffix(".saved").write_text(str(step))


def b_waits_for_c(item, tell):
    path = Path(item)
    path.with_suffix(".began").write_text("")
    end = time.monotonic() + 30
    while path.name == "b" and not path.with_name("c.began").exists() and time.monotonic() < end:
        time.sleep(0.05)
    return item


def claimed(item, tell):
    """Trains as a rung is trained: a claim, a record, and a note of who began it."""
    from equiscale.claim import Busy, take

    path = Path(item)
    claim = take(path.with_suffix(".claim"))
    if isinstance(claim, Busy):
        return claim
    with claim:
        if not path.exists():
            with path.with_suffix(".began").open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.2)
            claim.confirm()
            path.write_text("")
        claim.done()
    return item
