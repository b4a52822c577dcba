"""Several launchers on one folder: each item is worked on once, and every launcher ends when all are recorded."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from runs import here
from works import claimed

from equiscale.claim import Busy, Watch, take
from equiscale.launch import Local, shared


def claim_of(item: str) -> Path:
    return Path(item).with_suffix(".claim")


def recorded(item: str) -> bool:
    return Path(item).exists()


def test_two_launchers_share_the_work(tmp_path):
    """As on two machines: each item is begun once, and each launcher tells of every item that it is done."""
    items = [str(tmp_path / f"{i}.record") for i in range(8)]
    ends: list[list[str]] = [[], []]

    def launch(place):
        for event in shared(Local(1), claimed, items, claim_of, recorded):
            if event.kind == "done":
                ends[place].append(event.item)

    threads = [threading.Thread(target=launch, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sorted(e) for e in ends] == [items, items]
    began = [(tmp_path / f"{i}.began").read_text().split() for i in range(8)]
    assert [len(b) for b in began] == [1] * 8
    assert not list(tmp_path.glob("*.claim*"))


class Here:
    """Calls in this process."""

    workers = 1

    def __call__(self, work, items):
        return here(work, items)


def test_what_another_gives_up_is_begun_here(tmp_path, monkeypatch):
    """It is told who has it, waits, and begins it when that one was stopped."""
    monkeypatch.setattr("equiscale.launch.sharing.PAUSE", 0.01)
    item = str(tmp_path / "a.record")
    other = take(claim_of(item))
    kinds = []
    for event in shared(Here(), claimed, [item], claim_of, recorded):
        kinds.append(event.kind)
        if event.kind == "elsewhere":
            assert isinstance(event.value, Busy)
            with other:
                pass  # stopped: given up
    assert kinds == ["started", "elsewhere", "started", "done"]


@pytest.mark.parametrize("way", ["recorded", "silent"])
def test_the_end_of_another_is_noticed(way, tmp_path, monkeypatch):
    """Recorded: done, and not begun here. Silent for long: taken over."""
    monkeypatch.setattr("equiscale.launch.sharing.PAUSE", 0.01)
    monkeypatch.setattr("equiscale.launch.sharing.Watch", lambda path: Watch(path, expiry=0.1))
    item = str(tmp_path / "a.record")
    take(claim_of(item)).file.write_bytes(b"damaged")
    kinds = []
    for event in shared(Here(), claimed, [item], claim_of, recorded):
        kinds.append(event.kind)
        if event.kind == "elsewhere" and way == "recorded":
            Path(item).write_text("")
    assert kinds == ["started", "elsewhere", *(["started"] if way == "silent" else []), "done"]
    assert (tmp_path / "a.began").exists() == (way == "silent")
