"""Harmonics, Wigner D and edge frames: group law, normalisation, agreement with e3nn, and no angles' poles."""

import math

import numpy as np
import pytest
import torch

from equiscale.data.orientation import haar
from equiscale.so3 import degree_slice, edge_frames, num_components, spherical_harmonics, wigner_d, wigner_rows

AXES = torch.cat([torch.eye(3), -torch.eye(3)]).double()


def directions(n: int, seed: int = 0) -> torch.Tensor:
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3)))
    return torch.cat([x / x.norm(dim=1, keepdim=True), AXES])


def rotations(n: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(haar(np.random.default_rng(seed), n))


def dense(rotation: torch.Tensor, lmax: int) -> torch.Tensor:
    """D of all degrees as one block-diagonal matrix."""
    full = rotation.new_zeros(len(rotation), num_components(lmax), num_components(lmax))
    for l in range(lmax + 1):
        full[:, degree_slice(l), degree_slice(l)] = wigner_d(rotation, l)
    return full


@pytest.mark.parametrize("l", range(7))
def test_harmonics_are_component_normalised_and_add_up(l):
    """Σ_m Y_lm(a) Y_lm(b) = (2l+1) P_l(a·b), the addition theorem that the triplets rest on."""
    a, b = directions(40, 1), directions(40, 2)
    ya, yb = (spherical_harmonics(v, l)[:, degree_slice(l)] for v in (a, b))
    legendre = np.polynomial.legendre.Legendre.basis(l)((a * b).sum(1).numpy())
    np.testing.assert_allclose((ya * yb).sum(1), (2 * l + 1) * legendre, atol=1e-11)


def test_degree_one_is_y_z_x():
    v = directions(5)
    np.testing.assert_allclose(spherical_harmonics(v, 1)[:, 1:], math.sqrt(3) * v[:, [1, 2, 0]], atol=1e-15)


@pytest.mark.parametrize("l", range(7))
def test_wigner_d_is_a_representation(l):
    g, h = rotations(6, 3), rotations(6, 4)
    v = directions(6, 5)[:6]
    d = wigner_d(g, l)
    torch.testing.assert_close(d @ wigner_d(h, l), wigner_d(g @ h, l), rtol=0, atol=1e-12)
    torch.testing.assert_close(d @ d.mT, torch.eye(2 * l + 1).double().expand_as(d), rtol=0, atol=1e-12)
    y, turned = (spherical_harmonics(x, l)[:, degree_slice(l), None] for x in (v, (g @ v[:, :, None])[:, :, 0]))
    torch.testing.assert_close(d @ y, turned, rtol=0, atol=1e-12)


def test_edge_frames_turn_every_direction_onto_z():
    """Rows x', y', z' of a proper rotation, along the axes and for coincident atoms too."""
    v = torch.cat([3.0 * directions(50, 6), 1e-7 * AXES, torch.zeros(1, 3).double()])
    r = edge_frames(v)
    torch.testing.assert_close(r @ r.mT, torch.eye(3).double().expand_as(r), rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(len(v)).double(), rtol=0, atol=1e-14)
    along = (r @ v[:, :, None])[:, :, 0]
    torch.testing.assert_close(along[:, 2], v.norm(dim=1), rtol=0, atol=1e-14)
    assert along[:, :2].abs().max() < 1e-14


@pytest.mark.parametrize(("lmax", "mmax"), [(1, 0), (1, 1), (2, 2), (4, 2), (3, 1), (6, 2), (6, 6), (8, 8), (12, 12)])
def test_wigner_rows_are_rows_of_wigner_d(lmax, mmax):
    frames = torch.cat([edge_frames(directions(40, 7)), rotations(10, 8)])
    full, rows = dense(frames, lmax), wigner_rows(frames, lmax, mmax)
    assert len(rows) == mmax + 1
    for m, made in enumerate(rows):
        for sign in range(2 if m else 1):
            for l in range(lmax + 1):
                mine = made[:, sign, degree_slice(l)]
                if l < m:
                    assert not mine.any()
                else:
                    row = full[:, l * l + l + (-m if sign else m), degree_slice(l)]
                    torch.testing.assert_close(mine, row, rtol=0, atol=2e-12)


def test_wigner_rows_have_finite_derivatives_everywhere():
    """First and second derivatives with respect to the vectors: axes, coincident atoms, and against differences."""
    v = torch.cat([AXES, torch.zeros(1, 3).double(), directions(4, 9)]).requires_grad_()

    def figure(v):
        return sum(r.sin().sum() for r in wigner_rows(edge_frames(v), 3, 2))

    (first,) = torch.autograd.grad(figure(v), v, create_graph=True)
    (second,) = torch.autograd.grad(first.sin().sum(), v)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()
    assert not first[6].any()
    assert torch.autograd.gradgradcheck(lambda x: figure(x), directions(2, 10)[:2].clone().requires_grad_())


def test_harmonics_and_wigner_d_are_e3nns():
    """e3nn's polar axis is y: its harmonics of (x, y, z) are ours of (z, x, y)."""
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    v, angles = directions(30, 11), torch.from_numpy(np.random.default_rng(12).uniform(0, 3, (3, 5)))
    theirs = o3.spherical_harmonics(list(range(7)), v, normalize=False, normalization="component")
    torch.testing.assert_close(spherical_harmonics(v[:, [2, 0, 1]], 6), theirs, rtol=0, atol=1e-12)
    cycle = torch.eye(3).double()[[2, 0, 1]]
    for l in range(7):
        g = cycle @ o3.angles_to_matrix(*angles) @ cycle.T
        torch.testing.assert_close(wigner_d(g, l), o3.wigner_D(l, *angles), rtol=0, atol=1e-6)
