"""Kills training at random moments and checks that nothing is lost: `python -m tools.kills --workdir DIR`.

One run is left alone. Others of the same config are started again and again, and get a SIGKILL or a SIGTERM after a
random time, until they are through. Each must end with the bits of the first and with its rows of metrics, however
often and wherever it was hit: in the imports, the compilation, training, evaluation or saving. Nothing is cleaned up in
between. Some sessions have no compilation cache, so that compilers are hit too.

With two processes a SIGKILL hits one of them, and the other has to end by itself.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.train import processes
from tests.train.runs import assert_same_run, rows_of

OPTIONS = [
    *("--config.batch_size=16", "--config.steps=48", "--config.ema.decay=0.9", "--config.log_every_steps=1"),
    *("--config.eval_every_steps=12", "--config.checkpoint_every_steps=5", "--config.eval_batch_size=32"),
    *("--config.data.validation=0.1", "--config.schedule.warmup_epochs=0", "--config.optimizer.learning_rate=0.01"),
]
LONGEST = 900  # seconds that anything may take


@dataclass
class Hit:
    """One session that was hit, or that was through before it could be."""

    number: signal.Signals | None
    place: str
    statuses: list[int]
    seconds: float  # until the last process had ended
    steps: int  # that were saved when it had


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="a folder for the runs; must be new")
    parser.add_argument("--hits", type=int, default=20, help="of each signal (default 20)")
    parser.add_argument("--processes", type=int, default=1, help="that train together (default 1)")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices of each process (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    options = parser.parse_args()
    options.workdir.mkdir(parents=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(options.workdir.absolute() / "cache"))

    whole = options.workdir / "whole"
    duration = 0.0
    for _ in range(2):  # the second time with the programs that the first compiled
        subprocess.run(["rm", "-rf", whole], check=True)
        start = time.monotonic()
        done = processes.finish(launch(whole, options), LONGEST)
        duration = time.monotonic() - start
        if any(status for status, _ in done):
            sys.exit(f"the uninterrupted run failed: {done}")
    print(f"uninterrupted: {duration:.1f} s, {len(rows_of(whole))} rows", flush=True)

    moments = random.Random(options.seed)
    numbers = [signal.SIGKILL, signal.SIGTERM] * options.hits
    hits: list[Hit] = []
    finished = 0
    while numbers:
        run = options.workdir / f"run{finished}"
        while numbers:
            hit = strike(run, numbers[-1], moments, duration, options)
            if hit.number is None:
                break
            numbers.pop()
            hits.append(hit)
            print(
                f"{len(hits):3} {hit.number.name} in {hit.place}: status {hit.statuses}, {hit.seconds:.1f} s later, "
                f"{hit.steps} steps saved",
                flush=True,
            )
        check(processes.finish(launch(run, options), LONGEST), {0})
        assert_same_run(whole, run)
        finished += 1
        print(f"{run.name} has the bits and the rows of the uninterrupted run", flush=True)
    places = Counter((hit.number.name, hit.place) for hit in hits if hit.number)
    print(f"{len(hits)} hits, {finished} runs, all the same to the bit; hit in:")
    for (name, place), count in sorted(places.items()):
        print(f"  {name} {place}: {count}")


def launch(run: Path, options: argparse.Namespace, *, cached: bool = True) -> list[subprocess.Popen]:
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = str(cached).lower()
    return processes.start(run, *OPTIONS, processes=options.processes, devices=options.devices)


def strike(
    run: Path, number: signal.Signals, moments: random.Random, duration: float, options: argparse.Namespace
) -> Hit:
    """Starts a session and hits it after a random time, unless it is through before."""
    cached = moments.random() < 0.7
    delay = moments.uniform(0, duration)
    begun = time.time()
    started = launch(run, options, cached=cached)
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline and all(process.poll() is None for process in started):
        time.sleep(0.01)
    place = where(run, begun)
    victims = started if number == signal.SIGTERM else [moments.choice(started)]
    alive = all(process.poll() is None for process in started)
    for victim in victims if alive else []:
        victim.send_signal(number)
    start = time.monotonic()
    done = processes.finish(started, LONGEST)
    seconds = time.monotonic() - start
    if not alive or all(status == 0 for status, _ in done):  # it was through, or as good as
        check(done, {0})
        return Hit(None, place, [0], seconds, 0)
    if number == signal.SIGTERM:
        check(done, {143, -signal.SIGTERM})  # the second where Python had not got as far as to listen
    else:
        check(done, {-signal.SIGKILL, 75})
    saved = [int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdecimal()]
    return Hit(number, place, [status for status, _ in done], seconds, max(saved, default=0))


def where(run: Path, begun: float) -> str:
    """Returns what a session was at, as its directory tells."""
    if any((run / "checkpoints").glob("*.orbax-checkpoint-tmp*")):
        return "save"
    metrics, config = run / "metrics.jsonl", run / "config.json"
    if not config.is_file() or config.stat().st_mtime < begun:
        return "start"
    rows = rows_of(run) if metrics.is_file() and metrics.stat().st_mtime > config.stat().st_mtime else []
    if not rows or len((metrics).read_text().splitlines()) == 0:
        return "compile"
    last = rows[-1]
    return "evaluate" if last["step"] % 12 == 0 and "train/loss" in last else "train"


def check(done: list[tuple[int, str]], expected: set[int]) -> None:
    for status, said in done:
        if status not in expected:
            sys.exit(f"a process ended with {status}, expected one of {sorted(expected)}:\n{said}")


if __name__ == "__main__":
    main()
