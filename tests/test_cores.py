"""How many cores a process is taken to have, inside of a container too."""

import os

import pytest

from jaxnets import cores


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A folder in place of the control groups' files, on a machine of eight cores."""
    for name, file in (("_LIMIT", "cpu.max"), ("_QUOTA", "quota"), ("_PERIOD", "period")):
        monkeypatch.setattr(cores, name, tmp_path / file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "count"),
    [("200000 100000\n", 2), ("250000 100000", 3), ("10000 100000", 1), ("1600000 100000", 8), ("max 100000", 8),
     ("0 0", 8), ("", 8), ("a b", 8)],
)  # fmt: skip
def test_a_container_s_share_of_time_bounds_the_cores(groups, limit, count):
    (groups / "cpu.max").write_text(limit)
    assert cores.cores() == count


@pytest.mark.parametrize(("quota", "count"), [("150000", 2), ("-1", 8), ("50000", 1)])
def test_so_it_does_in_the_first_version_of_control_groups(groups, quota, count):
    (groups / "quota").write_text(f"{quota}\n")
    (groups / "period").write_text("100000\n")
    assert cores.cores() == count


def test_without_control_groups_it_is_what_the_process_is_bound_to(groups):
    assert cores.cores() == 8
