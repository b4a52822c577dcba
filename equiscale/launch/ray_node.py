"""What a process of a Ray node does with an item, and the actor through which it is heard and stopped."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from platform import node as host
from typing import Any

import ray

from equiscale.errors import InputError, Stopped
from equiscale.launch.events import Work, failure
from equiscale.launch.ray_files import Sent, places

EVERY = 0.5
"""Seconds between what an item tells: a step may take a millisecond."""

PATIENCE = 5.0
"""Seconds within which a file made elsewhere shows on a shared file system."""

_made: dict[bytes, Work] = {}  # the function, made once per process and called for many items


class Post:
    """An actor beside the launcher: what items tell waits here, and they hear here that they are to stop.

    What is told stays pickled, so that this process imports nothing of the function's.
    """

    def __init__(self) -> None:
        self.told: list[tuple[int, str, bytes]] = []
        self.ended = False

    def tell(self, attempt: int, kind: str, value: bytes) -> bool:
        """Returns whether the item is to stop."""
        self.told.append((attempt, kind, value))
        return self.ended

    def news(self) -> list[tuple[int, str, bytes]]:
        told, self.told = self.told, []
        return told

    def end(self) -> None:
        self.ended = True


def attempt(number: int, pickled: bytes, item: bytes, post: Any, mark: str, sent: list[Sent]) -> tuple[str, Any]:
    """One attempt at an item. ``mark``: a file that shows that this node sees the launcher's folder.

    Returns "done" or "failed" with a pickled value; "lacks" with paths of data that are to be sent; "unfit" with why
    this machine cannot do it, though another one may; "stopped".
    """
    tell = _Tell(number, post)
    try:
        tell.first()
        if unfit := _unfit(Path(mark)):
            return "unfit", unfit
        if pickled not in _made:
            _made[pickled] = pickle.loads(pickled)  # our own launcher's
        work, thing = _made[pickled], pickle.loads(item)
        here = {one.path for one in sent}
        if lacks := [p for p in _needs(work, thing) if p not in here and not Path(p).exists()]:
            return "lacks", lacks
        try:
            if sent:
                work.places.update(places(sent))  # type: ignore[attr-defined]
            if refuse := getattr(work, "refuse_machine", None):
                refuse(thing)
        except InputError as error:
            return "unfit", f"{host()}: {error}"
        return "done", pickle.dumps(work(thing, tell))
    except (Stopped, KeyboardInterrupt):
        return "stopped", None
    except Exception as error:
        return "failed", pickle.dumps(failure(error))


def _needs(work: Work, item: Any) -> list[str]:
    needs = getattr(work, "needs", None)
    return needs(item) if needs else []


def _unfit(mark: Path) -> str:
    end = time.monotonic() + PATIENCE
    while not mark.exists():
        if time.monotonic() > end:
            return f"{host()} does not see {mark.parent}: results must lie on a file system that all nodes share."
        time.sleep(0.1)
    return ""


class _Tell:
    """``tell`` of an item. The answer to what was told is looked at when the next is: nothing waits."""

    def __init__(self, number: int, post: Any):
        self.number, self.post = number, post
        self._last = 0.0
        self._answer: Any = None

    def first(self) -> None:
        """Tell that it begins, and where."""
        self._answer = self._send("started", pickle.dumps(ray.get_runtime_context().get_node_id()))

    def __call__(self, value: Any) -> None:
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        self._last = now
        if self._answer is not None:
            if not ray.wait([self._answer], timeout=0)[0]:
                return
            if self._stop(self._answer):
                raise Stopped
        self._answer = self._send("progress", pickle.dumps(value))

    def _stop(self, answer: Any) -> bool:
        try:
            return bool(ray.get(answer))
        except ray.exceptions.RayActorError:
            # Not heard this time: the actor is begun again. Where the launcher is gone, Ray ends this process.
            return False

    def _send(self, kind: str, value: bytes) -> Any:
        return self.post.tell.remote(self.number, kind, value)
