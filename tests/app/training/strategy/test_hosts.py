"""What several hosts tell one another and the user, without any training: no engine is imported here."""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from commands import run_python
from voxlift.app.config import (
    HostsSettings,
    LoggerSettings,
    ModelSettings,
    SettingsError,
    TrainerSettings,
    TrainSettings,
    check_settings,
)
from voxlift.app.runtime.exit_status import CRASH, DONE, INTERRUPTED, LOST, USER_ERROR
from voxlift.app.training.strategy.hosts import exit as ending_room
from voxlift.app.training.strategy.hosts import supervise as supervise_room
from voxlift.app.training.strategy.hosts.channel import open_pair
from voxlift.app.training.strategy.hosts.cluster_environment import (
    ClusterEnvironment,
    find_cluster_environment,
    first_host,
    is_in_cluster,
)
from voxlift.app.training.strategy.hosts.connect import await_coordinator, refuse_taken_port
from voxlift.app.training.strategy.hosts.data_parallel import interleave
from voxlift.app.training.strategy.hosts.exit import ProcessExit, is_connection_error
from voxlift.app.training.strategy.hosts.rendezvous import differing_keys
from voxlift.app.training.strategy.hosts.summary import Report, classify_exit, resume_instruction
from voxlift.app.training.strategy.hosts.supervise import check_engine, supervise

SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_JOB_NODELIST": "gpu[07-09],gpu12",
}


def cluster(index=0, count=2, port=7000, wait=1):
    return ClusterEnvironment(f"127.0.0.1:{port}", count, index, wait)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_slurm_tells_who_a_process_is():
    assert find_cluster_environment(HostsSettings(), SLURM) == ClusterEnvironment("gpu07:61441", 4, 2, 300)
    step = {**SLURM, "SLURM_STEP_NODELIST": "gpu09"}  # a step on some of the job's hosts
    assert find_cluster_environment(HostsSettings(), step).address == ("gpu09", 61441)


def test_what_is_given_goes_before_what_slurm_tells():
    given = HostsSettings("head:5000", count=8, index=0, wait_seconds=20)
    assert find_cluster_environment(given, SLURM) == ClusterEnvironment("head:5000", 8, 0, 20)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("alpha", "alpha"), ("a,b", "a"), ("n[1-4]", "n1"), ("n[01,07-09],m3", "n01"), ("r[2-3]x", "r2x")],
)
def test_the_first_of_slurms_hosts(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (HostsSettings(), ["hosts.coordinator", "hosts.count", "hosts.index"]),
        (HostsSettings("head", 2, 0), ["expected HOST:PORT", "received head"]),
        (HostsSettings("head:99999", 2, 0), ["expected HOST:PORT"]),
        (HostsSettings("head:5000", 1, 0), ["at least 2 processes; received 1", "srun", "strategy=single"]),
        (HostsSettings("head:5000", 2, 2), ["hosts.index: expected 0 to 1", "received 2"]),
        (HostsSettings("head:5000", 2, -1), ["received -1"]),
        (HostsSettings("head:5000", 2, 0, 0), ["hosts.wait_seconds"]),
    ],
)
def test_every_problem_of_a_place_among_hosts_is_reported_at_once(given, message):
    with pytest.raises(SettingsError) as caught:
        find_cluster_environment(given, {})
    assert all(words in str(caught.value) for words in message)


def test_a_process_knows_whether_anything_places_it():
    assert is_in_cluster(HostsSettings(), SLURM)
    assert is_in_cluster(HostsSettings(index=0), {})
    assert not is_in_cluster(HostsSettings(), {"SLURM_NTASKS": "1"})
    assert not is_in_cluster(HostsSettings(), {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TrainSettings(hosts=HostsSettings(index=1)), "hosts: expected none of its keys"),
        (TrainSettings(strategy="hosts", model=ModelSettings("covariates", "table")), "expected single"),
    ],
)
def test_settings_that_do_not_go_with_the_strategy_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        check_settings(settings)


def test_only_jax_serves_several_hosts(monkeypatch):
    pytest.importorskip("jax")
    check_engine({})
    check_engine({"KERAS_BACKEND": "jax"})
    with pytest.raises(SettingsError, match=r"received KERAS_BACKEND=tensorflow.*Unset"):
        check_engine({"KERAS_BACKEND": "tensorflow"})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'voxlift\[jax\]'"):
        check_engine({})


def test_a_batch_that_the_processes_cannot_share_is_refused():
    settings = TrainSettings(strategy="hosts", trainer=TrainerSettings(batch_size=5))
    with pytest.raises(SettingsError, match="multiple of 2 devices; choose 4 or 6"):
        supervise(settings, HostsSettings("127.0.0.1:7000", 2, 0))


def test_a_host_0_that_cannot_be_reached_is_reported_after_the_stated_time():
    began = time.monotonic()
    with pytest.raises(SettingsError, match=r"host 0 cannot be reached.*tried for 1 s.*wait_seconds"):
        await_coordinator(cluster(index=1, port=free_port()))
    assert 1 <= time.monotonic() - began < 10


def test_a_host_that_comes_late_is_waited_for():
    port = free_port()
    with socket.socket() as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def listen():
            late.bind(("127.0.0.1", port))
            late.listen()

        threading.Timer(0.5, listen).start()
        await_coordinator(cluster(index=1, port=port, wait=30))


def test_a_taken_port_is_reported():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen at port {port}.*name another one"):
            refuse_taken_port(cluster(port=port))
    refuse_taken_port(cluster(port=port))


def test_the_channel_carries_whole_messages_until_it_is_closed():
    ours, theirs = open_pair()
    theirs.send({"run": "a folder with ä"})
    theirs._end.sendall(b'{"cut": ')
    theirs.close()
    assert list(ours.messages()) == [{"run": "a folder with ä"}]
    assert ours.receive() == {}
    ours.send({"nobody": "listens"})
    ours.close()


def test_the_end_of_the_other_process_is_noticed():
    ours, theirs = open_pair()
    noticed = threading.Event()
    theirs.when_closed(noticed.set)
    ours.close()
    assert noticed.wait(10)
    theirs.close()


def test_shares_that_were_dealt_out_in_turn_come_back_in_order():
    rows = np.arange(14.0).reshape(7, 2)
    shares = np.zeros((3, 3, 2))
    for index in range(3):
        own = rows[index::3]
        shares[index, : len(own)] = own
    np.testing.assert_array_equal(interleave(shares, 7), rows)


def test_hosts_may_differ_in_their_places_but_not_in_the_training():
    first = TrainSettings(run_dir="a", logger=LoggerSettings(mlflow=True), hosts=HostsSettings(index=0))
    here = TrainSettings(run_dir="b", hosts=HostsSettings(index=1))
    here.data.root, here.cache.folder = "/scratch", "elsewhere"
    assert differing_keys(here, first) == []
    here.seed, here.trainer.batch_size = 3, 16
    assert differing_keys(here, first) == [
        "trainer.batch_size is 16 here and 8 on host 0",
        "seed is 3 here and 0 on host 0",
    ]
    first.augment = {"flip": True}
    assert "augment.flip is None here and True on host 0" in differing_keys(here, first)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("UNKNOWN: Gloo all-reduce failed: Read error: Connection reset by peer"), True),
        (RuntimeError("UNAVAILABLE: Failed to send RPC to coordination service"), True),
        (ValueError("operands could not be broadcast together"), False),
        (MemoryError(), False),
    ],
)
def test_an_error_of_the_engine_tells_whether_somebody_is_lost(error, lost):
    assert is_connection_error(error) is lost


ABORT = "F0000 client.h:80] Terminating process because the JAX distributed service detected fatal errors. "


@pytest.mark.parametrize(
    ("report", "code", "output", "status", "message"),
    [
        (Report(True, "r", {"status": 0, "message": ""}), 0, "", DONE, ""),
        (Report(True, "r", {"status": 2, "message": "no such file"}), 2, "", USER_ERROR, "no such file"),
        (Report(True, "r"), 1, "", CRASH, "status 1"),
        (Report(True, "r"), -signal.SIGKILL, "", LOST, r"killed by SIGKILL \(out of memory\?\)"),
        (Report(True, "r"), -signal.SIGSEGV, "", LOST, "killed by SIGSEGV"),
        (Report(True, "r"), -signal.SIGABRT, "Check failed", LOST, "killed by SIGABRT"),
        (Report(True, "r"), -signal.SIGABRT, ABORT, LOST, r"host 0 \(127.0.0.1:7000\) was lost"),
        (Report(True, "r"), -signal.SIGABRT, f"{ABORT} /job:jax_worker/task:2", LOST, "host 2 was lost"),
        (Report(), -signal.SIGABRT, ABORT, LOST, r"3 hosts.*127.0.0.1:7000"),
    ],
)
def test_how_a_training_process_ended_is_reported(report, code, output, status, message):
    found, sentence = classify_exit(report, code, stderr=output, cluster=cluster(1, 3))
    assert found == status
    assert re.search(message, sentence)


def test_the_way_on_is_a_command():
    assert "same command again" in resume_instruction(None, cluster(), is_slurm=False)
    assert resume_instruction("runs/a", cluster(), is_slurm=True).endswith("srun voxlift-train resume=runs/a")
    instruction = resume_instruction("runs/a", cluster(count=4), is_slurm=False)
    assert "resume=runs/a hosts.coordinator=127.0.0.1:7000 hosts.count=4 hosts.index=0 (to 3)" in instruction


class Left(Exception):  # noqa: N818 - stands in for the end of the process
    """The process has ended."""


@pytest.fixture
def left(monkeypatch):
    """A meeting place without an engine: what was message, and the end of the process as an exception."""
    notes = {}
    monkeypatch.setattr(ending_room, "is_connected", lambda: True)
    monkeypatch.setattr(ending_room, "publish", lambda name, value: notes.update({name[5:]: value}))
    monkeypatch.setattr(ending_room, "read_published", lambda _: dict(notes))
    monkeypatch.setattr(ending_room, "LINGER", 0.3)
    monkeypatch.setattr(ending_room, "GRACE", 0.01)

    def leave(status):
        raise Left(status)

    monkeypatch.setattr(ending_room.os, "_exit", leave)
    return notes


def end_of(act):
    """What the supervising process is message when a process ends in the given way."""
    ours, theirs = open_pair()
    with pytest.raises(Left):
        act(theirs)
    theirs.close()
    output = ours.receive()["ended"]
    ours.close()
    return output["status"], output["message"]


def test_who_ends_badly_tells_the_others(left):
    assert end_of(lambda to: ProcessExit(to, cluster(1)).end(USER_ERROR, "no such file")) == (
        2,
        "no such file",
    )
    assert left == {"1": {"status": 2, "message": "no such file", "primary": True}}


def test_a_good_end_tells_nobody(left):
    assert end_of(lambda to: ProcessExit(to, cluster(1)).end(DONE, "")) == (0, "")
    assert left == {}


@pytest.mark.parametrize(
    ("status", "own"), [(USER_ERROR, USER_ERROR), (INTERRUPTED, INTERRUPTED), (CRASH, LOST)]
)
def test_another_hosts_end_is_followed_with_its_reason(left, status, own):
    left["2"] = {"status": status, "message": "its reason.", "primary": True}
    assert end_of(lambda to: ProcessExit(to, cluster(1, 3))._watch()) == (own, "host 2 stopped: its reason.")
    assert left["1"]["primary"] is False  # whoever follows is not the cause


def test_a_host_that_states_nothing_is_the_lost_one(left):
    left["2"] = {"status": LOST, "message": "gloo", "primary": False}
    status, message = end_of(lambda to: ProcessExit(to, cluster(0, 4)).exit_lost(RuntimeError("gloo")))
    assert status == LOST
    assert message == "host 1 was lost: its process was killed or cannot be reached."


@pytest.mark.usefixtures("left")
def test_a_lost_meeting_place_is_host_0(monkeypatch):
    monkeypatch.setattr(ending_room, "publish", lambda *_: 1 / 0)
    assert end_of(lambda to: ProcessExit(to, cluster(1)).exit_lost(RuntimeError("gloo")))[1].startswith(
        "host 0 (127.0.0.1:7000) was lost"
    )


def test_a_lost_connection_is_explained_by_a_host_that_gave_its_reason(left):
    left["0"] = {"status": USER_ERROR, "message": "The loss is not finite.", "primary": True}
    assert end_of(lambda to: ProcessExit(to, cluster(1)).exit_lost(RuntimeError("gloo"))) == (
        USER_ERROR,
        "host 0 (127.0.0.1:7000) stopped: The loss is not finite.",
    )


WORKER = """
import json, os, signal, sys, time
from voxlift.app.training.strategy.hosts.channel import open_channel
signal.signal(signal.SIGINT, signal.default_int_handler)
channel = open_channel(int(sys.argv[1]))
order = channel.receive()
print("noise of the engine", file=sys.stderr)
channel.send({"joined": True})
channel.send({"run": os.environ["RUN"]})
open(os.path.join(order["folder"], "a copy"), "w").close()
open(os.environ["SEEN"], "w").write(json.dumps([order, os.environ["KERAS_BACKEND"]]))
"""
ENDS = {
    "well": 'channel.send({"ended": {"status": 0, "message": ""}})',
    "user": 'channel.send({"ended": {"status": 2, "message": "no such file"}}); sys.exit(2)',
    "crash": 'channel.send({"ended": {"status": 70, "message": "KeyError: 3"}}); sys.exit(70)',
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "aborted": f'sys.stderr.write("{ABORT}"); sys.stderr.flush(); os.kill(os.getpid(), signal.SIGABRT)',
    "asked": """
try:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
except KeyboardInterrupt:
    channel.send({"ended": {"status": 130, "message": "it was interrupted."}})
    sys.exit(130)
""",
}


@pytest.fixture
def supervised(tmp_path, monkeypatch):
    """Runs `supervise` with a stand-in for the training process that ends in a given way."""
    pytest.importorskip("jax")
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setenv("RUN", str(run))
    monkeypatch.setenv("SEEN", str(tmp_path / "seen.json"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setattr(supervise_room, "MODULE", "stand_in")

    def end(how, index=0):
        (tmp_path / "stand_in.py").write_text(WORKER + ENDS[how])
        with socket.socket() as lead:
            lead.bind(("127.0.0.1", 0))
            port = lead.getsockname()[1]
            if index:
                lead.listen()
            else:
                lead.close()
            hosts = HostsSettings(f"127.0.0.1:{port}", 2, index)
            status = supervise(TrainSettings(strategy="hosts", hosts=hosts), hosts)
        seen = json.loads((tmp_path / "seen.json").read_text())
        return status, run, seen

    return end


def test_a_training_that_ends_well_states_nothing_more(supervised, capfd):
    status, run, (order, engine) = supervised("well")
    assert (status, engine) == (DONE, "jax")
    assert capfd.readouterr().err == ""
    assert not (run / "log.txt").exists()
    assert order["member"]["index"] == 0
    assert not Path(order["folder"]).exists()
    status, run, _ = supervised("well", index=1)
    assert "Host 1 of 2 is done" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ("user", USER_ERROR, "error: Host 0 of 2: no such file\n"),
        ("killed", LOST, "killed by SIGKILL (out of memory?). "),
        ("aborted", LOST, "was lost: its process was killed or cannot be reached. "),
        ("asked", INTERRUPTED, "it was interrupted. "),
    ],
)
def test_a_bad_end_is_a_sentence_on_the_terminal_and_in_the_log(supervised, capfd, how, status, message):
    found, run, _ = supervised(how)
    output = capfd.readouterr().err
    assert found == status
    assert message in output
    assert "noise" not in output
    assert "Traceback" not in output
    assert message.removeprefix("error: ").strip() in (run / "log.txt").read_text(encoding="utf-8")
    if status == LOST:
        assert f"resume={run}" in output


def test_a_crash_of_ours_keeps_what_it_said(supervised, capfd):
    status, _, _ = supervised("crash", index=1)
    output = capfd.readouterr().err
    assert status == CRASH
    assert "noise of the engine" in output
    assert "Host 1 of 2: KeyError: 3" in output


def test_a_refusal_imports_no_engine(tmp_path):
    code = (
        "import sys; sys.argv = ['x', 'strategy=hosts', 'hosts.count=2']\n"
        "from voxlift.app.cli.train import main\n"
        "try:\n    main()\n"
        "except SystemExit as left:\n"
        "    print(left.code, sorted({'jax', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    answer = run_python("-c", code, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "2 []"
    assert "hosts.coordinator" in answer.stderr
    assert "hosts.index" in answer.stderr
    assert not list(tmp_path.iterdir())
