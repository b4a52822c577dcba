"""Golden values for tests/models/test_golden.py, out of the files that reference.py wrote: recipe, inputs, outputs.

python benchmarks/parity/golden.py OUT        # OUT as given to reference.py; needs numpy only
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "models" / "golden"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    GOLDEN.mkdir(exist_ok=True)
    for path in sorted(args.out.glob("golden-*.npz")):
        with np.load(path) as file:
            meta = json.loads(str(file["meta"]))
            arrays = {name: file[name].tolist() for name in ("numbers", "positions", "sizes", "energy", "forces")}
        kept = ("case", "versions", "config", "notes", "trainable", "recipe")
        lines = [f'"{k}": {json.dumps(meta[k])}' for k in kept if k != "recipe"]
        lines += ['"recipe": [\n' + ",\n".join(json.dumps(r) for r in meta["recipe"]) + "\n]"]
        lines += [f'"{k}": {json.dumps(v)}' for k, v in arrays.items()]
        target = GOLDEN / f"{path.stem.removeprefix('golden-')}.json"
        target.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
