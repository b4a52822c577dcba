"""Training a checkpoint on: on other data, or with forces that become the gradient of its energy."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from equiscale.claim import Busy
from equiscale.errors import InputError, need
from equiscale.run import DataSpec, OptimSpec, Remedy, RunSpec, load
from equiscale.study import told

FOREIGN = 1.0
"""Energy part of the trivial loss (σ per atom) above which labels are not what the references were fitted to; it is
about 0.04 for molecules of one kind."""


def fine_tune(
    checkpoint: str | Path,
    data: str,
    folder: Path,
    *,
    forces: Literal["direct", "conservative"] | None = None,
    structures: int | None = None,
    epochs: int = 1,
    batch: int = 4,
    rate: float = 1e-2,
    seed: int = 0,
    refit: bool = False,
    keys: Mapping[str, str | int] | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = lambda text: None,
    live: Callable[[str], None] = lambda text: None,
    checkpoint_every: float = 15.0,
) -> str:
    """Train one run that starts from a checkpoint's weights; the outcome in words, the record in ``folder``.

    ``forces``: where they come from now (None: as before). ``rate``: the learning rate itself, of every tensor alike.
    ``structures``: of the training part (None: all). ``refit``: reference energies are fitted to the new data, for
    labels of another level of theory. Killed or stopped, the same call goes on where it was; finished,
    it tells the outcome again.
    """
    try:
        from equiscale.predict import TrainedPotential
        from equiscale.train.force_field import ForceField
        from equiscale.train.start import copied, place, references, started, turned, warnings
        from equiscale.train.worker import TrainOne, Worker, refuse_lone_atoms
    except ImportError as error:
        raise need("train", error) from None
    for name, value in (("epochs", epochs), ("batch", batch), ("rate", rate), ("structures", structures)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name} must be positive, not {value}.")
    origin = TrainedPotential.load(checkpoint)
    worker = Worker(folder, device, checkpoint_every)
    asked = DataSpec(data, keys=tuple(sorted((keys or {}).items())), epochs=epochs)
    store, _ = worker.data(asked)
    structures = len(store.where("train")) if structures is None else structures
    model = turned(origin.model, forces)
    spec = RunSpec(
        model,
        replace(asked, structures=structures, content_hash=store.content_hash),
        # At its own width as the base every width factor is 1: the rate is what was asked for.
        OptimSpec(learning_rate=rate, base_width=model.width, batch_structures=batch),
        seed=seed,
        remedy=None if origin.frames == "none" else Remedy(frames=origin.frames),
    )
    warm = max(1, min(100, spec.steps // 10))
    spec = started(replace(spec, optim=replace(spec.optim, warmup_steps=warm)), origin, refit=refit)
    if (folder / f"{spec.key}.json").exists():
        say("this run is recorded, nothing to do")
        return told(load(folder / f"{spec.key}.json"), folder)
    origin.refuse_unknown(store.elements, repr(data))
    cure = "leave it out, or start from a checkpoint with a larger cutoff"
    refuse_lone_atoms(store, model.cutoff, data, cure)
    task = ForceField.of(spec, store, None, device, references(spec, origin, store))
    trivial = task.trivial("molecules")
    if trivial.energy_loss > FOREIGN:
        raise InputError(
            f"the energies of {data!r} are {1e-3 * trivial.energy_mae:.3g} eV/atom away from the checkpoint's "
            "references: is it another unit? For another level of theory fit them anew, with --refit-references."
        )
    potential = model.build()
    dropped = copied(origin, potential, spec)
    say(
        f"{spec}: {origin.model.forces} → {model.forces}, {spec.steps:,} steps, from weights {origin.content_hash[:16]}"
    )
    if dropped:
        say(f"  left behind, as a {model.forces} potential has no use for it: {', '.join(dropped)}")
    for text in warnings(origin.model, model):
        say(f"  warning: {text}.")
    looked = spec.evaluation.structures
    before = task.evaluate(potential.to(task.device).eval(), "molecules", looked)[0]
    say(
        f"  as it starts    L {before.loss:.4f}  energy {before.energy_mae:.1f} meV/atom  "
        f"forces {before.force_mae:.0f} meV/Å  ({looked} of new molecules)"
    )
    folder.mkdir(parents=True, exist_ok=True)
    place(origin, spec, folder)

    def tell(p: Any) -> None:
        live(f"{spec}: step {p.step} of {p.steps}" + ("" if p.loss is None else f", L {p.loss:.3f}"))

    if isinstance(got := worker(TrainOne(spec), tell), Busy):
        raise InputError(f"{spec} is trained by {got.holder}: wait for it, or stop it.")
    live("")
    return told(load(folder / f"{spec.key}.json"), folder)
