"""What a remedy and tracking may be, what a remedy costs, and how it is called."""

import math
import re

import pytest
from pydantic import ValidationError

from equiscale.errors import InputError
from equiscale.run import Remedy, Tracking


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Remedy(), "has a loss or frames"),
        (lambda: Remedy("symmetry", weight=0.0), "must be positive, not 0"),
        (lambda: Remedy("consistency", weight=math.inf), "must be positive, not inf"),
        (lambda: Remedy("lie", weight=math.nan), "must be positive, not nan"),
        (lambda: Remedy("symmetry", copies=0), "one turned copy or more"),
        (lambda: Tracking(rotations=1), "2 rotations or more"),
        (lambda: Tracking(structures=0), "one structure or more"),
        (lambda: Tracking(structures=-3), "one structure or more"),
        (lambda: Tracking(gradient_structures=0), "one structure or more"),
    ],
    ids=range(9),
)
def test_refusals_are_one_sentence(make, says):
    """Would catch a run that fails at its first look, or measures all structures but the last three."""
    with pytest.raises(ValidationError) as error:
        make()
    (found,) = error.value.errors()
    assert isinstance(found["ctx"]["error"], InputError)
    assert re.search(says, found["msg"])
    assert len(found["msg"].splitlines()) == 1


@pytest.mark.parametrize(
    ("remedy", "passes", "words"),
    [
        (Remedy("symmetry"), 6, "symmetry loss"),
        (Remedy("consistency", copies=2, weight=0.5), 3, "consistency loss M=2 λ=0.5"),
        (Remedy("lie", copies=9), 3, "lie loss"),
        (Remedy(frames="average"), 4, "4 frames"),
        (Remedy("symmetry", copies=1, frames="average8"), 16, "symmetry loss M=1 8 frames"),
        (Remedy(frames="canonical"), 1, "canonical frame"),
    ],
    ids=range(6),
)
def test_passes_and_names(remedy, passes, words):
    """Would catch frames that are not counted once for every turned copy, and two remedies of one name."""
    assert (remedy.passes, str(remedy)) == (passes, words)
