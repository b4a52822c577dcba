"""A function in a process of its own: its memory is its own, and its death is an answer."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from equiscale.errors import InputError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class End:
    """``kind``: "done" (``value``: the result), "refused" (a user's mistake), "failed" (a traceback), "died" (how)."""

    kind: str
    value: Any
    killed: bool = False  # by SIGKILL: what the system does where memory runs out


def alone(function: Callable[..., Any], argument: Any, told: Callable[[Any], None], threads: int | None = 1) -> End:
    """``function(argument, tell)`` in a fresh process; ``told`` gets what it tells, as it tells it. Never raises for
    what happens there. ``threads`` of the maths libraries (None: as they are)."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    before = {name: os.environ.get(name) for name in THREADS}
    if threads is not None:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))  # read when the libraries are loaded
    try:
        process = context.Process(target=_serve, args=(theirs, function, argument, os.getpid()), daemon=True)
        process.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    theirs.close()
    try:
        while True:
            try:
                kind, value = ours.recv()
            except (EOFError, OSError):  # it ended: between two messages, or within one
                process.join()
                code = process.exitcode or 0
                return End("died", _how(code), code == -signal.SIGKILL)
            if kind != "told":
                return End(kind, value)
            told(value)
    finally:
        process.join(0.0 if process.is_alive() else None)
        if process.is_alive():
            process.join(2.0)
        if process.is_alive():
            process.kill()
            process.join()
        ours.close()


def _how(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, as the system does where memory runs out"
    return f"its process died of signal {-code}" if code < 0 else f"its process ended with exit code {code}"


def _serve(pipe: Connection, function: Callable[..., Any], argument: Any, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    end: tuple[str, Any]
    try:
        end = "done", function(argument, lambda value: pipe.send(("told", value)))
    except InputError as error:
        end = "refused", str(error)
    except BrokenPipeError:
        return
    except Exception as error:
        end = "failed", "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
    with contextlib.suppress(BrokenPipeError):
        pipe.send(end)


def _watch(parent: int) -> None:
    """End when the parent was killed: nobody listens."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
