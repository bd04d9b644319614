"""The whole loop, on scikit-learn's digits; and that the requests in it count what was not answered."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import environment

LAUNCH = Path(__file__).parent.parent.parent / "launch"


@pytest.mark.slow
def test_the_loop_closes_without_one_request_unanswered(tmp_path):
    pytest.importorskip("fastapi")
    home = tmp_path / "loop"
    done = subprocess.run(
        [sys.executable, LAUNCH / "closed_loop.py", "--workdir", home],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads((home / "loop.json").read_text())["checks"]
    assert len(checks) == 12
    assert all(holds for _, holds in checks)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    command = [sys.executable, LAUNCH / "closed_loop.py", "--workdir", tmp_path]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not empty: give a new folder" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


class Server(BaseHTTPRequestHandler):
    """Answers every third request with 503, and ends every fifth connection in the middle of an answer."""

    count = 0
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Server.count += 1
        content = {"model": "a", "predictions": [{"id": str(self.count), "top": [{"label": "cat"}]}]}
        body = json.dumps(content).encode()
        self.send_response(503 if Server.count % 3 == 0 else 200)
        self.send_header("Content-Length", str(len(body) + (Server.count % 5 == 0)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = Server.count % 5 == 0

    def log_message(self, *_):
        pass


def test_a_request_that_is_not_answered_well_is_counted(monkeypatch):
    monkeypatch.syspath_prepend(str(LAUNCH))
    from traffic import Question, Traffic, wait_for

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    traffic = Traffic(server.server_port, "/predict", rate=2000)
    traffic.ask([Question(b"an image", "cat")])
    with traffic:
        wait_for(lambda: Server.count >= 30, 20)
    server.shutdown()
    expected = sum(number % 3 == 0 or number % 5 == 0 for number in range(1, Server.count + 1))
    assert (traffic.failed, traffic.answered) == (expected, Server.count - expected)
    assert traffic.accuracy() == 1
    assert {answer.model for answer in traffic.answers()} == {"a"}
