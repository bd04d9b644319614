"""Times the training loop beside the bare step, for `python -m jaxnets.benchmark --config CONFIG`.

Two things are timed, in turn and in one process: the bare compiled step, run again and again on one batch that lies on
the device, and the whole training loop, which draws examples, gathers them, keeps books and writes logs.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnets.cache import use_compilation_cache
from jaxnets.config import Config
from jaxnets.errors import UserError
from jaxnets.flags import load_config

if TYPE_CHECKING:
    from jaxnets.train.loop import Setup

_WARM_UP = 5  # bare steps that are not counted


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="digits", help="a config file, or the name of one that ships")
    parser.add_argument("--steps", type=int, default=40, help="steps in each measurement (default 40)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each, taken in turn (default 7)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@dataclass(frozen=True)
class Timing:
    """Seconds a step takes, over the repeats."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.steps < 1 or options.repeats < 1:
        raise UserError("--steps and --repeats must be at least 1")
    config = load_config(options.config, overrides)
    use_compilation_cache()
    import jax

    bare, loop = time_training(config, options.steps, options.repeats)
    overhead = loop.median / bare.median - 1
    hardware = f"{jax.device_count()} × {jax.devices()[0].device_kind}, JAX {jax.__version__}, {platform.machine()}"
    if options.json:
        timings = {t.name: {"seconds_per_step": t.seconds} for t in (bare, loop)}
        print(json.dumps({"hardware": hardware, "batch_size": config.batch_size, "overhead": overhead, **timings}))
        return 0
    print(f"{config.model.name}, batch {config.batch_size}, {config.dtype}, on {hardware}")
    for timing in (bare, loop):
        speeds = sorted(config.batch_size / seconds for seconds in timing.seconds)
        speed = config.batch_size / timing.median
        print(
            f"{timing.name:10}  {1000 * timing.median:9.2f} ms/step  {speed:10,.0f} images/s"
            f"  (lowest {speeds[0]:,.0f}, highest {speeds[-1]:,.0f}, n = {len(speeds)})"
        )
    print(f"the loop costs {overhead:+.1%}")
    return 0


def time_training(config: Config, steps: int, repeats: int) -> tuple[Timing, Timing]:
    """Returns the timings of the bare step and of the loop, which trains as `jaxnets.main` would."""
    from jaxnets.run.directory import RunDirectory
    from jaxnets.train.hosts import Hosts
    from jaxnets.train.loop import set_up
    from jaxnets.train.phases import Phases

    bare, loop = [], []
    with tempfile.TemporaryDirectory() as folder:
        setup = set_up(config, RunDirectory(Path(folder) / "none"), Hosts())
        # What is not timed is not read: no split is evaluated, as the clock ends before.
        teacher = setup.teacher.variables if setup.teacher else None
        split = config.mesh.shard_parameters
        first = Phases(setup.built.phases[:1], setup.mesh, split=split, teacher=teacher)  # nothing thaws
        setup = replace(
            setup, phases=first, steps=2 * steps, data=replace(setup.data, splits={"test": setup.data.training})
        )
        # The first half warms up. No dispatch reaches over the row that is written between the halves.
        config = replace(config, log_every_steps=steps, eval_every_steps=2 * steps, checkpoint_every_steps=2 * steps)
        config = replace(config, profile_steps=0)
        for repeat in range(repeats):
            loop.append(_time_loop(config, setup, steps, Path(folder) / str(repeat)))
            bare.append(_time_step(config, setup, steps))
    return Timing("bare step", tuple(bare)), Timing("loop", tuple(loop))


def _time_step(config: Config, setup: "Setup", steps: int) -> float:
    import jax

    from jaxnets.data.pipeline import train_stream
    from jaxnets.train.mesh import over_data, replicated

    data, mesh = setup.data, setup.mesh
    size = config.batch_size
    first = train_stream(
        data.training,
        order=data.order,
        batch_size=size,
        start_step=0,
        stop_step=1,
        threads=data.threads,
        boxes=setup.built.boxes,
    )
    batch = jax.device_put(next(first), over_data(mesh))
    phase = setup.phases.at(0)
    step = jax.jit(phase.step, donate_argnums=0, out_shardings=replicated(mesh))
    state = setup.taught(jax.device_put(phase.fresh_state(), replicated(mesh)))
    for _ in range(_WARM_UP):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    start = time.perf_counter()
    for _ in range(steps):
        state, metrics = step(state, batch)
    jax.block_until_ready((state, metrics))
    return (time.perf_counter() - start) / steps


class _Enough(Exception):
    """All steps were timed."""


def _time_loop(config: Config, setup: "Setup", steps: int, workdir: Path) -> float:
    from rich.console import Console

    from jaxnets.run.directory import RunDirectory
    from jaxnets.train.around import Around
    from jaxnets.train.display import Display
    from jaxnets.train.hosts import Hosts
    from jaxnets.train.loop import open_session
    from jaxnets.train.stop import Stop
    from jaxnets.train.watch import Watch

    class Clock(Display):
        """Notes when each dispatch was accounted for, and shows nothing."""

        def __init__(self) -> None:
            super().__init__(Console(quiet=True))
            self.ended: dict[int, float] = {}

        def update(self, step: int, loss: float, accuracy: float, images_per_second: float | None) -> None:
            self.ended[step] = time.perf_counter()
            if step == 2 * steps:
                raise _Enough

    clock, stop, hosts = Clock(), Stop(), Hosts()
    with ExitStack() as held, suppress(_Enough):
        around = Around(stop, hosts, Watch(stop, hosts, hang_minutes=None))
        opened = open_session(config, RunDirectory(workdir), setup, clock, around, held)
        assert isinstance(opened, tuple), "a new directory holds no finished run"
        session, state, progress = opened
        session.run(state, progress)
    return (clock.ended[2 * steps] - clock.ended[steps]) / steps
