"""Items as tasks of a Ray cluster of this machine: results, failures, deaths, signals, nodes that cannot do them."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from on_ray import Picky, Reader, quiet
from runs import here, refused, write_study
from works import awkward, echo, long, once

from equiscale.errors import InputError
from equiscale.ladder import load_study
from equiscale.launch import Failure, Local, chosen
from equiscale.launch.on_ray import OnRay
from equiscale.results import Results
from equiscale.study import run_study

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    with quiet():
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture
def launcher(cluster, tmp_path):
    return OnRay(2, tmp_path / "results")


def last(events):
    return {e.item: e for e in events if e.kind in ("done", "failed")}


def test_items_become_tasks(launcher):
    """Results, failures and their tracebacks come back; nothing is left in the folder."""
    events = list(launcher(awkward, ["input", "bug", "disk", "fine"]))
    found = last(events)
    assert found["fine"].value == "fine"
    assert found["input"].value == Failure("this is wrong: do that.")
    assert "No space left on device" in found["disk"].value.sentence
    assert "in awkward" in found["bug"].value.traceback
    for item in found:
        assert [e.kind for e in events if e.item == item] in (["started", "done"], ["started", "failed"])
    assert not list(launcher.folder.iterdir())


def test_a_killed_process_is_replaced(launcher, tmp_path):
    events = list(launcher(once, [str(tmp_path / "a")]))
    died, done = (e for e in events if e.kind != "started")  # one that is killed at once may not be heard to begin
    assert (died.kind, died.value) == ("died", "it was killed, or crashed")
    assert (done.kind, done.value) == ("done", "second")


def test_one_that_always_dies_is_given_up_and_the_others_go_on(launcher, monkeypatch):
    monkeypatch.setattr("equiscale.launch.events.RETRIES", 2)  # a process takes seconds to start
    found = last(launcher(awkward, ["death", "fine"]))
    assert found["fine"].value == "fine"
    assert "died 3 times" in found["death"].value.sentence


def test_items_that_run_save_when_the_launcher_ends(launcher, tmp_path):
    """Would catch tasks that outlive Ctrl-C, and a share of the cluster that is never given back."""
    paths = [tmp_path / name for name in "abc"]
    events = launcher(long, [str(path) for path in paths])
    told = set()
    for event in events:
        told |= {event.item} if event.kind == "progress" else set()
        if len(told) == 2:
            break
    events.close()
    assert [path.with_suffix(".saved").exists() for path in paths] == [True, True, False]
    end = time.monotonic() + 10
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert ray.available_resources().get("CPU") == 2
    assert not list(launcher.folder.iterdir())
    assert last(launcher(echo, [1]))[1].value == 1


def test_a_node_with_another_version(launcher, monkeypatch):
    monkeypatch.setattr("equiscale.__version__", "99.0")
    (event,) = launcher(echo, ["a"])
    assert event.kind == "failed"
    assert event.value.sentence.endswith(": install 99.0 there.")
    assert socket.gethostname() in event.value.sentence


def test_a_node_without_the_folder(launcher, tmp_path, monkeypatch):
    """Would catch a node that trains into a folder of its own disk."""
    from contextlib import nullcontext

    monkeypatch.setattr(OnRay, "_mark", lambda self: nullcontext(str(tmp_path / "elsewhere" / "mark")))
    *_, event = launcher(echo, ["a"])
    assert event.kind == "failed"
    assert f"does not see {tmp_path / 'elsewhere'}: results must lie on a file system" in event.value.sentence


def test_data_that_a_node_lacks_are_sent(launcher, tmp_path, monkeypatch):
    """A file and a folder that only the launcher sees arrive whole, once; a large one is not sent."""
    from equiscale.launch import ray_files

    monkeypatch.setattr(tempfile, "tempdir", None)
    kept = tmp_path / "kept"
    (kept / "store" / "part").mkdir(parents=True)
    (kept / "store" / "part" / "x.bin").write_bytes(b"x" * 1000)
    (kept / "store" / "card.json").write_text("{}")
    (kept / "data.xyz").write_text(f"data of {tmp_path}")
    gone = tmp_path / "gone"  # what nodes see of it: nothing
    sent = []

    def send(path):
        sent.append(path.name)
        return replace(real_send(kept / path.name), path=str(path))

    real_send, real_size = ray_files.send, ray_files.size
    monkeypatch.setattr(ray_files, "send", send)
    monkeypatch.setattr(ray_files, "size", lambda path: real_size(kept / path.name))
    items = [str(gone / "data.xyz"), str(gone / "store")]
    found = last(launcher(Reader(), items))
    place, content = found[items[0]].value
    assert content.decode() == f"data of {tmp_path}"
    assert Path(place).is_relative_to(tempfile.gettempdir())
    assert found[items[1]].value[1] == ["card.json", "part", "x.bin"]
    assert sorted(sent) == ["data.xyz", "store"]
    monkeypatch.setattr(ray_files, "LIMIT", 10)
    assert "are not sent: put it where all nodes see it" in last(launcher(Reader(), items))[items[1]].value.sentence


def test_a_temporary_folder_of_another_user(cluster, tmp_path, monkeypatch):
    """Would catch training on what somebody else put where sent data go."""
    from equiscale.launch import ray_files

    (tmp_path / "data.xyz").write_text("data")
    sent = ray_files.send(tmp_path / "data.xyz")
    (tmp_path / "data.xyz").unlink()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("os.getuid", lambda: 12345)  # the folder is made by who we are
        with pytest.raises(InputError, match="is another user's"):
            ray_files.places([sent])
    (place,) = ray_files.places([sent]).values()
    assert Path(place).read_text() == "data"
    assert Path(place).is_relative_to(tmp_path)


def test_a_source_that_is_nowhere(launcher, tmp_path):
    (event,) = [e for e in launcher(Reader(), [str(tmp_path / "no")]) if e.kind == "failed"]
    assert event.value.sentence == f"{tmp_path / 'no'}: No such file or directory."


def test_no_gpu(cluster, tmp_path):
    launcher = chosen("ray", None, tmp_path, device="cuda", per_gpu=4)
    assert not launcher.device_each
    with pytest.raises(InputError, match="has no GPU: start a node that has one"):
        list(launcher(echo, [1]))


def test_as_many_as_there_is_room_for(cluster, tmp_path):
    assert chosen("ray", None, tmp_path).workers == 2
    assert chosen("ray", 5, tmp_path).workers == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "ray://head"], "write HOST:PORT of the cluster's head"),
        (["--on", "ray://"], "--on is local, ray, ray://HOST:PORT or slurm"),
        (["--on", "ray://127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1 (Connection refused)"),
        (["--on", "ray", "--per-gpu", "2"], "--per-gpu needs --device cuda"),
        (["--on", "ray", "--device", "cuda", "--per-gpu", "0"], "--per-gpu must be at least 1"),
        (["--per-gpu", "2"], "--per-gpu is for --on ray"),
        (["--on", "ray", "--workers", "auto"], "--workers auto is for --on local"),
        (["--on", "ray", "--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_what_cannot_be(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    write_study(tmp_path)
    assert said in refused(capsys, "run", "study.py", *words)


def test_without_ray(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'equiscale[ray]'" in refused(capsys, "run", "study.py", "--on", "ray")


def test_a_study_by_tasks(launcher, tmp_path, monkeypatch):
    """The records are those of a study trained in this process, to the bit; no claim is left."""
    monkeypatch.chdir(tmp_path)
    study = load_study(write_study(tmp_path, structures=12, widths=(4,)))
    by_tasks, reference = Results(tmp_path / "results"), Results(tmp_path / "reference")
    said = []
    assert run_study(study, by_tasks, launcher=launcher, say=said.append)
    monkeypatch.setattr("equiscale.launch.local.local_processes", here)
    assert run_study(study, reference, launcher=Local(1), say=lambda text: None)
    learned = [[r.without_clock() for r in results.records()] for results in (by_tasks, reference)]
    assert len(learned[0]) == 2
    assert learned[0] == learned[1]
    assert not list(by_tasks.folder.glob("*.claim*"))
    assert not [p for p in by_tasks.folder.iterdir() if p.suffix == ".ray"]
    assert any("(2/2" in line for line in said)


def test_nodes_that_cannot_do_an_item_are_left_out():
    """Would catch a node that fails every item at once and so draws all of them."""
    from ray.cluster_utils import Cluster

    if ray.is_initialized():
        ray.shutdown()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            other = cluster.add_node(num_cpus=1)
            ray.init(address=cluster.address, log_to_driver=False)
            bad = Path(folder) / "bad"
            bad.write_text(other.node_id)
            launcher = OnRay(None, Path(folder) / "results")
            events = list(launcher(Picky(bad), list(range(6))))
            assert {e.value for e in last(events).values()} == {cluster.head_node.node_id}
            assert {e.value for e in events if e.kind == "unfit"} == {
                f"{socket.gethostname()}: this machine will not do."
            }
            idle = cluster.add_node(num_cpus=0)  # one that takes no tasks is nowhere to be tried
            assert idle.node_id in {node["NodeID"] for node in ray.nodes()}
            bad.write_text(f"{other.node_id} {cluster.head_node.node_id}")
            (event,) = last(launcher(Picky(bad), ["a"])).values()
            assert event.value == Failure(f"{socket.gethostname()}: this machine will not do.")
        finally:
            ray.shutdown()
            cluster.shutdown()
