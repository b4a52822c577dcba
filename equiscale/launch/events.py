"""What a launcher is: it maps a function over items and yields events as they come, in any order.

The function is given, so this chapter knows no training. An item is started again when its process dies; the function
resumes by itself.
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from equiscale.errors import InputError

RETRIES = 5
"""How often an item is started again after its process died."""

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
    result), "failed" (a ``Failure``); of ``shared`` also "elsewhere" (``Busy``: another launcher's worker has it).
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

    @property
    def reason(self) -> str:
        """What the system said, or the sentence less what differs from item to item: keys, numbers, process ids."""
        for code in COMMON:
            if os.strerror(code) in self.sentence:
                return os.strerror(code)
        return re.sub(r"\b[0-9a-f]{16}\b|\d+", "…", self.sentence)


def failure(error: Exception) -> Failure:
    """What a launcher says of an exception that its function raised; to be called where it is handled."""
    if isinstance(error, InputError):
        return Failure(str(error))
    if isinstance(error, OSError):  # a disk that is full or gone, wherever it was met
        return Failure(f"{error.filename or 'a file'}: {error.strerror or error}; what was recorded is kept.")
    said = traceback.format_exception_only(error)[-1].strip()
    return Failure(f"{said.rstrip('.')}.", traceback.format_exc())


def died_too_often(item: Any, how: str) -> Failure:
    return Failure(
        f"{item} was started {RETRIES + 1} times and its process died each time ({how}): it may need more memory than "
        "there is."
    )


class Launcher(Protocol):
    """``launcher(work, items)`` begins the items in order, at most ``workers`` at a time."""

    @property
    def workers(self) -> int: ...

    def __call__(self, work: Work, items: Sequence[Any]) -> Iterator[Event]: ...
