"""extxyz in and out: keys, units, isolated atoms, cells, and every bad file one clear sentence."""

import warnings

import numpy as np
import pytest

from equiscale.data.inspect import inspect
from equiscale.data.sources import load, read_extxyz
from equiscale.data.store import PARTS, Store
from equiscale.data.structure import BOHR, HARTREE
from equiscale.errors import InputError

ase = pytest.importorskip("ase")


def water(energy: str = "energy=-1.0", extra: str = "", forces: str = "forces", shift: float = 0.0) -> str:
    return (
        f'3\nProperties=species:S:1:pos:R:3:{forces}:R:3 {energy} {extra} pbc="F F F"\n'
        f"O {shift} 0 0 0.1 0 0\nH 0.96 0 0 -0.1 0 0\nH -0.24 0.93 0 0 0 0\n"
    )


def write(folder, text: str, name: str = "a.xyz"):
    path = folder / name
    path.write_text(text)
    return path


def test_ase_files_come_back_whole(tmp_path):
    """What ASE writes (energy and forces from a calculator) is read to the digits of the file."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write as ase_write

    rng = np.random.default_rng(0)
    frames, labels = [], []
    for _ in range(4):
        atoms = Atoms("CH4", positions=rng.normal(size=(5, 3)) * 2)
        labels.append((rng.normal() - 1000, rng.normal(size=(5, 3))))
        atoms.calc = SinglePointCalculator(atoms, energy=labels[-1][0], forces=labels[-1][1])
        frames.append(atoms)
    ase_write(tmp_path / "a.xyz", frames, format="extxyz")
    read = read_extxyz(tmp_path / "a.xyz").structures
    for atoms, (energy, forces), structure in zip(frames, labels, read, strict=True):
        assert structure.energy == pytest.approx(energy, abs=1e-12)
        assert np.abs(structure.forces - forces).max() < 1e-7
        assert np.abs(structure.positions - atoms.positions).max() < 1e-7
        assert structure.numbers.tolist() == [6, 1, 1, 1, 1]
        assert (structure.charge, structure.spin, structure.cell) == (0, 1, None)
        assert structure.group == "CH4"


def test_own_keys_charge_spin_and_group(tmp_path):
    text = water("REF_energy=-2.5", "total_charge=-1 spin=2 name=wet", forces="REF_forces")
    keys = {"energy_key": "REF_energy", "forces_key": "REF_forces", "group_key": "name"}
    (structure,) = read_extxyz(write(tmp_path, text), **keys).structures
    assert (structure.energy, structure.charge, structure.spin, structure.group) == (-2.5, -1, 2, "wet")
    assert structure.forces[0].tolist() == [0.1, 0, 0]


def test_units_become_ours(tmp_path):
    path = write(tmp_path, water())
    (ours,) = read_extxyz(path).structures
    (atomic,) = read_extxyz(path, energy_unit="hartree", length_unit="bohr").structures
    assert atomic.energy == pytest.approx(ours.energy * HARTREE)
    assert np.allclose(atomic.positions, ours.positions * BOHR)
    assert np.allclose(atomic.forces, ours.forces * HARTREE / BOHR)
    (chemists,) = read_extxyz(path, energy_unit="kcal/mol").structures
    assert chemists.energy == pytest.approx(-0.0433641153)
    with pytest.raises(InputError, match="use one of eV"):
        read_extxyz(path, energy_unit="Rydberg")


def test_cells(tmp_path):
    boxed = water(extra='Lattice="9 0 0 0 9 0 0 0 9"')
    assert read_extxyz(write(tmp_path, boxed)).structures[0].cell is None  # a box is not a period
    (periodic,) = read_extxyz(write(tmp_path, boxed.replace("F F F", "T T T"))).structures
    assert np.array_equal(periodic.cell, 9 * np.eye(3))
    with pytest.raises(InputError, match="some directions"):
        read_extxyz(write(tmp_path, boxed.replace("F F F", "T T F")))


def test_isolated_atoms_are_apart(tmp_path):
    atom = '1\nProperties=species:S:1:pos:R:3{} energy={} config_type=IsolatedAtom pbc="F F F"\n{} 0 0 0{}\n'
    text = atom.format("", -13.6, "H", "") + atom.format(":forces:R:3", -13.5, "H", " 0 0 0") + water()
    read = read_extxyz(write(tmp_path, text))
    assert read.isolated == {1: -13.6}
    assert len(read.structures) == 1


BAD = {
    "not a file of structures": ("name,energy\nwater,1\n", {}, "not an extxyz file"),
    "cut off": (water()[:-20], {}, "not an extxyz file"),
    "empty": ("", {}, "is empty"),
    "blank": ("\n \n", {}, "is empty"),
    "no such element": (water().replace("O ", "Qq "), {}, "not an extxyz file"),
    "other energy key": (
        water("energy_xtb=-1"),
        {},
        r"no energy under 'energy'; there are energy_xtb .*energy_key",
    ),
    "other forces key": (
        water(forces="force"),
        {},
        r"no forces under 'forces'; .*force \(per atom\).*forces_key",
    ),
    "wrong key": (water(), {"energy_key": "E"}, r"under 'E'; there are energy \(per structure\)"),
    "no forces": (
        '2\nProperties=species:S:1:pos:R:3 energy=-1 pbc="F F F"\nH 0 0 0\nH 0 0 0.74\n',
        {},
        "no forces",
    ),
    "forces missing once": (
        water() + '2\nProperties=species:S:1:pos:R:3 energy=-1 pbc="F F F"\nH 0 0 0\nH 0 0 0.74\n',
        {},
        "structure 1 of .* has no forces",
    ),
    "words for energy": (water("energy_x=low"), {"energy_key": "energy_x"}, "not one number"),
    "NaN energy": (water("energy=nan"), {}, "NaN or infinite energy"),
    "NaN position": (water().replace("0.96", "nan"), {}, "NaN or infinite positions"),
    "infinite force": (water().replace("-0.1", "inf"), {}, "NaN or infinite forces"),
    "two at one place": (water(shift=0.96), {}, "two atoms at one place"),
    "fractional charge": (water(extra="charge=0.5"), {}, "not a whole number"),
    "no multiplicity": (water(extra="spin=0"), {}, "not a multiplicity"),
    "no group": (water(), {"group_key": "name"}, "no group under 'name'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_sentence(case, tmp_path):
    text, keys, said = BAD[case]
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=said) as caught:
        read_extxyz(path, **keys)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_periodic_images_at_one_place(tmp_path):
    text = water(extra='Lattice="9 0 0 0 9 0 0 0 9"', shift=9.96).replace("F F F", "T T T")
    with pytest.raises(InputError, match="two atoms at one place"):
        read_extxyz(write(tmp_path, text))


def test_names_that_lead_nowhere(tmp_path):
    for path, said in ((tmp_path / "none.xyz", "no file"), (tmp_path, "is a folder"), ("bultin", "builtin")):
        with pytest.raises(InputError, match=said):
            load(path)
    with pytest.raises(InputError, match="not a set made by"):
        load(write(tmp_path, "x", "a.h5"))
    with pytest.raises(InputError, match="takes no energy_key"):
        load("builtin", energy_key="E")
    with pytest.raises(InputError, match=r"no option energy; .*energy_key"):
        load(write(tmp_path, water()), energy="E")
    with pytest.raises(InputError, match="at least 3 groups"):
        load(write(tmp_path, water() * 3))
    assert len(load(write(tmp_path, water() * 3), whole=True).where("train")) == 3


def test_carbonate_clusters(shared):
    """1,000 real clusters: counts of data.md; a split by composition has all four parts and is repeatable."""
    path = shared / "data" / "extxyz" / "solvent_xtb_test.xyz"
    keys = {"energy_key": "energy_xtb", "forces_key": "forces_xtb"}
    store = load(path, **keys)
    assert (len(store), len(store.group_names), store.sizes.min(), store.sizes.max()) == (1000, 85, 8, 87)
    assert store.content_hash == load(path, **keys).content_hash != load(path, seed=1, **keys).content_hash
    groups = {part: set(store.group[store.where(part)].tolist()) for part in PARTS}
    assert all(groups.values())
    assert not groups["molecules"] & groups["train"]
    assert not groups["test"] & (groups["train"] | groups["molecules"])
    assert groups["conformers"] <= groups["train"]
    assert len(store.where("train")) > 700


def test_3bpa(shared):
    folder = shared / "data" / "extxyz"
    store = Store.from_structures(read_extxyz(folder / "dataset_3BPA_train_300K.xyz").structures)
    assert (len(store), set(store.sizes.tolist()), store.cell) == (500, {27}, None)
    read = read_extxyz(folder / "dataset_3BPA_iso_atoms.xyz")
    assert set(read.isolated) == {1, 6, 7, 8}
    assert read.structures == []
    with pytest.raises(InputError, match="isolated atoms only"):
        load(folder / "dataset_3BPA_iso_atoms.xyz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut = load(folder / "dataset_3BPA_train_300K.xyz", blocks=20)
    assert all(len(cut.where(part)) for part in PARTS)
    assert "least norm" in inspect(store)
