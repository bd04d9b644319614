"""Trains: `python -m jaxnets.main --config CONFIG --workdir DIR [--config.key=value …]`; run again, it resumes."""

import argparse
import time

from jaxnets import cli
from jaxnets.cache import use_compilation_cache
from jaxnets.data.absolute import with_absolute_paths
from jaxnets.flags import load_config
from jaxnets.keys import ConfigParser
from jaxnets.run.storage import open_place

_STARTED = time.monotonic()


def main() -> None:
    parser = ConfigParser(
        prog="python -m jaxnets.main",
        description="Train an image classifier. The same command on the same directory goes on where it stopped.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a config file, or the name of one that ships with jaxnets")
    parser.add_argument(
        "--workdir", required=True, help="the run directory, which may be gs://BUCKET/RUN: made, or gone on with"
    )
    parser.add_argument("--parameters", action="store_true", help="show a table of the model's parameters first")
    cli.run(parser, _train, takes_rest=True)


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
    config = with_absolute_paths(load_config(options.config, overrides))
    workdir = open_place(options.workdir)

    from jaxnets.train.hosts import join  # JAX and all that: after the config is known to be right

    use_compilation_cache()
    hosts = join(config.distributed)
    from jaxnets.train.display import Display

    display = Display(quiet=not hosts.leads, parameters=options.parameters)
    if config.finetune.method is None:
        from jaxnets.train.loop import train

        outcome = train(config, workdir, display, started=_STARTED)
    else:
        from jaxnets.finetune.run import finetune

        outcome = finetune(config, workdir, display, started=_STARTED)
    if not outcome.finished:
        by_clock = outcome.signal is None and config.max_hours is not None
        why = f" before config.max_hours {config.max_hours:g} are over" if by_clock else ""
        display.say(f"stopped and saved at step {outcome.step}{why}; run the same command again to go on")
    return outcome.status


if __name__ == "__main__":
    main()
