"""The keys, agreement and ends of several hosts, without any training: JAX is not imported here."""

import signal

import numpy as np
import pytest

from commands import run_python
from voxlift.app.config import (
    HostsSettings,
    LoggerSettings,
    ModelSettings,
    SettingsError,
    TrainSettings,
    check_settings,
)
from voxlift.app.errors import UserError
from voxlift.app.runtime.exit_status import CRASH, INTERRUPTED, LOST, USER_ERROR
from voxlift.app.runtime.failures import ProcessEnd
from voxlift.app.training.strategy import hosts
from voxlift.app.training.strategy.distribute import interleave
from voxlift.app.training.strategy.hosts import (
    check_hosts,
    describe_exit,
    differing_keys,
    find_hosts_problems,
    is_launched,
    leads,
    process_zero_first,
)

SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2"}


@pytest.mark.parametrize(
    ("given", "environment", "named"),
    [
        (HostsSettings(), {}, ["hosts.coordinator", "hosts.count", "hosts.index"]),
        (HostsSettings("head:5000", index=0), SLURM, ["hosts.count"]),
        (HostsSettings("head", 2, 0), {}, ["HOST:PORT", "head"]),
        (HostsSettings("head:99999", 2, 0), {}, ["HOST:PORT"]),
        (HostsSettings("head:5000", 1, 0), {}, ["hosts.count", "1"]),
        (HostsSettings("head:5000", 2, 2), {}, ["hosts.index", "0 to 1", "2"]),
        (HostsSettings("head:5000", 2, -1), {}, ["hosts.index", "-1"]),
        (HostsSettings("head:5000", 2, 0, 0, 0), {}, ["hosts.wait_seconds", "hosts.heartbeat_seconds"]),
    ],
)
def test_every_problem_of_the_keys_is_reported_at_once(given, environment, named):
    problems = " ".join(find_hosts_problems(given, environment))
    assert [words for words in named if words not in problems] == []


def test_keys_or_a_launcher_make_a_process_one_of_several():
    for environment in (SLURM, {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}):
        assert is_launched(HostsSettings(), environment)
        assert find_hosts_problems(HostsSettings(), environment) == []
    assert is_launched(HostsSettings(index=0), {})
    assert not is_launched(HostsSettings(), {"SLURM_NTASKS": "1"})
    assert not is_launched(HostsSettings(), {})


def test_process_0_leads():
    assert leads(HostsSettings(index=0), SLURM)
    assert not leads(HostsSettings(index=1), {"SLURM_PROCID": "0"})
    assert leads(HostsSettings(), {"SLURM_PROCID": "0"})
    assert not leads(HostsSettings(), SLURM)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (TrainSettings(hosts=HostsSettings(index=1)), "hosts"),
        (TrainSettings(strategy="hosts", model=ModelSettings("covariates", "table")), "strategy"),
    ],
)
def test_settings_that_do_not_go_with_the_strategy_are_refused(settings, named):
    with pytest.raises(SettingsError, match=named):
        check_settings(settings)


def test_only_jax_serves_several_hosts(monkeypatch):
    pytest.importorskip("jax")
    settings = TrainSettings(strategy="hosts", hosts=HostsSettings("head:5000", 2, 0))
    check_hosts(settings, {})
    check_hosts(settings, {"KERAS_BACKEND": "jax"})
    with pytest.raises(SettingsError, match="KERAS_BACKEND=tensorflow"):
        check_hosts(settings, {"KERAS_BACKEND": "tensorflow"})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"voxlift\[jax\]"):
        check_hosts(settings, {})


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
    assert [text.split()[0] for text in differing_keys(here, first)] == ["trainer.batch_size", "seed"]
    first.augment = {"flip": True}
    assert "augment.flip" in " ".join(differing_keys(here, first))


@pytest.fixture
def exchange(monkeypatch):
    """Stand in for the other hosts: each exchange of texts takes their next texts, and records its own."""

    def stand_as(index, *others):
        sent, left = [], list(others)

        def gather(text):
            sent.append(text)
            theirs = left.pop(0)
            return [*theirs[:index], text, *theirs[index:]]

        monkeypatch.setattr(hosts, "gather_texts", gather)
        monkeypatch.setattr(hosts, "is_leader", lambda: index == 0)
        return sent

    return stand_as


def test_host_0_works_first_and_a_failure_of_one_ends_all(exchange):
    settings = TrainSettings(strategy="hosts")
    for index in (0, 1):  # all is well: two exchanges on each host
        sent = exchange(index, ["", ""], ["", ""])
        with process_zero_first(settings):
            assert len(sent) == index
        assert sent == ["", ""]
    sent = exchange(0, ["", ""], ["", "no such file"])  # host 2 fails after host 0
    with pytest.raises(UserError, match=r"Host 2.*no such file"), process_zero_first(settings):
        assert sent == []
    sent = exchange(0, ["", ""])  # host 0 fails, and says so
    with pytest.raises(SettingsError, match="key"), process_zero_first(settings):
        raise SettingsError("key: wrong")
    assert sent == ["key: wrong"]


def test_no_other_host_begins_when_host_0_has_failed(exchange):
    exchange(1, ["no such file", ""])
    began = False
    with pytest.raises(UserError, match=r"Host 0.*no such file"):  # noqa: SIM117 - the second one raises on entry
        with process_zero_first(TrainSettings(strategy="hosts")):
            began = True
    assert not began


def test_a_single_host_exchanges_nothing(monkeypatch):
    monkeypatch.setattr(hosts, "gather_texts", lambda _: pytest.fail("there is nobody"))
    with process_zero_first(TrainSettings()):
        pass


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), INTERRUPTED),
        (SettingsError("seed: 3"), USER_ERROR),
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"), LOST),
        (RuntimeError("UNAVAILABLE: Failed to send RPC to coordination service"), LOST),
        (ValueError("operands could not be broadcast together"), CRASH),
        (MemoryError(), CRASH),
    ],
)
def test_an_error_becomes_an_exit_status(error, status):
    assert describe_exit(error)[0] == status


def test_an_abort_by_jax_is_the_loss_of_a_host_and_names_the_command_that_resumes():
    hints = {"lost": "Another host was lost.", "resume": "voxlift-train resume=runs/a"}
    aborted = ProcessEnd(signal.SIGABRT, 10**9, is_memory=False, hints=hints)
    assert aborted.exit_status == LOST
    assert aborted.describe() == "Another host was lost. voxlift-train resume=runs/a"
    killed = ProcessEnd(signal.SIGKILL, 10**9, is_memory=False, hints=hints)
    assert killed.exit_status == LOST
    assert "resume=runs/a" in killed.describe()
    assert ProcessEnd(signal.SIGABRT, 10**9, is_memory=False, hints={}).exit_status == CRASH


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
