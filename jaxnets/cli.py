"""What all commands share: options, what the terminal shows of logs, and one message for a user's mistake."""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable

from jaxnets import exit
from jaxnets.errors import UserError


def run(
    parser: argparse.ArgumentParser, body: Callable[[argparse.Namespace, list[str]], int], *, takes_rest: bool = False
) -> None:
    """Parses the command line, runs `body(options, rest)` and exits with its status.

    A UserError becomes one message on standard error and its status, 1 as a rule; `--debug` adds the traceback. `rest`
    is what the parser does not know; it is refused unless the command takes it.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options, rest = parser.parse_known_args()
    if rest and not takes_rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    _quieten(debug=options.debug)
    exit.forget()  # what a training in this process left behind before is not this command's
    try:
        status = body(options, rest)
    except UserError as error:
        if options.debug:
            traceback.print_exc()
        else:
            print(f"error: {error}", file=sys.stderr)
        status = error.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    exit.end(status)


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which weights of a run are meant."""
    parser.add_argument("--checkpoint", default="best", help="best (default), newest, or a step")
    parser.add_argument("--weights", default="ema", choices=("ema", "raw"), help="ema (default), if averaged, or raw")


def add_engine_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says what computes the answers."""
    parser.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "jax", "onnx"),
        help="jax; onnx, quicker on a CPU; or auto (default): onnx where it is installed and there is no accelerator",
    )


def _quieten(*, debug: bool) -> None:
    """Shows our own log; that of libraries, whose errors reach us as exceptions, only while debugging."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO if debug else logging.CRITICAL)
    logging.getLogger("jaxnets").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.INFO if debug else logging.CRITICAL)
