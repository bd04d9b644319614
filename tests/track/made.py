"""A tracker made for tests, that keeps what it gets, and fails or hangs as it is told."""

import json
import threading
from pathlib import Path

from jaxnets.track.ledger import Ledger
from jaxnets.track.mirror import Destination, Mirror
from jaxnets.track.tracker import About


class Service:
    def __init__(self) -> None:
        self.rows_of: dict[str, list[dict]] = {}  # by the run's id
        self.images: list[tuple[str, int]] = []
        self.reports: list[dict[str, bytes]] = []
        self.ends: list[tuple[str | None, str]] = []
        self.opened = 0
        self.fails: BaseException | None = None
        self.goes_on = threading.Event()  # cleared: it hangs
        self.goes_on.set()

    def open(self, about: About, kept) -> "Run":
        self.answer()
        self.opened += 1
        known = kept.id if kept.id in self.rows_of else f"run {len(self.rows_of)}"
        self.rows_of.setdefault(known, [])
        return Run(self, known)

    def answer(self) -> None:
        self.goes_on.wait()
        if self.fails is not None:
            raise self.fails

    @property
    def rows(self) -> list[dict]:
        """Those of its only run, none before it has begun."""
        assert len(self.rows_of) <= 1
        return next(iter(self.rows_of.values()), [])

    def destination(self, name: str = "made") -> Destination:
        return Destination(title=f"the {name}", place=name, open=self.open)

    def mirror(self, folder: Path) -> Mirror:
        return Mirror(self.destination(), Ledger(folder / "tracking.json"), describe, folder)


class Run:
    def __init__(self, service: Service, number: str) -> None:
        self._service, self.id, self.address = service, number, f"http://made/{number}"

    def rows(self, rows) -> None:
        self._service.answer()
        self._service.rows_of[self.id] += rows

    def image(self, name, png, step) -> None:
        self._service.answer()
        self._service.images.append((name, step))

    def files(self, folder, files) -> None:
        self._service.answer()
        self._service.reports.append(dict(files))

    def close(self, ended, why="") -> None:
        self._service.answer()
        self._service.ends.append((ended, why))


def describe(key: str) -> About:
    return About(name="made", key=key, folder=None)


def write_rows(folder: Path, *rows: dict) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def train(step: int, loss: float = 1.0) -> dict:
    return {"step": step, "epoch": step / 10, "time": 1000.0 + step, "train/loss": loss}


def evaluation(step: int, name: str = "eval") -> dict:
    return {"step": step, "epoch": step / 10, "time": 1000.5 + step, f"{name}/split": "test", f"{name}/loss": 0.5}
