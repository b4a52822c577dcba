"""What a decomposition takes for granted: a loss without directions, a model without dropout."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from equiscale.errors import InputError
from equiscale.symmetry.groups import O3, SO3, Octahedral, Permutations, Product, Translations
from equiscale.symmetry.invariance import refuse_training, refuse_variant
from equiscale.symmetry.losses import named, per_structure

GROUPS = [SO3(), O3(), Octahedral(True), Permutations(4), Translations(1.0), Product(SO3(), Permutations(3))]


@dataclass(frozen=True)
class Components:
    """The mean of |Δ| over force components."""

    name: str = "mae"
    outputs: tuple[str, ...] = ("forces",)
    squared: bool = False

    def __call__(self, z, y, offsets):
        return per_structure(np.abs(z["forces"] - y["forces"]).mean(-1), offsets)


@dataclass(frozen=True)
class First(Components):
    """That of each structure's first atom alone: knows the order."""

    def __call__(self, z, y, offsets):
        return np.linalg.norm(z["forces"] - y["forces"], axis=-1)[..., offsets[:-1]]


@pytest.mark.parametrize("group", GROUPS, ids=str)
@pytest.mark.parametrize("name", ["squared", "force", "study", "energy"])
def test_every_loss_of_ours_passes(name, group):
    """Catches a check that turns outputs and labels differently."""
    refuse_variant(named(name, 0.3), group)


@pytest.mark.parametrize("group", [SO3(), O3(), Product(SO3(), Permutations(3))], ids=str)
def test_component_wise_errors_are_refused(group):
    """They depend on the axes, except under the group that keeps the axes."""
    with pytest.raises(InputError, match=r"the mae loss changes by up to \d+%.*take one"):
        refuse_variant(Components(), group)
    refuse_variant(Components(), Octahedral(True))
    refuse_variant(Components(), Translations(1.0))


def test_a_loss_that_knows_the_order_is_refused_under_permutations():
    """Catches permutations that are not applied."""
    refuse_variant(First(), SO3())
    with pytest.raises(InputError, match="changes"):
        refuse_variant(First(), Permutations(5))


def test_training_mode_is_refused():
    """Also of one layer deep inside, which ``model.training`` does not show."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Dropout(0.5))).eval()
    refuse_training(model)
    model[1][0].train()
    with pytest.raises(InputError, match="training mode"):
        refuse_training(model)
