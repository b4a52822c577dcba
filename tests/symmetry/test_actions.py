"""Actions are homomorphisms on every kind of array; the twirl projects onto equivariant maps."""

import numpy as np
import pytest
import torch

from equiscale.errors import InputError
from equiscale.symmetry.actions import Axial, Grid, Joint, Point, Scalar, Tensor, Vector
from equiscale.symmetry.designs import Coset
from equiscale.symmetry.elements import Elements, identity, rotations
from equiscale.symmetry.groups import O3, SO3, Octahedral, Permutations, Product, Translations
from equiscale.symmetry.twist import twirl, twisted

N = 4
ALL = Product(O3(), Translations(1.0), Permutations(N))
# The axes that an action owns, by the name of the case.
CASES = {
    "scalar": (Scalar(), ()),
    "scalar per atom": (Scalar(per_atom=True), (N,)),
    "vector": (Vector(per_atom=False), (3,)),
    "vector per atom": (Vector(), (N, 3)),
    "axial": (Axial(per_atom=False), (3,)),
    "axial per atom": (Axial(), (N, 3)),
    "point": (Point(per_atom=False), (3,)),
    "point per atom": (Point(), (N, 3)),
    "tensor 2": (Tensor(2), (3, 3)),
    "tensor 3": (Tensor(3), (3, 3, 3)),
    "tensor 2 per atom": (Tensor(2, per_atom=True), (N, 3, 3)),
    "tensor 3 per atom": (Tensor(3, per_atom=True), (N, 3, 3, 3)),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_actions_are_homomorphisms(name):
    """(g h) x = g (h x) for elements that reflect, shift and permute; would catch an order taken the wrong way."""
    rng = np.random.default_rng(0)
    action, own = CASES[name]
    g, h, x = ALL.sample(rng, 6), ALL.sample(rng, 6), rng.normal(size=(6, *own))
    np.testing.assert_allclose(action(g @ h, x), action(g, action(h, x)), atol=1e-12)
    np.testing.assert_allclose(action(g.inverse(), action(g, x)), x, atol=1e-12)
    np.testing.assert_allclose(action(identity(6), x), x, atol=0)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"scalar"}))
def test_elements_broadcast_against_the_axes_before_an_actions_own(name):
    """One structure under M elements, a batch with one each, a batch under all: as element by element."""
    rng = np.random.default_rng(1)
    action, own = CASES[name]
    x = rng.normal(size=(5, *own))
    g = ALL.sample(rng, 5)
    each = np.stack([action(g[i], x[i]) for i in range(5)])
    assert each.shape == (5, *own)
    np.testing.assert_allclose(action(g, x), each, atol=1e-12)
    np.testing.assert_allclose(action(g, x[0]), [action(g[i], x[0]) for i in range(5)], atol=1e-12)
    grown = Elements(g.matrix[:, None], g.shift[:, None], g.order[:, None])
    many = np.stack([np.stack([action(g[i], y) for y in x]) for i in range(5)])
    np.testing.assert_allclose(action(grown, x), many, atol=1e-12)
    np.testing.assert_allclose(action(g[:, None], x), many, atol=1e-12)


def test_what_each_action_does():
    """The formulas, by explicit sums: would catch R transposed, which homomorphisms of inverses would not."""
    rng = np.random.default_rng(2)
    g = ALL.sample(rng)
    r, t, order = g.matrix, g.shift, g.order
    v, s2, s3 = rng.normal(size=(N, 3)), rng.normal(size=(3, 3)), rng.normal(size=(3, 3, 3))
    np.testing.assert_allclose(Vector()(g, v), [r @ v[k] for k in order])
    np.testing.assert_allclose(Point()(g, v), [r @ v[k] + t for k in order])
    np.testing.assert_allclose(Axial()(g, v), [np.linalg.det(r) * r @ v[k] for k in order])
    np.testing.assert_allclose(Scalar(per_atom=True)(g, v[:, 0]), v[order, 0])
    np.testing.assert_allclose(Tensor(2)(g, s2), r @ s2 @ r.T)
    np.testing.assert_allclose(Tensor(3)(g, s3), np.einsum("ai,bj,ck,ijk", r, r, r, s3))
    assert Scalar()(g, 1.5) == 1.5


def test_cross_products_are_axial():
    """a × b of polar vectors; would catch the determinant left out."""
    rng = np.random.default_rng(3)
    g, a, b = O3().sample(rng, 20), rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    polar, axial = Vector(per_atom=False), Axial(per_atom=False)
    np.testing.assert_allclose(np.cross(polar(g, a), polar(g, b)), axial(g, np.cross(a, b)), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_torch_and_numpy_agree(name, dtype):
    """Would catch a promotion to double precision, and gradients that are cut."""
    rng = np.random.default_rng(4)
    action, own = CASES[name]
    g, x = ALL.sample(rng, 3), rng.normal(size=(3, *own)).astype(dtype)
    tensor = torch.from_numpy(x).requires_grad_()
    out, theirs = action(g, x), action(g, tensor)
    assert out.dtype == x.dtype
    assert theirs.dtype == tensor.dtype
    np.testing.assert_allclose(out, theirs.detach(), atol=1e-5 if dtype == "float32" else 1e-12)
    theirs.square().sum().backward()
    assert tensor.grad.shape == tensor.shape


@pytest.mark.parametrize("size", [4, 5], ids=["even", "odd"])
def test_grids_are_turned_as_a_faithful_group(size):
    """All 576 products of the 24 rotations, 24 unlike outcomes; would catch a turn composed in the wrong order."""
    u = np.random.default_rng(5).normal(size=(size,) * 3)
    g, act = Octahedral().all(), Grid()
    once = act(g, u)
    assert len({w.tobytes() for w in once}) == 24
    np.testing.assert_array_equal(act(g[:, None], once[None]), act(g[:, None] @ g[None], u))


@pytest.mark.parametrize("size", [8, 9], ids=["even", "odd"])
@pytest.mark.parametrize("axes", [(-3, -2, -1), (-4, -3, -2), (-1, -3, -2)], ids=str)
def test_turned_grids_are_the_grids_of_turned_points(size, axes):
    """u(r) = Σ_a exp(-|r - x_a|²) of rotated and reflected points. Would catch a grid that is centred off the origin,
    and axes in the wrong order."""
    x = np.random.default_rng(6).normal(size=(5, 3))
    line = (np.arange(size) - (size - 1) / 2) * 0.5
    r = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1)

    def voxels(points):
        u = np.exp(-((r - points[..., :, None, None, None, :]) ** 2).sum(-1)).sum(-4)
        if axes == (-3, -2, -1):
            return u
        if axes == (-1, -3, -2):
            return np.moveaxis(u, -3, -1)
        return np.stack([u, 2 * u], axis=-1)  # channels that follow

    g = Octahedral(reflections=True).all()
    np.testing.assert_allclose(Grid(axes)(g, voxels(x)), voxels(Point()(g, x)), atol=1e-12)


def test_grids_of_batches_and_channels():
    """g [B] on [B, C, x, y, z] with channels of its own; torch as NumPy; would catch channels taken for samples."""
    rng = np.random.default_rng(7)
    u = rng.normal(size=(3, 2, 4, 4, 4)).astype("float32")
    g = Octahedral(reflections=True).sample(rng, 3)
    each = np.stack([[Grid()(g[b], u[b, c]) for c in range(2)] for b in range(3)])
    np.testing.assert_array_equal(Grid(channels=1)(g, u), each)
    np.testing.assert_array_equal(Grid()(g[:, None], u), each)
    np.testing.assert_array_equal(Grid()(g[0], u), Grid()(identity(3, 2) @ g[0], u))
    assert Grid(channels=1)(g, u[0]).shape == u.shape
    tensor = torch.from_numpy(u).requires_grad_()
    theirs = Grid(channels=1)(g, tensor)
    np.testing.assert_array_equal(theirs.detach(), each)
    theirs.square().sum().backward()
    torch.testing.assert_close(tensor.grad, 2 * tensor.detach())


def test_joint_acts_on_each_entry_by_its_own():
    """Would catch one entry left in the old frame."""
    rng = np.random.default_rng(8)
    g = ALL.sample(rng, 3)
    x = {"x": rng.normal(size=(N, 3)), "dipole": rng.normal(size=3), "t": 0.5}
    act = Joint({"x": Point(), "dipole": Vector(per_atom=False), "t": Scalar()})
    out = act(g, x)
    np.testing.assert_array_equal(out["x"], Point()(g, x["x"]))
    assert out["dipole"].shape == (3, 3)
    assert out["t"] == 0.5
    with pytest.raises(InputError, match="only one of them has t"):
        act(g, {"x": x["x"], "dipole": x["dipole"]})


def lopsided(x):
    """A map [..., n, 3] -> [..., n, 3] without symmetry: neither of rotations nor of the atoms' order."""
    weights = np.random.default_rng(9).normal(size=(2, x.shape[-2], 3))
    return np.sin(x * weights[0] + np.roll(x, 1, axis=-1)) * weights[1] + x.prod(axis=(-1, -2), keepdims=True)


def equivariant(x):
    """Forces of pairs: (x_i - x_j) |x_i - x_j|², summed."""
    d = x[..., :, None, :] - x[..., None, :, :]
    return (d * (d**2).sum(-1, keepdims=True)).sum(-2)


FINITE = {
    "octahedral": Octahedral(),
    "octahedral with reflections": Octahedral(reflections=True),
    "permutations": Permutations(N),
    "octahedral, permutations": Product(Octahedral(), Permutations(3)),
}


@pytest.mark.parametrize("name", sorted(FINITE))
def test_twirl_over_a_finite_group_is_an_exact_projection(name):
    """Equivariant, idempotent, and not zero; would catch the inverse taken on the wrong side."""
    rng = np.random.default_rng(10)
    n = 3 if name == "octahedral, permutations" else N
    group, x = FINITE[name], rng.normal(size=(n, 3))
    once = twirl(lopsided, Point(), Vector(), group.all())
    twice = twirl(once, Point(), Vector(), group.all())
    g = group.sample(rng, 3)
    for i in range(3):
        np.testing.assert_allclose(once(Point()(g[i], x)), Vector()(g[i], once(x)), atol=1e-12)
    if name != "octahedral, permutations":  # 144² evaluations
        np.testing.assert_allclose(twice(x), once(x), atol=1e-12)
    assert np.abs(lopsided(x) - once(x)).max() > 0.01
    assert np.abs(once(x)).max() > 1e-3


def test_twirl_leaves_equivariant_maps_alone():
    """For any elements and weights, of rotations, shifts and permutations: twisting such a map does nothing."""
    rng = np.random.default_rng(11)
    x, g, w = rng.normal(size=(N, 3)), ALL.sample(rng, 7), rng.dirichlet(np.ones(7))
    np.testing.assert_allclose(twirl(equivariant, Point(), Vector(), g, w)(x), equivariant(x), atol=1e-11)
    z = twisted(equivariant, Point(), Vector())(g, x)
    np.testing.assert_allclose(z, np.broadcast_to(equivariant(x), (7, N, 3)), atol=1e-11)


def test_twirl_of_a_linear_map_over_a_design_is_its_invariant_part():
    """v -> A v becomes v -> tr(A)/3 v: of degree 2, so any coset of T is exact; with a coset per sample, too."""
    rng = np.random.default_rng(12)
    a, v = rng.normal(size=(3, 3)), rng.normal(size=(4, 3))
    act = Vector(per_atom=False)
    draws = Coset("T").draw(SO3(), rng, 4)
    for elements in (draws.elements, draws.elements[0]):
        out = twirl(lambda u: u @ a.T, act, act, elements, draws.weights)(v)
        np.testing.assert_allclose(out, np.trace(a) / 3 * v, atol=1e-12)


def test_outputs_may_have_other_axes_than_inputs():
    """Positions [n, 3] to a dipole and an energy, with M elements at once; would catch axes that multiply."""
    rng = np.random.default_rng(13)
    x, g = rng.normal(size=(N, 3)), ALL.sample(rng, 5)
    g = Elements(g.matrix, order=g.order)

    def f(x):
        return {"dipole": equivariant(x)[..., 0, :] + x[..., 0, :], "energy": (x**2).sum((-1, -2))}

    out = Joint({"dipole": Vector(per_atom=False), "energy": Scalar()})
    z = twisted(f, Point(), out)(g, x)
    assert z["dipole"].shape == (5, 3)
    np.testing.assert_allclose(z["energy"], (x**2).sum())
    mean = twirl(f, Point(), out, g)(x)
    np.testing.assert_allclose(mean["dipole"], z["dipole"].mean(0), atol=1e-12)
    np.testing.assert_allclose(mean["energy"], (x**2).sum())


def test_joint_inputs_move_together():
    """A map of noisy points and a guess of them, equivariant only where both are turned and one is shifted; averaged
    over T, one that is not becomes what it is."""
    rng = np.random.default_rng(16)
    x = {"x": rng.normal(size=(N, 3)), "guess": rng.normal(size=(N, 3)), "t": 0.3}
    both = Joint({"x": Point(), "guess": Vector(), "t": Scalar()})

    def f(x):
        return equivariant(x["x"]) * x["t"] + (x["guess"] ** 2).sum(-1, keepdims=True) * x["guess"]

    g = ALL.sample(rng, 5)
    z = twisted(f, both, Vector())(g, x)
    np.testing.assert_allclose(z, np.broadcast_to(f(x), (5, N, 3)), atol=1e-11)
    alone = Joint({"x": Point(), "guess": lambda g, x: x, "t": Scalar()})
    assert np.abs(twisted(f, alone, Vector())(g, x) - f(x)).max() > 0.1

    a = rng.normal(size=(3, 3))
    draws = Coset("T").draw(SO3(), rng, 1)
    mean = twirl(lambda x: f(x) + x["guess"] @ a.T, both, Vector(), draws.elements[0])
    np.testing.assert_allclose(mean(x), f(x) + np.trace(a) / 3 * x["guess"], atol=1e-11)


TURN = SO3().sample(np.random.default_rng(14), 2)
SHIFT = Translations(1.0).sample(np.random.default_rng(15))
CUBE = np.zeros((4, 4, 4))
REFUSED = {
    "rotation of a grid": (lambda: Grid()(TURN, CUBE), "octahedral group only"),
    "shift of a grid": (lambda: Grid()(SHIFT, CUBE), "these elements shift"),
    "grid that is no cube": (lambda: Grid()(identity(), CUBE[:2]), "as many points"),
    "array that is no grid": (lambda: Grid()(identity(), CUBE[0]), "as many points"),
    "axes of a grid": (lambda: Grid((0, 1, 2)), "counted from the end"),
    "two components": (lambda: Vector()(TURN, np.zeros((4, 2))), "three components"),
    "no atom axis": (lambda: Vector()(TURN, np.zeros(3)), "needs the atoms"),
    "other number of atoms": (
        lambda: Vector()(Permutations(5).sample(np.random.default_rng(0)), CUBE[0, :, :3]),
        "5 atoms",
    ),
    "tensor without rank": (lambda: Tensor(0), r"take Scalar\(\)"),
    "integers of torch": (lambda: Vector()(TURN, torch.zeros(4, 3, dtype=torch.long)), "not on integers"),
    "no element": (lambda: twirl(lopsided, Point(), Vector(), TURN[0]), "has none"),
    "weights": (lambda: twirl(lopsided, Point(), Vector(), TURN, np.ones(2)), "weights of sum one"),
    "no rotation": (lambda: rotations(np.ones((3, 3))), "orthogonal"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refusals_are_one_sentence(name):
    """Would catch an array that is silently read in another way, or a traceback."""
    refused, words = REFUSED[name]
    with pytest.raises(InputError, match=words) as caught:
        refused()
    assert str(caught.value).endswith((".", "Scalar()."))
    assert "\n" not in str(caught.value)


def test_integers_are_turned_in_double_precision():
    """Would catch a matrix that is cut to integers."""
    x = np.arange(12).reshape(4, 3)
    np.testing.assert_allclose(Vector()(TURN, x), Vector()(TURN, x.astype(float)))
