"""Requests to a service that go on, at a steady rate, while something else is done to it."""

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxnets.errors import UserError

_THREADS = 2
_SECONDS = 20.0  # that an answer may take


@dataclass(frozen=True)
class Question:
    """An image, and the class that it is of."""

    content: bytes  # a PNG
    truth: str


@dataclass(frozen=True)
class Answer:
    model: str  # that gave it
    number: str  # of its record
    truth: str
    right: bool


class Traffic:
    """Asks what is in images, drawn from those at hand, until it is left; counts what was not answered."""

    def __init__(self, port: int, path: str, rate: float) -> None:
        self._port, self._path, self._pause = port, path, _THREADS / rate
        self._questions: Sequence[Question] = ()
        self._lock = threading.Lock()
        self._answers: list[Answer] = []
        self.failed = 0
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(seed,), daemon=True) for seed in range(_THREADS)]

    def ask(self, questions: Sequence[Question]) -> None:
        """Says which images are asked about from now on."""
        self._questions = questions

    @property
    def answered(self) -> int:
        return len(self._answers)

    def accuracy(self, latest: int = 0) -> float:
        """Returns the share of right answers among the latest, or all."""
        right = [answer.right for answer in self.answers()[-latest:]]
        return sum(right) / max(len(right), 1)

    def answers(self) -> list[Answer]:
        """Returns what was answered so far."""
        with self._lock:
            return list(self._answers)

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, seed: int) -> None:
        drawn, connection = random.Random(seed), None
        headers = {"Content-Type": "image/png"}
        due = time.monotonic()
        while not self._ending.is_set():
            question = drawn.choice(self._questions)
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self._port, timeout=_SECONDS)
                connection.request("POST", f"{self._path}?top=1", question.content, headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200:
                    raise OSError(f"status {answer.status}")
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.failed += 1
                connection = None
            else:
                told = json.loads(content)
                (said,) = told["predictions"]
                right = said["top"][0]["label"] == question.truth
                with self._lock:
                    self._answers.append(Answer(told["model"], str(said.get("id", "")), question.truth, right))
            due = max(due + self._pause, time.monotonic() - self._pause)
            self._ending.wait(max(due - time.monotonic(), 0))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(seen: Any, seconds: float) -> Any:
    """Returns what is seen; raises UserError if it is not within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := seen():
            return found
        time.sleep(0.1)
    raise UserError(f"what was waited for did not come within {seconds:g} s")
