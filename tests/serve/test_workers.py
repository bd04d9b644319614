"""Several processes at one port: who answers, who is replaced, what is counted, and the end."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jaxnets.cores import cores, share_of
from jaxnets.errors import UserError
from jaxnets.monitor.log import read_log
from jaxnets.monitor.recorder import Bounds, Recorder
from jaxnets.serve import __main__ as command
from jaxnets.serve import supervisor
from jaxnets.serve.limits import Limits
from jaxnets.serve.listening import listen, reserve
from jaxnets.serve.supervisor import Supervisor
from jaxnets.serve.worker import Worker
from tests.serve.fakes import PREDICT, FakePredictor, ask, fake_app, image

SECONDS = 0.3  # that a batch takes: longer than an end that waits for nothing


class Service:
    """Two processes that serve a fake, with their records in a folder."""

    def __init__(self, folder):
        self.folder = folder
        with listen("127.0.0.1", 0) as free:
            self.port = free.getsockname()[1]
        arguments = [self.port, SECONDS, 10, "--workers", 2, "--record", folder]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.fakes", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, method, path, body=None):
        """Returns status and content of one request on a connection of its own; None where it is lost."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            client.request(method, path, body)
            answer = client.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            return 0, b""
        except (OSError, http.client.HTTPException):
            return None, b""
        finally:
            client.close()

    def figure(self, name):
        lines = dict(line.rsplit(" ", 1) for line in self.ask("GET", "/metrics")[1].decode().splitlines())
        return float(lines.get(name, 0))

    def wait_for(self, workers):
        deadline = time.monotonic() + 60
        while self.figure("jaxnets_workers") != workers:
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def workers(self):
        """Returns the processes that answer."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(number) for number in children.split()]


class Load:
    """Eight clients that ask one after another, each time on a new connection, until the service is gone."""

    def __init__(self, service):
        self.outcomes = []  # a status, None for what was lost
        self._service = service
        self._threads = [threading.Thread(target=self._ask, args=(place,)) for place in range(8)]
        for thread in self._threads:
            thread.start()

    def _ask(self, place):
        while True:
            # An image of its own each time, or it would be kept.
            status, _ = self._service.ask("POST", PREDICT, image(20 * place, size=(8, 8 + len(self.outcomes))))
            if status == 0:
                return
            self.outcomes.append(status)
            if status == 503:
                return
            time.sleep(0.02)  # leaves the cores to the one that begins

    def wait_for(self, more):
        wanted, deadline = len(self.outcomes) + more, time.monotonic() + 60
        while len(self.outcomes) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def join(self):
        for thread in self._threads:
            thread.join()


def test_two_processes_answer_one_dies_and_the_end_loses_nothing(tmp_path):
    service = Service(tmp_path)
    service.wait_for(2)
    # Each has a cache of its own: one that answers for the first time misses.
    miss = 'jaxnets_cache_images_total{model="fake",result="miss"}'
    while service.figure(miss) < 2:
        _, content = service.ask("POST", PREDICT, image(60))
        assert json.loads(content)["predictions"][0]["top"][0]["label"] == "class 2"
    answered = f'jaxnets_requests_total{{route="{PREDICT.replace("fake", "{name}")}",status="200"}}'
    before = service.figure(answered)

    load = Load(service)
    load.wait_for(16)
    while len(list(tmp_path.glob("fake/*"))) < 2:  # both have written records
        time.sleep(0.05)
    first, second = service.workers()
    os.kill(first, signal.SIGKILL)
    service.wait_for(1)
    load.wait_for(16)
    assert service.workers().count(second) == 1
    service.wait_for(2)  # another has come
    load.wait_for(16)
    assert service.figure(answered) >= before + 48 - 8  # none that were counted are forgotten
    assert load.outcomes.count(None) <= 8  # what was in flight, at most

    lost = load.outcomes.count(None)
    service.process.send_signal(signal.SIGTERM)
    os.kill(second, signal.SIGTERM)  # as systemd does; that it is told twice is no reason to end at once
    out, errors = service.process.communicate(timeout=60)
    load.join()
    assert service.process.returncode == 0, errors
    assert load.outcomes.count(None) == lost, errors
    assert set(load.outcomes) <= {200, 503, None}
    assert out.startswith(f"serving fake at http://127.0.0.1:{service.port}")
    assert errors.count("was ended by SIGKILL; another begins") == 1

    files = list((tmp_path / "fake").iterdir())
    assert len(files) == 3  # each process wrote to one of its own
    rows = read_log(tmp_path / "fake").rows
    assert len(np.unique(rows["id"])) == len(rows)
    assert len(rows) > 0.5 * load.outcomes.count(200)  # the last half second of the one that was killed is lost


def supervised(code, count=2, seconds=20):
    """Runs workers that are a line of Python; returns status, and what was said when the first answered."""
    said = []

    async def body():
        with reserve("127.0.0.1", 0) as reserved:
            made = Supervisor([sys.executable, "-c", code], count, reserved.getsockname()[1], said.append)
            return await asyncio.wait_for(made.run(), seconds)

    return asyncio.run(body()), said


ANSWERS = """
import os, pathlib, signal, socket, sys, time
number, count, port, line = map(int, sys.argv[1].split(":"))
begun = pathlib.Path(os.environ["TMPDIR"]) / f"begun-{number}"
begun.write_text(begun.read_text() + "x" if begun.exists() else "x")
os.write(line, b"some names\\n")
"""
WAITS = ANSWERS + "socket.socket(fileno=line).recv(1)\n"


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """Returns how often each worker has begun."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return lambda: [len((tmp_path / f"begun-{number}").read_text()) for number in (1, 2)]


def test_a_worker_that_cannot_begin_ends_the_whole_with_its_status_and_one_message(capfd):
    assert supervised("import sys; sys.exit('it is broken')") == (1, [])
    assert capfd.readouterr().err.count("it is broken") == 1


def test_the_end_of_the_one_that_began_them_ends_the_others(begun, tmp_path):
    code = f"{WAITS}\npathlib.Path(os.environ['TMPDIR'], 'ended').write_text('')"
    script = (
        "import asyncio, sys; from jaxnets.serve.supervisor import Supervisor; "
        f"asyncio.run(Supervisor([sys.executable, '-c', {code!r}], 1, 1, lambda names: print(names, flush=True)).run())"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == "some names"
        process.kill()
    deadline = time.monotonic() + 20
    while not (tmp_path / "ended").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_that_dies_again_and_again_is_replaced_ever_more_rarely(begun, monkeypatch, caplog):
    monkeypatch.setattr(supervisor, "_PAUSES", (0.1, 0.4))
    code = WAITS.replace("socket.socket", "if number == 2: os.kill(os.getpid(), signal.SIGSEGV)\nsocket.socket")

    def stop_after_five():
        while sum("SIGSEGV" in message for message in caplog.messages) < 5:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    watch = threading.Thread(target=stop_after_five, daemon=True)
    watch.start()
    assert supervised(code) == (0, ["some names"])
    assert begun() == [1, 5]
    pauses = [message.rpartition(" in ")[2] for message in caplog.messages if "was ended by SIGSEGV" in message]
    assert pauses == ["0.1 s", "0.2 s", "0.4 s", "0.4 s", "0.4 s"]


def test_a_worker_s_part_of_what_may_wait_and_of_the_cores(monkeypatch):
    limits = Worker(2, 3, 8000, 5).part(Limits(queue=256, burst=64))
    assert (limits.queue, limits.burst) == (86, 22)
    assert Worker.parse(str(Worker(2, 3, 8000, 5))) == Worker(2, 3, 8000, 5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    parts = [share_of(number, 3) for number in range(3)]
    assert [part["JAXNETS_CORES"] for part in parts] == [part["NPROC"] for part in parts] == ["3", "3", "2"]
    assert share_of(9, 10)["JAXNETS_CORES"] == "1"
    for text, found in (("3", 3), ("99", 8), ("0", 1), ("", 8), ("many", 8)):
        monkeypatch.setenv("JAXNETS_CORES", text)
        assert cores() == found


def test_a_port_that_others_share_is_in_use():
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        with listen("127.0.0.1", port, shared=True) as one, listen("127.0.0.1", port, shared=True) as other:
            one.listen()
            other.listen()
            with pytest.raises(UserError, match="is in use"):
                reserve("127.0.0.1", port)


def test_the_command_begins_workers_with_its_own_arguments(monkeypatch):
    given = []
    monkeypatch.setattr(supervisor, "supervise", lambda *arguments: given.append(arguments) or 3)
    monkeypatch.setattr(sys, "argv", ["serve", "--model", "x", "--workers", "4", "--port", "0"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 3
    expected = [sys.executable, "-m", "jaxnets.serve", "--model", "x", "--workers", "4", "--port", "0", "--as-worker"]
    assert given == [(expected, 4, "127.0.0.1", 0)]


@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_workers_that_is_none(count):
    with pytest.raises(UserError, match="--workers must be at least 1"):
        supervisor.supervise([], count, "127.0.0.1", 0)


def test_files_of_records_that_others_write_to_are_kept_before_older_ones(tmp_path):
    folder = tmp_path / "fake"
    ask(fake_app(recorder=Recorder(tmp_path))[0], "POST", PREDICT, content=image())
    (others,) = folder.iterdir()
    recorder = Recorder(tmp_path, Bounds(file_bytes=1 << 16, files=2))
    app, _ = fake_app(recorder=recorder, predictor=FakePredictor())
    ask(app, "POST", PREDICT, content=image())
    (old,) = set(folder.iterdir()) - {others}
    os.utime(old, (1, 1))
    ask(fake_app(recorder=Recorder(tmp_path, Bounds(files=2)))[0], "POST", PREDICT, content=image())
    assert others in set(folder.iterdir())
    assert old not in set(folder.iterdir())
    assert len(list(folder.iterdir())) == 2
