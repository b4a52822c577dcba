"""The reference's side of benchmarks/train_step.py: fairchem-core's models, one training step at a time when told to.

Runs in the reference's own environment (benchmarks/parity/README.md), imports nothing of equiscale. Requests and
replies are lines of JSON on stdin and stdout: build, step, graph, peak, flops, end. Models of eSEN and GemNet-OC are
built by benchmarks/parity/reference.py, which also holds their published configurations.

    python benchmarks/step/serve.py VERSION [--unpacked FOLDER]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import traceback
import warnings
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS))

from step.measure import Step  # noqa: E402

spec = importlib.util.spec_from_file_location("parity_reference", BENCHMARKS / "parity" / "reference.py")
parity = importlib.util.module_from_spec(spec)
sys.modules["parity_reference"] = parity
spec.loader.exec_module(parity)


class Arrays:
    """The batch as ours wrote it, in the dtypes of a reference."""

    def __init__(self, path: str):
        with np.load(path) as file:
            of = {k: torch.from_numpy(v) for k, v in file.items()}
        self.numbers, self.size, self.edges = of["numbers"].long(), of["size"].long(), of["edges"].long()
        self.positions = of["positions"].float()
        self.structure = torch.repeat_interleave(torch.arange(len(self.size)), self.size)
        self.label = {"energy": of["energy"].float(), "forces": of["forces"].float()}
        self.label |= {"size": self.size, "structure": self.structure}

    def structures(self):
        """Numbers and positions of each."""
        return zip(self.numbers.split(self.size.tolist()), self.positions.split(self.size.tolist()))


def esen(asked: dict, arrays: Arrays):
    extra = {"lmax": asked["lmax"], "mmax": asked["mmax"], "envelope": True}
    case = parity.Case("", "esen", asked["version"], asked["width"], asked["depth"], extra=extra)
    sizes = {"hidden_channels": asked["hidden"], "num_distance_basis": asked["num_radial"]}
    model, _ = parity.build_esen(case, parity.esen_config(case) | sizes)
    n = len(arrays.size)
    data = parity.Fields(
        pos=arrays.positions,
        atomic_numbers=arrays.numbers,
        atomic_numbers_full=arrays.numbers,
        batch=arrays.structure,
        batch_full=arrays.structure,
        natoms=arrays.size,
        cell=torch.eye(3).repeat(n, 1, 1),
        cell_offsets=torch.zeros(arrays.edges.shape[1], 3),
        edge_index=arrays.edges,
        nedges=torch.bincount(arrays.structure[arrays.edges[1]], minlength=n),
        charge=torch.zeros(n),
        spin=torch.ones(n),
    )

    def predict():
        fresh = parity.Fields(data)
        embedding = model["backbone"](fresh)
        return model["energy"](fresh, embedding)["energy"].view(-1), model["force"](fresh, embedding)["forces"]

    return model, predict, None


def gemnet_oc(asked: dict, arrays: Arrays):
    import fairchem.core.models.base as base
    from fairchem.core.models.gemnet_oc.gemnet_oc import GemNetOC
    from torch_geometric.data import Batch, Data

    base.radius_graph = lambda *positional, **named: arrays.edges  # it asks for one graph, the main one
    extra = {"quadruplets": asked["quadruplets"]}
    case = parity.Case("", "gemnet_oc", asked["version"], asked["width"], asked["depth"], extra=extra)
    model = GemNetOC(**parity.gemnet_config(case) | {"cutoff": 6.0, "cutoff_qint": 6.0, "max_neighbors": 30})
    for name, parameter in model.named_parameters():
        if name.endswith("scale_factor"):
            parameter.data.fill_(1.0)  # fitted, to 1
    data = Batch.from_data_list([
        Data(pos=x, atomic_numbers=z.float(), natoms=torch.tensor([len(z)]), cell=torch.eye(3)[None] * 100,
             tags=torch.zeros(len(z), dtype=torch.long))
        for z, x in arrays.structures()
    ])  # fmt: skip

    def predict():
        out = model(data)
        return out["energy"].view(-1), out["forces"]

    return model, predict, lambda: model.get_graphs_and_indices(data)


def escaip(asked: dict, arrays: Arrays):
    from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
    from fairchem.core.models.escaip.EScAIP import EScAIPBackbone, EScAIPDirectForceHead, EScAIPEnergyHead

    width, heads = asked["width"], asked["heads"]
    backbone = EScAIPBackbone(
        regress_forces=True, direct_forces=True, hidden_size=width, num_layers=asked["depth"], use_compile=False,
        use_padding=False, dataset_list=["omol"], use_pbc=False, max_num_elements=100, max_atoms=512,
        max_batch_size=64, max_radius=6.0, knn_k=30, knn_soft=True, knn_sigmoid_scale=0.2, knn_lse_scale=0.1,
        knn_use_low_mem=True, knn_pad_size=30, atten_name="math", atten_num_heads=heads, atom_embedding_size=64,
        node_direction_embedding_size=32, edge_distance_expansion_size=128, edge_distance_embedding_size=128,
        freequency_list=[width // heads],
    )  # fmt: skip
    heads_of = {"energy": EScAIPEnergyHead(backbone), "force": EScAIPDirectForceHead(backbone)}
    model = torch.nn.ModuleDict({"backbone": backbone, **heads_of})
    one, none = torch.tensor([1]), torch.tensor([0])
    data = atomicdata_list_to_batch([
        AtomicData(pos=x, atomic_numbers=z, cell=torch.eye(3)[None] * 100.0, pbc=torch.zeros(1, 3, dtype=torch.bool),
                   natoms=torch.tensor([len(z)]), edge_index=torch.zeros(2, 0, dtype=torch.long),
                   cell_offsets=torch.zeros(0, 3), nedges=none, charge=none, spin=one,
                   fixed=torch.zeros(len(z), dtype=torch.long), tags=torch.zeros(len(z), dtype=torch.long),
                   dataset="omol")
        for z, x in arrays.structures()
    ])  # fmt: skip

    def predict():
        fresh = data.clone()
        embedding = model["backbone"](fresh)
        return model["energy"](fresh, embedding)["energy"].view(-1), model["force"](fresh, embedding)["forces"]

    def graph():
        backbone.data_preprocess(data.clone())

    return model, predict, graph


class Server:
    step: Step

    def build(self, architecture: str, asked: dict, arrays: str, threads: int) -> dict:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        made = {"esen": esen, "gemnet_oc": gemnet_oc, "escaip": escaip}[architecture]
        batch = Arrays(arrays)
        model, predict, self.graph_work = made(asked, batch)
        self.step = Step(model, predict, batch.label)
        energy, forces = predict()
        assert energy.shape == batch.label["energy"].shape
        assert forces.shape == batch.label["forces"].shape
        assert forces.dtype == torch.float32  # eSEN of 2.x sums energies in float64
        return {"parameters": self.step.parameters, "torch": torch.__version__}

    def steps(self, repeats: int) -> dict:
        return {"seconds": self.step.seconds(repeats)}

    def graph(self) -> dict:
        """Seconds of the part of a step that finds neighbours (and, in GemNet-OC, triplets); 0 where it is given."""
        if self.graph_work is None:
            return {"seconds": 0.0}
        with torch.no_grad():
            return {"seconds": min(self.step.seconds(1, self.graph_work)[0] for _ in range(4))}

    def peak(self) -> dict:
        return {"bytes": self.step.peak_bytes()}

    def flops(self) -> dict:
        return {"flops": self.step.flops()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("--unpacked", type=Path)
    args = parser.parse_args()
    replies = os.fdopen(os.dup(1), "w")  # what else is printed goes to stderr
    os.dup2(2, 1)
    parity.use_version(args.version, args.unpacked)
    server = Server()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(server, request.pop("do"))(**request)
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
