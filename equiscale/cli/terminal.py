"""What a command prints while it works, the file it writes beside, and how it is stopped."""

import os
import signal
import sys
from pathlib import Path
from typing import Any


def say(text: str) -> None:
    """A line that stays."""
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    print(text, flush=True)


_last_live = [0.0]


def live(text: str) -> None:
    """A line that is overwritten on a terminal, and appears every half minute in a log."""
    import time

    if sys.stdout.isatty():
        width = os.get_terminal_size().columns - 1
        print(f"\r\033[K{text[:width]}", end="", flush=True)
    elif text and time.monotonic() - _last_live[0] > 30:
        _last_live[0] = time.monotonic()
        print(f"  … {text}", flush=True)


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """What was printed, as JSON, where ``--json`` named a file."""
    if path is not None:
        import json

        from equiscale.files import write_atomically

        write_atomically(path, json.dumps(figures, indent=1).encode())


class Terminated(KeyboardInterrupt):
    """A scheduler or a shutdown asked for the end; who started this may start it again."""


def terminate_like_interrupt() -> None:
    """SIGTERM and SIGUSR1 (a scheduler's, a shutdown's) end a run as Ctrl-C does: children save first."""

    def stop(*_: object) -> None:
        raise Terminated

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, stop)
