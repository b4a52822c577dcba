"""Groups and their elements: the laws of a group, uniform draws, and what cannot be listed."""

import itertools

import numpy as np
import pytest

from equiscale.errors import InputError
from equiscale.symmetry.elements import Elements, identity
from equiscale.symmetry.groups import O3, SO3, Octahedral, Permutations, Product, Translations

GROUPS = {
    "SO3": SO3(),
    "O3": O3(),
    "octahedral": Octahedral(),
    "octahedral with reflections": Octahedral(reflections=True),
    "permutations": Permutations(5),
    "translations": Translations(2.0),
    "rotations, shifts, permutations": Product(SO3(), Translations(1.0), Permutations(5)),
    "octahedral, permutations": Product(Octahedral(), Permutations(3)),
}
FINITE = {"octahedral": 24, "octahedral with reflections": 48, "permutations": 120, "octahedral, permutations": 144}


def same(g: Elements, h: Elements) -> None:
    """An element without a part is one with a trivial part."""
    np.testing.assert_allclose(g.matrix, h.matrix, atol=1e-12)
    for part in ("shift", "order"):
        a, b = getattr(g, part), getattr(h, part)
        given = a if a is not None else b
        if given is not None:
            trivial = np.broadcast_to(np.arange(given.shape[-1]) if part == "order" else 0.0, given.shape)
            np.testing.assert_allclose(trivial if a is None else a, trivial if b is None else b, atol=1e-12)


def keys(g: Elements) -> set[tuple]:
    order = np.zeros((len(g), 0)) if g.order is None else g.order
    return {(*np.rint(m).ravel().astype(int), *o) for m, o in zip(g.matrix, order)}


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_laws_of_a_group(name):
    """Would catch a product that acts in the wrong order, or an inverse that forgets to turn the shift."""
    rng = np.random.default_rng(0)
    g, h, k = (GROUPS[name].sample(rng, 50) for _ in range(3))
    same((g @ h) @ k, g @ (h @ k))
    same(g @ g.inverse(), identity(50))
    same(g.inverse() @ g, identity(50))
    same((g @ h).inverse(), h.inverse() @ g.inverse())
    same(g @ identity(), g)


@pytest.mark.parametrize("name", sorted(FINITE))
def test_finite_groups_are_closed(name):
    """Would catch a wrong number of elements, one listed twice, or one whose products lie outside."""
    group = GROUPS[name]
    assert group.finite
    g = group.all()
    listed = keys(g)
    assert len(g) == len(listed) == FINITE[name]
    same(g[0], identity())
    both = g[:40, None] @ g[None]
    assert keys(flat(both)) <= listed
    assert keys(g.inverse()) == listed
    assert keys(group.sample(np.random.default_rng(1), 300)) <= listed


def flat(g: Elements) -> Elements:
    order = None if g.order is None else g.order.reshape(-1, g.order.shape[-1])
    return Elements(g.matrix.reshape(-1, 3, 3), order=order)


def test_octahedral_matrices_are_exact():
    """Rotations first, then the negatives; would catch entries of 1e-17, which a grid cannot be turned by."""
    g = Octahedral(reflections=True).all()
    assert set(np.unique(g.matrix)) == {-1.0, 0.0, 1.0}
    assert not np.signbit(g.matrix[g.matrix == 0]).any()
    np.testing.assert_array_equal(g.sign, np.repeat([1, -1], 24))
    np.testing.assert_array_equal(g.matrix[24:], -Octahedral().all().matrix)


@pytest.mark.parametrize("name", ["SO3", "O3", "octahedral", "octahedral with reflections"])
def test_second_moments_are_uniform(name):
    """E[R_ij R_kl] = δ_ik δ_jl / 3 of every irreducible group; would catch Euler angles drawn uniformly."""
    r = GROUPS[name].sample(np.random.default_rng(2), 40_000).matrix.reshape(-1, 9)
    np.testing.assert_allclose(r.T @ r / len(r), np.eye(9) / 3, atol=0.01)


@pytest.mark.parametrize("name", ["SO3", "O3"])
def test_fourth_moments_are_uniform(name):
    """E[R⊗R⊗R⊗R] = Σ_pq W_pq P_p ⊗ P_q over pairings p, q of four axes, W = (4 on, -1 off the diagonal) / 30.

    It is the projection onto isotropic tensors of rank 4. Would catch a law that is uniform up to second moments only.
    """
    r = GROUPS[name].sample(np.random.default_rng(3), 100_000).matrix
    two = np.einsum("nij,nkl->nikjl", r, r).reshape(-1, 81)  # (ik), (jl)
    measured = (two.T @ two / len(r)).reshape((3,) * 8)  # i k j l, i' k' j' l': pairs of rows, then of columns
    measured = measured.transpose(0, 1, 4, 5, 2, 3, 6, 7).reshape(81, 81)
    d = np.eye(3)
    pairings = np.array([np.einsum(s, d, d).ravel() for s in ("ij,kl->ijkl", "ik,jl->ijkl", "il,jk->ijkl")])
    weingarten = (5 * np.eye(3) - np.ones((3, 3))) / 30
    np.testing.assert_allclose(measured, pairings.T @ weingarten @ pairings, atol=0.01)


def test_signs_and_permutations_are_uniform():
    """Would catch O(3) with reflections too rare, and a shuffle shared by all elements of a collection."""
    rng = np.random.default_rng(4)
    assert abs(O3().sample(rng, 20_000).sign.mean()) < 0.03
    assert (SO3().sample(rng, 1000).sign == 1).all()
    order = Permutations(4).sample(rng, 24_000).order
    counts = np.unique(order, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_translations_have_their_scale():
    """Would catch a scale taken as a variance."""
    t = Translations(2.5).sample(np.random.default_rng(5), 100, 200).shift
    np.testing.assert_allclose(t.std(axis=(0, 1)), 2.5, rtol=0.02)
    np.testing.assert_allclose(t.mean(axis=(0, 1)), 0, atol=0.08)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", sorted(GROUPS))
def test_samples_have_the_shape_asked_for(name, shape):
    """Would catch a single element that comes with an axis, and products whose parts differ in shape."""
    g = GROUPS[name].sample(np.random.default_rng(6), *shape)
    assert g.shape == shape
    assert g.shift is None or g.shift.shape == (*shape, 3)
    assert g.order is None or g.order.shape[:-1] == shape


def test_products_of_unlike_collections_can_be_indexed():
    """Would catch parts that keep the shape of the one factor that has them."""
    rng = np.random.default_rng(7)
    moved = Product(Translations(1.0), Permutations(4)).sample(rng, 2)
    for g in (SO3().sample(rng, 3, 1) @ moved, moved @ SO3().sample(rng, 3, 1)):
        assert g.shape == g.shift.shape[:-1] == g.order.shape[:-1] == (3, 2)
        same(g[..., 1], g[:, 1])
        assert g[2].shape == (2,)


def test_a_product_of_finite_groups_lists_every_pair():
    """Would catch a listing that pairs elements one by one."""
    g = Product(Octahedral(), Permutations(3)).all()
    pairs = itertools.product(keys(Octahedral().all()), itertools.permutations(range(3)))
    assert keys(g) == {(*m, *o) for m, o in pairs}


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda: SO3().all(), "infinitely many"),
        (lambda: O3().all(), "infinitely many"),
        (lambda: Translations(1.0).all(), "infinitely many"),
        (lambda: Product(SO3(), Permutations(2)).all(), "infinitely many"),
        (lambda: Permutations(8).all(), "40320 permutations"),
        (lambda: Permutations(0), "one atom or more"),
        (lambda: Translations(0.0), "positive number"),
        (lambda: Product(SO3(), O3()), "at most one"),
        (lambda: Product(Product(SO3()), Permutations(2)), "none of them products"),
        (lambda: Product(), "at most one"),
    ],
    ids=[f"case {i}" for i in range(10)],
)
def test_refusals_are_one_sentence(refused, words):
    """Would catch a traceback, or a list of 8! elements."""
    with pytest.raises(InputError, match=words) as caught:
        refused()
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
