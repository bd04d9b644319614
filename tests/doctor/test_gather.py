"""What is gathered from a machine; and faults that are made here for real."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxnets.doctor import gather
from jaxnets.doctor.machine import Gpu
from jaxnets.doctor.remote import measure_remote

ROOT = Path(__file__).parent.parent.parent

HOLDS = """
import fcntl, sys, time
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(600)
"""


def test_there_is_no_lock_where_there_is_no_file(tmp_path):
    assert gather.tpu_lock(tmp_path / "lock") is None


def test_a_stale_lock_has_no_holder(tmp_path):
    (tmp_path / "lock").touch()
    lock = gather.tpu_lock(tmp_path / "lock")
    assert lock is not None
    assert lock.accessible
    assert lock.holder is None


def test_the_holder_of_a_lock_is_found_and_the_lock_is_left_alone(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    with subprocess.Popen([sys.executable, "-c", HOLDS, path], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "locked\n"
            lock = gather.tpu_lock(path)
        finally:
            other.kill()
    assert lock is not None
    assert lock.holder is not None
    assert lock.holder.pid == other.pid
    assert lock.holder.command.startswith(sys.executable)


def test_a_lock_that_cannot_be_opened_is_not_accessible(tmp_path):
    (tmp_path / "lock").mkdir()  # a file without permission would do for any user but root
    lock = gather.tpu_lock(tmp_path / "lock")
    assert lock is not None
    assert not lock.accessible


def test_a_process_that_has_a_device_open_is_found(tmp_path):
    device = tmp_path / "accel0"
    device.touch()
    with subprocess.Popen([sys.executable, "-c", HOLDS, device], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            found = gather.holders(re.compile(r".*/accel\d+"))
        finally:
            other.kill()
    assert [process.pid for process in found] == [other.pid]


def test_nvidia_smi_is_read():
    table = "0, GPU-6f1a, NVIDIA H200, 570.86.15, 143771, 512\n1, GPU-77, Tesla T4, 535.1, 15360, [N/A]\n"
    assert gather.read_gpus(table) == (
        Gpu(index=0, uuid="GPU-6f1a", name="NVIDIA H200", driver="570.86.15", memory=143771 * 2**20, used=512 * 2**20),
        Gpu(index=1, uuid="GPU-77", name="Tesla T4", driver="535.1", memory=15360 * 2**20, used=0),
    )


@pytest.mark.parametrize("said", ["No devices were found", "WARNING: infoROM is corrupted at gpu 0000:00:04.0", ""])
def test_what_nvidia_smi_says_besides_its_table_is_no_gpu(said):
    assert [gpu.index for gpu in gather.read_gpus(f"{said}\n3, GPU-77, Tesla T4, 535.1, 15360, 0\n")] == [3]


def test_a_directory_is_measured_where_it_will_be_and_left_as_it_was(tmp_path):
    found = gather.measure_directory(str(tmp_path / "runs" / "x"))
    assert found.measured_in == str(tmp_path)
    assert found.error is None
    assert found.bytes_per_second is not None
    assert found.bytes_per_second > 1e5
    assert list(tmp_path.iterdir()) == []


def test_a_directory_below_a_file_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    assert gather.measure_directory(str(tmp_path / "file" / "run")).error == "Not a directory"


def test_a_parent_that_cannot_be_looked_at_counts_as_not_there(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o600)
    hidden = [tmp_path / "closed" / "run", tmp_path / ("x" * 300) / "run"]  # the second holds for root as well
    assert {gather.measure_directory(str(path)).measured_in for path in hidden} <= {str(tmp_path), f"{tmp_path}/closed"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    assert gather.measure_directory(str(tmp_path)).error == "Permission denied"


def test_an_address_that_no_run_can_have_is_said(monkeypatch):
    assert "neither a directory nor a folder of a bucket" in (gather.measure_directory("s3://bucket/run").error or "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'jaxnets[gcs]'" in (gather.measure_directory("gs://bucket/run").error or "")


def test_a_bucket_is_written_to_and_left_empty(objects):
    found = gather.measure_directory("gs://bucket/runs/x")
    assert (found.error, found.file_system, found.free) == (None, "gs", None)
    assert found.bytes_per_second is not None
    assert objects.objects == {}


def test_why_a_bucket_cannot_be_written_to_is_told(objects, monkeypatch):
    monkeypatch.setattr(objects, "refuses", True)
    assert "denied" in (gather.measure_directory("gs://bucket/x").error or "")


def test_a_bucket_that_does_not_answer_is_given_up(objects):
    objects.answers.clear()
    try:
        assert measure_remote("gs://bucket/x", seconds=3.0).error == "nothing came back within 3 s"
    finally:
        objects.answers.set()


def test_the_file_system_is_that_of_the_deepest_mount():
    mounts = "/dev/a / ext4 rw 0 0\nserver:/x /data nfs4 rw 0 0\ndrive /data/my\\040drive fuse.drive rw 0 0\n"
    assert gather.file_system(Path("/home"), mounts) == "ext4"
    assert gather.file_system(Path("/data/y"), mounts) == "nfs4"
    assert gather.file_system(Path("/data/my drive/run"), mounts) == "fuse.drive"


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def test_limits_of_control_groups_version_2(tmp_path):
    files = {"cpu.max": "max 100000\n", "pod/cpu.max": "150000 100000\n", "pod/memory.max": "1000\n"}
    write(tmp_path, {**files, "pod/memory.current": "400\n", "pod/job/memory.max": "max\n"})
    assert gather.control_group(tmp_path, "0::/pod/job\n") == (1.5, 1000, 400)
    write(tmp_path, {"pod/memory.stat": "anon 90\nactive_file 10\ninactive_file 300\n"})
    assert gather.control_group(tmp_path, "0::/pod/job\n") == (1.5, 1000, 100)


def test_limits_of_control_groups_version_1(tmp_path):
    write(tmp_path, {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"})
    write(tmp_path, {"memory/job/memory.limit_in_bytes": "2000\n", "memory/job/memory.usage_in_bytes": "5\n"})
    assert gather.control_group(tmp_path, "4:memory:/job\n1:cpu:/\n") == (0.5, 2000, 5)
    write(tmp_path, {"memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 3\n"})
    assert gather.control_group(tmp_path, "4:memory:/job\n1:cpu:/\n") == (0.5, 2000, 2)


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert gather.control_group(tmp_path, "") == (None, None, 0)


def test_the_cores_are_those_that_this_process_may_use():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert gather.host().usable_cores == 1
    finally:
        os.sched_setaffinity(0, before)
    assert gather.host().usable_cores == len(before)


def test_memory_is_found():
    host = gather.host()
    assert 0 < host.available_memory <= host.memory


def test_programs_of_the_compilation_cache_are_counted(tmp_path):
    write(tmp_path, {"jit_f-0-cache": "12345", "jit_f-0-atime": "1", "jit_g-1-cache": "123"})
    cache = gather.compilation_cache({"JAX_COMPILATION_CACHE_DIR": str(tmp_path)})
    assert (cache.path, cache.programs, cache.size, cache.error) == (str(tmp_path), 2, 8, None)


def test_the_default_compilation_cache_is_the_one_of_the_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert gather.compilation_cache({}).path == str(tmp_path / "jaxnets" / "compiled")


def test_a_cache_that_is_a_temporary_one_says_why_and_is_not_made(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("")  # no directory, and so none to write in
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cache = gather.compilation_cache({})
    assert cache.temporary == f"{tmp_path / 'home' / '.cache' / 'jaxnets'} cannot be written to"
    assert not Path(cache.path).parent.exists()


def test_packages_that_matter_are_found_and_no_others():
    found = gather.packages()
    assert {"jax", "jaxlib", "flax"} <= found.keys()
    assert "numpy" not in found


def test_gathering_imports_no_jax():
    code = "import sys; import jaxnets.doctor.__main__; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "False\n"
