"""From the weights of a public reference implementation to ours, name by name, and our model built with them.

Reference: fairchem-core's eSEN (1.10, 2.24) and GemNet-OC (1.10), as benchmarks/parity/reference.py names their parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from models.stated import probe

from equiscale.data.structure import Structure
from equiscale.graph import AtomGraph
from equiscale.models import ESENConfig, GemNetOCConfig
from equiscale.models.base import Potential, graph_for
from equiscale.predict import predict

Array = np.ndarray


@dataclass(frozen=True)
class Link:
    """One tensor of ours and where it comes from."""

    ours: str
    reference: str
    how: Callable[[Array], Array] = lambda a: a


# --------------------------------------------------------------------------------------------------------------- eSEN


def esen_config(config: dict, envelope: bool) -> ESENConfig:
    return ESENConfig(
        width=config["sphere_channels"],
        depth=config["num_layers"],
        lmax=config["lmax"],
        mmax=config["mmax"],
        hidden=config["hidden_channels"],
        cutoff=config["cutoff"],
        max_neighbors=config["max_neighbors"],
        num_radial=config["num_distance_basis"],
        envelope="polynomial" if envelope else "none",
    )


def esen_links(config: ESENConfig) -> Iterator[Link]:
    c, nb, degrees = config.width, config.num_radial, config.orders

    def elements(table: Array) -> Array:
        """The reference's row is Z, ours Z - 1; it has none for Z = 100."""
        return np.concatenate([table[1:], np.zeros_like(table[:1])])

    def columns(k: int) -> Callable[[Array], Array]:
        """Inputs of the first convolution: (degree, side, channel) there, (side, degree, channel) here."""
        return lambda a: a.reshape(-1, k, 2, c).transpose(0, 2, 1, 3).reshape(a.shape)

    def rows(a: Array) -> Array:
        """The same for the radial networks' outputs, order by order."""
        ends = np.cumsum([2 * c * k for k in degrees])[:-1]
        parts = [columns(k)(part.T).T for k, part in zip(degrees, np.split(a, ends))]
        return np.concatenate(parts)

    def radial(ours: str, there: str, out: Callable[[Array], Array]) -> Iterator[Link]:
        first = f"{there}.net.0.weight"  # [C, num_radial + 2C]
        yield Link(f"{ours}.distance.weight", first, lambda a: a[:, :nb])
        yield Link(f"{ours}.sender.weight", first, lambda a: a[:, nb : nb + c])
        yield Link(f"{ours}.receiver.weight", first, lambda a: a[:, nb + c :])
        yield Link(f"{ours}.distance.bias", f"{there}.net.0.bias")
        for kind in ("weight", "bias"):
            yield Link(f"{ours}.norms.0.{kind}", f"{there}.net.1.{kind}")
            yield Link(f"{ours}.hidden.{kind}", f"{there}.net.3.{kind}")
            yield Link(f"{ours}.norms.1.{kind}", f"{there}.net.4.{kind}")
            yield Link(f"{ours}.out.{kind}", f"{there}.net.6.{kind}", out)

    def norm(ours: str, there: str) -> Iterator[Link]:
        yield Link(f"{ours}.weight", f"{there}.affine_weight", np.ravel)
        yield Link(f"{ours}.bias", f"{there}.affine_bias")

    yield Link("embed.table.weight", "backbone.sphere_embedding.weight", elements)
    yield Link("radial.sender.table.weight", "backbone.source_embedding.weight", elements)
    yield Link("radial.receiver.table.weight", "backbone.target_embedding.weight", elements)
    yield from radial("radial.nets.0", "backbone.edge_degree_embedding.rad_func", lambda a: a)
    for i in range(config.depth):
        ours, there = f"layers.{i}", f"backbone.blocks.{i}"
        yield from radial(f"radial.nets.{i + 1}", f"{there}.edge_wise.so2_conv_1.rad_func", rows)
        yield from norm(f"{ours}.norms.0", f"{there}.norm_1")
        yield from norm(f"{ours}.norms.1", f"{there}.norm_2")
        for conv, name, how in (("first", "so2_conv_1", columns), ("second", "so2_conv_2", lambda k: lambda a: a)):
            yield Link(f"{ours}.{conv}.zero.weight", f"{there}.edge_wise.{name}.fc_m0.weight", how(degrees[0]))
            yield Link(f"{ours}.{conv}.zero.bias", f"{there}.edge_wise.{name}.fc_m0.bias")
            for m, k in enumerate(degrees[1:]):
                yield Link(
                    f"{ours}.{conv}.orders.{m}.weight", f"{there}.edge_wise.{name}.so2_m_conv.{m}.fc.weight", how(k)
                )
        for j, part in ((0, "into"), (2, "hidden"), (4, "out")):
            yield Link(f"{ours}.grid.{part}.weight", f"{there}.atom_wise.grid_mlp.{j}.weight")
    yield from norm("norm", "backbone.norm")
    for kind in ("weight", "bias"):
        yield Link(f"energy.{kind}", f"energy.energy_block.{kind}")
    yield Link("force.weight", "force.linear.weight", lambda a: a[1])
    yield Link("unread.weight", "force.linear.weight", lambda a: a[0])
    yield Link("unread.bias", "force.linear.bias")


# ---------------------------------------------------------------------------------------------------------- GemNet-OC


def gemnet_config(config: dict) -> GemNetOCConfig:
    return GemNetOCConfig(
        width=config["emb_size_atom"],
        depth=config["num_blocks"],
        cutoff=config["cutoff"],
        max_neighbors=config["max_neighbors"],
        num_radial=config["num_radial"],
        quadruplets=config["quad_interaction"],
        quadruplet_cutoff=config["cutoff_qint"],
        quadruplet_neighbors=config["max_neighbors_qint"],
    )


def gemnet_links(config: GemNetOCConfig) -> Iterator[Link]:
    w, n = config.width, config.num_radial

    def linear(ours: str, there: str) -> Link:
        return Link(f"{ours}.weight", f"{there}.linear.weight")

    def scale(ours: str, there: str) -> Link:
        return Link(f"{ours}.factor", f"{there}.scale_factor")

    def basis(ours: str, there: str) -> Link:
        """[radial, angular, out] there, but read as [radial, out, angular] without a transposition."""
        return Link(f"{ours}.weight", f"{there}.weight", lambda a: a.reshape(n, -1).T)

    def concatenation(ours: str, there: str, edge: int) -> Iterator[Link]:
        ends = {"sender": (0, w), "receiver": (w, 2 * w), "edge": (2 * w, 2 * w + edge)}
        for part, (a, b) in ends.items():
            yield Link(f"{ours}.{part}.weight", f"{there}.dense.linear.weight", lambda x, a=a, b=b: x[:, a:b])

    def residuals(ours: str, there: str, count: int, first: int = 0) -> Iterator[Link]:
        for j in range(count):
            yield linear(f"{ours}.{j}.first", f"{there}.{j + first}.dense_mlp.0")
            yield linear(f"{ours}.{j}.second", f"{there}.{j + first}.dense_mlp.1")

    def quadruplets(ours: str, there: str) -> Iterator[Link]:
        yield linear(f"{ours}.message", f"{there}.dense_db")
        yield linear(f"{ours}.radial", f"{there}.mlp_rbf")
        yield scale(f"{ours}.scale_radial", f"{there}.scale_rbf")
        yield linear(f"{ours}.down", f"{there}.down_projection")
        yield linear(f"{ours}.angular", f"{there}.mlp_cbf")
        yield scale(f"{ours}.scale_angular", f"{there}.scale_cbf")
        yield linear(f"{ours}.bilinear", f"{there}.mlp_sbf.bilinear")
        yield scale(f"{ours}.scale_sum", f"{there}.scale_sbf_sum")
        yield linear(f"{ours}.forth", f"{there}.up_projection_ca")
        yield linear(f"{ours}.back", f"{there}.up_projection_ac")

    yield Link("embed.table.weight", "atom_emb.embeddings.weight")
    yield from concatenation("embed_edge", "edge_emb", n)
    yield linear("triplet_radial", "mlp_rbf_tint")
    yield linear("atom_radial", "mlp_rbf_h")
    yield linear("output_radial", "mlp_rbf_out")
    yield basis("angular", "mlp_cbf_tint")
    if config.quadruplets:
        yield linear("quadruplets.heard", "mlp_rbf_qint")
        yield basis("quadruplets.middle", "mlp_cbf_qint")
        yield basis("quadruplets.spherical", "mlp_sbf_qint")
    for i in range(config.depth):
        ours, there = f"blocks.{i}", f"int_blocks.{i}"
        trip, triplets = f"{ours}.triplets", f"{there}.trip_interaction"
        yield linear(f"{ours}.skip", f"{there}.dense_ca")
        yield linear(f"{trip}.message", f"{triplets}.dense_ba")
        yield linear(f"{trip}.radial", f"{triplets}.mlp_rbf")
        yield scale(f"{trip}.scale_radial", f"{triplets}.scale_rbf")
        yield linear(f"{trip}.down", f"{triplets}.down_projection")
        yield linear(f"{trip}.bilinear", f"{triplets}.mlp_cbf.bilinear")
        yield scale(f"{trip}.scale_sum", f"{triplets}.scale_cbf_sum")
        yield linear(f"{trip}.forth", f"{triplets}.up_projection_ca")
        yield linear(f"{trip}.back", f"{triplets}.up_projection_ac")
        if config.quadruplets:
            yield from quadruplets(f"{ours}.quadruplets", f"{there}.quad_interaction")
        yield from residuals(f"{ours}.before", f"{there}.layers_before_skip", 2)
        yield from residuals(f"{ours}.after", f"{there}.layers_after_skip", 2)
        yield linear(f"{ours}.atoms.radial", f"{there}.atom_update.dense_rbf")
        yield scale(f"{ours}.atoms.scale", f"{there}.atom_update.scale_sum")
        yield from residuals(f"{ours}.atoms.residuals", f"{there}.atom_update.layers", 3)
        yield from concatenation(f"{ours}.concat", f"{there}.concat_layer", w)
        yield from residuals(f"{ours}.concat_residuals", f"{there}.residual_m", 1)
    for i in range(config.depth + 1):
        ours, there = f"outputs.{i}", f"out_blocks.{i}"
        yield linear(f"{ours}.atoms.radial", f"{there}.dense_rbf")
        yield scale(f"{ours}.atoms.scale", f"{there}.scale_sum")
        yield from residuals(f"{ours}.atoms.residuals", f"{there}.layers", 3)
        yield from residuals(f"{ours}.energy", f"{there}.seq_energy2", 3)
        yield from residuals(f"{ours}.force", f"{there}.seq_forces", 3)
        yield linear(f"{ours}.force_radial", f"{there}.dense_rbf_F")
        yield scale(f"{ours}.force_scale", f"{there}.scale_rbf_F")
    for ours, mlp, out in (("energy", "out_mlp_E", "out_energy"), ("force", "out_mlp_F", "out_forces")):
        yield linear(f"{ours}.join", f"{mlp}.0")
        yield from residuals(f"{ours}.residuals", mlp, 2, first=1)
        yield linear(f"{ours}.out", out)


# ------------------------------------------------------------------------------------------------------- both of them

TO_OURS, TO_THEIRS = [2, 0, 1], [1, 2, 0]
"""The reference's polar axis is y, ours z: axes are permuted on the way in and forces on the way back.

Only the network on eSEN's grid can tell, by its aliasing; GemNet-OC is invariant to the last digit.
"""


@contextmanager
def double():
    """Buffers that a module makes in the default dtype keep float64's digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def linked(meta: dict) -> tuple[Any, list[Link]]:
    """Our config of the reference's ``meta``, and the map of names for it."""
    if meta["case"]["architecture"] == "esen":
        config = esen_config(meta["config"], meta["case"]["extra"]["envelope"])
        return config, list(esen_links(config))
    config = gemnet_config(meta["config"])
    return config, list(gemnet_links(config))


def rebuild(meta: dict, weights: dict[str, Array]) -> Potential:
    """Our model of the reference's ``meta``, with every weight of both accounted for."""
    config, links = linked(meta)
    with double():
        model = config.build().double()
    state = model.state_dict()
    unused, unset = set(weights) - {k.reference for k in links}, set(state) - {k.ours for k in links}
    assert not unused, f"no place for {sorted(unused)}"
    assert not unset, f"nothing for {sorted(unset)}"
    assert len(links) == len(state), "some weight of ours is set twice"
    with torch.no_grad():
        for link in links:
            value = torch.from_numpy(np.array(link.how(weights[link.reference]), order="C"))
            assert value.shape == state[link.ours].shape, (link, value.shape, state[link.ours].shape)
            state[link.ours].copy_(value)
    return model


@dataclass(frozen=True)
class Outputs:
    """What our model gives, in float64 and in the reference's axes."""

    energy: Array
    forces: Array
    edges: Array  # sender, receiver
    gradient: dict[str, Array]  # of the probe, by our names


def graph_of(model: Potential, numbers, positions, sizes) -> AtomGraph:
    """The reference's molecules in our axes."""
    ends = np.cumsum(sizes)
    structures = [
        Structure(np.asarray(numbers)[a:b], np.asarray(positions)[a:b][:, TO_OURS]) for a, b in zip(ends - sizes, ends)
    ]
    return graph_for(model.config, structures, dtype=torch.float64)


def fitted_scales(meta: dict, weights: dict[str, Array], numbers, positions, sizes) -> dict[str, float]:
    """GemNet-OC's scale factors as our own fit finds them, by the reference's names."""
    model = rebuild(meta, weights)
    model.prepare(graph_of(model, numbers, positions, sizes))
    state = model.state_dict()
    return {k.reference: float(state[k.ours]) for k in linked(meta)[1] if k.ours.endswith(".factor")}


def outputs(meta: dict, weights: dict[str, Array], numbers, positions, sizes) -> Outputs:
    model = rebuild(meta, weights)
    graph = graph_of(model, numbers, positions, sizes)
    ours = predict(model, graph)
    forces = ours.forces[:, TO_THEIRS]
    a, b = probe(meta["case"]["seed"], len(ours.energy), len(forces))
    total = (torch.from_numpy(a) * ours.energy).sum() + (torch.from_numpy(b) * forces).sum()
    named = dict(model.named_parameters())
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    gradient = {n: np.zeros(p.shape) if g is None else g.numpy() for (n, p), g in zip(named.items(), found)}
    edges = np.stack([graph.sender.numpy(), graph.receiver.numpy()])
    return Outputs(ours.energy.detach().numpy(), forces.detach().numpy(), edges, gradient)
