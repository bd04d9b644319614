"""Times the delivery of training batches, beside other libraries on the same files.

All of them deliver the training images of one source, shuffled and without end, as host arrays in full batches. What
each line includes stands in `ours.py` and `peers.py`; in short, ours decode and squeeze the whole image to the canvas
and leave the random crop to the device, the others decode, crop and resize on the host. Each runs in a process of its
own, and all are measured by turns, so that a machine that slows down slows them all.
"""

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxnets.benchmark.peers import PEERS
from jaxnets.config import DataConfig
from jaxnets.cores import cores
from jaxnets.errors import UserError

_JPEG = (".jpg", ".jpeg", ".jfif", ".jpe")
_PEERS_FILE = Path(__file__).parent / "peers.py"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, help="as config.data.source has it: folder:DIR, prepared:DIR, …")
    parser.add_argument("--directory", help="as config.data.directory")
    parser.add_argument("--size", type=int, default=224, help="pixels that the model takes (default 224)")
    parser.add_argument("--canvas", type=int, help="pixels of the training canvas (default: as training chooses it)")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch (default 64)")
    parser.add_argument("--threads", type=int, help="threads or processes of each (default: one for each core)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default 5)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, by turns (default 5)")
    parser.add_argument(
        "--python",
        action="append",
        metavar="PYTHON",
        help="a Python that has TensorFlow, torchvision or timm, for those that this one has not; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    if overrides:
        raise UserError(f"the input's benchmark takes no config, found {' '.join(overrides)}: see --help")
    for name in ("size", "canvas", "batch_size", "seconds", "repeats"):
        number = getattr(options, name)
        if number is not None and not 0 < number < math.inf:
            raise UserError(f"--{name.replace('_', '-')} must be above 0 and finite, found {number}")
    if options.threads is not None and options.threads < 0:
        raise UserError(f"--threads must be at least 0, found {options.threads}")
    with tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder))
    if options.json:
        print(json.dumps(results, ensure_ascii=False))
    else:
        _show(results)
    return 0


@dataclass
class _Contestant:
    """One that delivers images, in a process of its own."""

    name: str
    process: subprocess.Popen[str]
    versions: Mapping[str, str] = field(default_factory=dict)
    speeds: list[float] = field(default_factory=list)  # images per second, a number for each repeat

    def ask(self, line: str | None) -> dict[str, Any]:
        """Returns the answer to one line, or with None to their end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            if line is None:
                self.process.stdin.close()
            else:
                self.process.stdin.write(line + "\n")
                self.process.stdin.flush()
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            return {"missing": f"its process ended with status {self.process.wait()}"}
        return answer

    def row(self) -> dict[str, Any]:
        return {
            "images_per_second": round(statistics.median(self.speeds), 1),
            "repeats": self.speeds,
            "spread": [min(self.speeds), max(self.speeds)],
            "peak_mib": self.ask(None).get("peak_mib"),
            **self.versions,
        }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns a row for each that could be measured, and under "missing" why the others could not."""
    job = _job(options)
    files = _files(options)  # the quickest to be refused
    note = "" if isinstance(files, str) else files.pop("note")
    missing: dict[str, str] = {}
    commands = {name: ([*_OURS, name], job) for name in ("stream", "canvases", "copy", "cut")}
    if options.source.startswith("prepared:"):
        commands["prepared"] = [*_OURS, "prepared"], job
        for name in ("stream", "canvases"):
            del commands[name]
            missing[name] = f"{options.source} holds no files to decode"
    else:
        prepared = _prepare(options, folder / "prepared")
        if isinstance(prepared, str):
            missing["prepared"] = prepared
        else:
            commands["prepared"] = [*_OURS, "prepared"], {**job, **prepared}
    for name in PEERS:
        if isinstance(files, str):
            missing[name] = files
        elif (python := _python_with(name, options.python or [])) is None:
            missing[name] = "not installed: give a Python that has it with --python"
        else:
            commands[name] = [python, str(_PEERS_FILE), name], {**job, **files}
    with ExitStack() as running:
        contestants = []
        for name, (command, its_job) in commands.items():
            contestant = running.enter_context(_started(name, command))
            found = contestant.ask(json.dumps(its_job))
            if "missing" in found:
                missing[name] = found["missing"]
            else:
                contestant.versions = found["versions"]
                contestants.append(contestant)
        for _ in range(options.repeats):
            for contestant in list(contestants):
                found = contestant.ask(str(options.seconds))
                if "missing" in found:
                    missing[contestant.name] = found["missing"]
                    contestants.remove(contestant)
                else:
                    contestant.speeds.append(round(found["images"] / found["seconds"], 1))
        rows = {contestant.name: contestant.row() for contestant in contestants}
    ours = rows.get("stream") or rows.get("prepared") or {}
    return {
        "source": options.source,
        "size": options.size,
        "batch_size": options.batch_size,
        "threads": job["threads"],
        "hardware": f"{cores()} cores, {platform.machine()}, Python {platform.python_version()}",
        "note": note,
        "peak_mib": ours.get("peak_mib"),
        **rows,
        "missing": missing,
    }


def _job(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "source": options.source,
        "directory": options.directory,
        "size": options.size,
        "canvas_size": options.canvas,
        "batch_size": options.batch_size,
        "threads": cores() if options.threads is None else options.threads,
    }


_OURS = (sys.executable, "-m", "jaxnets.benchmark.ours")


@contextmanager
def _started(name: str, command: list[str]) -> Iterator[_Contestant]:
    # What libraries say of themselves on standard error would bury what is found.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
    )
    try:
        yield _Contestant(name, process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError, AttributeError):
                pipe.close()  # type: ignore[union-attr]


def _files(options: argparse.Namespace) -> dict[str, Any] | str:
    """Returns paths and labels of the training images, and a note if some are left out; or why others have none."""
    from jaxnets.data.sources import open_source
    from jaxnets.data.sources.base import Subset

    split = open_source(DataConfig(source=options.source, directory=options.directory), seed=0).splits["train"]
    whole = split.whole if isinstance(split, Subset) else split
    paths = getattr(whole, "paths", None)
    if paths is None:
        return f"{options.source} has no files that it could open"
    chosen = split.chosen.tolist() if isinstance(split, Subset) else range(len(split))
    every = [(paths[i], int(label)) for i, label in zip(chosen, split.labels, strict=True)]
    kept = [(path, label) for path, label in every if path.lower().endswith(_JPEG)]
    if not kept:
        return f"{options.source} has no JPEG files"
    some = f"{', '.join(PEERS)} read the {len(kept):,} of {len(every):,} images that are JPEG files"
    note = some if len(kept) < len(every) else ""
    return {"paths": [path for path, _ in kept], "labels": [label for _, label in kept], "note": note}


def _prepare(options: argparse.Namespace, folder: Path) -> dict[str, Any] | str:
    """Prepares the source's canvases in a folder; returns what that changes of a job, or why it cannot be done."""
    # As `ours.open_examples` reads it: on the same canvas, from the same directory, without what cannot be read.
    command = [sys.executable, "-m", "jaxnets.prepare", "--source", options.source, "--out", str(folder)]
    command += ["--size", _canvas_size(options), "--skip-corrupt"]
    if options.directory is not None:
        command.append(f"--config.data.directory={options.directory}")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"jaxnets.prepare ended with status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    return {"source": f"prepared:{folder}", "directory": None}


def _canvas_size(options: argparse.Namespace) -> str:
    from jaxnets.benchmark.ours import open_examples

    height, width, _ = open_examples(_job(options))[0].shape
    return f"{height}x{width}"


def _python_with(name: str, others: list[str]) -> str | None:
    """Returns the first Python that has a library, beginning with this one."""
    module = {"tf.data": "tensorflow"}.get(name, name)
    if find_spec(module):
        return sys.executable
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    for python in others:
        try:
            if subprocess.run([python, "-c", code], capture_output=True).returncode == 0:
                return python
        except OSError as error:
            raise UserError(f"--python {python} cannot be run: {error.strerror}") from error
    return None


def _show(results: Mapping[str, Any]) -> None:
    print(f"{results['source']} at {results['size']}, batches of {results['batch_size']}, {results['threads']} threads")
    print(f"on {results['hardware']}")
    if results["note"]:
        print(f"{results['note']}; jaxnets reads all")
    for name, row in results.items():
        if isinstance(row, dict) and "images_per_second" in row:
            low, high = row["spread"]
            print(
                f"{name:12} {row['images_per_second']:10,.0f} images/s  (lowest {low:,.0f}, highest {high:,.0f}, "
                f"n = {len(row['repeats'])})  {row['peak_mib'] or 0:8,.0f} MiB"
            )
    for name, reason in results["missing"].items():
        print(f"{name:12} not measured: {reason}")
