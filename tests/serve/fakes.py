"""A model that computes nothing, and a service of it: in this process, or as a process of its own.

python -m tests.serve.fakes PORT SECONDS [TIMEOUT] [--workers N] serves it; each batch takes so many seconds.
"""

import argparse
import asyncio
import io
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from jaxnets.monitor.recorder import Recorder
from jaxnets.preprocess import Preprocess
from jaxnets.serve.app import make_app
from jaxnets.serve.cache import MemoryStore, Store
from jaxnets.serve.cached import Cache
from jaxnets.serve.limits import Keys, Limits
from jaxnets.serve.meters import Meters
from jaxnets.serve.models import Models
from jaxnets.serve.rollout.options import Options
from jaxnets.serve.source import Source, Split
from jaxnets.serve.web import Web

GREY = Preprocess(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))
PREDICT = "/v1/models/fake/predict"


class FakeEngine:
    """Says that an image is of class v / 25, with v its mean; `open` holds it up."""

    name = "fake"
    threads = None

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.open = threading.Event()
        self.open.set()
        self.batches: list[int] = []

    def probabilities(self, images):
        self.open.wait(20)
        time.sleep(self.seconds)
        self.batches.append(len(images))
        return np.eye(10, dtype=np.float32)[images.mean((1, 2, 3)).astype(int) // 26]

    def shrink(self, images):
        pass


class FakePredictor(SimpleNamespace):
    """What the service needs of a Classifier."""

    def __init__(self, step: int | None = 1, **changed) -> None:
        labels = tuple(f"class {i}" for i in range(10))
        defaults = {"name": "none", "labels": labels, "preprocess": GREY, "engine": FakeEngine()}
        defaults |= {"fingerprint": "0" * 16, "matmul_precision": "default", "spread": None}
        defaults |= {"several_labels": False, "thresholds": None, "temperature": None, "refusal": None}
        super().__init__(
            **{**defaults, "variables": {}, "model": None, "step": step, "activation": "softmax", **changed}
        )

    def rows_of_fitted(self, images):
        return self.engine.probabilities(images)

    def with_threads(self, threads: int | None) -> "FakePredictor":
        return self

    def observing(self) -> "FakePredictor":
        return self

    def rows_and_more(self, images):
        rows = self.rows_of_fitted(images)
        return rows, -images.mean((1, 2, 3)).astype(np.float32), images.reshape(len(images), -1).astype(np.float32)


def fake_app(
    *names: str,
    limits: Limits | None = None,
    keys: Keys | None = None,
    web: Web | None = None,
    splits: Sequence[Split] = (),
    predictor: FakePredictor | None = None,
    searched: Mapping[str, Any] | None = None,
    recorder: Recorder | None = None,
    rollout: Options | None = None,
    admin: Keys | None = None,
    made: dict[str, FakePredictor] | None = None,
    cache: Store | None = None,
    meters: Meters | None = None,
):
    """Returns an application that serves fakes under these names, and the predictors by name.

    `made` are predictors that are there already, by what they are opened from.
    """
    limits = limits or Limits(timeout=5)
    made = {name: predictor or FakePredictor() for name in names or ("fake",)} | (made or {})
    meters = meters or Meters()
    models = Models(
        [Source(name=name, path=name) for name in names or ("fake",)],
        splits,
        open_=lambda path, checkpoint: made[path],
        limits=limits,
        meters=meters,
        recorder=recorder,
        cache=None if cache is None else Cache(cache, meters),
        seed=0,
        rollout=rollout,
    )
    return make_app(models, limits, keys, web, searched, admin), made


@asynccontextmanager
async def client_of(app) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    client = httpx2.AsyncClient(transport=transport, base_url="http://service")
    async with app.router.lifespan_context(app), client:
        yield client


def ask(app, method: str, path: str, **options) -> httpx2.Response:
    """Returns the answer to one request."""

    async def one() -> httpx2.Response:
        async with client_of(app) as client:
            return await client.request(method, path, **options)

    return asyncio.run(one())


def image(value: int = 60, size=(8, 8), kind: str = "PNG", **options) -> bytes:
    """Returns a grey image file of one value."""
    file = io.BytesIO()
    Image.new("L", size, value).save(file, kind, **options)
    return file.getvalue()


def main() -> None:
    from jaxnets.serve import gate
    from jaxnets.serve.listening import listen
    from jaxnets.serve.server import serve
    from jaxnets.serve.supervisor import supervise
    from jaxnets.serve.worker import Worker

    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("timeout", type=float, default=5, nargs="?")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--as-worker", type=Worker.parse)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    worker = options.as_worker
    if options.workers > 1 and worker is None:
        command = [sys.executable, "-m", "tests.serve.fakes", *sys.argv[1:], "--as-worker"]
        sys.exit(supervise(command, options.workers, "127.0.0.1", options.port))
    limits = Limits(timeout=options.timeout, latency=10)  # however busy the machine is
    gate._LINGER = limits.timeout / 2
    meters = Meters(None if worker is None else worker.number)
    recorder = Recorder(options.record, None, meters.recorded, meters.dropped) if options.record else None
    cache = None if worker is None else MemoryStore(1 << 20)
    app, made = fake_app(limits=limits, meters=meters, recorder=recorder, cache=cache)
    made["fake"].engine.seconds = options.seconds
    serve(app, listen("127.0.0.1", options.port, shared=worker is not None), limits, worker, "fake")


if __name__ == "__main__":
    main()
