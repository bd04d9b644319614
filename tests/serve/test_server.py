"""What only a process with a socket shows: its signals, slow and silent clients, uploads without an end.

SIGINT ends the process that most tests share, which is asserted as it ends; SIGTERM ends one under load.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import pytest

from jaxnets.errors import UserError
from jaxnets.serve.__main__ import main
from jaxnets.serve.listening import listen
from tests.serve.fakes import PREDICT, image

TIMEOUT = 0.5  # seconds that these services give a client


def start(seconds):
    """Returns a process that serves a fake model whose batches take so long, and its port."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.serve.fakes", str(port), str(seconds), str(TIMEOUT)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        try:
            connect(port).close()
            return process, port
        except ConnectionRefusedError:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
    raise AssertionError("the service does not start")


def end(process, number=signal.SIGTERM):
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@pytest.fixture(scope="module")
def port():
    process, port = start(0)
    yield port
    status, errors = end(process, signal.SIGINT)
    assert status == 0, errors


def connect(port):
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(10)
    return client


def read_all(client):
    chunks = []
    while True:
        try:
            chunk = client.recv(65536)
        except ConnectionResetError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks)


def test_an_image_is_answered(port):
    answer = httpx2.post(f"http://127.0.0.1:{port}{PREDICT}", content=image(60))
    assert answer.json()["predictions"][0]["top"][0]["label"] == "class 2"


@pytest.mark.parametrize("head", ["Content-Length: 1073741824", "Transfer-Encoding: chunked"])
def test_an_endless_upload_is_cut_and_its_sender_reads_why(port, head):
    with connect(port) as client:
        client.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n{head}\r\n\r\n".encode())
        if "chunked" in head:
            client.sendall(b"40000000\r\n")
        chunk = b"x" * (1 << 20)
        client.settimeout(0.001)
        sent, answer = 0, b""
        while not answer and sent < 2**30:
            with contextlib.suppress(TimeoutError):
                sent += client.send(chunk)
            with contextlib.suppress(TimeoutError):
                answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert sent < 100 << 20


def test_a_client_that_never_ends_its_headers_is_dropped(port):
    with connect(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n")
        start = time.monotonic()
        assert read_all(client) == b""
    assert TIMEOUT / 2 < time.monotonic() - start < 5 * TIMEOUT


def test_a_client_that_says_nothing_is_dropped(port):
    with connect(port) as client:
        assert read_all(client) == b""


def test_a_client_whose_body_never_comes_is_told_so(port):
    with connect(port) as client:
        client.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\nabc".encode())
        assert read_all(client).startswith(b"HTTP/1.1 408 ")


def test_what_is_no_http_is_told_so(port):
    with connect(port) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


def test_a_thousand_idle_connections_leave_the_others_alone(port):
    idle = [connect(port) for _ in range(1000)]
    try:
        start = time.monotonic()
        answer = httpx2.post(f"http://127.0.0.1:{port}{PREDICT}", content=image(60))
        assert answer.status_code == 200
        assert time.monotonic() - start < 2
    finally:
        for client in idle:
            client.close()


def test_a_path_with_dots_is_not_found(port):
    for path in ("/v1/models/../../etc/passwd/predict", "/v1/models/..%2f..%2fetc%2fpasswd/predict"):
        with connect(port) as client:
            client.sendall(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
            )
            assert read_all(client).startswith(b"HTTP/1.1 404 ")


def test_sigterm_under_load_loses_no_accepted_request():
    process, port = start(0.05)
    outcomes: list[object] = []

    def ask_for_ever():
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while not outcomes or outcomes[-1] != 503:  # whose Retry-After asks for a pause
            try:
                client.request("POST", PREDICT, image(60))
                answer = client.getresponse()
                answer.read()
            except ConnectionRefusedError:
                return  # it is gone, and had accepted nothing of this
            except (OSError, http.client.HTTPException) as error:
                outcomes.append(error)
                return
            outcomes.append(answer.status)

    threads = [threading.Thread(target=ask_for_ever) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(outcomes) < 40:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    status, errors = end(process)
    for thread in threads:
        thread.join()
    assert status == 0, errors
    assert set(outcomes) <= {200, 503}, outcomes
    assert outcomes.count(200) >= 40


def test_a_port_in_use():
    with listen("127.0.0.1", 0) as bound:
        bound.listen()
        with pytest.raises(UserError, match="is in use"):
            listen("127.0.0.1", bound.getsockname()[1])


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 80), ("127.0.0.1", 99999), ("203.0.113.1", 0)])
def test_an_address_that_is_none(host, port):
    with pytest.raises(UserError, match=r"--host|--port"):
        listen(host, port)


def test_the_command_says_in_one_message_what_is_wrong(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    def message(*options, model="efficientnet_lite0"):
        monkeypatch.setattr(sys, "argv", ["serve", "--model", str(model), *map(str, options)])
        with pytest.raises(SystemExit) as raised:
            main()
        assert raised.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    with listen("127.0.0.1", 0) as bound:
        bound.listen()
        assert "is in use" in message("--port", bound.getsockname()[1])
    assert os.fspath(tmp_path) in message("--port", 0, model=tmp_path / "none")
    assert "--cors-origin must be" in message("--cors-origin", "front.example")
    assert "--root-path must be" in message("--root-path", "vision")
    assert "--burst must be more than 0" in message("--burst", 0)
    assert "--latency must be more than 0" in message("--latency", "nan")
