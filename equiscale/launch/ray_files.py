"""Data that a node does not see: sent through Ray's object store, and written there once per node."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from platform import node as host
from typing import Any

import ray

from equiscale.errors import InputError

LIMIT = 4 << 30
"""Bytes of a source up to which it is sent: the launcher's machine and each node hold them in memory for a moment."""


@dataclass(frozen=True)
class Sent:
    """A file or a folder of files, in the object store."""

    path: str  # on the launcher's machine
    digest: str  # of names and contents
    files: tuple[tuple[str, Any], ...]  # name below ``path`` (empty: itself), reference to its bytes


def size(path: Path) -> int:
    """Bytes of a file or of all files of a folder."""
    return sum(file.stat().st_size for _, file in _files(path))


def send(path: Path) -> Sent:
    """Put a source into the object store."""
    digest, files = hashlib.sha256(), []
    for name, file in _files(path):
        content = file.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + hashlib.sha256(content).digest())
        files.append((name, ray.put(content)))
    return Sent(str(path), digest.hexdigest()[:32], tuple(files))


def places(sent: list[Sent]) -> dict[str, str]:
    """Where on this node each source is that its own path does not lead to; written if it is not there yet."""
    return {one.path: str(_written(one)) for one in sent if not Path(one.path).exists()}


def _written(one: Sent) -> Path:
    folder = Path(tempfile.gettempdir()) / f"equiscale-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():  # anybody may make it first, and would then say what is trained on
        raise InputError(f"{folder} on {host()} is another user's: remove it, or set TMPDIR there.")
    place = folder / one.digest / Path(one.path).name
    with (folder / f"{one.digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the node's other processes wait for the one that writes
        if not place.exists():
            partial = folder / f"{one.digest}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            for name, reference in one.files:
                file = partial / place.name / name if name else partial / place.name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(ray.get(reference))
            partial.rename(folder / one.digest)
    return place


def _files(path: Path) -> list[tuple[str, Path]]:
    if path.is_dir():
        return [(str(file.relative_to(path)), file) for file in sorted(path.rglob("*")) if file.is_file()]
    return [("", path)]
