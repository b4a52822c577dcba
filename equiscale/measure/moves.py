"""The elements that structures are moved by, and whether a loss knows of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from equiscale.errors import InputError
from equiscale.symmetry.designs import Draws, Sampler
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.groups import O3, SO3, Group, Permutations, Product, Translations
from equiscale.symmetry.losses import Loss


@dataclass(frozen=True)
class Moves:
    """Rotations about the centroid, and what else a structure is moved by at the same time."""

    reflections: bool = False
    translations: float | None = None  # Å, standard deviation along each axis
    permutations: bool = False

    def group(self, atoms: int) -> Group:
        """Of a structure of so many atoms."""
        turns: Group = O3() if self.reflections else SO3()
        others: list[Group] = [] if self.translations is None else [Translations(self.translations)]
        others += [Permutations(atoms)] if self.permutations else []
        return Product(turns, *others) if others else turns

    def __str__(self) -> str:
        words = ["rotations and reflections" if self.reflections else "rotations"]
        words += [] if self.translations is None else [f"shifts of {self.translations:g} Å"]
        words += ["orders of the atoms"] if self.permutations else []
        return ", ".join(words)


def drawn(sampler: Sampler, moves: Moves, sizes: Iterable[int], keys: Iterable[tuple[int, ...]]) -> Draws:
    """Elements [M, structures]. Each structure has a stream of its own, seeded by its key, so that neither the batch
    it is in nor its neighbours change what it is moved by.
    """
    each = [sampler.draw(moves.group(int(n)), np.random.default_rng(key), 1) for n, key in zip(sizes, keys)]

    def joined(name: str) -> np.ndarray | None:
        arrays = [getattr(d.elements, name) for d in each]
        return None if arrays[0] is None else np.concatenate(arrays).swapaxes(0, 1)

    matrix = joined("matrix")
    assert matrix is not None
    return Draws(Elements(matrix, joined("shift"), joined("order")), each[0].weights, each[0].kind)


def refuse_variant(loss: Loss, moves: Moves, seed: int = 0) -> None:
    """InputError where l(ρ(g) z, ρ(g) y) is not l(z, y): what averages a rotation then is no part of the loss.

    A mean of |components| is one such: it changes where both forces turn.
    """
    rng = np.random.default_rng(seed)
    offsets = np.array([0, 4, 8])
    z, y = ({"energy": rng.normal(size=2), "forces": rng.normal(size=(8, 3))} for _ in range(2))
    before = loss(z, y, offsets)
    for _ in range(4):
        g = moves.group(4).sample(rng, 2)
        after = loss(_moved(g, z, offsets), _moved(g, y, offsets), offsets)
        off = float(np.max(np.abs(after - before)) / np.max(np.abs(before)))
        if not off < 1e-9:
            raise InputError(
                f"the loss {loss.name} changes by {100 * off:.2g} % where prediction and label are moved by the same "
                f"element ({moves}): choose one that does not, such as the squared error or the length of the error."
            )


def _moved(g: Elements, outputs: dict[str, np.ndarray], offsets: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    forces = np.einsum("sij,saj->sai", g.matrix, outputs["forces"].reshape(len(offsets) - 1, -1, 3))
    if g.order is not None:
        forces = np.take_along_axis(forces, g.order[:, :, None], axis=1)
    return {"energy": outputs["energy"], "forces": forces.reshape(-1, 3)}
