"""Eight devices on one CPU, programs that are quick to compile, and a cache of them that lasts between test runs."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "compiled"
os.environ["JAX_PLATFORMS"] = "cpu"
# Compiling is what costs where arrays are small. Without its emitters of fusions XLA compiles in a third of the time
# what runs as fast, and may differ in the last bit.
_QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {_QUICK}"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # many small ones add up, and processes share them
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"  # what is mixed by accident is an error here

import jax  # after the environment, which it reads when it is imported
import pytest
from jax.sharding import Mesh
from jaxtyping import install_import_hook

from tests.typecheck import check

# Shapes and dtypes that pure functions are annotated with are checked at every call of theirs, in this process.
_PURE = ("recipe", "metrics", "models", "preprocess", "train.step", "train.timetable", "data.canvas", "data.order")
install_import_hook([f"jaxnets.{room}" for room in _PURE], f"{check.__module__}.{check.__name__}")

from jaxnets.train.mesh import make_mesh
from tests import bucket

Run = Callable[..., subprocess.CompletedProcess[str]]


# Those that start processes or compile the most come first, so that no worker is left alone with them at the end.
_LONGEST = (
    "train/test_hosts.py",
    "test_commands.py",
    "train/test_resume.py",
    "explain/test_photographs.py",
    "launch/test_notebooks.py",
    "test_families.py",
    "train/test_thaw.py",
    "train/test_bucket.py",
    "plan/test_plan.py",
    "train/test_progressive.py",
    "train/test_step.py",
    "train/test_several_labels.py",
    "recipe/augment/policy/test_shears.py",
    "test_readme.py",
    "pretrained/test_load.py",
    "train/test_failures.py",
    "train/test_stop.py",
    "test_classifier.py",
    "launch/test_scripts.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {Path(__file__).parent / name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def one_device() -> Mesh:
    return make_mesh(jax.devices()[:1])


@pytest.fixture(scope="session")
def eight_devices() -> Mesh:
    return make_mesh(jax.devices()[:8])


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs `python -m MODULE ARGUMENTS…` as a user would, on as many CPU devices as asked for."""

    def run(module: str, *arguments: object, devices: int = 1, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            env=environment(devices),
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )

    return run


def environment(devices: int = 1, *, optimised: bool = False) -> dict[str, str]:
    """Returns the environment of a process with so many devices; `optimised` programs are those that users get."""
    quick = "" if optimised else _QUICK
    return {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {quick}"}


@pytest.fixture(scope="module")
def objects() -> Iterator[bucket.Bucket]:
    """What gs://bucket holds, for this process and those that it starts."""
    with bucket.serving() as (served, variables), pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield served


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and evaluation take longer to compile and run faster, for runs of hundreds of steps."""
    quick = jax.stages.Lowered.compile

    def compiled(self: jax.stages.Lowered, compiler_options: dict | None = None) -> jax.stages.Compiled:
        return quick(self, {"xla_backend_optimization_level": 1, **(compiler_options or {})})

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)


@pytest.fixture
def enable_x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
