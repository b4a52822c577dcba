"""Files that are whole or not there: after a kill, a power cut, on a full disk, with many writers."""

import os
import uuid
from pathlib import Path

from equiscale.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """All of ``content`` under ``path``, or nothing: written beside, flushed to the disk, then renamed.

    Raises InputError where it cannot be written; what was there before stays.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")  # writers of many machines
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be written ({error.strerror}): free some space or choose another folder; "
            "what was finished before is kept."
        ) from None
