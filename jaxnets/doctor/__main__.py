"""Looks a machine over: `python -m jaxnets.doctor [--workdir DIR] [--expect tpu|gpu|cpu] [--json]`.

The status is 0 where a run would do well, and 1 where it would suffer.
"""

import argparse
from dataclasses import asdict
from functools import partial

from jaxnets import cli
from jaxnets.doctor.checks import examine
from jaxnets.doctor.gather import gather
from jaxnets.doctor.machine import Wanted
from jaxnets.doctor.probe import probe
from jaxnets.doctor.report import show
from jaxnets.errors import UserError
from jaxnets.terminal import json_text


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.doctor",
        description="Say what JAX sees on this machine, what is wrong with it for a training run, and what helps.",
        epilog="Status 0: nothing that a run would suffer from. Status 1: at least one fault.",
    )
    parser.add_argument("--workdir", default="runs", help="where runs are to lie (default: runs); it is not made")
    parser.add_argument("--expect", choices=("tpu", "gpu", "cpu"), help="a fault if JAX runs on something else")
    parser.add_argument("--devices", type=int, metavar="N", help="a fault if JAX has another number of devices")
    parser.add_argument("--timeout", type=float, default=120, help="seconds that JAX may take to start (default 120)")
    parser.add_argument("--json", action="store_true", help="print one JSON object: verdict, findings, machine")
    cli.run(parser, _doctor)


def _doctor(options: argparse.Namespace, _: list[str]) -> int:
    if options.timeout <= 0 or (options.devices is not None and options.devices < 1):
        raise UserError("--timeout must be above 0, and --devices at least 1")
    machine = gather(options.workdir, partial(probe, options.timeout))
    findings = examine(machine, Wanted(platform=options.expect, devices=options.devices))
    status = 1 if any(finding.level == "fault" for finding in findings) else 0
    if options.json:
        verdict = "fault" if status else "fine"
        content = {"format": 1, "verdict": verdict, "findings": list(map(asdict, findings)), "machine": asdict(machine)}
        print(json_text(content, indent=2))
    else:
        show(findings)
    return status


if __name__ == "__main__":
    main()
