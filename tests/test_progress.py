"""What a study shows while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from runs import tiny_spec

from equiscale.launch import Event, Failure
from equiscale.progress import SHOWN, Board
from equiscale.results import Results


@dataclass
class Item:
    spec: object

    def __str__(self):
        return f"seed {self.spec.seed}"


def test_a_cluster_s_many_runs(tmp_path):
    """Would catch a line of a hundred runs, a node's sentence told for each run that it cannot do, and time left that
    counts what has failed, or workers that the cluster has no longer."""
    said, shown, workers = [], [], [20]
    items = [Item(tiny_spec(seed=seed)) for seed in range(12)]
    seconds = {item.spec.key: 100.0 for item in items}
    board = Board(
        Results(tmp_path), {i.spec.key: i.spec for i in items}, seconds, lambda: workers[0], said.append, shown.append
    )
    for item in items:
        board.on(Event("started", item))
        board.on(Event("unfit", item, "node7 has equiscale 0.0: install 0.1 there."))
        assert item.spec.key not in board.running
        board.on(Event("started", item))
    assert said == ["  seed 0: node7 has equiscale 0.0: install 0.1 there. Other nodes are tried."]
    assert shown[-1].count("mpnn w=8") == SHOWN
    assert shown[-1].endswith("4 more: `equiscale status` shows all")
    before = board.left()
    workers[0] = 1
    assert board.left() != before
    for item in items[1:]:
        board.on(Event("failed", item, Failure("it failed.")))
    assert "11 failed" in shown[-1]
    assert board.left() == before  # of one run, however many workers
    board.end()
    assert not list(tmp_path.glob(".*.progress"))
