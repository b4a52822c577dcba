"""The built-in set: real small molecules with GFN2-xTB labels, made by ``equiscale data make`` and shipped
packed.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from equiscale.data.store import Store
from equiscale.errors import InputError, need

FILE = Path(__file__).with_name("builtin.h5")
CARD = Path(__file__).parent / "cards" / "builtin.toml"


def card() -> dict[str, Any]:
    """What the shipped set is: units, method, counts, licences, hashes, how to rebuild."""
    return tomllib.loads(CARD.read_text())


def builtin() -> Store:
    """The shipped set, after its file's hash was compared with the card's."""
    written = card()
    try:
        found = hashlib.sha256(FILE.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"the built-in set is not where it was installed ({FILE}): install equiscale again."
        ) from error
    if found != written["sha256"]:
        raise InputError(f"{FILE} is not the file its card describes (SHA-256 differs): install equiscale again.")
    store = unpack(FILE)
    # The bytes are the card's, so the arrays are too: spare every run the hash of 50 MB.
    store.__dict__["content_hash"] = written["content_hash"]
    return store


def unpack(path: Path) -> Store:
    """A file written by ``equiscale.data.label.make``: positions in float64, exactly the grid that was
    labelled.
    """
    try:
        import h5py
    except ImportError as error:
        raise need("train", error) from error
    try:
        with h5py.File(path) as file:
            data = {name: file[name][:] for name in file}
            grid = float(file.attrs["grid"])
    except (OSError, KeyError) as error:
        raise InputError(f"{path} is not a set made by `equiscale data make`: {error}.") from error
    molecule = data["molecule"].astype(np.int64)
    sizes = data["atoms"].astype(np.int64)  # per molecule
    offsets = np.concatenate([[0], np.cumsum(sizes[molecule])])
    # Numbers are stored once per molecule: rows of each structure's molecule, repeated for each of its
    # structures.
    starts = np.cumsum(sizes) - sizes
    rows = np.repeat(starts[molecule] - offsets[:-1], sizes[molecule]) + np.arange(offsets[-1])
    count = len(molecule)
    return Store(
        offsets,
        data["numbers"][rows].astype(np.int16),
        data["positions"] * grid,
        data["energy"].astype(np.float64),
        (data["forces"] * grid).astype(np.float32),
        molecule.astype(np.int32),
        data["part"].astype(np.int8),
        np.zeros(count, np.int16),
        np.ones(count, np.int16),
        None,
        tuple(name.decode() for name in data["smiles"]),
    )


def trajectories(path: Path = FILE) -> np.ndarray:
    """Per structure, which of its molecule's trajectories it is from."""
    import h5py

    with h5py.File(path) as file:
        return file["trajectory"][:]
