"""How symmetric a model is: what part of its loss is broken symmetry, and what else turns with a structure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from equiscale.data.store import Store
from equiscale.data.structure import SYMBOLS
from equiscale.errors import InputError
from equiscale.evaluate.compare import SIZES
from equiscale.graph import build_graph
from equiscale.measure.found import Average, Found, Part, extremes, figure, part_of
from equiscale.measure.model import Checkpoint, Failed, Model, Predicted
from equiscale.measure.moves import Moves, drawn
from equiscale.measure.structures import Chosen
from equiscale.predict import FrameKind
from equiscale.symmetry.degrees import Powers, degrees, powers, refuse_coarse
from equiscale.symmetry.designs import Draws, Random, Sampler, sampler
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.estimate import Samples, averages, estimate, estimator
from equiscale.symmetry.frames import principal
from equiscale.symmetry.groups import SO3
from equiscale.symmetry.invariance import refuse_variant
from equiscale.symmetry.lie import ANGLE, Derivatives, derivatives, roughness
from equiscale.symmetry.losses import ForceNorm, Loss, SquaredForce, named

UNITS = {"squared": "(eV/Å)²", "force": "eV/Å", "study": "eV/atom + eV/Å", "energy": "(eV/atom)²"}
SINGLE = 2 * float(np.finfo(np.float32).eps)
REPEATS_TO = 1e-5  # of the forces' root mean square: what the order of sums on a GPU changes stays below
LIE_ROTATIONS = 2  # structures, not rotations, are what the bound scatters over


@dataclass(frozen=True)
class Options:
    """What is measured, and by which elements."""

    sampler: str | Sampler = "random:10"
    moves: Moves = field(default_factory=Moves)
    loss: str | Loss = "squared"
    averages: tuple[int, ...] = ()  # M of test-time averages
    degrees: int = 0  # the highest l whose share of L_equiv is wanted
    lie: bool = False  # the bound by Lie derivatives: six passes for each of LIE_ROTATIONS
    atoms: int = 8192  # of a batch, copies counted: bounds the memory
    seed: int = 0


def measure(
    model: Model, chosen: Chosen, options: Options | None = None, tell: Callable[[int], None] = lambda structures: None
) -> Found:
    """Measure a model. InputError where it gives two answers to one question, fails on a structure, or where elements
    and loss do not fit. ``tell`` is told how many structures are done.
    """
    return _Measurement(model, chosen, options or Options()).found(tell)


class _Measurement:
    """One measurement: batches leave behind a few numbers per structure and per atom."""

    def __init__(self, model: Model, chosen: Chosen, options: Options):
        self.model, self.chosen, self.options = model, chosen, options
        sigma = model.trained.references.sigma if isinstance(model, Checkpoint) else 1.0
        self.loss = named(options.loss, sigma) if isinstance(options.loss, str) else options.loss
        self.sampler = sampler(options.sampler) if isinstance(options.sampler, str) else options.sampler
        self.labelled = set(self.loss.outputs) <= chosen.labels
        refuse_variant(self.loss, options.moves.group(4))
        if not (self.labelled or self.loss.squared):
            raise InputError(
                f"{chosen.where}: the {self.loss.name} loss needs labels of {' and '.join(self.loss.outputs)}: take "
                "the squared loss, whose L_equiv needs none."
            )
        if options.averages and not self.labelled:
            raise InputError(f"{chosen.where}: the loss of averages needs labels of {' and '.join(self.loss.outputs)}.")
        if options.averages and min(options.averages) < 1:
            raise InputError(f"an average is over one rotation or more, not {min(options.averages)}.")
        if (options.degrees or options.lie) and options.moves != Moves():
            raise InputError(
                "degrees and Lie derivatives are of rotations alone: leave out reflections, shifts and permutations."
            )
        if options.lie and not self.loss.squared:
            raise InputError(f"Lie derivatives bound a squared error, the {self.loss.name} loss is none.")
        if options.degrees:
            if not (self.loss.squared and 1 <= options.degrees <= 20):
                raise InputError("degrees are parts of a squared error, from l = 1 to at most 20.")
            one = self.sampler.draw(SO3(), np.random.default_rng(0), 1)
            refuse_coarse(one.elements[0], one.kind, one.weights, options.degrees)
        if options.seed < 0:
            raise InputError(f"the seed is a whole number from 0, not {options.seed}.")
        self.passes, self.repeated = 0, 0.0
        self.kept: dict[str, list[np.ndarray]] = {}
        self.samples: list[Samples] = []
        self.per_atom: list[Samples] = []
        self.powers: list[Powers] = []
        self.slopes: list[Derivatives] = []

    def found(self, tell: Callable[[int], None]) -> Found:
        begin = time.perf_counter()
        done = 0
        draws = None
        for rows in self.chosen.batches(self._room(), alike=self.options.moves.permutations):
            store = self.chosen.data.take(self.chosen.rows[rows])
            if not done:
                self._refuse_random(store, rows)
            draws = self._drawn(self.sampler, store, rows, 0)
            if draws.elements.shape[0] < 2:
                raise InputError("one rotation cannot tell broken symmetry from error: take two or more, or a design.")
            self._add(store, self._twisted(store, draws.elements, rows), draws)
            if self.options.lie:
                self.slopes.append(self._slopes(store, rows))
            if self.options.averages:
                # Other rotations than those of the prediction that they are compared with.
                others = self._drawn(Random(max(self.options.averages)), store, rows, 1)
                self._average(store, self._twisted(store, others.elements, rows))
            done += len(rows)
            tell(done)
        if draws is None:
            raise InputError(f"{self.chosen.where} is empty: there are no structures.")
        return self._whole(draws, time.perf_counter() - begin)

    def _room(self) -> int:
        """Atoms of a batch whose copies fit the budget."""
        one = self.sampler.draw(self.options.moves.group(1), np.random.default_rng(0), 1)
        count = max(one.elements.shape[1], *(self.options.averages or (1,)))
        return max(self.options.atoms // count, 1)

    def _drawn(self, sampler: Sampler, store: Store, rows: np.ndarray, stream: int) -> Draws:
        keys = [(self.options.seed, int(place), stream) for place in self.chosen.places[rows]]
        return drawn(sampler, self.options.moves, store.sizes, keys)

    def _twisted(self, store: Store, g: Elements, rows: np.ndarray) -> Predicted:
        """As many copies at once as the budget of atoms allows."""
        step = max(self.options.atoms // store.atoms, 1)
        self.passes += g.shape[0] * len(store)
        parts = [
            self._asked(lambda k=k: self.model.twisted(store, g[k : k + step]), rows)  # type: ignore[misc]
            for k in range(0, g.shape[0], step)
        ]
        energies = [p.energy for p in parts if p.energy is not None]
        out = Predicted(np.concatenate(energies) if energies else None, np.concatenate([p.forces for p in parts]))
        finite = np.isfinite(out.forces).all((0, 2))
        if out.energy is not None:
            finite &= np.repeat(np.isfinite(out.energy).all(0), store.sizes)
        if not finite.all():
            s = int(np.repeat(np.arange(len(store)), store.sizes)[~finite][0])
            raise InputError(f"{self.chosen.named(int(rows[s]))}: {self.model.name} predicts what is not finite.")
        return out

    def _asked(self, ask: Callable[[], Predicted], rows: np.ndarray) -> Predicted:
        try:
            out = ask()
        except Failed as error:
            where = self.chosen.named(int(rows[error.structure]))
            raise InputError(f"{self.model.name} fails on {where}: {error.reason.rstrip('.')}.") from None
        if "energy" in self.loss.outputs and out.energy is None:
            raise InputError(f"{self.model.name} predicts no energy, which the {self.loss.name} loss is of.")
        return out

    def _refuse_random(self, store: Store, rows: np.ndarray) -> None:
        """The same question twice: dropout, random frames and the like would be taken for broken symmetry."""
        one, two = (self._asked(lambda: self.model(store), rows) for _ in range(2))
        self.passes += 2 * len(store)
        self.repeated = float(np.abs(one.forces - two.forces).max())
        scale = float(np.sqrt(np.square(one.forces).mean()))
        if self.repeated > REPEATS_TO * scale:
            raise InputError(
                f"{self.model.name} is not deterministic: asked twice for the same structures its forces differ by up "
                f"to {self.repeated:.2g} eV/Å (root mean square {scale:.2g}); switch off dropout or random frames."
            )
        if "energy" in self.loss.outputs and one.energy is not None and two.energy is not None:
            apart = np.abs(one.energy - two.energy) / store.sizes
            # Beside the forces' own scale, single precision of a total energy.
            allowed = REPEATS_TO * scale + SINGLE * np.abs(one.energy) / store.sizes
            if (apart > allowed).any():
                raise InputError(
                    f"{self.model.name} is not deterministic: asked twice for the same structures its energies differ "
                    f"by up to {1e3 * apart.max():.2g} meV/atom; switch off dropout or random frames."
                )

    def _add(self, store: Store, z: Predicted, draws: Draws) -> None:
        labels = {"energy": store.energy, "forces": store.forces.astype(np.float64)}
        y = labels if self.labelled else {name: np.zeros_like(v) for name, v in labels.items()}
        self.samples.append(estimate(z.outputs, y, store.offsets, self.loss, draws.kind, draws.weights))
        if lmax := self.options.degrees:
            each = powers(z.outputs, draws.elements, store.offsets, self.loss, draws.kind, draws.weights, lmax)
            self.powers.append(each)
        if (own := self._of_atoms()) is not None:
            # Each atom as a structure of its own.
            alone = np.arange(store.atoms + 1)
            self.per_atom.append(estimate(z.outputs, y, alone, own, draws.kind, draws.weights))
            self._keep("numbers", store.numbers)
            self._keep("atom_group", np.repeat(store.group, store.sizes))
        self._keep("group", store.group)
        self._keep("size", store.sizes)
        self._keep("sum", np.linalg.norm(_sums(z.forces, store), axis=-1))
        self._keep("sum_label", np.linalg.norm(_sums(labels["forces"], store), axis=-1))
        whole = store.sizes > 1
        if store.cell is not None:
            whole = whole & ~store.cell.any((1, 2))  # a torque needs an outside
        arm = store.positions - np.repeat(_sums(store.positions, store) / store.sizes[:, None], store.sizes, axis=0)
        for name, forces in (("torque", z.forces), ("torque_label", labels["forces"])):
            self._keep(name, np.linalg.norm(_sums(np.cross(arm, forces), store), axis=-1)[..., whole])
        if (frames := self._frame_kind()) != "none":
            self._keep("undecided", principal(build_graph(store, None), frames).degenerate)
        if z.energy is not None:
            self._keep("spread", _spread(z.energy, draws))

    def _slopes(self, store: Store, rows: np.ndarray) -> Derivatives:
        draws = self._drawn(Random(LIE_ROTATIONS), store, rows, 2)
        f = lambda g: self._twisted(store, g, rows).outputs  # noqa: E731
        single = isinstance(self.model, Checkpoint) and self.model.single
        angle = ANGLE["float32" if single else "float64"]
        return derivatives(f, draws.elements, store.offsets, self.loss, angle=angle)

    def _frames(self) -> dict[str, Any]:
        """Of a potential that sees structures in frames: which, and of how many structures the axes are undecided."""
        if (kind := self._frame_kind()) == "none":
            return {}
        return {"frames": kind, "undecided_frames": int(self._of("undecided").sum())}

    def _frame_kind(self) -> FrameKind:
        return self.model.trained.frames if isinstance(self.model, Checkpoint) else "none"

    def _of_atoms(self) -> Loss | None:
        """The loss of one atom's force."""
        if "forces" not in self.loss.outputs or not isinstance(self.options.loss, str):
            return None
        return SquaredForce() if self.loss.squared else ForceNorm(getattr(self.loss, "scale", 1.0))

    def _average(self, store: Store, z: Predicted) -> None:
        y = {"energy": store.energy, "forces": store.forces.astype(np.float64)}
        for count, losses in averages(z.outputs, y, store.offsets, self.loss, self.options.averages):
            self._keep(f"average {count}", losses)

    def _keep(self, name: str, values: np.ndarray) -> None:
        self.kept.setdefault(name, []).append(values)

    def _of(self, name: str) -> np.ndarray:
        return np.concatenate(self.kept[name], axis=-1)

    def _whole(self, draws: Draws, seconds: float) -> Found:
        samples, group, size = Samples.joined(self.samples), self._of("group"), self._of("size")
        labelled, chosen = self.labelled, self.chosen
        spread = self._of("spread") if "spread" in self.kept else None
        net_force = extremes(self._of("sum"))
        assert net_force is not None
        forces = "forces" in chosen.labels
        return Found(
            model=self.model.name,
            data=chosen.where,
            structures=len(chosen),
            atoms=int(size.sum()),
            groups=len(np.unique(group)),
            left=chosen.left,
            isolated=chosen.isolated,
            labelled=labelled,
            loss=self.loss.name,
            unit=_unit(self.loss),
            moves=str(self.options.moves),
            sampler=str(self.options.sampler),
            rotations=draws.elements.shape[0],
            estimator=estimator(draws.kind, self.loss),
            seed=self.options.seed,
            whole=part_of(samples, group, labelled),
            residual=samples.residual if labelled else None,
            by_element=self._elements(),
            by_size={
                _bin(low, high): part_of(samples.take(own), group[own], labelled)
                for low, high in SIZES
                if (own := (size >= low) & (size <= (high or np.inf))).any()
            },
            energy_spread_meV=None if spread is None else extremes(1e3 * spread),
            energy_spread_meV_per_atom=None if spread is None else extremes(1e3 * spread / size),
            torque=extremes(self._of("torque")),
            torque_of_labels=extremes(self._of("torque_label")) if forces else None,
            net_force=net_force,
            net_force_of_labels=extremes(self._of("sum_label")) if forces else None,
            averages=self._averages(samples, group),
            degrees=degrees(Powers.joined(self.powers), group).to_dict() if self.powers else None,
            lie=roughness(Derivatives.joined(self.slopes), group).to_dict() if self.slopes else None,
            repeated=self.repeated,
            forward_passes=self.passes,
            seconds=seconds,
            about=_about(self.model) | self._frames(),
        )

    def _elements(self) -> dict[str, Part]:
        if not self.per_atom:
            return {}
        samples, numbers, group = Samples.joined(self.per_atom), self._of("numbers"), self._of("atom_group")
        return {
            SYMBOLS[z]: part_of(samples.take(own), group[own], self.labelled)
            for z in np.unique(numbers)
            if (own := numbers == z).any()
        }

    def _averages(self, samples: Samples, group: np.ndarray) -> tuple[Average, ...]:
        made = []
        for count in self.options.averages:
            measured, predicted = self._of(f"average {count}"), samples.mean + samples.equiv / count
            one, two, off = (figure(v, group) for v in (measured, predicted, measured - predicted))
            made.append(Average(count, one, two, off, exact=self.loss.squared))
        return tuple(made)


def _sums(values: Float[np.ndarray, "*m atoms 3"], store: Store) -> Float[np.ndarray, "*m structures 3"]:
    return np.add.reduceat(values, store.offsets[:-1], axis=-2)


def _spread(energy: Float[np.ndarray, "m structures"], draws: Draws) -> Float[np.ndarray, " structures"]:
    """Standard deviation over the elements, eV; unbiased variance where they are independent."""
    w = draws.weights[:, None]
    variance = (w * np.square(energy - (w * energy).sum(0))).sum(0)
    m = len(energy)
    return np.sqrt(variance * (m / (m - 1) if draws.kind == "random" else 1.0))


def _unit(loss: Loss) -> str:
    if getattr(loss, "scale", 1.0) != 1.0:
        return "normalised"
    return UNITS.get(loss.name, "")


def _bin(low: int, high: int | None) -> str:
    return f"{low}+" if high is None else f"{low}-{high}"


def _about(model: Model) -> dict[str, Any]:
    if not isinstance(model, Checkpoint):
        return {}
    config = model.trained.model
    return {
        "architecture": config.kind,
        "width": config.width,
        "forces": config.forces,
        "weights": model.trained.content_hash,
        "sigma_eV": model.trained.references.sigma,
    }
