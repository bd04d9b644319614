"""What stands between JAX's client and process 0 carries their bytes, and tells one's end from the other's."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jaxnets.errors import UserError
from jaxnets.train.relay import Relay

SOON = 10  # seconds in which anything has happened


@contextmanager
def service(port: int = 0) -> Iterator[socket.socket]:
    """What process 0 listens at."""
    with socket.create_server(("localhost", port)) as listener:
        listener.settimeout(SOON)
        yield listener


@pytest.fixture
def lost():
    return threading.Event()


@pytest.fixture
def connected(lost):
    """A relay, the client's end and the service's end of one connection through it."""
    with service() as listener:
        relay = Relay(*listener.getsockname()[:2], lost.set)
        with connect(relay) as client, listener.accept()[0] as server:
            for end in (client, server):
                end.settimeout(SOON)
            yield relay, client, server
    relay.close()


def connect(relay: Relay) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(relay.address.removeprefix("unix:"))
    return client


def test_bytes_are_carried_both_ways(connected, lost):
    _, client, server = connected
    client.sendall(b"request")
    assert server.recv(100) == b"request"
    server.sendall(b"answer")
    assert client.recv(100) == b"answer"
    assert not lost.is_set()


def test_the_end_of_process_0_is_noticed_before_its_client_sees_it(lost):
    seen = []
    with service() as listener:

        def on_loss() -> None:
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):  # nothing has ended, for the client
                client.recv(1)
            seen.append(True)
            lost.set()

        relay = Relay(*listener.getsockname()[:2], on_loss)
        client = connect(relay)
        listener.accept()[0].close()
        assert lost.wait(SOON)
    assert seen
    client.close()


def test_a_client_that_connects_anew_is_no_loss(connected, lost):
    _, client, server = connected
    client.close()
    assert server.recv(100) == b""
    assert not lost.wait(0.2)


def test_after_a_common_end_process_0_may_go(connected, lost):
    relay, client, server = connected
    relay.close()
    server.close()
    assert client.recv(100) == b""
    assert not lost.is_set()


def test_process_0_may_start_later_and_till_then_it_is_known_why_it_is_not_reached(lost):
    with service() as listener:
        port = listener.getsockname()[1]
    relay = Relay("localhost", port, lost.set)
    with connect(relay) as client:
        client.settimeout(SOON)
        client.sendall(b"early")
        while relay.obstacle is None or "made yet" in relay.obstacle:
            time.sleep(0.01)
        assert relay.obstacle == "Connection refused"
        with service(port) as listener, listener.accept()[0] as server:
            assert server.recv(100) == b"early"
        assert relay.obstacle is None
    relay.close()


def test_no_file_is_left_once_all_have_joined(connected):
    relay, client, server = connected
    socket_file = Path(relay.address.removeprefix("unix:"))
    assert socket_file.exists()
    relay.keep_only_what_is_open()
    assert not socket_file.parent.exists()
    client.sendall(b"request")
    assert server.recv(100) == b"request"


def test_a_folder_for_temporary_files_of_a_long_name_is_one_message(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with pytest.raises(UserError, match="set TMPDIR to a folder"):
        Relay("localhost", 1, lambda: None)
