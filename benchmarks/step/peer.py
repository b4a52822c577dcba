"""The reference implementation in a process of its own, which only works while it is asked to."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from equiscale.graph import AtomGraph, Prediction

SERVE = Path(__file__).with_name("serve.py")


class Reference:
    """Speaks to serve.py; one case at a time."""

    def __init__(self, python: Path, unpacked: Path | None, version: str):
        words = [str(python), str(SERVE), version]
        words += ["--unpacked", str(unpacked)] if unpacked else []
        self.said = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (closed in `end`)
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True
        )

    def ask(self, do: str, **request) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        reply = json.loads(line) if line else {"error": self.last_words()}
        if "error" in reply:
            raise RuntimeError(f"the reference's process failed at {do!r}:\n{reply['error']}")
        return reply

    def last_words(self) -> str:
        self.said.seek(0)
        return self.said.read()[-3000:]

    def build(self, architecture: str, asked: dict, graph: AtomGraph, label: Prediction, threads: int) -> dict:
        """The same molecules, edges and labels as ours."""
        path = Path(self.folder.name) / "batch.npz"
        edges = np.stack([graph.sender.numpy(), graph.receiver.numpy()])
        arrays = {"numbers": graph.numbers, "positions": graph.positions, "size": graph.size}
        arrays |= {"energy": label.energy, "forces": label.forces}
        np.savez(path, edges=edges, **{k: v.numpy() for k, v in arrays.items()})
        return self.ask("build", architecture=architecture, asked=asked, arrays=str(path), threads=threads)

    def end(self) -> None:
        """It ends by itself when its input does."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.said.close()
        self.folder.cleanup()
