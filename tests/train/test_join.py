"""When processes look for each other, and what they say where they find nobody."""

import jax
import pytest

from jaxnets.config import DistributedConfig
from jaxnets.errors import UserError
from jaxnets.train import hosts
from jaxnets.train.hosts import join

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "OMPI_COMM_WORLD_RANK": "0"}


@pytest.fixture
def asked(monkeypatch):
    """What `jax.distributed.initialize` was called with, on a machine that is no cluster."""
    calls: list[dict] = []
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
    assert all("coordinator_address" not in arguments for arguments in asked)


def test_addresses_in_the_config_are_used(asked):
    join(DistributedConfig(coordinator="there:8476", processes=4, process=3))
    [arguments] = asked
    assert arguments["coordinator_address"] == "there:8476"
    assert (arguments["num_processes"], arguments["process_id"]) == (4, 3)


def test_processes_that_are_not_there_get_one_message(asked, monkeypatch):
    def refuse(**arguments):
        raise RuntimeError("DEADLINE_EXCEEDED: no answer\nand much more")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(UserError, match=r"cannot be reached \(DEADLINE_EXCEEDED: no answer\): start all of them"):
        join(DistributedConfig(coordinator="there:8476", processes=2, process=1))
