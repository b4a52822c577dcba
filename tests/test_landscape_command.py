"""The command `landscape`, and the landscapes of real potentials behind it."""

import json

import numpy as np
import pytest
import torch

from equiscale.cli import main
from equiscale.data.builtin import builtin
from equiscale.data.references import References
from equiscale.errors import InputError
from equiscale.measure.landscape import ForceLosses, chosen, head_form, landscape, rotations_of
from equiscale.models import EGNNConfig, EScAIPConfig, MPNNConfig, TransformerConfig
from equiscale.predict import TrainedPotential
from equiscale.report.landscape_figures import landscape_figure
from equiscale.symmetry.hessian import hessians

ESCAIP = EScAIPConfig(width=8, depth=1, cutoff=4.0, num_radial=16, head_dim=8)


def random(config) -> TrainedPotential:
    torch.manual_seed(0)
    return TrainedPotential(config.build().eval(), config, References({z: 0.0 for z in range(1, 100)}, 0.0, 2.0))


def few(n: int = 3):
    return builtin().take(np.arange(0, 20 * n, 20))


def test_escaips_head_is_quadratic_and_conditioned_alike():
    """Catches rotations that differ between evaluations (R² of a quadratic falls), labels or predictions in another
    unit, and a comparison of condition numbers that is about round-off: for this head those of both losses are equal,
    with multiplicities 1 and 2, while the naive ratios in float32 are far off."""
    trained = random(ESCAIP)
    found = landscape(trained, few(), parameters=r"direction\.out", rotations="T", points=5)
    form, (_, mean, equiv) = found.head, found.spectra
    assert found.size == 24
    for view in found.views:
        np.testing.assert_allclose(view.plane.r2, 1, atol=1e-9)
    assert found.values == pytest.approx((form.total, form.mean, form.equiv), rel=1e-9)
    floor = 1e-11 * form.eigenvalues[-1]
    np.testing.assert_allclose(mean.range, 2 * form.eigenvalues, rtol=1e-6, atol=floor)
    np.testing.assert_allclose(equiv.range, np.repeat(2 * form.eigenvalues, 2), rtol=1e-6, atol=floor)
    assert mean.condition == pytest.approx(equiv.condition, rel=1e-6)
    assert mean.naive_ratio > 1e3 * mean.condition
    assert found.to_dict()["spectra"]["mean"]["rank"] == 8
    drawing = landscape_figure(found)
    assert [p.title for p in drawing.panels[:3]] == ["L", "L_mean", "L_equiv"]
    assert all(len(p.marks) > 5 for p in drawing.panels)


def test_all_of_a_potential():
    """Catches fused messages, which are differentiable once, in the products of Lanczos' method: eigenvalues are those
    of the curvature along their eigenvectors."""
    found = landscape(random(MPNNConfig(width=4, depth=1)), few(2), parameters=".", rotations="D2", points=3,
                      step=1e-4, lanczos=True)  # fmt: skip
    assert found.size == sum(p.numel() for p in random(MPNNConfig(width=4, depth=1)).potential.parameters())
    for eigenvalue, curvature in zip(found.spectra[0].eigenvalues[[-1, 0]], found.views[0].plane.curvature[0]):
        assert curvature == pytest.approx(eigenvalue, rel=1e-2)


def test_random_rotations_give_estimates_around_the_closed_form():
    """Catches a coset's estimator for independent rotations: with a few of them the sum of both losses is what the
    single predictions give, and L_equiv stays near its exact value."""
    trained = random(ESCAIP)
    losses = ForceLosses(trained, few(8), chosen(trained.potential, r"direction\.out", True), rotations_of("20"))
    total, mean, equiv = losses(losses.at).tolist()
    assert total == pytest.approx(mean + equiv, rel=1e-12)
    assert equiv == pytest.approx(head_form(trained, few(8)).equiv, rel=0.3)


@pytest.mark.parametrize(
    ("config", "pattern"),
    [
        (TransformerConfig(width=4, depth=1), r"^force\.2"),
        (MPNNConfig(width=4, depth=1), r"layers\.0\.lin2"),
        (TransformerConfig(width=4, depth=1, forces="conservative"), r"^energy\.2"),
    ],
)
def test_hessians_of_potentials_against_finite_differences(config, pattern):
    """Catches messages that are differentiable once only, third derivatives of conservative forces that are cut off,
    and a frozen function that forgets what depends on the parameters."""
    trained = random(config)
    losses = ForceLosses(trained, few(2), chosen(trained.potential, pattern, True), rotations_of("D2"))
    got = losses.twice(lambda f: hessians(lambda theta: f(theta)[1:], losses.at))
    n, step = len(losses.at), 1e-3
    eye = step * torch.eye(n, dtype=torch.float64)
    i, j = 0, n - 1
    with torch.no_grad():
        at = [losses(losses.at + a * eye[i] + b * eye[j])[1:] for a in (1, -1) for b in (1, -1)]
    expected = (at[0] - at[1] - at[2] + at[3]) / (4 * step**2)
    np.testing.assert_allclose(got[:, i, j], expected.numpy(), atol=1e-4 * np.abs(got).max())


@pytest.mark.parametrize(
    ("config", "options", "sentence"),
    [
        (ESCAIP, {"parameters": "nothing"}, "no parameter's name matches"),
        (ESCAIP, {"parameters": "("}, "not a regular expression"),
        (ESCAIP, {"parameters": "attributes|layers"}, "too many for a whole Hessian"),
        (ESCAIP, {"rotations": "T*2"}, "one coset"),
        (ESCAIP, {"rotations": "1"}, "at least two"),
        (ESCAIP, {"points": 4}, "odd number"),
        (ESCAIP, {"seed": -1}, "the seed is a whole number"),
        (MPNNConfig(width=4, depth=1), {"parameters": "^energy"}, "change none of the losses"),
        (MPNNConfig(width=4, depth=1), {"parameters": "^energy", "lanczos": True}, "change none of the losses"),
        (EGNNConfig(width=4, depth=1), {}, "equivariant by construction"),
    ],
)
def test_refusals(config, options, sentence, monkeypatch):
    """Catches a traceback, or an hour of computing, where one sentence is due."""
    monkeypatch.setattr("equiscale.measure.landscape.DENSE_UP_TO", 600)
    with pytest.raises(InputError, match=sentence):
        landscape(random(config), few(1), **{"parameters": r"direction\.out", **options})


def test_command(tmp_path, capsys):
    """Catches a command that does not say what it moved, writes half of it, or takes missing labels for zeros."""
    random(ESCAIP).save(tmp_path / "a.ckpt")
    path = str(tmp_path / "a.ckpt")
    out = str(tmp_path / "l.json")
    few_ = ["--structures", "2", "--points", "3", "--rotations", "2", "--redrawn"]
    arguments = ["landscape", path, *few_, "--parameters", r"direction\.out"]
    assert main([*arguments, "--json", out, "--figure", str(tmp_path / "l.svg")]) == 0
    text = capsys.readouterr().out
    assert "24 parameters (direction.out.weight)" in text
    assert "condition number" in text
    assert "closed form" in text
    figures = json.loads((tmp_path / "l.json").read_text())
    assert [p["redrawn"] for p in figures["planes"]] == [False, False, True]
    assert (tmp_path / "l.svg").stat().st_size > 1000
    (tmp_path / "bare.xyz").write_text("1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n2\n\nH 0 0 0\nH 0 0 0.8\n")
    assert main(["landscape", path, str(tmp_path / "bare.xyz")]) == 2
    assert "no forces" in capsys.readouterr().err
