"""What the checks say to machines that are made up."""

from dataclasses import replace

import pytest

from jaxnets.doctor.checks import examine
from jaxnets.doctor.machine import Directory, Probe, Process, TpuLock, Wanted
from tests.doctor.machines import CPU, GIB, GPU, H200, PACKAGES, TPU, changed, findings

OTHER = Process(pid=4321, command="python other.py")
STALE = TpuLock(path="/tmp/libtpu_lockfile", owner="me", accessible=True, holder=None)
DEAD = Probe(outcome="crashed", stage="the start of the devices", status=-11, messages="last words")
CUDNN = "E1 cuda_dnn.cc:456] Loaded runtime CuDNN library: 9.1.0 but source was compiled with: 9.8.0.  CuDNN library"
LOCKED = "Backend 'tpu' failed to initialize: ABORTED: multi-process lockfile. Run. Available backends are ['cpu']"
FALLBACK = {"probe": CPU.probe}

# What is the matter, the machine, what is wanted; and of the one fault: its check, and words of it and its remedy.
FAULTS = {
    "no jax": (changed(CPU, packages={"flax": "1"}), {}, "versions", "jax and jaxlib", "pip install -e ."),
    "jax older than jaxlib": (
        changed(CPU, packages={**PACKAGES, "jax": "0.9.0"}), {}, "versions", "jax 0.9.0 and jaxlib 0.10.2", "-U jax",
    ),
    "plugin older than jaxlib": (
        changed(GPU, packages={**PACKAGES, "jax-cuda12-plugin": "0.9.1"}), {},
        "versions", "jax-cuda12-plugin 0.9.1 does not fit jaxlib 0.10.2", "pip install -U",
    ),
    "two CUDAs": (
        changed(GPU, packages={**PACKAGES, "jax-cuda12-plugin": "0.10.2", "jax-cuda13-plugin": "0.10.2"},
                hardware__gpus=(replace(H200, driver="580.1"),)),
        {}, "versions", "two versions of CUDA", "pip uninstall -y jax-cuda12-plugin jax-cuda13-plugin",
    ),
    "another libtpu": (
        changed(TPU, packages={**PACKAGES, "libtpu": "0.0.40"}), {}, "versions", "made for (0.0.42.*)", "jax[tpu]",
    ),
    "no TPU though asked for": (CPU, {"platform": "tpu"}, "devices", "there is no TPU here", "Take a machine"),
    "no GPU though asked for": (CPU, {"platform": "gpu"}, "devices", "there is no GPU here", "nvidia-smi"),
    "no TPU on Kaggle": (
        changed(CPU, environment={"KAGGLE_KERNEL_RUN_TYPE": "Batch"}), {"platform": "tpu"},
        "devices", "there is no TPU here", "under Accelerator",
    ),
    "no GPU on Colab": (
        changed(CPU, environment={"COLAB_RELEASE_TAG": "x"}), {"platform": "gpu"}, "devices", "no GPU", "runtime type",
    ),
    "a GPU without the plugin": (
        changed(GPU, packages=PACKAGES, **FALLBACK), {}, "devices", "fell back to the CPU", "requirements-gpu.txt",
    ),
    "a TPU without libtpu": (
        changed(TPU, packages=PACKAGES, **FALLBACK), {}, "devices", "fell back to the CPU", "requirements-tpu.txt",
    ),
    "told to use the CPU": (
        changed(TPU, environment={"JAX_PLATFORMS": "cpu"}, **FALLBACK), {},
        "devices", "JAX_PLATFORMS=cpu keeps it from the TPU", "unset JAX_PLATFORMS",
    ),
    "GPUs hidden": (
        changed(GPU, environment={"CUDA_VISIBLE_DEVICES": ""}, **FALLBACK), {}, "devices", "hides every GPU", "unset",
    ),
    "TPU held": (
        changed(TPU, hardware__tpu_holders=(OTHER,), **FALLBACK), {}, "devices", "python other.py", "kill 4321",
    ),
    "TPU lock held": (
        changed(TPU, hardware__tpu_lock=TpuLock(path="/l", owner="me", accessible=True, holder=OTHER)), {},
        "TPU lock", "/l is locked by process 4321", "kill 4321",
    ),
    "TPU lock of another user": (
        changed(TPU, hardware__tpu_lock=TpuLock(path="/l", owner="root", accessible=False, holder=None)), {},
        "TPU lock", "belongs to root", "sudo rm /l",
    ),
    "GPU plugin fails": (
        changed(GPU, probe=changed(CPU, probe__errors={"gpu": "no kernel image"}).probe), {},
        "devices", "JAX says: no kernel image", "fit this machine",
    ),
    "asked for what is not there": (
        changed(CPU, environment={"JAX_PLATFORMS": "cuda"},
                probe=Probe(outcome="failed", stage="the start of the devices", status=1, messages="no backend")),
        {}, "devices", "JAX_PLATFORMS=cuda asks for", "unset JAX_PLATFORMS",
    ),
    "hung": (
        changed(CPU, probe=Probe(outcome="hung", stage="the start of the devices", seconds=120)), {},
        "devices", "the start of the devices did not end within 120 s", "--timeout 600",
    ),
    "hung on a pod": (
        changed(TPU, probe=Probe(outcome="hung", stage="the start of the devices", seconds=120)), {},
        "devices", "did not end", "tpu_pod.sh doctor",
    ),
    "crashed": (changed(CPU, probe=DEAD), {}, "devices", "signal 11 (SIGSEGV): last words", "anew"),
    "crashed in a convolution": (
        changed(GPU, probe__outcome="crashed", probe__stage="a convolution", probe__status=-6), {},
        "devices", "a convolution ended the process with signal 6 (SIGABRT)", "anew",
    ),
    "the trainer lacks something": (
        changed(CPU, probe__outcome="failed", probe__stage="the import of the trainer", probe__status=1,
                probe__messages="ModuleNotFoundError: No module named 'optax'"),
        {}, "devices", "No module named 'optax'", "pip install -e .",
    ),
    "half of the chips": (
        changed(TPU, probe__devices=4, probe__local_devices=4), {},
        "devices", "JAX has 4 × TPU v5 lite, and the machine has 8", "no other process",
    ),
    "another number than asked for": (TPU, {"devices": 16}, "devices", "16 devices were asked for", "--devices"),
    "driver too old for CUDA 13": (
        changed(GPU, packages={**PACKAGES, "jax-cuda13-plugin": "0.10.2"}), {},
        "CUDA", "the driver is 570.86.15, and CUDA 13 needs 580", 'pip install "jax[cuda12]"',
    ),
    "driver too old for any": (
        changed(GPU, hardware__gpus=(replace(H200, driver="470.1"),)), {},
        "CUDA", "CUDA 12 needs 525", "newer NVIDIA driver",
    ),
    "another cuDNN": (changed(GPU, probe__messages=CUDNN), {}, "cuDNN", "9.1.0 was loaded, and JAX needs 9.8.0", "-U"),
    "another cuDNN by the path": (
        changed(GPU, probe__messages=CUDNN, environment={"LD_LIBRARY_PATH": "/a:/usr/lib/cudnn"}), {},
        "cuDNN", "9.1.0", "unset LD_LIBRARY_PATH",
    ),
    "GPU memory taken": (
        changed(GPU, hardware__gpus=(replace(H200, memory=100 * GIB, used=60 * GIB),),
                hardware__gpu_holders=(OTHER,)),
        {}, "GPU memory", "60.0 of 100.0 GiB are taken, by 4321 (python other.py)", "XLA_CLIENT_MEM_FRACTION=0.35",
    ),
    "slow allocator": (
        changed(GPU, environment={"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}), {}, "GPU memory", "slow", "unset",
    ),
    "TensorFlow in the training": (
        changed(GPU, packages={**GPU.packages, "tensorflow": "2.20"}, probe__tensorflow_importer="clu.values"), {},
        "TensorFlow", "clu.values imports it", "pip uninstall -y tensorflow",
    ),
    "debugging": (changed(CPU, environment={"JAX_DISABLE_JIT": "1"}), {}, "settings", "nothing is compiled", "unset"),
    "one core by taskset": (
        changed(CPU, host__usable_cores=1), {}, "cores", "may use 1 of 16 cores", "taskset -pc 0-15",
    ),
    "one core by SLURM": (
        changed(CPU, host__usable_cores=1, environment={"SLURM_JOB_ID": "1"}), {}, "cores", "1 of 16", "cpus-per-task",
    ),
    "one core's time": (changed(CPU, host__core_quota=1.0), {}, "cores", "may use 1 of 16", "docker run --cpus"),
    "one core": (changed(CPU, host__cores=1, host__usable_cores=1), {}, "cores", "1 core:", "Take a machine"),
    "little memory": (changed(CPU, host__available_memory=GIB), {}, "memory", "1.0 of 64.0 GiB", "End other programs"),
    "unwritable": (
        changed(CPU, workdir__error="Read-only file system"), {},
        "work directory", "cannot be written to: Read-only file system", "--workdir",
    ),
    "a bucket without its library": (
        changed(CPU, workdir=Directory(path="gs://b/x", measured_in="gs://b/x", file_system="gs",
                                       error="missing: pip install 'jaxnets[gcs]'")),
        {}, "work directory", "gs://b/x cannot be written to: missing", "pip install 'jaxnets[gcs]'",
    ),
    "a bucket of others": (
        changed(CPU, workdir=Directory(path="gs://b/x", measured_in="gs://b/x", file_system="gs", error="Forbidden")),
        {}, "work directory", "gs://b/x cannot be written to: Forbidden", "permission",
    ),
    "no room": (changed(CPU, workdir__free=GIB // 2), {}, "work directory", "0.5 GiB free", "Make room"),
    "slow disk": (changed(CPU, workdir__bytes_per_second=2e6), {}, "work directory", "2 MB/s", "local disk"),
}  # fmt: skip

# Likewise for what a run would not suffer from.
NOTES = {
    "a stale TPU lock": (changed(TPU, hardware__tpu_lock=STALE), "TPU lock", "no process is seen", "rm /tmp/libtpu"),
    "a lock where no TPU is": (
        changed(CPU, hardware__tpu_lock=TpuLock(path="/l", owner="root", accessible=False, holder=OTHER)),
        "TPU lock", "locked by process 4321", "kill 4321",
    ),
    "TensorFlow installed": (
        changed(GPU, packages={**GPU.packages, "tensorflow-cpu": "2.20"}),
        "TensorFlow", "tensorflow-cpu 2.20 is installed", "pip uninstall -y tensorflow-cpu",
    ),
    "devices hidden on purpose": (
        changed(GPU, hardware__gpus=(H200,) * 2, environment={"CUDA_VISIBLE_DEVICES": "0"}),
        "devices", "the machine has 2: CUDA_VISIBLE_DEVICES=0", "unset CUDA_VISIBLE_DEVICES",
    ),
    "a CPU in pieces": (
        changed(CPU, probe__devices=8, environment={"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}),
        "devices", "several devices of one CPU", "unset XLA_FLAGS",
    ),
    "another CUDA on the path": (
        changed(GPU, environment={"LD_LIBRARY_PATH": "/usr/local/cuda/lib64"}), "CUDA", "/usr/local/cuda", "unset",
    ),
    "no preallocation": (
        changed(GPU, environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}), "GPU memory", "beforehand", "unset",
    ),
    "few cores": (changed(TPU, host__usable_cores=4), "cores", "4 of 96 cores for 8 devices", "device_limit_mib"),
    "some memory": (changed(CPU, host__available_memory=4 * GIB), "memory", "4.0 of", "placement=stream"),
    "a sluggish disk": (changed(CPU, workdir__bytes_per_second=2e7), "work directory", "20 MB/s", "local disk"),
    "in memory": (changed(CPU, workdir__file_system="tmpfs"), "work directory", "tmpfs", "gone with the machine"),
    "cache off": (changed(CPU, cache__disabled_by="JAX_E"), "compilation cache", "turned off by JAX_E", "unset JAX_E"),
    "cache read-only": (changed(CPU, cache__error="no"), "compilation cache", "written to: no", "COMPILATION_CACHE"),
    "cache elsewhere": (
        changed(CPU, cache__temporary="there is no home directory"),
        "compilation cache", "temporary one: there is no home directory", "COMPILATION_CACHE",
    ),
    "cache of a session": (
        changed(CPU, environment={"KAGGLE_KERNEL_RUN_TYPE": "Batch"}),
        "compilation cache", "ends with this session", "/kaggle/working/compiled",
    ),
}  # fmt: skip


@pytest.mark.parametrize("machine", [CPU, GPU, TPU], ids=["cpu", "gpu", "tpu"])
def test_a_healthy_machine_has_neither_faults_nor_notes(machine):
    assert {finding.level for finding in examine(machine, Wanted())} == {"fine"}
    assert not findings(machine, platform=machine.probe.platform, devices=machine.probe.devices)


@pytest.mark.parametrize("libtpu", ["0.0.42", "0.0.42.1"])
def test_any_libtpu_of_the_release_that_jax_asks_for_fits(libtpu):
    assert not findings(changed(TPU, packages={**PACKAGES, "libtpu": libtpu}))


@pytest.mark.parametrize("libtpu", ["0.0.421", "0.0.4"])
def test_a_libtpu_whose_number_merely_begins_alike_does_not_fit(libtpu):
    assert findings(changed(TPU, packages={**PACKAGES, "libtpu": libtpu}))


@pytest.mark.parametrize(
    ("visible", "taken"), [("0", []), ("1", ["GPU 1"]), ("GPU-6f", []), ("0,GPU-77", ["GPU 1"]), (None, ["GPU 1"])]
)
def test_only_gpus_that_a_run_would_use_must_be_free(visible, taken):
    busy = replace(H200, index=1, uuid="GPU-77aa", used=H200.memory)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = findings(changed(GPU, hardware__gpus=(H200, busy), environment=environment, probe__devices=2))
    assert [fault.found[:5] for fault in found if fault.check == "GPU memory"] == taken


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_the_only_one_and_comes_with_its_remedy(name):
    machine, wanted, check, found, remedy = FAULTS[name]
    [fault] = findings(machine, **wanted)
    assert fault.check == check
    assert found in fault.found
    assert remedy in " ".join([fault.remedy, *fault.commands])


@pytest.mark.parametrize("name", NOTES)
def test_a_note_is_no_fault_and_comes_with_its_remedy(name):
    machine, check, found, remedy = NOTES[name]
    assert not findings(machine)
    [note] = findings(machine, "note")
    assert note.check == check
    assert found in note.found
    assert remedy in " ".join([note.remedy, *note.commands])


def test_a_host_of_a_pod_counts_its_own_devices():
    pod = changed(TPU, probe__devices=256, probe__local_devices=8)
    assert {finding.level for finding in examine(pod, Wanted(devices=256))} == {"fine"}
    assert "256 × TPU v5 lite, 8 of them on this host" in [finding.found for finding in examine(pod, Wanted())]


def test_a_bucket_that_can_be_written_to_is_fine():
    bucket = Directory(path="gs://b/x", measured_in="gs://b/x", file_system="gs", bytes_per_second=1e8)
    found = [finding.found for finding in findings(changed(CPU, workdir=bucket), "fine")]
    assert "gs://b/x: 100 MB/s, gs" in found


def test_a_stale_lock_that_libtpu_stumbles_over_is_a_fault():
    machine = changed(TPU, hardware__tpu_lock=STALE, probe=changed(CPU, probe__errors={"tpu": LOCKED}).probe)
    assert [fault.check for fault in findings(machine)] == ["devices", "TPU lock"]
    assert "JAX says: ABORTED: multi-process lockfile. Run" in findings(machine)[0].found


def test_a_machine_with_an_accelerator_may_be_asked_for_its_cpu():
    machine = changed(TPU, environment={"JAX_PLATFORMS": "cpu"}, **FALLBACK)
    assert not findings(machine, platform="cpu")


def test_asked_for_the_cpu_an_accelerator_is_a_fault():
    [fault] = findings(TPU, platform="cpu")
    assert "export JAX_PLATFORMS=cpu" in fault.commands
