"""What all commands share: options, what the terminal shows of logs, and one message for a user's mistake."""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable

from jaxnets import exit, interrupt, terminal
from jaxnets.errors import UserError

interrupt.prepare()


def run(
    parser: argparse.ArgumentParser, body: Callable[[argparse.Namespace, list[str]], int], *, takes_rest: bool = False
) -> None:
    """Parses the command line, runs `body(options, rest)` and exits with its status.

    A UserError becomes one message on standard error and its status, 1 as a rule; `--debug` adds the traceback. `rest`
    is what the parser does not know; it is refused unless the command takes it.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    terminal.show_anything(sys.stdout, sys.stderr)
    exit.forget()  # what a training in this process left behind before is not this command's
    interruption = interrupt.Interruption()
    try:
        with interruption.listening():
            status = _status(parser, body, takes_rest, interruption)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, head for instance, has seen enough
        terminal.silence()
        status = 0
    except BaseException as error:
        if not interruption.heard and not isinstance(error, KeyboardInterrupt):
            raise
        interrupt.say()
        status = interrupt.STATUS
    exit.end(status)


def _status(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace, list[str]], int],
    takes_rest: bool,
    interruption: interrupt.Interruption,
) -> int:
    try:
        options, rest = parser.parse_known_args()
        if rest and not takes_rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
    except SystemExit as asked:  # after --help, or a message of argparse
        return asked.code if isinstance(asked.code, int) else 0
    _quieten(debug=options.debug)
    try:
        return body(options, rest)
    except UserError as error:
        if interruption.heard:
            raise  # what it says is a consequence
        if options.debug:
            traceback.print_exc()
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.status
    except (RuntimeError, AssertionError) as error:
        if options.debug or not _is_missing_backend(error):
            raise
        wanted = os.environ.get("JAX_PLATFORMS", "")
        print(
            f"error: JAX finds no device with JAX_PLATFORMS={wanted} ({str(error) or 'it knows none of that kind'}): "
            f"leave JAX_PLATFORMS unset to use what is here; python -m jaxnets.doctor says what JAX sees",
            file=sys.stderr,
        )
        return 1


def _is_missing_backend(error: Exception) -> bool:
    """Says whether JAX raised while it looked for devices; the exceptions themselves are of no particular kind."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.endswith("xla_bridge.py") and last.name == "backends"


MODEL = (  # as jaxnets.run.resolve reads it
    "a run directory, the name of a pretrained model, hf:OWNER/REPO, a folder with the Hub's files, or a file of "
    "weights (resnet50@FILE where it does not say of which model)"
)


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says which model is meant."""
    parser.add_argument("--model", required=True, help=MODEL)


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
    """Shows our own log, and of libraries what they warn of, less what is known to mean nothing here.

    While debugging all of it is shown.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO if debug else logging.WARNING)
    logging.getLogger("jaxnets").setLevel(logging.INFO)
    absl = logging.getLogger("absl")
    absl.removeFilter(_says_something)  # of a command before, in this process
    if not debug:
        absl.addFilter(_says_something)


# Beginnings of warnings that a user can do nothing about, by what writes them.
_NOISE = (
    "Metadata file does not exist",  # orbax, of a file that only its own manager of checkpoints writes
)


def _says_something(record: logging.LogRecord) -> bool:
    """Whether a library's record is for the user: an exception that it logs in its thread reaches us as well."""
    return record.exc_info is None and not record.getMessage().startswith(_NOISE)
