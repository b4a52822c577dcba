"""Our side of a step, and one case measured: turns A B A B with the other implementation, rates, memory, FLOPs."""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from equiscale.data.structure import Structure
from equiscale.graph import AtomGraph, Prediction
from equiscale.models.base import graph_for
from equiscale.predict import predict
from step.cases import LITERAL, Case, batch
from step.measure import SHAPES, Step, matmul_rates
from step.peer import Reference

TURN = 0.3
"""Seconds that a turn lasts at least, in whole steps."""


def labels_of(structures: list[Structure], like: AtomGraph) -> Prediction:
    energy = torch.tensor([s.energy for s in structures]).to(like.positions)
    return Prediction(energy, torch.cat([torch.from_numpy(s.forces) for s in structures]).to(like.positions))


def potential_step(potential, graph: AtomGraph, structures: list[Structure]) -> Step:
    label = labels_of(structures, graph)
    known = {"energy": label.energy, "forces": label.forces, "size": graph.size, "structure": graph.structure}

    def outputs():
        out = predict(potential, graph, create_graph=True)
        return out.energy, out.forces

    step = Step(potential.to(graph.positions.device), outputs, known)
    step.graph = graph
    return step


def measured(case: Case, device: str, reference: Reference | None, rounds: int, limit: float) -> dict:
    """One row. Ours is held against the reference's process if there is one, else against our literal version."""
    threads, started = torch.get_num_threads(), time.perf_counter()
    structures = batch()
    graph = graph_for(case.config, structures, device=device)
    torch.manual_seed(0)
    potential = case.config.build()
    if hasattr(potential, "prepare"):
        potential.prepare(graph_for(case.config, structures))
    literal = None
    if reference is None and (kind := LITERAL.get(case.architecture)) is not None:
        literal = potential_step(kind(case.config).load(copy.deepcopy(potential)), graph, structures)
    step = potential_step(potential, graph, structures)
    turns: list[Callable[[int], Sequence[float]]] = [step.seconds]
    about: dict = {}
    if reference is not None:
        assert case.reference is not None
        label = labels_of(structures, graph)
        about = reference.build(case.architecture, case.reference, graph, label, threads)
        turns.append(lambda repeats: reference.ask("steps", repeats=repeats)["seconds"])
    elif literal is not None:
        with torch.no_grad():
            about["largest_difference"] = max(
                float((a - b).abs().max()) for a, b in zip(step.predict(), literal.predict())
            )
        about["parameters"] = literal.parameters
        turns.append(literal.seconds)
    row = {
        "architecture": case.architecture,
        "case": case.name,
        "width": case.config.width,
        "device": device,
        "threads": threads,
        "parameters": step.parameters,
        "structures": len(structures),
        "atoms": graph.counts.atoms,
        "edges": graph.counts.edges,
        "load_before": os.getloadavg()[0],
    }
    repeats = []
    for turn in turns:
        turn(1)
        repeats.append(max(1, int(TURN / max(turn(1)[0], 1e-4))))
    both: list[list[Sequence[float]]] = [[] for _ in turns]  # by the clock, of the processor
    rates: list[list[float]] = []
    while len(rates) < rounds and (len(rates) < 3 or time.perf_counter() - started < limit):
        for turn, n, taken in zip(turns, repeats, both):
            taken.append(turn(n))
        rates.append(matmul_rates(step.device))
    times, cpu = ([[t[k] for t in taken] for taken in both] for k in (0, 1))
    row |= {"load_after": os.getloadavg()[0], "rounds": len(rates), "steps_per_turn": repeats}
    published, executed = 3.0 * case.config.flops(graph.counts), step.flops()
    seconds, busy = statistics.median(times[0]), times[0] if step.device.type == "cuda" else cpu[0]
    row |= {
        "ms": 1e3 * seconds,
        "ms_processor": 1e3 * statistics.median(cpu[0]),
        "ms_all": [1e3 * t for t in times[0]],
        "atoms_per_s": graph.counts.atoms / seconds,
        "MB": step.peak_bytes() / 1e6,
        "flops_model": published,
        "flops_executed": executed,
        "matmul_gflops": {
            "x".join(map(str, shape)): statistics.median(r[k] for r in rates) / 1e9 for k, shape in enumerate(SHAPES)
        },
        # Of each round, so that what slows the machine for a while cancels; on a CPU both by processor seconds.
        "fraction_model": statistics.median(published / t / max(r) for t, r in zip(busy, rates)),
        "fraction_executed": statistics.median(executed / t / max(r) for t, r in zip(busy, rates)),
    }
    if len(turns) == 1:
        return row | {"against": None}
    ratios = [b / a for a, b in zip(*times)]
    other = statistics.median(times[1])
    row |= {
        "against": "literal" if reference is None else f"fairchem-core {case.reference['version']}",
        "speed": statistics.median(ratios),
        "speed_all": ratios,
        "speed_processor": statistics.median(b / a for a, b in zip(*cpu)),  # what others take of the machine left out
        "ms_other": 1e3 * other,
        "ms_other_all": [1e3 * t for t in times[1]],
        "parameters_other": about["parameters"],
        "target_speed": case.speed,
        "target_memory": case.memory,
    }
    if reference is None:
        row |= {"MB_other": literal.peak_bytes() / 1e6, "flops_executed_other": literal.flops()}
        row["largest_difference"] = about["largest_difference"]
    else:
        row |= {"torch_other": about["torch"], "graph_ms_other": 1e3 * reference.ask("graph")["seconds"]}
        row["speed_without_graph"] = row["speed"] * (1 - row["graph_ms_other"] / row["ms_other"])
        row |= {
            "MB_other": reference.ask("peak")["bytes"] / 1e6,
            "flops_executed_other": reference.ask("flops")["flops"],
        }
    return row | {"memory": row["MB"] / row["MB_other"]}
