"""Requests to a service that go on, at a steady rate, while something else is done to it."""

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

_THREADS = 2
_SECONDS = 20.0  # that an answer may take


@dataclass(frozen=True)
class Question:
    """An image, and the class that it is of."""

    content: bytes  # a PNG
    truth: str


class Traffic:
    """Asks what is in images, drawn from those at hand, until it is left; counts what was not answered."""

    def __init__(self, port: int, path: str, rate: float) -> None:
        self._port, self._path, self._pause = port, path, _THREADS / rate
        self._questions: Sequence[Question] = ()
        self._lock = threading.Lock()
        self._answers: list[tuple[str, bool]] = []  # the model that answered, and whether it was right
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
        with self._lock:
            right = [right for _, right in self._answers[-latest:]]
        return sum(right) / max(len(right), 1)

    def models(self) -> list[str]:
        """Returns the model of each answer."""
        with self._lock:
            return [model for model, _ in self._answers]

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
                with self._lock:
                    self._answers.append((told["model"], told["predictions"][0]["top"][0]["label"] == question.truth))
            due = max(due + self._pause, time.monotonic() - self._pause)
            self._ending.wait(max(due - time.monotonic(), 0))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
