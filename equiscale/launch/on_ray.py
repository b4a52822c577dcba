"""Tasks on a Ray cluster: longest first as they are given, retried where a process or a node is lost.

The truth is on disk, so Ray is asked for one thing alone: a process with a share of a device, somewhere. Retries are
counted here; a task that is started again goes on from what its function saved.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import equiscale
from equiscale.errors import InputError
from equiscale.launch.events import Deaths, Event, Failure, Waiting, Work
from equiscale.launch.ray_cluster import connected, line

PATIENCE = 20.0
"""Seconds for running items to save when the launcher is stopped."""

AHEAD = 8
"""Items at most that wait in Ray for a process to be free."""

LOOK, COUNT = 0.5, 5.0
"""Seconds between looks at what was told, and at how large the cluster is."""

NODE = "ray.io/node-id"
"""The label that Ray gives each node."""


@dataclass
class _Attempt:
    item: Any
    number: int
    started: bool = False
    node: str = ""


@dataclass
class OnRay:
    """``address``: `HOST:PORT` of a cluster's head, empty for the one of this machine, or a new one of its own.

    ``workers``: items at the same time; None: as many as the cluster has room for, new nodes included. ``per_gpu``:
    items on each GPU.
    """

    workers_wanted: int | None
    folder: Path  # on a file system that all nodes share
    address: str = ""
    device: str = "cpu"
    per_gpu: int = 1
    _room: tuple[float, int] | None = field(default=None, repr=False)

    @property
    def device_each(self) -> bool:
        """Whether an item has its device to itself."""
        return self.device == "cpu" or self.per_gpu == 1

    @property
    def workers(self) -> int:
        """Items at the same time; begins Ray where the cluster must be asked."""
        return self._slots() if self.workers_wanted is None else self.workers_wanted

    @property
    def given(self) -> int:
        """Items that Ray is given at once: where it has room for no more than it may run, the next ones wait there, so
        that a process need not wait for the launcher between two."""
        slots = self._slots()
        return self.workers if self.workers < slots else slots + min(slots, AHEAD)

    def where(self) -> str:
        """The cluster in words; begins Ray, or joins it."""
        ray = connected(self.address, self.workers_wanted)
        nodes, total = sum(node["Alive"] for node in ray.nodes()), ray.cluster_resources()
        parts = [f"{nodes} node{'s' * (nodes > 1)}", f"{total.get('CPU', 0):g} processors"]
        parts += [f"{total['GPU']:g} GPUs"] if total.get("GPU") else []
        return f"the Ray cluster at {ray.get_runtime_context().gcs_address}: {', '.join(parts)}"

    def __call__(self, work: Work, items: Sequence[Any]) -> Iterator[Event]:
        ray = connected(self.address, self.workers_wanted)
        self._refuse(ray)
        with self._mark() as mark, _post(ray) as post:
            yield from _Map(self, ray, post, mark, work, items).events()

    def _slots(self) -> int:
        """How many items the cluster has room for, asked now and then."""
        if self._room is None or time.monotonic() - self._room[0] > COUNT:
            self._room = time.monotonic(), self._counted()
        return self._room[1]

    def _counted(self) -> int:
        total = connected(self.address, self.workers_wanted).cluster_resources()
        cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
        return max(1, cpus if self.device == "cpu" else min(cpus, gpus * self.per_gpu))

    def able(self, ray: Any) -> set[str]:
        """The living nodes that have what an item needs, busy or not."""
        needs = {"CPU", *([] if self.device == "cpu" else ["GPU"])}
        return {node["NodeID"] for node in ray.nodes() if node["Alive"] and needs <= node["Resources"].keys()}

    def _refuse(self, ray: Any) -> None:
        """InputError where no node will do at the beginning; one that is lost later may come back."""
        if self._room is None and not self.able(ray):
            lacks = "processor that takes tasks" if self.device == "cpu" else "GPU"
            where = f"the Ray cluster at {self.address}" if self.address else "this machine's Ray cluster"
            raise InputError(f"{where} has no {lacks}: start a node that has one, or leave --device away.")

    @contextmanager
    def _mark(self) -> Iterator[str]:
        """A file by which a node shows that it sees the same folder: its name is new each time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        mine = f".{socket.gethostname()}.{os.getpid()}."
        for old in self.folder.glob(f".{socket.gethostname()}.*.ray"):
            if old.name.startswith(mine) or not _lives(old.name.split(".")[-3]):  # of a process that was killed
                old.unlink(missing_ok=True)
        mark = self.folder.absolute() / f"{mine}{uuid.uuid4().hex}.ray"
        mark.write_bytes(b"")
        try:
            yield str(mark)
        finally:
            with suppress(OSError):
                mark.unlink()


class _Map:
    """One call of the launcher."""

    def __init__(self, launcher: OnRay, ray: Any, post: Any, mark: str, work: Work, items: Sequence[Any]):
        from equiscale.launch import ray_entry

        self.launcher, self.ray, self.post, self.mark = launcher, ray, post, mark
        self.work = pickle.dumps(work)
        ray.cloudpickle.register_pickle_by_value(ray_entry)
        self.enter = ray.remote(ray_entry.enter)
        self.waiting = Waiting.of(items)
        self.live: dict[Any, _Attempt] = {}  # by the reference to its outcome
        self.numbers = count()
        self.deaths = Deaths()
        self.unfit: dict[int, set[str]] = {}  # by an item's id: nodes that cannot do it
        self.sent: dict[str, Any] = {}  # by path: data that nodes lacked
        self.asked: Any = None
        self.next_look = 0.0

    def events(self) -> Iterator[Event]:
        try:
            while self.waiting or self.live:
                while self.waiting and len(self.live) < self.launcher.given:
                    self._submit(self.waiting.pop(0))
                refs = [*self.live, *([] if self.asked is None else [self.asked])]
                for ref in self.ray.wait(refs, num_returns=1, timeout=LOOK)[0]:
                    if ref in self.live:
                        yield from self._ended(self.live.pop(ref), ref)
                yield from self._news()
        except self.ray.exceptions.RaySystemError as error:
            raise InputError(f"the Ray cluster is lost ({line(error)}): the same command goes on.") from None
        finally:
            self._stop()

    def _submit(self, item: Any) -> None:
        launcher, bad = self.launcher, self.unfit.get(id(item))
        attempt = _Attempt(item, next(self.numbers))
        task = self.enter.options(
            name=f"equiscale {item}",
            num_cpus=1,
            num_gpus=0 if launcher.device == "cpu" else 1 / launcher.per_gpu,
            max_retries=0,
            label_selector={NODE: f"!in({','.join(sorted(bad))})"} if bad else None,
        )
        sent = list(self.sent.values())
        ref = task.remote(
            equiscale.__version__, attempt.number, self.work, pickle.dumps(item), self.post, self.mark, sent
        )
        self.live[ref] = attempt

    def _ended(self, attempt: _Attempt, ref: Any) -> Iterator[Event]:
        item = attempt.item
        errors = self.ray.exceptions
        try:
            node, kind, value = self.ray.get(ref)
        except errors.RayTaskError as error:  # outside of all that the function does
            kind, node, value = "failed", "", pickle.dumps(Failure(f"{line(error)}.", str(error)))
        except errors.RaySystemError:
            raise
        except errors.RayError as error:
            node, kind, value = "", "died", error
            yield from self._hear(self._told(self.post.news.remote()), attempt)  # where it began, above all
        if kind in ("done", "failed"):
            if not attempt.started:
                yield Event("started", item)
            yield Event(kind, item, pickle.loads(value))  # our own task's
        elif kind == "lacks":
            yield from self._send(item, value)
        elif kind == "unfit":
            yield from self._elsewhere(item, node, value)
        else:
            yield from self._died(attempt, value)

    def _died(self, attempt: _Attempt, error: Exception | None) -> Iterator[Event]:
        item, errors = attempt.item, self.ray.exceptions
        lost = isinstance(error, errors.NodeDiedError) or (attempt.started and attempt.node not in self._nodes())
        how = "its node is lost" if lost else "it was asked to stop" if error is None else _how(error)
        if not self.deaths.count(item, innocent=lost or error is None):
            yield Event("failed", item, self.deaths.gave_up(item, how))
            return
        self.waiting.insert(0, item)
        yield Event("died", item, how)

    def _elsewhere(self, item: Any, node: str, why: str) -> Iterator[Event]:
        """Try an item on nodes other than this one, which cannot do it."""
        bad = self.unfit.setdefault(id(item), set())
        bad.add(node)
        if self.launcher.able(self.ray) <= bad:
            yield Event("failed", item, Failure(why))
        else:
            self.waiting.insert(0, item)
            yield Event("unfit", item, why)

    def _send(self, item: Any, paths: list[str]) -> Iterator[Event]:
        from equiscale.launch.ray_files import LIMIT, send, size

        for path in (Path(p) for p in paths):
            try:
                if (large := size(path)) > LIMIT:
                    why = f"a node lacks {path}, and {large / 1e9:.1f} GB are not sent: put it where all nodes see it."
                    yield Event("failed", item, Failure(why))
                    return
                if str(path) not in self.sent:
                    self.sent[str(path)] = send(path)
            except OSError as error:
                yield Event("failed", item, Failure(f"{path}: {error.strerror}."))
                return
        self.waiting.insert(0, item)

    def _news(self) -> Iterator[Event]:
        """What items told since the last look."""
        if self.asked is None:
            if time.monotonic() > self.next_look:
                self.next_look = time.monotonic() + LOOK
                self.asked = self.post.news.remote()
            return
        if not self.ray.wait([self.asked], timeout=0)[0]:
            return
        told, self.asked = self._told(self.asked), None
        yield from self._hear(told)

    def _told(self, answer: Any) -> list[tuple[int, str, bytes]]:
        try:
            return list(self.ray.get(answer, timeout=PATIENCE))
        except self.ray.exceptions.RayError:  # the actor's node is lost; Ray starts another one
            return []

    def _hear(self, told: list[tuple[int, str, bytes]], *others: _Attempt) -> Iterator[Event]:
        live = {attempt.number: attempt for attempt in (*self.live.values(), *others)}
        for number, kind, value in told:
            if (attempt := live.get(number)) is None:
                continue
            item = attempt.item
            if kind == "started":
                attempt.started, attempt.node = True, pickle.loads(value)
                yield Event("started", item)
            else:
                what = pickle.loads(value)  # our own task's
                self.deaths.told(item, what)
                yield Event("progress", item, what)

    def _nodes(self) -> set[str]:
        return {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}

    def _stop(self) -> None:
        """Let what runs save, and leave nothing of it on the cluster."""
        if not self.live:
            return
        with suppress(self.ray.exceptions.RayError):
            self.post.end.remote()
            for ref, attempt in self.live.items():
                if not attempt.started:
                    self.ray.cancel(ref)
            try:
                left = self.ray.wait(list(self.live), num_returns=len(self.live), timeout=PATIENCE)[1]
            except KeyboardInterrupt:  # a second one
                left = list(self.live)
            for ref in left:
                self.ray.cancel(ref, force=True)


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        pass
    return True


def _how(error: Exception) -> str:
    """What befell a process, in few words."""
    if type(error).__name__ == "OutOfMemoryError":
        return "its node ran out of memory, and Ray ended it"
    if type(error).__name__ == "WorkerCrashedError":
        return "it was killed, or crashed"
    return line(error)


@contextmanager
def _post(ray: Any) -> Iterator[Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from equiscale.launch.ray_node import Post

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    post = ray.remote(Post).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()
    try:
        yield post
    finally:
        with suppress(ray.exceptions.RayError):
            ray.kill(post)
