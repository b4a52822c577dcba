"""Splits are by molecule, the same every time, and subsets are nested."""

import numpy as np
import pytest

from equiscale.data.split import by_group, common_elements, hash_order, nested, roles
from equiscale.data.store import PARTS, Store
from equiscale.data.structure import Structure
from equiscale.errors import InputError


def made(groups: int = 40, each: int = 6) -> Store:
    rng = np.random.default_rng(0)
    return Store.from_structures(
        [
            Structure(np.array([6, 8]), rng.normal(size=(2, 3)), float(g), np.zeros((2, 3)), group=f"g{g}")
            for g in range(groups)
            for _ in range(each)
        ]
    )


@pytest.mark.parametrize(("groups", "each"), [(3, 1), (3, 4), (5, 2), (40, 6), (200, 1)])
def test_parts_keep_molecules_together(groups, each):
    store = by_group(made(groups, each))
    of = {part: set(store.group[store.where(part)].tolist()) for part in PARTS}
    assert of["train"]
    assert of["molecules"]
    assert of["test"]
    assert not of["molecules"] & (of["train"] | of["conformers"] | of["test"])
    assert not of["test"] & (of["train"] | of["conformers"])
    assert of["conformers"] <= of["train"]
    assert bool(of["conformers"]) is (each >= 3)


def test_a_split_depends_on_names_and_seed_only():
    store = made()
    first, again, other = by_group(store), by_group(store), by_group(store, seed=1)
    assert np.array_equal(first.part, again.part)
    assert not np.array_equal(first.part, other.part)
    # The order of the file does not matter to molecules: a store turned round gives each the same part.
    back = by_group(store.take(np.arange(len(store))[::-1]))
    held = [{s.group_names[g] for g in s.group[s.where("molecules")]} for s in (first, back)]
    assert held[0] == held[1]


def test_late_structures_are_held_out():
    store = by_group(made())
    for g in set(store.group[store.where("conformers")].tolist()):
        part = store.part[store.group == g]
        assert part.tolist() == [0, 0, 0, 0, 2, 2]


def test_two_molecules_cannot_be_split():
    with pytest.raises(InputError, match="group_key"):
        by_group(made(groups=2))


def test_adding_a_name_does_not_reshuffle():
    names = [f"n{i}" for i in range(50)]
    order = [names[i] for i in hash_order(names, "s")]
    more = [*names, "new"]
    longer = [more[i] for i in hash_order(more, "s")]
    assert [n for n in longer if n != "new"] == order


def test_roles_have_the_sizes_asked_for_and_spare_the_ineligible():
    eligible = np.ones(30, bool)
    eligible[:5] = False
    role = roles([f"n{i}" for i in range(30)], eligible, molecules=4, test=3, conformers=6)
    assert np.bincount(role, minlength=4).tolist() == [17, 4, 6, 3]
    assert (role[:5] == 0).all()


def test_rare_elements_stay():
    sets = [frozenset({1, 6})] * 5 + [frozenset({1, 14})]
    assert common_elements(sets, 2).tolist() == [True] * 5 + [False]


def test_subsets_are_nested():
    store = by_group(made())
    small, large = nested(store, 20), nested(store, 90)
    assert set(small.tolist()) < set(large.tolist()) <= set(store.where("train").tolist())
    assert len(set(small.tolist())) == 20
    assert set(nested(store, 20, seed=1).tolist()) != set(small.tolist())
    with pytest.raises(InputError, match="were asked"):
        nested(store, 10_000)
