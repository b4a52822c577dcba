"""What the loop needs of a task: steps cut into micro-batches, a loss whose sum is the step's, tokens, and a look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from torch import Tensor, nn

B = TypeVar("B")


class Task(Protocol, Generic[B]):
    """A training problem. The loop knows nothing of atoms or forces: a force field is one task, others may join."""

    def micro_batches(self, step: int) -> Sequence[B]:
        """The batches whose losses add up to the loss of ``step`` (0-based); a pure function of the step."""
        ...

    def loss(self, model: nn.Module, batch: B) -> tuple[Tensor, dict[str, Tensor]]:
        """This batch's share of the step's loss, and the parts of it to be logged (shares too)."""
        ...

    def tokens(self, batch: B) -> int:
        """How much of D the batch holds."""
        ...

    def flops(self, batch: B) -> float:
        """Training FLOPs of the published formulation for the batch: 3 x forward."""
        ...
