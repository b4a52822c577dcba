"""Training from a packed store: the same run, to the bit, as from the structures in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from runs import structures, tiny_spec, tiny_store

from equiscale.data.packed import Packed, open_packed
from equiscale.data.packing import Packer
from equiscale.data.parts import Split
from equiscale.data.store import Store
from equiscale.data.subset import Subset
from equiscale.errors import InputError
from equiscale.evaluate import read
from equiscale.run import load, load_losses
from equiscale.train import epochs, force_field
from equiscale.train.epochs import Epochs
from equiscale.train.force_field import ForceField
from equiscale.train.record import train
from equiscale.train.worker import TrainOne, Worker, refuse_lone_atoms


def packed(folder, store: Store, **options) -> Packed:
    with Packer(folder, source="a test", positions="float64", forces="float64", **options) as packer:
        for start in range(0, len(store), 10):
            packer.append(store.take(np.arange(start, min(start + 10, len(store)))))
        packer.finish()
    return open_packed(folder)


@pytest.mark.parametrize("where", ["in memory", "from the files"])
@pytest.mark.parametrize("fields", [{}, {"epochs": 2, "augment": True, "atom_budget": 8},
                                    {"structures": 10, "epochs": 2, "subset": "molecules"}])  # fmt: skip
def test_a_packed_copy_trains_the_same_run(tmp_path, monkeypatch, where, fields):
    if where == "from the files":
        monkeypatch.setattr(force_field, "IN_MEMORY", 0)
    store, spec = tiny_store(), tiny_spec(**fields)
    data = packed(tmp_path / "packed", store)
    task = ForceField.of(spec, data)
    assert isinstance(task.train, Subset) == (where == "from the files")
    assert task.references == ForceField.of(spec, store).references
    plain = train(spec, store, tmp_path / "a").without_clock()
    assert train(spec, data, tmp_path / "b").without_clock() == plain
    losses = [load_losses(tmp_path / folder, [spec.key])[spec.key] for folder in ("a", "b")]
    assert np.array_equal(losses[0]["molecules"], losses[1]["molecules"])


def test_a_subset_by_molecules_of_a_very_large_set_is_refused(tmp_path, monkeypatch):
    """Its molecules are ordered in memory; in one sentence, before anything is read."""
    data = packed(tmp_path / "packed", tiny_store())
    monkeypatch.setattr(force_field, "SHUFFLED_AT_ONCE", 31)
    with pytest.raises(InputError, match="ordered in memory, of at most 31"):
        ForceField.of(tiny_spec(structures=10, subset="molecules"), data)
    ForceField.of(tiny_spec(structures=10), data)


def test_orders_of_large_sets(monkeypatch):
    """What is computed place by place: a permutation, prefixes of one another, the same in any pieces."""
    size = 10_000
    small = Epochs(size, 6000, 3)
    assert np.array_equal(
        small.at(0, 0, 6000), np.random.default_rng([3, 1]).permutation(size)[:6000]
    )  # as published runs have it
    monkeypatch.setattr(epochs, "SHUFFLED_AT_ONCE", 100)
    order = Epochs(size, 6000, 3)
    for epoch in (0, 1):
        whole = order.at(epoch, 0, 6000)
        assert len(np.unique(whole)) == 6000
        pieces = [Epochs(size, 6000, 3).at(epoch, a, a + 7) for a in range(0, 6000, 7)]
        assert np.array_equal(np.concatenate(pieces), whole)
    assert np.array_equal(np.sort(order.at(1, 0, 6000)), np.sort(order.at(0, 0, 6000)))
    assert np.array_equal(Epochs(size, 5000, 3).at(0, 0, 5000), order.at(0, 0, 5000))
    assert np.array_equal(order.first(64), order.at(0, 0, 64))
    assert len(order.first(20_000)) == size
    assert len(order.at(0, 5999, 6010)) == 1


def test_a_large_set_resumes_as_it_went(tmp_path, monkeypatch):
    """The steps of a run from the files in a computed order do not depend on the steps that were asked before."""
    monkeypatch.setattr(force_field, "IN_MEMORY", 0)
    monkeypatch.setattr(epochs, "SHUFFLED_AT_ONCE", 10)
    monkeypatch.setattr(epochs, "BLOCK", 5)
    spec, data = tiny_spec(epochs=3), packed(tmp_path / "packed", tiny_store())
    through, jumped = ForceField.of(spec, data), ForceField.of(spec, data)
    seen = [b.graph.positions for step in range(spec.steps) for b in through.micro_batches(step)]
    for step in (40, 7, 23):
        (batch,) = jumped.micro_batches(step)
        assert np.array_equal(batch.graph.positions, seen[step])
    assert sum(len(x) for x in seen) == 3 * data.sizes[data.where("train")].sum()
    sizes = data.sizes[data.where("train")][through.order(0)]
    assert [through.unique_atoms(s) for s in (3, 16, 5, 100)] == [sizes[: 2 * s].sum() for s in (3, 16, 5, 100)]


def test_a_study_reads_a_packed_folder(tmp_path):
    """As a data set's name, through the worker; its record keeps the content hash."""
    with Packer(tmp_path / "packed", source="a test") as packer:
        packer.append(Store.from_structures(structures(60)))
        packer.finish(split=Split(molecules=0.2, test=0.1, conformers=0.1))
    data = open_packed(tmp_path / "packed")
    spec = tiny_spec(structures=20)
    spec = replace(spec, data=replace(spec.data, name=str(tmp_path / "packed"), content_hash=data.content_hash))
    (tmp_path / "out").mkdir()
    key = Worker(tmp_path / "out")(TrainOne(spec), lambda told: None)
    record = load(tmp_path / "out" / f"{key}.json")
    assert record.spec.data.content_hash == data.content_hash
    assert record.status in ("ok", "did not learn")
    worker = Worker(tmp_path / "out")
    assert worker.data(spec.data)[1] is None
    store, isolated = worker.data(replace(spec.data, references="isolated_atoms"))
    assert isinstance(store, Packed)
    assert isolated == {}
    with pytest.raises(InputError, match="no isolated atom of"):
        ForceField.of(replace(spec, data=replace(spec.data, references="isolated_atoms")), store, isolated)


def test_isolated_atoms_come_with_the_store(tmp_path):
    store = tiny_store()
    energies = {1: -40.0, 6: -240.0, 7: -280.0, 8: -320.0}
    with Packer(tmp_path / "packed", source="a test", positions="float64", forces="float64") as packer:
        packer.append(store)
        packer.finish(isolated=energies)
    data = open_packed(tmp_path / "packed")
    assert data.isolated == energies
    spec = tiny_spec()
    spec = replace(spec, data=replace(spec.data, references="isolated_atoms"))
    task = ForceField.of(spec, data, data.isolated)
    assert task.references == ForceField.of(spec, store, energies).references


def test_what_is_refused(tmp_path, monkeypatch):
    store = tiny_store()
    data = packed(tmp_path / "a", store)
    with pytest.raises(InputError, match=r"the run wants 40 training structures, .* has 32"):
        ForceField.of(tiny_spec(structures=40), data)
    unsplit = packed(tmp_path / "b", Store.from_structures(structures(40)))
    with pytest.raises(InputError, match=r"no molecules that are not trained on .*; pack it with a split"):
        ForceField.of(tiny_spec(), unsplit)
    with pytest.raises(InputError, match=r"a cutoff of 0.7 Å leaves an atom of structure 0 of"):
        refuse_lone_atoms(data, 0.7, "x")
    monkeypatch.setattr("equiscale.train.worker.LOOKED_AT", 5)
    with pytest.raises(InputError, match=r"a cutoff of 0.7 Å leaves an atom of structure \d+ of"):
        refuse_lone_atoms(data, 0.7, "x")


def test_a_part_of_a_packed_store_is_evaluated(tmp_path):
    data = packed(tmp_path / "a", tiny_store())
    assert len(read(str(data.folder))) == 6  # new molecules where no part is named
    whole = read(str(data.folder), "all")
    assert [s.group for s in whole] == data.names(np.arange(len(data)))
    with pytest.raises(InputError, match=r"the packed store .* takes no energy_key"):
        read(str(data.folder), energy_key="E")
