"""When processes look for each other, and what they say where they find nobody."""

import signal

import jax
import pytest

from jaxnets.config import DistributedConfig
from jaxnets.errors import UserError
from jaxnets.train import hosts
from jaxnets.train.hosts import join
from tests.train import processes

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}


class FakeRelay:
    def __init__(self, host, port, lost):
        self.address = f"unix:to {host} {port}"

    def keep_only_what_is_open(self) -> None: ...


@pytest.fixture
def asked(monkeypatch):
    """What `jax.distributed.initialize` was called with, on a machine that is no cluster."""
    calls: list[dict] = []
    monkeypatch.setattr(hosts, "Relay", FakeRelay)
    monkeypatch.setattr(hosts, "_relay", None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(hosts, "_CHIPS", ())
    for name in (*hosts._SIGNS, *SLURM, *OPEN_MPI):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_lone_machine_looks_for_nobody(asked):
    assert not join(DistributedConfig()).several
    assert asked == []


@pytest.mark.parametrize(
    ("environment", "count"), [(SLURM, "SLURM_NTASKS"), (OPEN_MPI, "OMPI_COMM_WORLD_SIZE")], ids=["slurm", "open mpi"]
)
@pytest.mark.parametrize("processes", [1, 2])
def test_one_of_several_processes_finds_the_others(asked, monkeypatch, environment, count, processes):
    for name, value in {**environment, count: str(processes)}.items():
        monkeypatch.setenv(name, value)
    join(DistributedConfig())
    assert len(asked) == (1 if processes > 1 else 0)
    for arguments in asked:
        first = environment is OPEN_MPI  # process 0, which needs no relay to itself
        assert arguments["coordinator_address"].startswith("10.96.0.1:" if first else "unix:to node001 ")
        assert (arguments["num_processes"], arguments["process_id"]) == (2, 0 if first else 1)


@pytest.mark.parametrize(("coordinator", "seen"), [("there:8476", "there 8476"), ("[fe80::1]:8476", "fe80::1 8476")])
def test_addresses_in_the_config_are_used(asked, coordinator, seen):
    join(DistributedConfig(coordinator=coordinator, processes=4, process=3))
    [arguments] = asked
    assert arguments["coordinator_address"] == f"unix:to {seen}"
    assert (arguments["num_processes"], arguments["process_id"]) == (4, 3)


def test_a_coordinator_that_cannot_be_one_gets_one_message(asked, monkeypatch):
    def refuse(**arguments):
        raise RuntimeError("UNKNOWN: the port is taken\nand much more")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(UserError, match=r"cannot be joined \(UNKNOWN: the port is taken\): start all of them"):
        join(DistributedConfig(coordinator="here:8476", processes=2, process=0))


WAITING = """
import sys, time
from jaxnets.config import DistributedConfig
from jaxnets.train.hosts import join
from jaxnets.train.stop import Stop
from jaxnets.train.watch import Watch, watching

address, processes, process, minutes = sys.argv[1:]
hosts = join(DistributedConfig(coordinator=address, processes=int(processes), process=int(process),
                               start_minutes=float(minutes)))
with watching(Watch(Stop(), hosts, None), hosts):
    print("joined", flush=True)
    time.sleep(100)
"""


def test_processes_end_with_a_message_where_others_never_come_and_where_process_0_goes():
    def waiting(of: int, *numbers: int, minutes: float = 1):
        address = f"localhost:{processes.free_port()}"
        return [processes.popen("-c", WAITING, address, str(of), str(number), str(minutes)) for number in numbers]

    joined = waiting(2, 0, 1)
    unanswered = waiting(2, 1, minutes=0.02)
    alone = waiting(2, 0, minutes=0.02)
    assert [process.stdout.readline() for process in joined] == ["joined\n"] * 2
    joined[0].kill()
    ended = [processes.finish(started, 60) for started in (joined, unanswered, alone)]
    statuses = [[status for status, _ in some] for some in ended]
    assert statuses == [[-signal.SIGKILL, 75], [75], [75]], ended
    assert ended[0][1][1].startswith("error: process 0 no longer answers. Run the same command again")
    assert "did not meet within 0.02 minutes: process 0 cannot be reached (Connection refused)" in ended[1][0][1]
    assert "did not meet within 0.02 minutes: some are missing" in ended[2][0][1]
    assert all(said.count("error: ") == 1 for some in ended for _, said in some if said)
