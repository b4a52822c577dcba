"""A comparison for a person and for a program: a table in words, and plain JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from equiscale.data.packed import Packed
from equiscale.data.store import Store
from equiscale.evaluate.compare import evaluate
from equiscale.evaluate.source import FromFile, read
from equiscale.evaluate.sums import Assessment, ForceErrors
from equiscale.predict import TrainedPotential


def evaluated(
    checkpoint: str | Path,
    data: str,
    *,
    part: str | None = None,
    keys: dict[str, Any] | None = None,
    device: str = "cpu",
    atoms: int = 4096,
    live: Callable[[str], None] = lambda text: None,
    made_of: Callable[[TrainedPotential], Any] | None = None,
) -> tuple[str, dict[str, Any]]:
    """A checkpoint on a data set, as text and as plain JSON. ``part``, ``keys``: of ``read``. ``made_of``: of the
    potential, what is asked instead of it and has a ``name``: its average over rotations.
    """
    trained = TrainedPotential.load(checkpoint, device)
    other = None if made_of is None else made_of(trained)
    structures = read(data, part, **(keys or {}))
    of = f" of {len(structures):,}" if isinstance(structures, Store | Packed) else ""
    tell = lambda n: live(f"evaluated {n:,}{of} structures …")  # noqa: E731
    found = evaluate(trained, structures, atoms=atoms, where=data, tell=tell, predict=other)
    part = part or ("molecules" if isinstance(structures, Store) else "all")
    left = structures.isolated if isinstance(structures, FromFile) else 0
    model = trained.model
    called = f"{model.kind} w={model.width}, {model.forces} forces" if other is None else other.name
    head = f"{called}, on {data} ({part})"
    head += f", {left} isolated atoms left out" if left else ""
    about = {
        "architecture": model.kind,
        "width": model.width,
        "forces": model.forces,
        **({} if other is None else {"model": other.name}),
        "weights": trained.content_hash,
        "sigma_eV": trained.references.sigma,
        "data": data,
        "part": part,
        "isolated_atoms_left_out": left,
    }
    return f"{head}\n{describe(found)}", {**about, **found.to_dict()}


def describe(found: Assessment) -> str:
    """The figures as a person reads them."""
    lines = [f"{found.structures:,} structures, {found.atoms:,} atoms; {found.found}", ""]
    lines.append(f"{'':34s}{'potential':>12s}{'trivial':>12s}")
    rows: list[tuple[str, str, str, str]] = [
        ("energy", "energy_mae_meV_per_atom", "energy, MAE, meV/atom", "9.2f"),
        ("energy", "energy_rmse_meV_per_atom", "energy, RMSE, meV/atom", "9.2f"),
        ("energy", "energy_bias_meV_per_atom", "energy, mean error, meV/atom", "9.2f"),
        ("energy", "energy_mae_meV", "total energy, MAE, meV", "9.1f"),
        ("energy", "energy_rmse_meV", "total energy, RMSE, meV", "9.1f"),
        ("forces", "force_mae_meV_per_angstrom", "force component, MAE, meV/Å", "9.1f"),
        ("forces", "force_rmse_meV_per_angstrom", "force component, RMSE, meV/Å", "9.1f"),
        ("forces", "force_error_norm_meV_per_angstrom", "force error, mean length, meV/Å", "9.1f"),
        ("forces", "force_cosine", "force cosine", "9.4f"),
        ("loss", "loss", "L of eq. 1 (normalised)", "9.4f"),
        ("loss", "energy_loss", "  its energy part", "9.4f"),
        ("loss", "force_loss", "  its force part", "9.4f"),
    ]
    for part, name, text, form in rows:
        ours, theirs = (getattr(getattr(x, part), name, None) for x in (found.potential, found.trivial))
        if ours is not None:
            lines.append(f"{text:34s}{ours:>12{form[1:]}}" + ("" if theirs is None else f"{theirs:>12{form[1:]}}"))
    if found.by_element:
        lines += ["", f"{'element':12s}{'atoms':>12s}{'MAE, meV/Å':>14s}{'RMSE, meV/Å':>14s}{'cosine':>10s}"]
        lines += [f"{name:12s}{_forces(f)}" for name, f in found.by_element.items()]
    lines += [
        "",
        f"{'atoms in it':12s}{'structures':>12s}{'energy MAE, meV/atom':>22s}{'force MAE, meV/Å':>18s}{'L':>10s}",
    ]
    for name, e in found.by_size.items():
        lines.append(
            f"{name:12s}{e.structures:>12,}"
            + (f"{e.energy.energy_mae_meV_per_atom:>22.2f}" if e.energy else f"{'':>22s}")
            + (f"{e.forces.force_mae_meV_per_angstrom:>18.1f}" if e.forces else f"{'':>18s}")
            + (f"{e.loss.loss:>10.4f}" if e.loss else "")
        )
    return "\n".join(line.rstrip() for line in lines + _doubts(found))


def _forces(f: ForceErrors) -> str:
    cosine = "" if f.force_cosine is None else f"{f.force_cosine:>10.4f}"
    return f"{f.atoms:>12,}{f.force_mae_meV_per_angstrom:>14.1f}{f.force_rmse_meV_per_angstrom:>14.1f}{cosine}"


def _doubts(found: Assessment) -> list[str]:
    """Sentences about figures that seldom mean what they seem to."""
    energy = found.potential.energy
    if energy and energy.structures > 1 and abs(energy.energy_bias_meV_per_atom) > 0.9 * energy.energy_mae_meV_per_atom:
        return [
            "",
            f"warning: nearly all of the energy error is one sign ({energy.energy_bias_meV_per_atom:+.1f} meV/atom): "
            "labels of another level of theory, or other reference energies? Forces do not depend on these.",
        ]
    return []
