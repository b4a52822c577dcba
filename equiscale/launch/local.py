"""Local processes, one thread each, that never outlive their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from equiscale.errors import Stopped
from equiscale.launch.events import REQUEUE, Deaths, Event, Waiting, Work, failure

PATIENCE = 20.0
"""Seconds for all processes together to save and end when the launcher ends."""


@dataclass(frozen=True)
class Local:
    """The default launcher: processes of this machine."""

    workers: int

    def __call__(self, work: Work, items: Sequence[Any]) -> Iterator[Event]:
        return local_processes(work, items, self.workers)


class _Worker:
    def __init__(self, work: Work):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # The work goes as bytes: unpickling it imports torch, and the child must watch its parent before that.
        self.process = context.Process(target=_serve, args=(theirs, pickle.dumps(work), os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.item: Any = None

    def give(self, item: Any) -> None:
        """Send ``item``, or None to end; of a process that is dead already the next ``recv`` tells."""
        self.item = item
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(item)

    def end(self, patience: float) -> None:
        self.process.join(patience)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


def local_processes(work: Work, items: Sequence[Any], workers: int) -> Iterator[Event]:
    """Call ``work`` on every item in ``workers`` processes, in order; yields events as they come.

    A process that dies (killed, out of memory) is replaced and its item started again, as long as ``Deaths`` allows. An
    item whose function raises has failed, and the others go on; Ctrl-C lets every process save first.
    """
    waiting = Waiting.of(items)
    deaths = Deaths()
    crew: list[_Worker] = []
    # Children inherit the environment: the maths libraries read it when they are loaded.
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update({name: "1" for name in threads})
    clean = False
    try:
        while waiting or any(w.item is not None for w in crew):
            crew = [w for w in crew if w.item is not None or waiting]
            for worker in crew:
                if worker.item is None and waiting:
                    worker.give(waiting.pop(0))
                    yield Event("started", worker.item)
            while waiting and len(crew) < workers:
                worker = _Worker(work)
                crew.append(worker)
                worker.give(waiting.pop(0))
                yield Event("started", worker.item)
            for pipe in wait([w.pipe for w in crew], timeout=1.0):
                worker = next(w for w in crew if w.pipe is pipe)
                try:
                    kind, value = worker.pipe.recv()
                except (EOFError, OSError):  # it ended: between two messages, or within one
                    worker.end(1.0)
                    crew.remove(worker)
                    item, code = worker.item, worker.process.exitcode
                    if item is None:  # it had nothing to do
                        continue
                    if deaths.count(item, innocent=code == REQUEUE):  # a signal asked it to stop, and it saved
                        waiting.insert(0, item)
                        yield Event("died", item, f"exit code {code}")
                    else:
                        yield Event("failed", item, deaths.gave_up(item, f"exit code {code}"))
                    continue
                item = worker.item
                if kind == "progress":
                    deaths.told(item, value)
                else:
                    worker.item = None
                yield Event(kind, item, value)
        clean = True
    finally:
        for name, value in threads.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        for worker in crew:
            if worker.process.is_alive():
                if clean:
                    worker.give(None)
                else:
                    worker.process.terminate()  # asks it to save: see _serve
        deadline = time.monotonic() + PATIENCE
        for worker in crew:
            worker.end(max(0.0, deadline - time.monotonic()))


def _serve(pipe: Connection, pickled: bytes, parent: int) -> None:
    """A worker's life: items in, events out, until told to end, or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGUSR1):  # schedulers warn with either
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    work: Work = pickle.loads(pickled)  # our own parent's

    def tell(value: Any) -> None:
        if stop.is_set():
            raise Stopped
        pipe.send(("progress", value))

    while not stop.is_set():
        try:
            if not pipe.poll(0.5):
                continue
            item = pipe.recv()
        except (EOFError, OSError):
            return
        if item is None:
            return
        try:
            pipe.send(("done", work(item, tell)))
        except Stopped:
            break
        except Exception as error:
            pipe.send(("failed", failure(error)))
    sys.exit(REQUEUE)


def _watch(parent: int) -> None:
    """End at once when the parent was killed: a worker nobody listens to must not go on writing."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
