"""Files that are whole or not there: after a kill, a power cut, on a full disk, with many writers."""

import os
import uuid
from pathlib import Path

from equiscale.errors import InputError


def gone(folder: Path) -> InputError:
    """What is said of a folder that was there, and is not."""
    return InputError(f"{folder} is gone: bring it back, and the same command goes on.")


def write_atomically(path: Path, content: bytes, within: Path | None = None) -> None:
    """All of ``content`` under ``path``, or nothing: written beside, flushed to the disk, then renamed.

    Folders above it are made; with ``within``, one of them, only those below that: were it made anew while it is away
    for a while, there would be two. Raises InputError where it cannot be written; what was there before stays.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")  # writers of many machines
    try:
        if path.parent != within:
            path.parent.mkdir(parents=within is None, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if within is not None and not within.is_dir():
            raise gone(within) from None
        raise InputError(
            f"{path} cannot be written ({error.strerror}): free some space or choose another folder; "
            "what was finished before is kept."
        ) from None
