"""A function of a few parameters, with all that does not depend on them computed once.

A Hessian or a grid evaluates a whole potential hundreds of times while only its last layers change. The calls to torch
of one evaluation are recorded; a later one makes those again that depend on the parameters, and takes the results of
the others from the first.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

Function = Callable[[Tensor], Tensor]


class _Unfit(Exception):
    """The function does not make the same calls each time, or writes a dependent value over a constant."""


class _Recording(TorchFunctionMode):
    """Tells dependent calls from constant ones; of constants only those that a dependent call reads are held."""

    def __init__(self, theta: Tensor):
        super().__init__()
        self.depends = {id(theta): theta}
        self.calls: list[tuple[Any, bool, Any]] = []  # function, whether it depends, a constant's result
        self.held: dict[int, Tensor] = {}
        self.made: dict[int, weakref.ref] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        given = [x for x in tree_flatten((args, kwargs or {}))[0] if isinstance(x, Tensor)]
        dependent = any(id(x) in self.depends for x in given)
        out = func(*args, **(kwargs or {}))
        results = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
        if not dependent:
            self.made.update((id(x), weakref.ref(x)) for x in results)
            # Weakly, until the end: most of a potential's intermediate values are read by constants alone.
            self.calls.append((func, False, tree_map(_weak, out)))
            return out
        constants = [x for x in given if id(x) not in self.depends]
        if any(x is y for x in results for y in constants):
            raise _Unfit
        for x in constants:
            if (known := self.made.get(id(x))) is not None and known() is x:
                self.held[id(x)] = x
        self.depends.update((id(x), x) for x in results)
        self.calls.append((func, True, None))
        return out

    def finished(self) -> list[tuple[Any, bool, Any]]:
        held = {id(x): x.detach() for x in self.held.values()}

        def kept(x: Any) -> Any:
            if not isinstance(x, weakref.ref):
                return x
            value = x()
            # What no dependent call reads is stood for by an empty tensor of its own.
            return held[id(value)] if value is not None and id(value) in held else torch.empty(0)

        return [(func, dependent, tree_map(kept, out)) for func, dependent, out in self.calls]


def _weak(x: Any) -> Any:
    return weakref.ref(x) if isinstance(x, Tensor) else x


class _Replaying(TorchFunctionMode):
    def __init__(self, calls: list[tuple[Any, bool, Any]]):
        super().__init__()
        self.calls, self.next = calls, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.next >= len(self.calls) or self.calls[self.next][0] != func:  # a property is a new object each time
            raise _Unfit
        _, dependent, out = self.calls[self.next]
        self.next += 1
        return func(*args, **(kwargs or {})) if dependent else out


def frozen(function: Function, at: Tensor) -> Function:
    """The same function, faster, where it makes the same calls at every point; else the function itself.

    That it is the same, and so is its gradient, is checked at a second point, to the last bits: a backward pass of its
    own may read what no call has read.
    """
    theta = at.detach().clone()
    with torch.no_grad():
        function(theta)  # fills what is computed once and kept
        recording = _Recording(theta)
        try:
            with recording:
                function(theta)
        except _Unfit:
            return function
        calls = recording.finished()
        del recording

        def replayed(theta: Tensor) -> Tensor:
            with _Replaying(calls):
                return function(theta)

    other = at.detach() * 1.01 + 0.01 * at.detach().abs().mean()
    try:
        pairs = zip(_value_and_slope(replayed, other), _value_and_slope(function, other))
        same = all(bool((a - b).abs().max() <= 1e-9 * b.abs().max()) for a, b in pairs)
    except Exception:  # whatever a call says to a value that was taken for one that nobody reads
        same = False
    return replayed if same else function


def _value_and_slope(function: Function, at: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        theta = at.clone().requires_grad_()
        value = function(theta)
        if not value.requires_grad:
            return value, torch.zeros_like(theta)
        return value.detach(), torch.autograd.grad(value.sum(), theta)[0]
