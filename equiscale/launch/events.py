"""What a launcher is: it maps a function over items and yields events as they come, in any order.

The function is given, so this chapter knows no training. An item is started again when its process dies; the function
resumes by itself.
"""

from __future__ import annotations

import errno
import math
import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from equiscale.errors import InputError

RETRIES = 5
"""How often in a row an item is started again after its process died and it had not got further since the last time."""

LOSSES = 100
"""Likewise where its process was taken from it: a node that was lost, a job that was pre-empted or asked to stop."""

REQUEUE = 75
"""Exit code of a process that was asked to stop and saved: start it again (EX_TEMPFAIL of sysexits.h)."""

Work = Callable[[Any, Callable[[Any], None]], Any]
"""(item, tell) -> result. Must be picklable; is made once per process and called for many items.

``tell`` raises Stopped when the launcher was asked to stop.
"""


@dataclass(frozen=True)
class Event:
    """What happened to an item; each ends with one "done" or one "failed".

    ``kind``: "started", "progress" (``value``: what the function told), "died" (why; it is started again), "done" (its
    result), "failed" (a ``Failure``). Of a cluster also "unfit" (a sentence: a node cannot do it, others are tried); of
    ``shared`` also "elsewhere" (``Busy``: another launcher's worker has it).
    """

    kind: str
    item: Any
    value: Any = None


COMMON = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOENT, errno.EACCES)
"""Errors of a disk or a folder, whichever file they were met at."""


@dataclass(frozen=True)
class Failure:
    """Why an item was given up: one sentence, and the traceback where the error is not the user's."""

    sentence: str
    traceback: str = ""
    own: bool = False  # of this item: another's, however alike, has another reason

    @property
    def reason(self) -> str:
        """What befalls items alike: what the system said, or the sentence less keys, numbers, process ids."""
        if self.own:
            return self.sentence
        for code in COMMON:
            if os.strerror(code) in self.sentence:
                return os.strerror(code)
        return re.sub(r"\b[0-9a-f]{16}\b|\d+", "…", self.sentence)


def failure(error: Exception) -> Failure:
    """What a launcher says of an exception that its function raised; to be called where it is handled.

    An InputError whose attribute ``own`` is true is of its item alone.
    """
    if isinstance(error, InputError):
        return Failure(str(error), own=getattr(error, "own", False))
    if isinstance(error, OSError):  # a disk that is full or gone, wherever it was met
        return Failure(f"{error.filename or 'a file'}: {error.strerror or error}; what was recorded is kept.")
    said = traceback.format_exception_only(error)[-1].strip()
    return Failure(f"{said.rstrip('.')}.", traceback.format_exc())


def step_of(value: Any) -> float | None:
    """How far an item is that told this: the value's ``step``; None where it has none."""
    step = getattr(value, "step", None)
    return float(step) if isinstance(step, (int, float)) else None


@dataclass
class _Count:
    item: Any  # kept, so that its id stays its own
    reached: float = -math.inf  # the furthest that it told
    before: float = -math.inf  # likewise at its last death
    deaths: int = 0
    losses: int = 0


class Deaths:
    """How often the items of a launcher died, and whether one may be started again.

    An item that gets further between its deaths is never given up: a long run on machines that come and go meets many.
    ``further``: how far an item is that told a value (None: it does not say). Further than at every earlier death is
    what counts, as an item goes on from what it saved, or begins anew.
    """

    def __init__(self, further: Callable[[Any], float | None] = step_of):
        self.further = further
        self._counts: dict[int, _Count] = {}

    def told(self, item: Any, value: Any) -> None:
        """To be called with every progress of an item."""
        reached = self.further(value)
        if reached is not None:
            count = self._of(item)
            count.reached = max(count.reached, reached)

    def count(self, item: Any, innocent: bool = False) -> bool:
        """Count a death of the item, and say whether it is to be started again. ``innocent``: its process was taken."""
        count = self._of(item)
        if count.reached > count.before:
            count.before, count.deaths, count.losses = count.reached, 0, 0
        if innocent:
            count.losses += 1
        else:
            count.deaths += 1
        return count.deaths <= RETRIES and count.losses <= LOSSES

    def gave_up(self, item: Any, how: str) -> Failure:
        """Why the item is not started again; ``how`` its process died the last time."""
        count = self._of(item)
        if count.deaths > RETRIES:
            return Failure(
                f"{item}: its process died {count.deaths} times and it got no further in between ({how}): it may need "
                "more memory than there is."
            )
        return Failure(
            f"{item}: its process was taken {count.losses} times and it got no further in between ({how}): it needs a "
            "machine that stays longer, or to save more often."
        )

    def _of(self, item: Any) -> _Count:
        return self._counts.setdefault(id(item), _Count(item))


class Waiting(list[Any]):
    """Items that a launcher takes from the front as it begins them. While events are yielded it may grow, and be put
    into another order."""

    @classmethod
    def of(cls, items: Sequence[Any]) -> Waiting:
        """The items themselves if they are one, else a copy: other sequences stay as they are."""
        return items if isinstance(items, Waiting) else cls(items)


class Launcher(Protocol):
    """``launcher(work, items)`` begins the items in order, at most ``workers`` at a time; see ``Waiting``."""

    @property
    def workers(self) -> int: ...

    def __call__(self, work: Work, items: Sequence[Any]) -> Iterator[Event]: ...
