"""Who works on something, where processes of many machines share a folder: one holder at a time, no clocks compared.

A claim is a chain of files, `NAME`, `NAME.2`, `NAME.3`, …: the last one is the claim, and a holder's file is given up
by a mark behind its end, never removed or renamed. So a takeover creates the next file, which the file system lets one
of many do; taking a file away instead could take away the winner's fresh one. A holder counts up in its file every few
seconds. Whoever sees a file unchanged for ``EXPIRY`` seconds **of its own monotonic clock** marks it; no time that
another machine wrote, nor a file's, is read. A holder that was stopped for long finds the mark before it writes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from equiscale.errors import InputError, Stopped
from equiscale.files import gone

BEAT, EXPIRY = 5.0, 60.0
"""Seconds between two counts of a holder, and without one until it is held for dead."""

SIZE = 512
"""Bytes of a claim; what lies behind them is the mark that it was given up."""


class Lost(Stopped):
    """The claim was taken over while its holder was not heard of: nothing more may be written."""


@dataclass(frozen=True)
class Busy:
    """Somebody else holds the claim."""

    holder: str


@dataclass(frozen=True)
class Owner:
    """A process, for people and for a look at whether it lives."""

    host: str
    pid: int
    machine: str  # boot and process namespace: only there does the pid mean anything
    started: str  # ticks since boot: a pid is given out again

    @staticmethod
    def me() -> Owner:
        return Owner(socket.gethostname(), os.getpid(), _machine(), _started(os.getpid()))

    @staticmethod
    def of(content: bytes) -> Owner | None:
        """None for a claim that is damaged."""
        try:
            about = json.loads(content[:SIZE])
            return Owner(about["host"], about["pid"], about["machine"], about["started"])
        except (ValueError, KeyError, TypeError):
            return None

    def gone(self) -> bool:
        """True if it is known to have ended: of a process of another machine nothing is known."""
        return bool(self.machine) and self.machine == _machine() and _started(self.pid) != self.started


def take(path: Path, beat: float = BEAT) -> Claim | Busy:
    """The claim ``path``, or who has it. At once: a dead holder of another machine is a ``Watch``'s to notice."""
    number, content = _latest(path)
    if number and not _given_up(content):
        owner = Owner.of(content)
        if owner is None or not owner.gone():
            return Busy(_named(owner))
        _give_up(_file(path, number))
    claim = Claim(path, number + 1, beat)
    return claim if _create(claim.file, claim.content()) else Busy(_named(Owner.of(_latest(path)[1])))


def settle(
    path: Path,
    beat: float = BEAT,
    expiry: float = EXPIRY,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Claim | Busy:
    """``take``; where the holder is of another machine, after looking whether it lives.

    It does if it counts, which shows within a few seconds; else the claim is free after ``expiry``. For a process that
    has nothing better to do: what it was given is its own, or was until a machine was lost.
    """
    watch = Watch(path, expiry, clock)
    claim, seen = take(path, beat), _latest(path)
    owner = Owner.of(seen[1])
    if not isinstance(claim, Busy) or (owner is not None and owner.machine == _machine()):
        return claim
    while not watch.free():
        sleep(0.5)
        if _latest(path) != seen and not _given_up(_latest(path)[1]):
            return claim
    return take(path, beat)


class Claim:
    """A claim that is held. As a context it counts in a thread, and gives the claim up at the end."""

    def __init__(self, path: Path, number: int, beat: float):
        self.path, self.number, self.beat = path, number, beat
        self.file = _file(path, number)
        self.token = uuid.uuid4().hex
        self.count = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def content(self) -> bytes:
        about = {**asdict(Owner.me()), "token": self.token, "count": self.count}
        return json.dumps(about).encode().ljust(SIZE - 1)[: SIZE - 1] + b"\n"

    def confirm(self) -> None:
        """To be called before anything is written. Raises Lost if another may hold the claim by now."""
        content = _read(self.file)
        if content is None and not self.path.parent.is_dir():
            raise gone(self.path.parent)
        if content is None or _given_up(content) or self.token.encode() not in content:
            raise Lost

    def done(self) -> None:
        """Remove what there is of the claim: to be called once its work can be seen to be done without it."""
        self._stop()
        for number in range(self.number, 0, -1):
            with contextlib.suppress(OSError):
                _file(self.path, number).unlink()

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        with contextlib.suppress(OSError, InputError):
            # After ``done``, or a loss, the name can be another holder's by now.
            if self.token.encode() in (_read(self.file) or b""):
                _give_up(self.file)

    def _stop(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _count(self) -> None:
        while not self._end.wait(self.beat):
            with contextlib.suppress(OSError):  # a folder that is away for a while: ``confirm`` has the last word
                self._beat()

    def _beat(self) -> None:
        file = os.open(self.file, os.O_RDWR)  # opened anew: over NFS only then is it seen what others wrote
        try:
            content = os.pread(file, SIZE + 1, 0)
            if not _given_up(content) and self.token.encode() in content:
                self.count += 1
                os.pwrite(file, self.content(), 0)
        finally:
            os.close(file)


class Watch:
    """One observer of one claim. ``clock`` is its own; two observers' are never compared."""

    def __init__(self, path: Path, expiry: float = EXPIRY, clock: Callable[[], float] = time.monotonic):
        self.path, self.expiry, self.clock = path, expiry, clock
        self._seen: tuple[int, bytes] | None = None
        self._since = self._looked = 0.0

    def free(self) -> bool:
        """Whether the claim can be tried for; marks one that did not change for ``expiry`` seconds of looking."""
        number, content = _latest(self.path)
        if not number or _given_up(content):
            return True
        owner = Owner.of(content)
        if owner is not None and owner.gone():
            return True
        now = self.clock()
        # An observer that was itself held up (a stalled file server holds up both) begins to wait anew.
        if (number, content) != self._seen or now - self._looked > self.expiry / 2:
            self._seen, self._since = (number, content), now
        self._looked = now
        if now - self._since < self.expiry:
            return False
        _give_up(_file(self.path, number))
        return True

    def holder(self) -> str:
        return _named(Owner.of(_latest(self.path)[1]))


def _named(owner: Owner | None) -> str:
    return "another worker" if owner is None else f"process {owner.pid} on {owner.host}"


def _file(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.name}.{number}")


def _latest(path: Path) -> tuple[int, bytes]:
    """The number and the content of the chain's last file; 0 where there is none."""
    number, content = 0, b""
    while (found := _read(_file(path, number + 1))) is not None:
        number, content = number + 1, found
    return number, content


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # NFS: removed between being found and being read
            return None
        raise InputError(f"{path} cannot be read ({error.strerror}): it should be a small file; remove it.") from None


def _given_up(content: bytes) -> bool:
    return len(content) > SIZE


def _give_up(path: Path) -> None:
    """Mark it. Behind the end: a holder that counts at this moment does not overwrite it."""
    try:
        file = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return
    try:
        os.pwrite(file, b"given up\n", SIZE)
    finally:
        os.close(file)


def _create(path: Path, content: bytes) -> bool:
    """Make the file, whole, if there is none; whether this process made it.

    InputError where its folder is gone: one made anew would be another one than that which comes back.
    """
    if not path.parent.is_dir():
        raise gone(path.parent)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        os.link(partial, path)
        return True
    except FileExistsError:
        return os.stat(partial).st_nlink == 2  # NFS: the link was made, the answer lost, and the question repeated
    except PermissionError:  # a file system without links
        return _create_exclusively(path, content)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOTSUP):
            return _create_exclusively(path, content)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _create_exclusively(path: Path, content: bytes) -> bool:
    """Not whole from the start: what a kill leaves of it is taken over as any claim that does not change."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _machine() -> str:
    """Of this boot and process namespace; empty where the system does not say, and a death shows by expiry alone."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a living process began; empty for one that ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
