"""EScAIP's head in closed form, against twisting real potentials with random weights."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from equiscale.data.builtin import builtin
from equiscale.models import EScAIPConfig
from equiscale.models.base import graph_for
from equiscale.predict import predict
from equiscale.symmetry.elements import rotations
from equiscale.symmetry.graphs import twisted_predictions
from equiscale.symmetry.groups import SO3
from equiscale.symmetry.head import HeadForm, closed_form
from equiscale.symmetry.parts import Parts, parts


def made(width: int = 16, envelope: str = "none", seed: int = 0):
    """A random potential, a batch of six molecules, labels, and the closed form of the head on it."""
    torch.manual_seed(seed)
    config = EScAIPConfig(width=width, depth=1, num_radial=32, cutoff=5.0, head_dim=8, envelope=envelope)
    potential = config.build().double().eval()
    torch.nn.init.normal_(potential.direction.out.weight)  # far from equivariant
    graph = graph_for(config, builtin().take(np.arange(0, 60, 10)), dtype=torch.float64)
    y = torch.randn(len(graph.numbers), 3, dtype=torch.float64)
    with torch.no_grad():
        unit, h = potential.head_features(graph)
    per_atom = 1 / (graph.num_structures * graph.size.double())[graph.structure]
    w = potential.direction.out.weight.detach()
    form = closed_form(*(t.numpy() for t in (unit, h, graph.receiver, w, per_atom, y)))
    return potential, graph, y, form


def measured(potential, graph, y, matrices: np.ndarray, unbiased: bool = False) -> Parts:
    """``matrices`` [M, structures or 1, 3, 3]."""
    g = rotations(np.broadcast_to(matrices, (len(matrices), graph.num_structures, 3, 3)))
    with torch.no_grad():
        z = twisted_predictions(lambda x: predict(potential, x), graph, g).forces
    return parts(z, y, graph.structure, graph.size, unbiased)


@pytest.mark.parametrize("envelope", ["none", "polynomial"])
@pytest.mark.parametrize("group", ["T", "I"])
def test_closed_form_is_the_average_over_a_group(envelope, group):
    """Catches a wrong factor, a weight per atom instead of per structure, a magnitude or an envelope that the features
    miss. The head has l = 0 and 2 alone, so that 12 rotations average it exactly, and 60 in another frame do."""
    potential, graph, y, form = made(envelope=envelope)
    frame = np.eye(3) if group == "T" else SO3().sample(np.random.default_rng(1)).matrix
    got = measured(potential, graph, y, (Rotation.create_group(group).as_matrix() @ frame)[:, None])
    assert float(got.equiv) == pytest.approx(form.equiv, rel=1e-10)
    assert float(got.mean) == pytest.approx(form.mean, rel=1e-10)
    assert float(got.total) == pytest.approx(form.total, rel=1e-10)


def test_closed_form_is_what_random_rotations_converge_to():
    """Catches designs that agree with the closed form for a reason of their own; a bias from few rotations."""
    potential, graph, y, form = made()
    rng = np.random.default_rng(0)
    each = [SO3().sample(rng, 8, 6).matrix for _ in range(40)]
    got = np.array([measured(potential, graph, y, r, True) for r in each])[:, 1:]
    error = got.std(0, ddof=1) / np.sqrt(len(got))
    assert (np.abs(got.mean(0) - [form.mean, form.equiv]) < 3 * error).all()
    assert (error < 0.1 * got.mean(0)).all()


def test_bounds_of_the_error():
    """Catches eigenvalues of another normalisation (theorem 4 of the paper): λ_min ‖W_⊥‖² <= L_equiv <= λ_max ‖W_⊥‖²,
    reached where all rows differ along one eigenvector."""
    form = made()[3]
    low, high = form.bounds
    assert 0 < low < form.equiv < high
    vectors = np.linalg.eigh(form.gram)[1]
    for end, vector in ((0, vectors[:, 0]), (1, vectors[:, -1])):
        at = HeadForm(form.row + np.array([1.0, -2.0, 1.0])[:, None] * vector, form.gram)
        assert at.equiv == pytest.approx(at.bounds[end], rel=1e-9)
    e, off = form.norms
    assert e**2 + off**2 == pytest.approx(np.square(form.weight).sum(), rel=1e-12)


def test_gradients_are_orthogonal_and_those_of_autograd():
    """Catches a gradient of the wrong loss: both are compared with autograd's through the whole potential."""
    potential, graph, y, form = made()
    weight = potential.direction.out.weight
    t = Rotation.create_group("T").as_matrix()
    g = rotations(np.broadcast_to(t[:, None], (12, graph.num_structures, 3, 3)))
    losses = parts(twisted_predictions(lambda x: predict(potential, x), graph, g).forces, y, graph.structure,
                   graph.size, False)  # fmt: skip
    mean, equiv = form.gradients()
    for loss, expected in ((losses.mean, mean), (losses.equiv, equiv)):
        (got,) = torch.autograd.grad(loss, weight, retain_graph=True)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert abs((mean * equiv).sum()) < 1e-14 * np.linalg.norm(mean) * np.linalg.norm(equiv)


def test_hessians_share_their_spectrum():
    """Catches the claim that one loss is better conditioned than the other by construction: for this head the non-zero
    eigenvalues are the same, once for L_mean and twice for L_equiv."""
    form = made(8)[3]
    mean, equiv = (np.linalg.eigvalsh(h) for h in form.hessians())
    np.testing.assert_allclose(mean[-8:], 2 * form.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(equiv[-16:], np.repeat(2 * form.eigenvalues, 2), rtol=1e-9)
    assert np.abs(mean[:-8]).max() < 1e-15 * mean[-1] * 24
    assert np.abs(equiv[:-16]).max() < 1e-15 * equiv[-1] * 24


def test_an_equivariant_head_has_no_error():
    """Catches an error that comes from round-off in the rows' mean."""
    form = made()[3]
    same = HeadForm(np.tile(form.row, (3, 1)), form.gram)
    assert same.equiv < 1e-28
    assert same.mean is None
    assert same.total is None
