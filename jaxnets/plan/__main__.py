"""Plans: `python -m jaxnets.plan --config CONFIG --topology v5e:2x4` says what a run would take there."""

import argparse
import importlib.metadata
import json
import sys
from contextlib import suppress

from jaxnets import cli
from jaxnets.errors import UserError
from jaxnets.flags import load_config
from jaxnets.schema import AUTO

_REMEDY = (
    "take a smaller model or smaller images (config.data.image_size), compute some of it again "
    "(config.model.remat_stages), or make micro-batches (config.accumulate_steps)"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.plan",
        description="Compile a config's steps for TPUs that are not here: do they fit, what do they move, what binds?",
        epilog="Any key of the config can be changed with --config.KEY=VALUE. Speeds are what the chips' published "
        "numbers allow at best; nothing is run.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a config file, or the name of one that ships with jaxnets")
    parser.add_argument("--topology", required=True, nargs="+", help="TPUs, for instance v5e:2x4, or several; or here")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--batch-sizes", type=int, nargs="+", help="global batches (default: the config's, and the largest that fits)"
    )
    sizes.add_argument("--batch-per-device", type=int, help="the same share for each device of every topology")
    parser.add_argument(
        "--no-search", action="store_true", help="without sizes: do not seek the largest batch that fits"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    cli.run(parser, _plan, takes_rest=True)


def _plan(options: argparse.Namespace, overrides: list[str]) -> int:
    sizes = options.batch_sizes or ([options.batch_per_device] if options.batch_per_device is not None else [])
    if any(size < 1 for size in sizes):
        raise UserError("--batch-sizes and --batch-per-device must be at least 1")
    config = load_config(options.config, overrides)

    from jaxnets.plan.topology import HERE, describe, prepare_environment

    if HERE in options.topology and len(options.topology) > 1:
        raise UserError(f"--topology {HERE} stands alone: what is here and what is not need different settings of JAX")
    if HERE not in options.topology:
        prepare_environment()  # before JAX is imported
    from dataclasses import replace

    from jaxnets.plan.planner import Planner, bracket
    from jaxnets.plan.table import Plan, as_json, rows
    from jaxnets.train.auto_batch import first_batch

    search = not sizes and not options.no_search and config.batch_size != AUTO
    plans = []
    for topology in [describe(name) for name in options.topology]:
        if options.batch_per_device:
            batches = [options.batch_per_device * len(topology.devices)]
        else:
            batches = options.batch_sizes or [config.batch_size]
        if auto := batches == [AUTO]:
            batches = [first_batch(config, len(topology.devices))]
        planner = Planner(replace(config, batch_size=batches[0]), topology, _say)
        if auto:
            best, too_large = planner.largest(batches[0])
            if best is None:
                raise UserError(f"config.batch_size auto: no batch fits {topology.name}: {_REMEDY}")
            batches = [best.batch_size]
        steps = [planner.train(batch_size) for batch_size in batches]
        if auto:
            largest, refused = best, too_large
        else:
            largest, refused = planner.search(steps) if search else bracket(steps)
        for step in steps:
            evaluation = planner.evaluate(config.eval_batch_size or step.batch_size)
            plans.append(
                Plan(
                    train=step,
                    eval=evaluation,
                    state=planner.state_size,
                    train_examples=planner.train_examples,
                    epochs=config.steps * step.batch_size / planner.train_examples if config.steps else config.epochs,
                    largest=largest,
                    refused=refused,
                )
            )
    _say(None)
    versions = {name: _version(name) for name in ("jaxnets", "jax", "libtpu")}
    if options.json:
        first, *others = map(as_json, plans)
        print(json.dumps({"config": options.config, "model": config.model.name, "dtype": config.dtype,
                          "versions": versions, **first, "others": others}))  # fmt: skip
        return 0
    _show(config.model.name, config.dtype, versions, rows(plans))
    for plan in plans:
        for what, step in (("training", plan.train), ("evaluation", plan.eval)):
            if step.refusal:
                print(
                    f"\nthe {what} step of batch {step.batch_size:,} does not fit {step.topology.name}: {step.refusal}"
                )
    return 0


def _say(text: str | None) -> None:
    """Shows what is going on, on a terminal in a line that the next replaces; None ends it."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K" + (text or ""))
        sys.stderr.flush()
    elif text:
        print(text, file=sys.stderr, flush=True)


def _version(name: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _show(model: str, dtype: str, versions: dict[str, str | None], table: list[list[str]]) -> None:
    known = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    print(f"{model}, {dtype}; {known}\n")
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for i, row in enumerate(table):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if i == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


if __name__ == "__main__":
    main()
