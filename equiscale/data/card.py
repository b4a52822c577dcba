"""The card of a made set: what a reader must know of its numbers before using one, as TOML."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from equiscale.data.builtin import unpack
from equiscale.data.store import PARTS
from equiscale.data.structure import SYMBOLS


def card_of(path: Path, minutes: float | None = None, workers: int = 2) -> str:
    """The card of a file written by ``equiscale.data.label.make``; ``minutes`` is what making it took."""
    import h5py

    store = unpack(path)
    with h5py.File(path) as file:
        facts = {key: value.item() if hasattr(value, "item") else value for key, value in file.attrs.items()}
    lines = [
        'name = "builtin"',
        'title = "Small organic molecules in motion, GFN2-xTB"',
        f'method = "{facts["method"]}"',
        f'geometries = "{facts["geometries"]}"',
        'orientation = "one uniform rotation and one shift per structure, before rounding and labelling"',
        f'versions = {{ tblite = "{facts["recipe_tblite"]}", rdkit = "{facts["recipe_rdkit"]}" }}',
        f"seed = {facts['recipe_seed']}",
        "",
        'energy_unit = "eV"  # total energies, float64',
        'forces_unit = "eV/angstrom"  # rounded to 1e-3 (0.29 meV/angstrom rms)',
        'length_unit = "angstrom"  # on a grid of 1e-3, exactly the geometry that was labelled',
        "charge = 0",
        "spin = 1",
        "",
        f"structures = {len(store)}",
        f"molecules = {len(store.group_names)}",
        f"atoms = {int(store.offsets[-1])}",
        f"dropped = {facts['dropped']}  # dynamics diverged, not converged, or a force above 30 eV/angstrom",
        f"elements = [{', '.join(repr(SYMBOLS[z]) for z in store.elements)}]".replace("'", '"'),
        "",
        'molecules_source = "NCI list in RDKit (Data/NCI/first_5K.smi)"',
        'molecules_licence = "BSD-3-Clause"',
        'labels_licence = "CC0-1.0"',
        "",
        "# Conformers and dynamics are not reproducible to the bit across processors: a rebuild is compared",
        "# by its statistics and by labelling again.",
        f'rebuild = "equiscale data make FOLDER --max-atoms {facts["recipe_max_atoms"]}'
        f' --frames {facts["recipe_frames"]}"',
        *([] if minutes is None else [f"rebuild_minutes = {minutes:.1f}  # {workers} processes"]),
        "",
        f"bytes = {path.stat().st_size}",
        f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"',
        f'content_hash = "{store.content_hash}"',
        "",
        "[parts]  # structures; molecules",
    ]
    for name in PARTS:
        chosen = store.where(name)
        count = len(np.unique(store.group[chosen]))
        lines.append(f"{name} = {{ structures = {len(chosen)}, molecules = {count} }}")
    return "\n".join(lines) + "\n"
