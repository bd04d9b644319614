"""Starts JAX as a training does, in a child process: a backend that hangs or crashes takes nothing else with it.

The child, `python -m jaxnets.doctor.probe`, says before each stage what it is about to do, so that its end, whatever
that is, can be seen in its output.
"""

import importlib
import importlib.abc
import importlib.machinery
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from jaxnets.doctor.machine import Outcome, Probe

_MARK = "jaxnets-probe "
_TRAINER = "jaxnets.train.loop"
_MESSAGES = 4000  # characters of standard error that are kept


def probe(seconds: float, environment: Mapping[str, str] = os.environ) -> Probe:
    """Returns what the child saw, after at most about `seconds`."""
    # The child must not take three quarters of a GPU's memory from a run that is under way.
    child_environment = {**environment, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    start = time.monotonic()
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "jaxnets.doctor.probe"],
            env=child_environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:  # no memory or no right for another process
        return Probe(outcome="failed", stage="the start of a child process", messages=str(error))
    hung = False
    try:
        output, messages = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        hung = True
        output, messages = _end(child)
    except BaseException:
        _end(child)
        raise
    return read_probe(output, messages, None if hung else child.returncode, time.monotonic() - start)


def read_probe(output: str, messages: str, status: int | None, seconds: float) -> Probe:
    """Makes a Probe of the child's output; status None: it had to be ended."""
    seen: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith(_MARK):
            with suppress(ValueError):  # a line that was cut off
                seen |= json.loads(line.removeprefix(_MARK))
    outcome: Outcome
    if status is None:
        outcome = "hung"
    elif status == 0 and seen.get("stage") == "done":
        outcome = "finished"
    else:
        outcome = "failed" if status == 1 else "crashed"
    return Probe(outcome=outcome, seconds=seconds, status=status, messages=messages[-_MESSAGES:], **seen)


def _end(child: subprocess.Popen[str]) -> tuple[str, str]:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    try:
        return child.communicate(timeout=5)
    except subprocess.TimeoutExpired:  # a process that waits for a device's driver cannot be ended even so
        return "", ""


def main() -> None:
    """The child."""
    _say(stage="the import of jax")
    import jax

    _say(stage="the start of the devices")
    devices = jax.devices()
    counts = {"devices": len(devices), "local_devices": len(jax.local_devices())}
    _say(platform=devices[0].platform, device_kind=devices[0].device_kind, **counts)
    _say(stage="the search for other platforms", errors=_errors({d.platform for d in devices}))
    _say(stage="a convolution")
    _convolve()
    _say(stage="the import of the trainer")
    watch = _TensorFlowWatch()
    sys.meta_path.insert(0, watch)
    importlib.import_module(_TRAINER)
    _say(stage="done", tensorflow_importer=watch.importer)


def _say(**seen: Any) -> None:
    print(_MARK + json.dumps(seen), flush=True)


def _errors(present: set[str]) -> dict[str, str]:
    """Returns why JAX has no TPU or no GPU."""
    import jax

    errors = {}
    for platform in {"tpu", "gpu"} - present:
        try:
            jax.devices(platform)
        except RuntimeError as error:
            errors[platform] = str(error)
    return errors


def _convolve() -> None:
    """Compiles and runs a convolution, which is what needs cuDNN and the compiler."""
    import jax
    import jax.numpy as jnp

    x, kernel = jnp.ones((1, 8, 8, 8)), jnp.ones((3, 3, 8, 8))
    convolution = jax.jit(
        lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    )
    total = float(convolution(x, kernel).sum())
    if total != 8 * 8 * (3 * 8 - 2) ** 2:
        raise RuntimeError(f"a convolution of ones gave {total}, {8 * 8 * (3 * 8 - 2) ** 2} expected")


class _TensorFlowWatch(importlib.abc.MetaPathFinder):
    """Notes which module asks for TensorFlow first, and leaves finding it to others."""

    importer: str | None = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "tensorflow" and self.importer is None and importlib.machinery.PathFinder.find_spec(name):
            frame = sys._getframe(1)
            while frame.f_back and frame.f_globals.get("__name__", "").startswith("importlib"):
                frame = frame.f_back
            self.importer = frame.f_globals.get("__name__", "an unknown module")


if __name__ == "__main__":
    main()
