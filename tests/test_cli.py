"""What all commands do with mistakes, interruptions, readers that hang up, and what libraries say."""

import argparse
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxnets import cli
from jaxnets.errors import UserError
from tests.conftest import environment


@pytest.fixture(autouse=True)
def undone():
    """Puts back what a command changes for its process."""
    root, handler = logging.getLogger(), signal.getsignal(signal.SIGINT)
    before = root.level, root.handlers[:], logging.getLogger("absl").filters[:]
    yield
    root.level, root.handlers, logging.getLogger("absl").filters = before
    signal.signal(signal.SIGINT, handler)


def status_of(body, *arguments, monkeypatch, takes_rest=False):
    monkeypatch.setattr("sys.argv", ["command", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run(argparse.ArgumentParser(prog="command"), body, takes_rest=takes_rest)
    return ended.value.code


def fails(error):
    def body(options, rest):
        raise error

    return body


def test_a_mistake_is_one_message_and_its_status(monkeypatch, capsys):
    assert status_of(fails(UserError("--top must be 1 — 9")), monkeypatch=monkeypatch) == 1
    assert capsys.readouterr() == ("", "error: --top must be 1 — 9\n")


@pytest.mark.parametrize("arguments", [("--debug", "--config.a=1"), ("--config.a=1", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(monkeypatch, capsys, arguments):
    assert status_of(fails(UserError("no")), *arguments, monkeypatch=monkeypatch, takes_rest=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_is_one_word(monkeypatch, capfd):
    assert status_of(fails(KeyboardInterrupt()), monkeypatch=monkeypatch) == 130
    assert capfd.readouterr() == ("", "interrupted\n")


def signals(options, rest):
    signal.raise_signal(signal.SIGINT)
    time.sleep(10)


def in_a_callback_of_c(options, rest):
    class Dropped:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    Dropped()
    time.sleep(10)


def turned_into_another_error(options, rest):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        raise UserError("onnx is not installed") from error


@pytest.mark.parametrize("body", [signals, in_a_callback_of_c, turned_into_another_error])
def test_an_interruption_is_never_lost(monkeypatch, capfd, body):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.monotonic()
    assert status_of(body, monkeypatch=monkeypatch) == 130
    assert capfd.readouterr() == ("", "interrupted\n")
    assert time.monotonic() - start < 5


def test_an_interruption_within_an_import_ends_at_once(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('hidden')\n"
    )
    command = [sys.executable, "-c", COMMAND.format(body="import slow")]
    done = subprocess.run(
        command,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_stays_ignored_where_it_was(monkeypatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert status_of(lambda options, rest: signal.raise_signal(signal.SIGINT) or 0, monkeypatch=monkeypatch) == 0


def test_an_error_of_ours_keeps_its_traceback(monkeypatch):
    with pytest.raises(AssertionError, match="a bug"):
        status_of(fails(AssertionError("a bug")), monkeypatch=monkeypatch)


def log(monkeypatch, capsys, *records, debug=False):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own, before which basicConfig does nothing
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)

    def body(options, rest):
        for name, level, text in records:
            logging.getLogger(name).log(level, text)
        return 0

    assert status_of(body, *(["--debug"] if debug else []), monkeypatch=monkeypatch) == 0
    return capsys.readouterr().err


def test_what_libraries_warn_of_is_shown(monkeypatch, capsys):
    said = log(
        monkeypatch,
        capsys,
        ("jax._src.xla_bridge", logging.WARNING, "An NVIDIA GPU may be present. Falling back to cpu."),
        ("absl", logging.ERROR, "orbax could not write"),
        ("jax._src.dispatch", logging.INFO, "compiling"),
        ("jaxnets.data", logging.INFO, "reading the train split"),
    )
    assert said.splitlines() == [
        "WARNING: An NVIDIA GPU may be present. Falling back to cpu.",
        "ERROR: orbax could not write",
        "INFO: reading the train split",
    ]


@pytest.mark.parametrize("debug", [False, True])
def test_warnings_that_mean_nothing_are_shown_only_while_debugging(monkeypatch, capsys, debug):
    said = log(monkeypatch, capsys, ("absl", logging.WARNING, "Metadata file does not exist: /x"), debug=debug)
    assert ("Metadata" in said) == debug


COMMAND = """
import argparse, sys
from jaxnets import cli
def body(options, rest):
    {body}
    return 0
cli.run(argparse.ArgumentParser(), body)
"""


@pytest.mark.parametrize(
    "body",
    ["print('x' * 100_000)", "print('x')", "from jaxnets import terminal; terminal.console().print('x' * 100_000)"],
)
def test_a_reader_that_hangs_up_is_no_error(body):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", COMMAND.format(body=body)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_that_jax_does_not_find_is_one_message(platform):
    body = "import jax; jax.devices()"
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format(body=body)],
        env={**environment(), "JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: JAX finds no device with JAX_PLATFORMS={platform} (")
    assert "Traceback" not in done.stderr
