"""eSEN and GemNet-OC reproduce the public reference implementations: weights from a recipe, outputs as stored.

The files under golden/ were made by benchmarks/parity; more cases, and how, are there.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from models.reference_names import outputs, rebuild
from models.stated import Stated

from equiscale.models.base import count_parameters

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_energies_and_forces_are_the_references(path):
    """Would catch any change of the function: an order of channels, a norm, a sign, a factor of √2."""
    golden = json.loads(path.read_text())
    recipe = [Stated(*one) for one in golden["recipe"]]
    weights = {one.name: one.draw(golden["case"]["seed"]) for one in recipe}
    n, _ = count_parameters(rebuild(golden, weights))
    ours = outputs(golden, weights, golden["numbers"], golden["positions"], golden["sizes"])
    assert n == golden["trainable"]
    assert np.abs(ours.energy - golden["energy"]).max() < 1e-12 * np.abs(golden["energy"]).max()
    assert np.abs(ours.forces - golden["forces"]).max() < 1e-12 * np.abs(golden["forces"]).max()
