"""Designs are exact up to the degree they state, cosets are unbiased beyond it, and samplers fit their groups."""

import numpy as np
import pytest
import torch
from e3nn.o3 import matrix_to_angles, wigner_D

from equiscale.errors import InputError
from equiscale.so3 import wigner_d
from equiscale.symmetry.designs import (
    Coset,
    FullGroup,
    Quadrature,
    Random,
    degree,
    design,
    sampler,
)
from equiscale.symmetry.groups import O3, SO3, Octahedral, Permutations, Product, Translations

EXACT = ["D2", "T", "O", "I", "lebedev:3", "lebedev:5", "lebedev:7", "lebedev:9"]
SIZES = {"D2": 4, "T": 12, "O": 24, "I": 60, "lebedev:3": 24, "lebedev:5": 84, "lebedev:7": 208, "lebedev:9": 380}


def wigner(matrix: np.ndarray, l: int) -> np.ndarray:
    return wigner_d(torch.from_numpy(np.array(matrix)), l).numpy()


def residual(name: str, l: int, theirs: bool = False) -> float:
    """max |Σ w D^l|."""
    g, w = design(name)
    if theirs:
        angles = matrix_to_angles(torch.from_numpy(np.array(g.matrix)))
        d = wigner_D(l, *angles).numpy()
    else:
        d = wigner(g.matrix, l)
    return np.abs(np.einsum("m,mij->ij", w, d)).max()


@pytest.mark.parametrize("theirs", [False, True], ids=["equiscale", "e3nn"])
@pytest.mark.parametrize("name", EXACT)
def test_designs_are_exact_up_to_their_degree_and_no_further(name, theirs):
    """Would catch a frame turned the wrong way round, angles at which a component survives, a degree off by one."""
    assert len(design(name)[0]) == SIZES[name]
    last = degree(name)
    worst = max(residual(name, l, theirs) for l in range(1, last + 1))
    assert worst < (1e-6 if theirs else 1e-8)  # e3nn's angles have single precision's; Lebedev's tables ten digits
    assert residual(name, last + 1, theirs) > 0.1


@pytest.mark.parametrize(("name", "last"), [("D2", 1), ("T", 2), ("O", 3), ("I", 5)])
def test_degrees_of_the_point_groups(name, last):
    """The table of designs; would catch degrees that the test above reads from the code itself."""
    assert degree(name) == last


@pytest.mark.parametrize("theirs", [False, True], ids=["equiscale", "e3nn"])
def test_spirals_are_nearly_exact(theirs):
    """Would catch a wrong constant of the spiral: residuals then are tenths. Nothing is claimed to be exact."""
    assert max(residual("superfibonacci:200", l, theirs) for l in range(1, 5)) < 0.02
    assert degree("superfibonacci:200") == 0


@pytest.mark.parametrize("name", [*EXACT, "superfibonacci:7"])
def test_designs_are_rotations_with_weights(name):
    """Would catch weights that do not sum to one, reflections, and matrices that are not orthogonal."""
    g, w = design(name)
    assert w.shape == (len(g),)
    assert abs(w.sum() - 1) < 1e-12
    assert (g.sign == 1).all()
    np.testing.assert_allclose(g.matrix @ g.matrix.mT, np.broadcast_to(np.eye(3), g.matrix.shape), atol=1e-12)


def averages(draws, l: int) -> np.ndarray:
    d = wigner(draws.elements.matrix, l)
    return np.einsum("m,smij->sij", draws.weights, d)


@pytest.mark.parametrize("name", ["D2", "T", "O", "lebedev:3"])
def test_cosets_are_exact_up_to_the_degree_and_unbiased_beyond(name):
    """Each draw of a coset is exact for l ≤ L; for l > L draws scatter about zero, the mean of Haar's measure.

    Would catch a shift that is missing (a bias of order one), or not uniform, or the same for all samples.
    """
    samples = 600
    draws = Coset(name).draw(SO3(), np.random.default_rng(0), samples)
    for l in range(1, degree(name) + 1):
        np.testing.assert_allclose(averages(draws, l), 0, atol=1e-8)
    beyond = averages(draws, 4)
    assert beyond.std(0).max() > 0.1
    assert (np.abs(beyond.mean(0)) < 5 * beyond.std(0) / np.sqrt(samples) + 1e-8).all()


def test_coset_estimates_the_twirl_of_any_map():
    """Z(g) = gᵀ f(g x) with terms up to degree 6: the mean over cosets is the average over a fine quadrature.

    Would catch elements that are inverted, or a coset that is uniform on the wrong side of the model only.
    """
    rng = np.random.default_rng(1)
    x, a, b = rng.normal(size=(5, 3)), rng.normal(size=(3, 3)), rng.normal(size=(3, 3))

    def z(matrix):
        y = x @ matrix.swapaxes(-1, -2)
        f = (y @ a + (y[..., ::-1] @ b) * y**2 * np.roll(y, 1, -1) ** 2).sum(-2)
        return np.einsum("...ij,...i->...j", matrix, f)

    g, w = design("lebedev:7")
    mu = w @ z(g.matrix)
    draws = Coset("T").draw(SO3(), rng, 5000)
    means = np.einsum("m,smi->si", draws.weights, z(draws.elements.matrix))
    error = means.std(0) / np.sqrt(len(means))
    assert error.max() > 0
    assert (np.abs(means.mean(0) - mu) < 4.5 * error).all()
    coset, iid = means.var(0).sum(), z(SO3().sample(rng, 5000).matrix).var(0).sum() / 12
    assert coset < iid  # what a design is for


def test_coset_is_moved_on_the_left():
    """A map that commutes with O, such as v -> v³, is still probed at 24 unlike frames.

    Would catch the design acting after the shift: all 24 values are equal then, and their spread is no measure.
    """
    x = np.random.default_rng(2).normal(size=3)
    draws = Coset("O").draw(SO3(), np.random.default_rng(3), 20)

    def z(matrix):
        return np.einsum("...ij,...i->...j", matrix, (matrix @ x) ** 3)

    left = draws.elements.matrix
    assert z(left).std(axis=1).max(axis=-1).min() > 1e-3
    shift = left[:, :1]
    assert z(design("O")[0].matrix @ shift).std(axis=1).max() < 1e-12


def test_pairs_are_two_independent_cosets():
    """Would catch one shift for both halves, or halves that are interleaved."""
    draws = Coset("T", pair=True).draw(SO3(), np.random.default_rng(4), 1500)
    assert draws.kind == "pair"
    assert draws.elements.shape == (1500, 24)
    np.testing.assert_allclose(draws.weights.sum(), 1)
    d = wigner(draws.elements.matrix, 3)
    first, second = d[:, :12].mean(1), d[:, 12:].mean(1)
    np.testing.assert_allclose(wigner(draws.elements.matrix[:, :12], 2).mean(1), 0, atol=1e-12)
    assert first.var() > 0.01
    assert abs((first * second).sum((1, 2)).mean()) < 0.1
    assert (first * first).sum((1, 2)).mean() == pytest.approx(1, abs=0.1)  # rank of the invariants of T in l = 3


@pytest.mark.parametrize("which", [Coset("T"), Coset("T", pair=True), Quadrature("lebedev:3")], ids=str)
def test_designs_for_reflections_are_exact_for_both_parities(which):
    """Would catch a coset of rotations that leaves out half of O(3): det R and det R · D^l average to zero, too."""
    draws = which.draw(O3(), np.random.default_rng(5), 3)
    sign = draws.elements.sign
    np.testing.assert_allclose(sign @ draws.weights, 0, atol=1e-12)
    for l in (1, 2):
        d = wigner(draws.elements.matrix, l)
        np.testing.assert_allclose(np.einsum("m,smij->sij", draws.weights, d), 0, atol=1e-8)
        np.testing.assert_allclose(np.einsum("m,sm,smij->sij", draws.weights, sign, d), 0, atol=1e-8)
    if which == Coset("T", pair=True):
        np.testing.assert_allclose(sign[:, :24].sum(1), 0, atol=1e-12)


GROUPS = {
    "SO3": SO3(),
    "O3": O3(),
    "octahedral": Octahedral(),
    "permutations": Permutations(4),
    "translations": Translations(1.0),
    "product": Product(SO3(), Permutations(4)),
    "finite product": Product(Octahedral(), Permutations(2)),
}
FITS = {
    "random:3": set(GROUPS),
    "T": {"SO3", "O3"},
    "T*2": {"SO3", "O3"},
    "lebedev:3": {"SO3", "O3"},
    "superfibonacci:5": {"SO3", "O3"},
    "full": {"octahedral", "permutations", "finite product"},
}


@pytest.mark.parametrize("text", sorted(FITS))
@pytest.mark.parametrize("name", sorted(GROUPS))
def test_samplers_fit_their_groups_or_are_refused(name, text):
    """Would catch rotations drawn for a group that has none, where their average means nothing."""
    group, rng = GROUPS[name], np.random.default_rng(6)
    if name in FITS[text]:
        draws = sampler(text).draw(group, rng, 2)
        assert draws.elements.shape == (2, len(draws.weights))
        assert abs(draws.weights.sum() - 1) < 1e-12
        assert draws.elements[0].shape == draws.weights.shape
        if text == "full":
            np.testing.assert_array_equal(draws.elements.matrix[1], group.all().matrix)
    else:
        with pytest.raises(InputError) as caught:
            sampler(text).draw(group, rng, 2)
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)


def test_command_lines_name_samplers():
    """Would catch a name that means another sampler than the manual says."""
    meant = {
        "random": Random(2),
        "random:10": Random(10),
        "D2": Coset("D2"),
        "T": Coset("T"),
        "O": Coset("O"),
        "I": Coset("I"),
        "T*2": Coset("T", pair=True),
        "lebedev:7": Quadrature("lebedev:7"),
        "superfibonacci:200": Quadrature("superfibonacci:200"),
        "full": FullGroup(),
    }
    assert {text: sampler(text) for text in meant} == meant


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("random:0", "no sampler 'random:0'"),
        ("random:-1", "no sampler"),
        ("haar", "no sampler 'haar'"),
        ("T*3", "no sampler"),
        ("lebedev", "no sampler"),
        ("lebedev:4", "no Lebedev rule of degree 4: there are 3, 5, 7"),
        ("lebedev:33", "31, 35, 41"),
        ("lebedev:x", "no design 'lebedev:x'"),
        ("superfibonacci:0", "no design"),
        ("", "no sampler ''"),
    ],
)
def test_unknown_samplers_are_refused_with_what_there_is(text, words):
    """Would catch a traceback from a name that is misspelt."""
    with pytest.raises(InputError, match=words.replace("*", r"\*")) as caught:
        sampler(text)
    assert str(caught.value).endswith(".")


def test_all_lebedev_rules_exist():
    """The degrees named in a refusal are those that SciPy has."""
    from scipy.integrate import lebedev_rule

    from equiscale.symmetry.designs import LEBEDEV

    for l in LEBEDEV:
        lebedev_rule(l)
    for l in set(range(1, 140)) - set(LEBEDEV):
        with pytest.raises(NotImplementedError):
            lebedev_rule(l)


def test_a_seed_decides_the_draws():
    """Would catch a generator of its own, which no run could repeat."""
    for which in (Random(3), Coset("T"), Coset("T", pair=True)):
        a, b = (which.draw(O3(), np.random.default_rng(8), 4).elements.matrix for _ in range(2))
        np.testing.assert_array_equal(a, b)
