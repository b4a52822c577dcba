"""What the loop needs of a task: steps cut into micro-batches, a loss whose sum is the step's, tokens, and a look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class Task(Protocol):
    """A training problem. The loop knows nothing of atoms or forces: a force field is one task, others may join."""

    def micro_batches(self, step: int) -> Sequence[Any]:
        """The batches whose losses add up to the loss of ``step`` (0-based); a pure function of the step."""
        ...

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """This batch's share of the step's loss, and the parts of it to be logged (shares too)."""
        ...

    def tokens(self, batch: Any) -> int:
        """How much of D the batch holds."""
        ...

    def structures(self, batch: Any) -> int:
        """How many samples the batch holds."""
        ...

    def flops(self, batch: Any) -> float:
        """Training FLOPs of the published formulation for the batch: 3 x forward."""
        ...
