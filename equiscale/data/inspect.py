"""What is in a set, as a table to read before training on it: printed by ``equiscale data inspect``."""

from __future__ import annotations

import numpy as np

from equiscale.data.checks import duplicates, suspicious
from equiscale.data.orientation import aligned, axes, orientation
from equiscale.data.references import References, fit_references
from equiscale.data.store import PARTS, Store
from equiscale.data.structure import SYMBOLS
from equiscale.errors import InputError


def inspect(store: Store, name: str = "set") -> str:
    """Counts, elements, sizes, energies, forces, orientation, duplicates, and warnings; finite for any
    set.
    """
    if len(store) == 0:
        raise InputError(f"{name} is empty: there are no structures.")
    warnings: list[str] = []
    lines = [
        f"{name}: {len(store):,} structures, {len(np.unique(store.group)):,} molecules, "
        f"{int(store.offsets[-1]):,} atoms; content {store.content_hash[:16]}",
        "",
        *_parts(store, warnings),
        "",
        *_elements(store),
        "",
        *_energies(store, warnings),
        *_forces(store),
        "",
        *_orientation(store, warnings),
    ]
    twice = duplicates(store)
    lines.append(f"{'duplicates':14s}{len(twice)} pairs of structures equal up to a motion or a mirror")
    if len(twice):
        a, b = twice[0]
        warnings.append(f"structures {a} and {b} are the same geometry ({len(twice)} such pairs)")
        crossing = (store.part[twice[:, 0]] == 0) != (store.part[twice[:, 1]] == 0)
        if crossing.any():
            warnings.append(f"{crossing.sum()} of these pairs have one structure in training and one outside")
    warnings += suspicious(store)
    lines.append("")
    lines += [f"warning: {text}." for text in warnings] or ["no warnings."]
    return "\n".join(lines)


def _parts(store: Store, warnings: list[str]) -> list[str]:
    lines = [
        f"{'part':14s}{'structures':>12s}{'molecules':>12s}{'atoms':>12s}{'atoms: least':>14s}{'mean':>8s}{'most':>6s}"
    ]
    for part in PARTS:
        chosen = store.where(part)
        if len(chosen) == 0:
            lines.append(f"{part:14s}{0:>12d}")
            continue
        n = store.sizes[chosen]
        molecules = len(np.unique(store.group[chosen]))
        lines.append(
            f"{part:14s}{len(chosen):>12,d}{molecules:>12,d}{n.sum():>12,d}{n.min():>14d}{n.mean():>8.1f}{n.max():>6d}"
        )
    train = set(store.group[store.where("train")].tolist())
    for part in ("molecules", "test"):
        leaked = train & set(store.group[store.where(part)].tolist())
        if leaked:
            warnings.append(f"{len(leaked)} molecules of part {part!r} are also in training")
    strange = set(store.group[store.where("conformers")].tolist()) - train
    if strange:
        warnings.append(f"{len(strange)} molecules of part 'conformers' are not in training")
    charges, spins = (np.unique(values, return_counts=True) for values in (store.charge, store.spin))
    for label, (values, counts) in (("charge", charges), ("multiplicity", spins)):
        lines.append(f"{label:14s}" + ", ".join(f"{v}: {c:,}" for v, c in zip(values, counts)))
    if store.cell is not None:
        lines.append(f"{'cells':14s}{int(store.cell.any(axis=(1, 2)).sum()):,} periodic structures")
    return lines


def _symbol(z: int) -> str:
    return SYMBOLS[z] if 0 <= z < len(SYMBOLS) else str(z)


def _elements(store: Store) -> list[str]:
    owner = np.repeat(np.arange(len(store)), store.sizes)
    lines = [f"{'element':14s}{'atoms':>12s}{'structures':>12s}{'molecules':>12s}"]
    for z in store.elements:
        there = np.unique(owner[store.numbers == z])
        molecules = len(np.unique(store.group[there]))
        atoms = int((store.numbers == z).sum())
        lines.append(f"{_symbol(z):14s}{atoms:>12,d}{len(there):>12,d}{molecules:>12,d}")
    return lines


def _energies(store: Store, warnings: list[str]) -> list[str]:
    per_atom = store.energy / store.sizes
    lines = [f"{'energy':14s}{per_atom.min():.3f} to {per_atom.max():.3f} eV/atom, mean {per_atom.mean():.3f}"]
    try:
        references = fit_references(store)
    except InputError as error:
        warnings.append(str(error).rstrip("."))
        return lines
    table = ", ".join(f"{SYMBOLS[z]} {e:.3f}" for z, e in references.energies.items())
    lines += [
        f"{'references':14s}least squares on the training part, eV: {table}",
        f"{'':14s}μ {references.mu:.4f} eV, σ {references.sigma:.4f} eV",
    ]
    if references.note:
        warnings.append(references.note)
    lines += [text for part in PARTS if (text := _trivial(store, part, references, warnings))]
    return lines


def _trivial(store: Store, part: str, references: References, warnings: list[str]) -> str:
    chosen = store.take(store.where(part))
    if len(chosen) == 0:
        return ""
    try:
        residual = chosen.energy - references.baseline(chosen)
        loss = references.trivial(chosen)
    except InputError as error:
        warnings.append(f"part {part!r}: {str(error).rstrip('.')}")
        return ""
    if loss["warning"]:
        warnings.append(f"part {part!r}: {loss['warning']}")
    per_atom = 1e3 * np.mean(np.abs(residual) / chosen.sizes)
    return (
        f"{'trivial loss':14s}{part:12s}{loss['loss']:8.4f} = energy {loss['energy_loss']:.4f} + "
        f"force {loss['force_loss']:.4f}; references leave {residual.std():.3f} eV per structure, "
        f"{per_atom:.1f} meV/atom"
    )


def _forces(store: Store) -> list[str]:
    forces = store.forces.astype(np.float64)
    length = np.linalg.norm(forces, axis=1)
    return [
        f"{'forces':14s}rms of a component {np.sqrt(np.mean(forces**2)):.3f} eV/Å; of an atom's force mean "
        f"{length.mean():.3f}, median {np.median(length):.3f}, largest {length.max():.2f}"
    ]


def _orientation(store: Store, warnings: list[str]) -> list[str]:
    count = len(axes(store))
    if count == 0:
        return [f"{'orientation':14s}not measured: no structure without a cell and of two atoms or more"]
    matrix = orientation(store)
    off = matrix[np.triu_indices(3, 1)]
    if warning := aligned(store):
        warnings.append(warning)
    return [
        f"{'orientation':14s}E[uuᵀ] of the long axes ({count:,} structures): diagonal "
        + ", ".join(f"{value:.3f}" for value in np.diag(matrix))
        + "; beside it "
        + ", ".join(f"{value:+.3f}" for value in off)
        + " (uniform: .333 and 0)"
    ]
