"""What the public reference implementations compute, in float64, for stated weights and molecules: one .npz a case.

Runs in an environment of its own (README.md): fairchem-core 2.24.0 installed, the wheel of 1.10.0 unpacked beside it;
no part of equiscale is imported. A case holds the reference's weights by its own names, the molecules, the edges that
it used, the energy of every structure, the forces, their gradient by the weights, and what was said about precision.

    python benchmarks/parity/reference.py OUT --unpacked FOLDER [--only NAME ...]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, astuple, dataclass, field
from importlib.metadata import version
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from models.stated import Stated, probe, stated  # noqa: E402

SIZES = (2, 3, 4, 5, 9, 14, 20)
"""Atoms per structure; the last one has two atoms far from the others."""


@dataclass(frozen=True)
class Case:
    name: str
    architecture: str  # gemnet_oc, esen
    version: str  # of fairchem-core
    width: int
    layers: int
    seed: int = 0
    sizes: tuple[int, ...] = SIZES
    extra: dict = field(default_factory=dict)


GOLDEN = {"seed": 1, "sizes": (2, 3, 5, 8)}
"""What the cases behind tests/models/golden share: small enough to lie in the repository."""


def cases() -> list[Case]:
    made = [
        Case("gemnet_oc-1.10-w4", "gemnet_oc", "1.10.0", 4, 2),
        Case("gemnet_oc-1.10-w32", "gemnet_oc", "1.10.0", 32, 4),
        Case("gemnet_oc-1.10-w4-quad", "gemnet_oc", "1.10.0", 4, 2, extra={"quadruplets": True}),
        Case("gemnet_oc-1.10-w32-quad", "gemnet_oc", "1.10.0", 32, 4, extra={"quadruplets": True}),
        Case(
            "gemnet_oc-1.10-w4-quad-in-line", "gemnet_oc", "1.10.0", 4, 2, extra={"quadruplets": True, "in_line": True}
        ),
        Case("gemnet_oc-1.10-w4-fitted", "gemnet_oc", "1.10.0", 4, 2, extra={"fit_scales": True}),
        Case(
            "gemnet_oc-1.10-w4-quad-fitted",
            "gemnet_oc",
            "1.10.0",
            4,
            2,
            extra={"quadruplets": True, "fit_scales": True},
        ),
    ]
    orders = {"l2m2": (2, 2), "l4m2": (4, 2), "l3m1": (3, 1), "l6m2": (6, 2)}
    for label, (lmax, mmax) in orders.items():
        ranks = {"lmax": lmax, "mmax": mmax}
        made += [
            Case(f"esen-1.10-w4-{label}", "esen", "1.10.0", 4, 2, extra=ranks | {"envelope": False}),
            Case(f"esen-1.10-w4-{label}-envelope", "esen", "1.10.0", 4, 2, extra=ranks | {"envelope": True}),
            Case(f"esen-2.24-w4-{label}", "esen", "2.24.0", 4, 2, extra=ranks | {"envelope": True}),
        ]
    paper = {"lmax": 4, "mmax": 2}
    made += [
        Case("esen-1.10-paper-w4", "esen", "1.10.0", 4, 12, extra=paper | {"envelope": False}),
        Case("esen-1.10-paper-w4-envelope", "esen", "1.10.0", 4, 12, extra=paper | {"envelope": True}),
        Case("esen-2.24-paper-w4", "esen", "2.24.0", 4, 12, extra=paper | {"envelope": True}),
    ]
    small = {"lmax": 4, "mmax": 2}
    made += [
        Case("esen-1.10-w4-l4m2-capped", "esen", "1.10.0", 4, 2, sizes=(50, 3), extra=small | {"envelope": False}),
        Case("esen-2.24-w4-l4m2-lone-atoms", "esen", "2.24.0", 4, 2, sizes=(1, 3, 1), extra=small | {"envelope": True}),
        Case("esen-2.24-w4-l4m2-no-edge", "esen", "2.24.0", 4, 2, sizes=(1, 1), extra=small | {"envelope": True}),
        Case("gemnet_oc-1.10-w4-lone-atoms", "gemnet_oc", "1.10.0", 4, 2, sizes=(3, 1, 4)),
        Case("gemnet_oc-1.10-w4-capped", "gemnet_oc", "1.10.0", 4, 2, sizes=(70, 3), extra={"both_ways": True}),
        Case("golden-gemnet_oc", "gemnet_oc", "1.10.0", 4, 2, **GOLDEN),
        Case("golden-gemnet_oc-quadruplets", "gemnet_oc", "1.10.0", 4, 2, **GOLDEN, extra={"quadruplets": True}),
        Case("golden-esen", "esen", "1.10.0", 4, 2, **GOLDEN, extra=small | {"envelope": False}),
        Case("golden-esen-envelope", "esen", "2.24.0", 4, 2, **GOLDEN, extra=small | {"envelope": True}),
    ]
    return made


def molecule(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random tree: every atom 1.0 to 1.6 Å from an earlier one, no two nearer than 0.9 Å."""
    positions = [np.zeros(3)]
    while len(positions) < n:
        step = rng.standard_normal(3)
        step *= rng.uniform(1.0, 1.6) / np.linalg.norm(step)
        x = positions[rng.integers(len(positions))] + step
        if np.linalg.norm(np.array(positions) - x, axis=1).min() > 0.9:
            positions.append(x)
    return rng.choice([1, 6, 7, 8, 9, 15, 16, 17], n), np.array(positions)


def in_line() -> list[tuple[np.ndarray, np.ndarray]]:
    """Acetylene, carbon suboxide and but-2-yne-like, along an axis: dihedrals exactly undefined."""
    acetylene = np.array([-1.66, -0.6, 0.6, 1.66])
    suboxide = np.array([-2.44, -1.28, 0.0, 1.28, 2.44])
    chain = np.zeros((8, 3))
    chain[:4, 2] = [-2.07, -0.6, 0.6, 2.07]
    chain[4:] = [[1.0, 0.2, 2.4], [-0.5, 0.9, 2.5], [0.9, -0.4, -2.4], [-0.6, -0.8, -2.5]]
    return [
        (np.array([1, 6, 6, 1]), acetylene[:, None] * np.eye(3)[0]),
        (np.array([8, 6, 6, 6, 8]), suboxide[:, None] * np.eye(3)[1]),
        (np.array([6, 6, 6, 6, 1, 1, 1, 1]), chain),
    ]


def molecules(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    if case.extra.get("in_line"):
        return in_line()
    rng = np.random.default_rng([case.seed, 2026])
    made = [molecule(n, rng) for n in case.sizes]
    if len(case.sizes) > 3:
        made[-1][1][-2:] += made[-1][1][:-2].max(0) + 4.0  # 4 Å and more from the others along each axis
    return made


def nearest_edges(positions: np.ndarray, sizes: list[int], cutoff: float, most: int) -> np.ndarray:
    """[source, target] of all pairs within ``cutoff``, at most the ``most`` nearest sources of a target."""
    edges, start = [], 0
    for n in sizes:
        x = positions[start : start + n]
        d = np.linalg.norm(x[:, None] - x[None], axis=-1)
        np.fill_diagonal(d, np.inf)
        keep = (d <= cutoff) & (d.argsort(1).argsort(1) < most)
        target, source = np.nonzero(keep)
        edges.append(np.stack([source, target]) + start)
        start += n
    return np.concatenate(edges, axis=1)


def fill(model, case: Case) -> tuple[list[Stated], dict[str, np.ndarray]]:
    """Every weight from its recipe: the recipes, and the weights by name. Scale factors count, though not trained."""
    import torch

    recipe, weights = [], {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad and not name.endswith("scale_factor"):
                continue  # charge and spin tables of 2.24, see build_esen
            one = stated(name, parameter.shape)
            weights[name] = one.draw(case.seed)
            parameter.copy_(torch.from_numpy(np.asarray(weights[name])))
            recipe.append(one)
    return recipe, weights


def not_double(model) -> tuple[list[str], list]:
    """Floating weights and buffers of ``model`` that are not float64, and a list that hooks fill while it runs."""
    import torch

    kept = [n for n, t in [*model.named_parameters(), *model.named_buffers()] if t.is_floating_point()]
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    wrong = [n for n in kept if tensors[n].dtype != torch.float64]
    outputs: list[str] = []

    def look(label):
        def hook(module, inputs, output):
            for t in output if isinstance(output, tuple) else [output]:
                if isinstance(t, torch.Tensor) and t.is_floating_point() and t.dtype != torch.float64:
                    outputs.append(label)

        return hook

    for label, module in model.named_modules():
        module.register_forward_hook(look(label))
    return wrong, outputs


# ------------------------------------------------------------------------------------------------- GemNet-OC (1.10)


def gemnet_config(case: Case) -> dict:
    quad = case.extra.get("quadruplets", False)
    return {
        "num_spherical": 7, "num_radial": 128, "num_blocks": case.layers,
        "emb_size_atom": case.width, "emb_size_edge": case.width,
        "emb_size_trip_in": 32, "emb_size_trip_out": 32, "emb_size_quad_in": 32, "emb_size_quad_out": 32,
        "emb_size_aint_in": 64, "emb_size_aint_out": 64, "emb_size_rbf": 16, "emb_size_cbf": 16, "emb_size_sbf": 32,
        "num_before_skip": 2, "num_after_skip": 2, "num_concat": 1, "num_atom": 3, "num_output_afteratom": 3,
        "num_atom_emb_layers": 0, "num_global_out_layers": 2, "regress_forces": True, "direct_forces": True,
        "use_pbc": False, "cutoff": 10.0, "cutoff_qint": 10.0, "max_neighbors": 50, "max_neighbors_qint": 8,
        "rbf": {"name": "gaussian"}, "envelope": {"name": "polynomial", "exponent": 5},
        "cbf": {"name": "spherical_harmonics"}, "sbf": {"name": "legendre_outer"}, "extensive": True,
        "forces_coupled": False, "output_init": "HeOrthogonal", "activation": "silu", "quad_interaction": quad,
        "atom_edge_interaction": False, "edge_atom_interaction": False, "atom_interaction": False,
        "num_elements": 83, "otf_graph": True, "qint_tags": [0, 1, 2],
    }  # fmt: skip


@contextlib.contextmanager
def float_is_double():
    """``x.float()`` keeps float64: GemNet-OC casts the input of its two last linear maps, nothing else does."""
    import torch

    kept = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.float = kept


def run_gemnet(case: Case, structures) -> dict:
    import fairchem.core.models.base as base
    import torch
    from fairchem.core.models.gemnet_oc.gemnet_oc import GemNetOC
    from torch_geometric.data import Batch, Data

    def radius_graph(x, r, batch=None, loop=False, max_num_neighbors=32, **unused):
        sizes = torch.bincount(batch).tolist()
        edges = nearest_edges(x.detach().numpy(), sizes, r, max_num_neighbors)
        if case.extra.get("both_ways"):
            edges = np.unique(np.concatenate([edges, edges[::-1]], axis=1), axis=1)
            edges = edges[:, np.argsort(edges[1], kind="stable")]
        return torch.from_numpy(edges)

    base.radius_graph = radius_graph  # PyG's needs pyg-lib, of which there is no wheel; here every pair is compared
    config = gemnet_config(case)
    model = GemNetOC(**config)
    filled = fill(model, case)
    notes = [
        "graph: brute force in place of PyG's radius_graph; torch_scatter and torch_sparse are the stand-ins",
        "Tensor.float() is made float64 (the reference casts the input of out_energy and out_forces to float32)",
        "tags are 0 for every atom, so that qint_tags keeps every edge",
    ]
    if case.extra.get("both_ways"):
        notes.append("given the counter edge of every capped edge; by itself the reference mirrors source < target")

    def batch(structures):
        return Batch.from_data_list([
            Data(pos=torch.from_numpy(x), atomic_numbers=torch.from_numpy(z).double(), natoms=torch.tensor([len(z)]),
                 cell=torch.eye(3)[None] * 100, tags=torch.zeros(len(z), dtype=torch.long))
            for z, x in structures
        ])  # fmt: skip

    if case.extra.get("fit_scales"):
        fit_scales(model, batch(structures), filled[1])
        notes.append("scale factors fitted on these molecules by the reference, one after another in order of use")

    def run(structures):
        data = batch(structures)
        with float_is_double():
            out = model(data)
            graphs = model.get_graphs_and_indices(data)
        edges = {"edges": graphs[0]["edge_index"].numpy()}
        if case.extra.get("quadruplets"):
            edges["quadruplet_edges"] = graphs[3]["edge_index"].numpy()
        return out["energy"].view(-1), out["forces"], edges

    return finish(case, model, run, structures, filled, config, notes)


def fit_scales(model, data, weights: dict[str, np.ndarray]) -> None:
    """What fairchem's `modules/scaling/fit.py` does, on one batch; the factors found replace those in ``weights``."""
    import torch
    from fairchem.core.modules.scaling import ScaleFactor

    factors, order = {n: m for n, m in model.named_modules() if isinstance(m, ScaleFactor)}, []
    for name, one in factors.items():
        one.reset_()
        one.initialize_(index_fn=lambda name=name: order.append(name))
    with torch.no_grad(), float_is_double():
        model(data)
        for name in list(dict.fromkeys(order)):
            with factors[name].fit_context_():
                model(data)
                factors[name].fit_()
            weights[f"{name}.scale_factor"] = factors[name].scale_factor.numpy().copy()
    assert all(one.fitted for one in factors.values())


# ------------------------------------------------------------------------------------------------- eSEN (1.10, 2.24)


def esen_config(case: Case) -> dict:
    shared = {
        "max_num_elements": 100, "sphere_channels": case.width, "edge_channels": case.width, "hidden_channels": 32,
        "lmax": case.extra["lmax"], "mmax": case.extra["mmax"], "num_layers": case.layers, "cutoff": 6.0,
        "max_neighbors": 30, "num_distance_basis": 136, "distance_function": "gaussian", "norm_type": "rms_norm_sh",
        "act_type": "gate", "direct_forces": True, "regress_forces": True, "otf_graph": False, "use_pbc": False,
    }  # fmt: skip
    if case.version == "1.10.0":
        return shared | {"mlp_type": "grid", "use_envelope": case.extra["envelope"]}
    return shared | {
        "ff_type": "grid", "use_dataset_embedding": False, "chg_spin_emb_type": "rand_emb", "always_use_pbc": False,
        "use_quaternion_wigner": True,
    }  # fmt: skip


def build_esen(case: Case, config: dict):
    import torch

    notes = []
    if case.version == "1.10.0":
        from fairchem.core.models.esen.esen import Linear_Force_Head, eSEN_Backbone

        backbone = eSEN_Backbone(**config)
        energy = torch.nn.ModuleDict({"energy_block": torch.nn.Linear(case.width, 1)})
        notes.append("energy head: the linear one of 2.x on the l=0 row, as 1.10 has only a multilayer one")
    else:
        from fairchem.core.models.uma.escn_md import Linear_Energy_Head, Linear_Force_Head, eSCNMDBackbone

        backbone = eSCNMDBackbone(**config)
        energy = Linear_Energy_Head(backbone, reduce="sum")
        with torch.no_grad():
            backbone.mix_csd.weight.zero_()
            backbone.mix_csd.bias.zero_()
        for parameter in backbone.mix_csd.parameters():
            parameter.requires_grad_(False)
        notes.append("charge and spin: mix_csd has weight and bias zero, so that SiLU(0) = 0 is added: the paper's map")
    return torch.nn.ModuleDict({"backbone": backbone, "energy": energy, "force": Linear_Force_Head(backbone)}), notes


def run_esen(case: Case, structures) -> dict:
    import torch

    config = esen_config(case)
    model, notes = build_esen(case, config)
    filled = fill(model, case)

    def run(structures):
        torch.manual_seed(1)  # the random roll of the edge frames
        sizes = [len(z) for z, _ in structures]
        x = np.concatenate([x for _, x in structures])
        edges = nearest_edges(x, sizes, config["cutoff"], config["max_neighbors"])
        graph = np.repeat(np.arange(len(sizes)), sizes)
        data = {
            "pos": torch.from_numpy(x),
            "atomic_numbers": torch.from_numpy(np.concatenate([z for z, _ in structures])),
            "batch": torch.from_numpy(graph),
            "natoms": torch.tensor(sizes),
            "cell": torch.eye(3).repeat(len(sizes), 1, 1),
            "cell_offsets": torch.zeros(edges.shape[1], 3),
            "edge_index": torch.from_numpy(edges),
            "nedges": torch.from_numpy(np.bincount(graph[edges[1]], minlength=len(sizes))),
        }
        data |= {"atomic_numbers_full": data["atomic_numbers"], "batch_full": data["batch"]}
        if case.version == "1.10.0":
            embedding = model["backbone"](data)
            atoms = model["energy"]["energy_block"](embedding["node_embedding"][:, 0]).view(-1)
            energy = torch.zeros(len(sizes)).index_add(0, data["batch"], atoms)
        else:
            data = Fields(data | {"charge": torch.zeros(len(sizes)), "spin": torch.ones(len(sizes))})
            embedding = model["backbone"](data)
            energy = model["energy"](data, embedding)["energy"]
        forces = model["force"](data, embedding)["forces"]
        return energy.view(-1), forces, {"edges": edges}

    return finish(case, model, run, structures, filled, config, notes)


class Fields(dict):
    """A dict with the ``get(key, default=...)`` of fairchem's AtomicData."""

    def get(self, key, default=None):
        return super().get(key, default)


# ------------------------------------------------------------------------------------------------------------ output


def finish(case: Case, model, run, structures, filled, config, notes) -> dict:
    """Run once, measure how exact the run is by its own symmetries, and collect what goes into the file."""
    import torch

    recipe, weights = filled
    model.eval()
    before, during = not_double(model)
    energy, forces, edges = run(structures)
    gradient = probe_gradient(model, case.seed, energy, forces)

    def values(structures):
        with torch.no_grad():
            return [head.numpy() for head in run(structures)[:2]]

    energy, forces = energy.detach().numpy(), forces.detach().numpy()
    for head in (energy, forces):
        assert head.dtype == np.float64, head.dtype
        assert np.isfinite(head).all()
    rng = np.random.default_rng(7)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    turned = values([(z, x @ turn.T) for z, x in structures])
    # GemNet-OC 1.10 fails on a lone atom that is a batch of its own.
    several = [k for k, (z, _) in enumerate(structures) if len(z) > 1] or list(range(len(structures)))
    alone = [values([structures[k]]) for k in several]
    ends = np.cumsum([len(z) for z, _ in structures])
    starts = ends - [len(z) for z, _ in structures]
    apart = {
        "energy": max(np.abs(a[0] - energy[k]).max() for a, k in zip(alone, several)),
        "forces": max(np.abs(a[1] - forces[starts[k] : ends[k]]).max() for a, k in zip(alone, several)),
    }
    scale = {"energy": np.abs(energy).max(), "forces": max(np.abs(forces).max(), 1e-3)}  # lone atoms have none
    checks = {
        "rotation_energy": float(np.abs(turned[0] - energy).max() / scale["energy"]),
        "rotation_forces": float(np.abs(turned[1] - forces @ turn.T).max() / scale["forces"]),
        "batching_energy": float(apart["energy"] / scale["energy"]),
        "batching_forces": float(apart["forces"] / scale["forces"]),
    }
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    meta = {
        "case": asdict(case),
        "versions": {"fairchem-core": case.version, "numpy": np.__version__}
        | {p: version(p) for p in ("torch", "e3nn")},
        "config": config,
        "notes": notes,
        "not_float64": {"weights_and_buffers": before, "module_outputs": sorted(set(during))},
        "self_checks": checks,
        "trainable": int(sum(w.size for n, w in weights.items() if n not in frozen)),
        "recipe": [astuple(r) for r in recipe],  # tests/models/stated.py: Stated(*one).draw(seed)
    }
    return {
        "meta": np.array(json.dumps(meta)),
        "numbers": np.concatenate([z for z, _ in structures]),
        "positions": np.concatenate([x for _, x in structures]),
        "sizes": np.array([len(z) for z, _ in structures]),
        "energy": energy,
        "forces": forces,
        **edges,
        **{f"weight/{n}": w for n, w in weights.items()},
        **{f"gradient/{n}": g for n, g in gradient.items()},
    }


def probe_gradient(model, seed: int, energy, forces) -> dict[str, np.ndarray]:
    """Derivatives of Σ a E + Σ b F by every trained weight, with a and b drawn like weights (`probe`)."""
    import torch

    a, b = probe(seed, len(energy), len(forces))
    total = (torch.from_numpy(a) * energy).sum() + (torch.from_numpy(b) * forces).sum()
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
    return {n: np.zeros(p.shape) if g is None else g.numpy() for (n, p), g in zip(named, found)}


def run_case(case: Case) -> dict:
    """One case in this process, whose ``fairchem`` must be the case's version."""
    import torch

    torch.set_default_dtype(torch.float64)  # the reference builds its tables and buffers in the default dtype
    torch.set_num_threads(1)
    structures = molecules(case)
    return (run_gemnet if case.architecture == "gemnet_oc" else run_esen)(case, structures)


def use_version(wanted: str, unpacked: Path | None) -> None:
    import logging

    logging.disable(logging.WARNING)
    if wanted != "1.10.0":
        assert version("fairchem-core") == wanted, version("fairchem-core")
        return
    assert unpacked is not None, "--unpacked FOLDER is needed for fairchem-core 1.10.0"
    sys.path.insert(0, str(HERE / "stand_ins"))
    sys.path.insert(0, str(unpacked))
    import fairchem

    fairchem.__path__ = [str(unpacked / "fairchem")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--unpacked", type=Path, help="folder with the unpacked wheel of fairchem-core 1.10.0")
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    chosen = [c for c in cases() if not args.only or c.name in args.only]
    if args.list:
        print("\n".join(c.name for c in chosen))
        return
    versions = sorted({c.version for c in chosen})
    if len(versions) > 1:  # both call themselves `fairchem`: a process for each
        for one in versions:
            names = [c.name for c in chosen if c.version == one]
            extra = ["--unpacked", str(args.unpacked)] if args.unpacked else []
            subprocess.run([sys.executable, __file__, str(args.out), *extra, "--only", *names], check=True)
        return
    use_version(versions[0], args.unpacked)
    args.out.mkdir(parents=True, exist_ok=True)
    for case in chosen:
        arrays = run_case(case)
        np.savez_compressed(args.out / f"{case.name}.npz", **arrays)
        meta = json.loads(str(arrays["meta"]))
        checks = ", ".join(f"{k} {v:.0e}" for k, v in meta["self_checks"].items())
        print(f"{case.name}: {meta['trainable']} weights; {checks}; not float64: {meta['not_float64']}")


if __name__ == "__main__":
    main()
