"""What a launcher is: it maps a function over items and yields events as they come, in any order.

The function is given, so this chapter knows no training. An item is started again when its process dies; the function
resumes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

RETRIES = 5
"""How often an item is started again after its process died."""

Work = Callable[[Any, Callable[[Any], None]], Any]
"""(item, tell) -> result. Must be picklable; is made once per process and called for many items."""


class Stopped(Exception):
    """Raised inside the function by ``tell`` when the launcher was asked to stop; whatever was saved is kept."""


@dataclass(frozen=True)
class Event:
    """``kind``: "started", "progress" (``value``: what the function told), "done" (its result), "died" (why)."""

    kind: str
    item: Any
    value: Any = None


class Launcher(Protocol):
    """``launcher(work, items)`` begins the items in order, at most ``workers`` at a time."""

    @property
    def workers(self) -> int: ...

    def __call__(self, work: Work, items: Sequence[Any]) -> Iterator[Event]: ...
