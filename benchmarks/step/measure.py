"""One training step and what it costs: seconds, peak memory, FLOPs; and the machine's rate of matrix products.

Imported by both sides of the benchmark, ours and the reference's: torch and numpy only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

SHAPES = ((6536, 320, 288), (6536, 64, 256), (6536, 128, 128))
"""Products [a, b] x [b, c] whose rate is measured: edges of the batch by channels that occur."""


class Step:
    """Forward, eq. 1 of the scaling paper, backward and AdamW on one fixed batch."""

    def __init__(self, model: nn.Module, predict: Callable[[], tuple[Tensor, Tensor]], label: dict[str, Tensor]):
        """``predict`` gives energies per structure and forces; ``label``: energy, forces, size, structure."""
        self.model, self.predict, self.label = model.train(), predict, label
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.weights, 1e-4)
        self.device = self.weights[0].device

    def backward(self) -> None:
        """Forward and backward, gradients set anew."""
        self.optimiser.zero_grad(set_to_none=True)
        energy, forces = self.predict()
        label, size = self.label, self.label["size"].to(energy.dtype)
        off = (forces - label["forces"]).norm(dim=-1) / size[label["structure"]]
        (((energy - label["energy"]).abs() / size).mean() + off.sum() / len(size)).backward()

    def __call__(self) -> None:
        self.backward()
        self.optimiser.step()

    def seconds(self, repeats: int, work: Callable[[], None] | None = None) -> tuple[float, float]:
        """Mean over ``repeats`` in a row, of a whole step or of ``work``: by the clock, and of the processor.

        The second leaves out what other processes take of a busy machine; it sums over threads.
        """
        work = work or self
        synchronize(self.device)
        begun, busy = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            work()
        synchronize(self.device)
        return (time.perf_counter() - begun) / repeats, (time.process_time() - busy) / repeats

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.weights)

    def peak_bytes(self) -> int:
        """Most bytes of tensors alive at once in a step, with the weights and AdamW's two moments."""
        held = 3 * sum(p.numel() * p.element_size() for p in self.weights)
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self()
            return torch.cuda.max_memory_allocated(self.device) - before + held
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            self()
        events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
        changes = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
        return int(changes.max()) + held

    def flops(self) -> float:
        """FLOPs of the matrix products of a step, by torch's counter, in-place products included."""
        missed = {torch.ops.aten.addmm_: product_flops, torch.ops.aten.baddbmm_: product_flops}
        with FlopCounterMode(display=False, custom_mapping=missed) as counter:
            self()
        return float(counter.get_total_flops())


def product_flops(into, left, right, *rest, **named) -> int:
    """Of ``into += left @ right``, from the shapes."""
    return 2 * int(np.prod(left)) * right[-1]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rates(device: torch.device, seconds: float = 0.03) -> list[float]:
    """FLOP/s of each of ``SHAPES`` in float32 on torch's present number of threads; on a CPU per processor second."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    rates = []
    for a, b, c in SHAPES:
        x, w = torch.ones(a, b, device=device), torch.ones(b, c, device=device)
        out = x @ w
        synchronize(device)
        begun, done = clock(), 0
        while clock() - begun < seconds:
            for _ in range(4):
                torch.mm(x, w, out=out)
            synchronize(device)
            done += 4
        rates.append(2.0 * a * b * c * done / (clock() - begun))
    return rates
