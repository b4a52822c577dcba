"""The force-field task: structures in the seed's order, neighbours on the fly, eq. 1 as the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscale.data.atom_table import AtomTable
from equiscale.data.packed import Packed
from equiscale.data.references import References, fit_references
from equiscale.data.store import Store
from equiscale.data.subset import Subset, atoms_of, normalised
from equiscale.errors import InputError
from equiscale.graph import AtomGraph, Prediction, labels
from equiscale.models.base import Potential, graph_for
from equiscale.predict import predict
from equiscale.run import Losses, RunSpec, Sets
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.graphs import turn_store, twisted_predictions
from equiscale.symmetry.groups import SO3
from equiscale.train import remedies
from equiscale.train.epochs import SHUFFLED_AT_ONCE, Epochs
from equiscale.train.loss import per_structure
from equiscale.train.ranks import ALONE, Ranks

ROTATION = 2  # stream of the run's seed; 1 is the order's, 3 the remedies'

IN_MEMORY = 4_000_000
"""Atoms of a packed training part up to which it is held in memory, normalised once. A larger one is gathered from its
files step by step; what is learned does not depend on it."""

PREPARED_WITH = 64
"""Structures, without their labels, that a fresh potential may be fitted to before training (``Potential.prepare``)."""


@dataclass(frozen=True, eq=False)
class Batch:
    graph: AtomGraph
    label: Prediction
    share: float  # of the step: 1 / structures of the whole step
    turned: Elements | None = None  # [copies, structures]: what the remedy's loss looks at, as it is first
    first: int = 0  # where the batch begins in a validation set


@dataclass(frozen=True, eq=False)
class ForceField:
    """A run's training data, normalised, and the two validation sets; implements ``Task``."""

    spec: RunSpec
    train: Store | Subset
    validation: dict[str, Store]
    references: References
    device: torch.device
    ranks: Ranks = ALONE  # between which steps and validation sets are split
    # Memory of graphs and orders already made: pure functions of the fields above.
    _cache: dict[tuple[str, int | None], list[Batch]] = field(default_factory=dict, repr=False)
    _seen: list[int] = field(default_factory=lambda: [0, 0], repr=False)  # structures, and their atoms

    @staticmethod
    def of(
        spec: RunSpec,
        store: Store | Packed,
        isolated: dict[int, float] | None = None,
        device: str = "cpu",
        references: References | None = None,
        ranks: Ranks = ALONE,
    ) -> ForceField:
        """References and normalisation from the whole training part (so a shorter run shares them), then both sets.

        ``references``: those of the weights that the run starts from, instead.
        """
        remedies.refuse(spec)
        refuse_more_ranks(spec, ranks)
        count = store.count("train")
        if spec.data.structures > count:
            raise InputError(
                f"the run wants {spec.data.structures} training structures, the set {spec.data.name!r} has {count}."
            )
        if spec.frames != "none" and store.cell is not None and store.cell.any():
            raise InputError(f"frames are of molecules only, and {spec.data.name!r} has structures with cells.")
        if spec.data.subset == "molecules" and count > SHUFFLED_AT_ONCE:
            raise InputError(
                f"a subset by molecules is ordered in memory, of at most {SHUFFLED_AT_ONCE:,} training structures, and "
                f"the set {spec.data.name!r} has {count:,}: pack fewer, or choose a subset of structures."
            )
        if spec.steps < 1:
            raise InputError(
                f"{spec.data.structures} structures do not fill one step of {spec.optim.batch_structures}."
            )
        if references is None:
            references = _fitted(spec, store, isolated)
        for name, what in (("molecules", "molecules that are not trained on"), ("conformers", "held-out conformers")):
            if not store.count(name):
                how = (
                    "pack it with a split"
                    if isinstance(store, Packed)
                    else "name the key that tells them apart (group_key), or cut it into runs (blocks)"
                )
                raise InputError(
                    f"the set {spec.data.name!r} has no {what} to validate on: it needs several molecules with three "
                    f"structures or more each; {how}."
                )
        validation = {name: normalised(store.take(store.where(name)), references) for name in Sets}
        train: Store | Subset
        if isinstance(store, Packed) and atoms_of(store, "train") > IN_MEMORY:
            train = Subset(store, "train", references)
        else:
            train = normalised(store.take(store.where("train")), references)
        return ForceField(spec, train, validation, references, torch.device(device), ranks)

    @cached_property
    def epochs(self) -> Epochs:
        by_molecule = self.spec.data.subset == "molecules"
        groups = self.train.group if by_molecule else None
        return Epochs(len(self.train), self.spec.data.structures, self.spec.seed, groups)

    def order(self, epoch: int) -> np.ndarray:
        """Training structures in the order of an epoch. The first epoch of a smaller run is a prefix of a larger's."""
        return self.epochs.at(epoch, 0, self.spec.data.structures)

    def first_structures(self) -> AtomGraph:
        """The first training structures of the seed's order: the same ones however long the run is."""
        return self.batch(self.train.take(self.epochs.first(PREPARED_WITH))).graph

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's, of a step whose structures and turns are the same for any number of ranks."""
        optim = self.spec.optim
        epoch, within = divmod(step, self.spec.steps_per_epoch)
        start = within * optim.batch_structures
        indices = self.epochs.at(epoch, start, start + optim.batch_structures)
        alone = self.ranks.world == 1
        mine = np.arange(len(indices)) if alone else dealt(self.train.sizes_at(indices), self.ranks)
        store = self.train.take(indices[mine])
        # Drawn for the whole step, before it is cut: where it is cut changes no structure's turns.
        if self.spec.data.augment:
            store = rotated(store, np.random.default_rng([self.spec.seed, ROTATION, step]), len(indices), mine)
        turned = remedies.drawn(
            self.spec.remedy, len(indices), np.random.default_rng([self.spec.seed, remedies.STREAM, step])
        )
        share = 1.0 / len(indices)
        pieces = cut(self.spec.passes * store.sizes, optim.atom_budget)
        if optim.edge_budget is not None:
            edges = edges_at_most(store, self.spec.model.cutoff, self.spec.model.max_neighbors)
            edges = self.spec.passes * edges
            pieces = [piece[part] for piece in pieces for part in cut(edges[piece], optim.edge_budget)]
        batches = [self.batch(store.take(part), share) for part in pieces]
        if turned is None:
            return batches
        turned = turned[:, mine]
        return [replace(batch, turned=turned[:, part]) for batch, part in zip(batches, pieces)]

    def batch(self, store: Store, share: float = 1.0) -> Batch:
        return Batch(graph_for(self.spec.model, store, device=self.device), labels(store, device=self.device), share)

    def loss(self, model: Potential, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """λ_e energy + λ_f force of eq. 1, plus λ times the remedy's loss; parts without their weights."""
        optim, remedy = self.spec.optim, self.spec.remedy
        if batch.turned is None:
            prediction = self.predict(model, batch.graph, create_graph=True)
        else:
            turned = twisted_predictions(partial(self.predict, model, create_graph=True), batch.graph, batch.turned)
            prediction = Prediction(turned.energy[0], turned.forces[0])
        energy, force = per_structure(prediction, batch.label, batch.graph)
        e, f = energy.sum() * batch.share, force.sum() * batch.share
        loss = optim.energy_weight * e + optim.force_weight * f
        parts = {"energy_loss": e.detach(), "force_loss": f.detach()}
        if batch.turned is not None:
            assert remedy is not None
            term = remedies.terms(remedy, optim, turned, batch.label, batch.graph).sum() * batch.share
            loss = loss + remedy.weight * term
            parts["symmetry_loss"] = term.detach()
        return loss, parts

    def predict(self, model: Potential, graph: AtomGraph, *, create_graph: bool = False) -> Prediction:
        """As the run sees structures: in its precision and its frames; float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.dtype == "bf16"):
            prediction = predict(model, graph, create_graph=create_graph, frames=self.spec.frames)
        return prediction.to(dtype=torch.float32)

    def structures(self, batch: Batch) -> int:
        return batch.graph.num_structures

    def tokens(self, batch: Batch) -> int:
        return len(batch.graph.numbers)

    def flops(self, batch: Batch) -> float:
        return 3 * self.spec.passes * self.spec.model.flops(batch.graph.counts)

    def evaluate(self, model: Potential, name: str, limit: int | None = None) -> tuple[Losses, np.ndarray]:
        """Losses on a validation set, and each structure's loss (float32). ``limit``: its first structures only."""
        found = []
        for batch in self.batches(name, limit):
            grad = torch.no_grad() if self.spec.model.forces == "direct" else torch.enable_grad()
            with grad:
                prediction = self.predict(model, batch.graph)
            e, f = per_structure(prediction, batch.label, batch.graph)
            parts = e.detach().double(), f.detach().double(), batch.graph.size
            found.append([part.cpu().numpy() for part in parts])
        return self.losses(*(np.concatenate(x) for x in zip(*self.ranks.in_order(found))))

    def losses(self, energy: np.ndarray, force: np.ndarray, size: np.ndarray) -> tuple[Losses, np.ndarray]:
        """Summary of per-structure parts (normalised units, eq. 1)."""
        total = energy + force
        to_meV = 1e3 * self.references.sigma
        summary = Losses(
            loss=float(total.mean()),
            energy_loss=float(energy.mean()),
            force_loss=float(force.mean()),
            atom_loss=float((total * size).sum() / size.sum()),
            energy_mae=float(energy.mean()) * to_meV,
            force_mae=float(force.mean()) * to_meV,
        )
        return summary, total.astype(np.float32)

    def trivial(self, name: str) -> Losses:
        """The loss of per-element energies and zero force on a validation set."""
        store = self.validation[name]
        size = store.sizes
        force = np.add.reduceat(np.linalg.norm(store.forces, axis=1), store.offsets[:-1]) / size
        return self.losses(np.abs(store.energy) / size, force, size)[0]

    def groups(self, name: str, limit: int | None = None) -> np.ndarray:
        """Molecule of each validation structure, in the order of ``evaluate``."""
        return self.validation[name].group[self._subset(name, limit)]

    def _subset(self, name: str, limit: int | None) -> np.ndarray:
        count = len(self.validation[name])
        if limit is None or limit >= count:
            return np.arange(count)
        # Fixed for every run of every study on this set, and spread over all molecules.
        return np.sort(np.random.default_rng(0).permutation(count)[:limit])

    def batches(self, name: str, limit: int | None) -> Iterator[Batch]:
        """A validation set, or the fixed ``limit`` structures of it, in the order of ``groups``: this rank's batches.

        Cut as for one rank and dealt out whole: what a structure's loss is does not depend on how many ranks there are.
        """
        key = (name, limit)
        if key not in self._cache:
            store = self.validation[name].take(self._subset(name, limit))
            pieces = self.ranks.in_turn(cut(store.sizes, 1024))
            self._cache[key] = [replace(self.batch(store.take(p)), first=int(p[0])) for p in pieces]
        return iter(self._cache[key])

    def unique_atoms(self, steps: int) -> int:
        """Distinct atoms among those seen in the first ``steps`` steps."""
        per_epoch = self.spec.steps_per_epoch
        seen = min(steps, per_epoch) * self.spec.optim.batch_structures
        at, atoms = self._seen if self._seen[0] <= seen else (0, 0)
        for start in range(at, seen, 2**16):
            atoms += int(self.train.sizes_at(self.epochs.at(0, start, min(start + 2**16, seen))).sum())
        self._seen[:] = seen, atoms
        return atoms


def _fitted(spec: RunSpec, store: Store | Packed, isolated: dict[int, float] | None) -> References:
    """References of the training part; of a packed store they are kept, as runs of a study share them."""
    kept: dict[Any, References] = store.memo if isinstance(store, Packed) else {}
    key = ("references", spec.data.references, spec.data.scale, spec.data.table)
    if key not in kept:
        kept[key] = fit_references(
            store,
            method=spec.data.references,
            isolated=isolated,
            table=AtomTable.of(spec.data.table) if spec.data.table else None,
            scale=spec.data.scale,
        )
    return kept[key]


def edges_at_most(store: Store, cutoff: float | None, neighbors: int | None) -> np.ndarray:
    """[structures] int: no graph has more edges. A periodic structure without a cap on neighbours is counted by its
    mean density instead, which the graph may exceed where atoms crowd."""
    n = store.sizes.astype(np.float64)
    most = n - 1
    if store.cell is not None and cutoff is not None:
        volume = np.abs(np.linalg.det(store.cell))
        inside = n * 4 / 3 * np.pi * cutoff**3 / np.where(volume > 0, volume, np.inf)
        most = np.where(volume > 0, np.ceil(inside), most)
    if neighbors is not None:
        # Images of one atom are several neighbours: in a cell the cap alone bounds them.
        capped = np.minimum(most, neighbors)
        most = capped if store.cell is None else np.where(store.cell.any((1, 2)), neighbors, capped)
    return (n * most).astype(np.int64)


def cut(sizes: np.ndarray, budget: int) -> list[np.ndarray]:
    """Consecutive indices, as many structures in a piece as fit the budget of atoms (or edges), and at least one."""
    pieces, start, atoms = [], 0, 0
    for s, n in enumerate(sizes.tolist()):
        if s > start and atoms + n > budget:
            pieces.append(np.arange(start, s))
            start, atoms = s, 0
        atoms += n
    pieces.append(np.arange(start, len(sizes)))
    return pieces


def refuse_more_ranks(spec: RunSpec, ranks: Ranks) -> None:
    """InputError where a rank would have no structure of a step."""
    if spec.optim.batch_structures < ranks.world:
        raise InputError(
            f"{ranks.world} ranks are more than the {spec.optim.batch_structures} structures of a step of {spec}: "
            f"start {spec.optim.batch_structures} or fewer."
        )


def dealt(sizes: np.ndarray, ranks: Ranks) -> np.ndarray:
    """Which structures of a step this rank takes, in their order: the largest first, each to who has least work.

    Work: the edges of a molecule with at most 30 neighbours an atom. No rank goes without.
    """
    work = sizes * np.minimum(sizes, 31)
    has, owner = np.zeros(ranks.world, np.int64), np.zeros(len(sizes), np.int64)
    for s in np.argsort(-work, kind="stable"):
        owner[s] = has.argmin()
        has[owner[s]] += work[s]
    return np.flatnonzero(owner == ranks.rank)


def rotated(store: Store, rng: np.random.Generator, drawn: int | None = None, which: Any = slice(None)) -> Store:
    """Every structure turned about the origin by a rotation of its own, forces and cell with it.

    ``which`` of the ``drawn`` structures that rotations are drawn for the store holds; without them, all.
    """
    return turn_store(SO3().sample(rng, drawn or len(store))[which], store, about="origin")
