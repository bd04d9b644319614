"""Serves models over HTTP: `python -m jaxnets.serve --model MODEL [--model NAME=MODEL …]`."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnets import cli
from jaxnets.cache import use_compilation_cache
from jaxnets.errors import UserError
from jaxnets.serve.listening import listen, serving
from jaxnets.serve.rollout.options import add_options, read_options
from jaxnets.serve.worker import Worker

if TYPE_CHECKING:
    from jaxnets.serve.searched import Searched


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.serve", description="Answer over HTTP what is in images; /docs says how to ask."
    )
    parser.add_argument(
        "--model", action="append", required=True, metavar="[NAME=]MODEL", dest="models",
        help=f"{cli.MODEL}; give it once for each",
    )  # fmt: skip
    parser.add_argument(
        "--split", action="append", default=[], metavar="NAME=A:0.9,B:0.1", dest="splits",
        help="a name whose requests go to several of the models, each with its share",
    )  # fmt: skip
    parser.add_argument(
        "--index", action="append", default=[], metavar="[NAME=]DIR", dest="indexes",
        help="an index that python -m jaxnets.search built with the model, to be searched; give it once for each",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes that answer at the port, each with its part of the cores and the models in memory (default 1)",
    )  # fmt: skip
    parser.add_argument("--as-worker", type=Worker.parse, help=argparse.SUPPRESS)  # of whom this process is one
    parser.add_argument(
        "--cache", default="0", metavar="MIB|REDIS",
        help="keep the answers to the latest images, by their bytes: in so many MiB of memory in all, or in a Redis, "
        "redis://HOST:PORT/DB (default 0: none)",
    )  # fmt: skip
    parser.add_argument("--api-key-file", type=Path, help="keys that open the service, one a line (default: open)")
    parser.add_argument("--max-bytes", type=int, help="of a request's body (default 10 MiB)")
    parser.add_argument("--max-pixels", type=int, help="of an image (default 25,000,000)")
    parser.add_argument("--max-images", type=int, help="of a request (default 16)")
    parser.add_argument("--timeout", type=float, help="seconds for a request's body, and then its answer (default 10)")
    parser.add_argument(
        "--latency", type=float,
        help="seconds that an answer should take (default 0.05): in an overload, no more waits than is computed in 1.6 "
        "times as long, at the speed that is measured; the others get a 503 at once",
    )  # fmt: skip
    parser.add_argument(
        "--burst",
        type=int,
        help="images that may wait while there is no overload, as far as they take a quarter of --timeout (default 64)",
    )
    parser.add_argument("--queue", type=int, help="images without an answer, at most, ever (default 256)")
    parser.add_argument(
        "--cors-origin", action="append", default=[], metavar="ORIGIN", dest="origins",
        help="whose pages may ask from a browser, https://www.example.org for instance, or *; give it once for each",
    )  # fmt: skip
    parser.add_argument("--root-path", default="", help="the path under which a proxy shows the service (/vision)")
    records = parser.add_argument_group("records", "of what is answered, for python -m jaxnets.monitor")
    records.add_argument(
        "--record", type=Path, metavar="DIR",
        help="write a record of each answer there: time, class, confidence, energy, a projection of the embedding, "
        "brightness, sharpness, size, latency (default: none)",
    )  # fmt: skip
    records.add_argument("--record-mib", type=float, default=64, help="of a file, then another is begun (default 64)")
    records.add_argument("--record-files", type=int, default=8, help="of a model, the newest (default 8)")
    records.add_argument(
        "--record-images", type=int, default=0, metavar="N", help="keep the latest N images too (default 0: never any)"
    )
    add_options(parser)
    cli.add_checkpoint_options(parser)
    cli.add_engine_option(parser)
    cli.run(parser, _serve)


def _serve(options: argparse.Namespace, _: list[str]) -> int:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # before JAX; others may use the same card
    if options.workers != 1 and options.as_worker is None:
        with _extra():
            from jaxnets.serve.supervisor import supervise
        command = [sys.executable, "-m", "jaxnets.serve", *sys.argv[1:], "--as-worker"]
        return supervise(command, options.workers, options.host, options.port)
    with _extra():
        from jaxnets.serve.cache import open_store
        from jaxnets.serve.cached import Cache
        from jaxnets.serve.server import serve
    from jaxnets.monitor.recorder import Bounds, Recorder
    from jaxnets.serve.limits import MEBIBYTE, Keys, Limits, read_keys
    from jaxnets.serve.memory import few_arenas
    from jaxnets.serve.source import Source, Split
    from jaxnets.serve.web import Web

    worker: Worker | None = options.as_worker
    few_arenas()
    given = {
        name: getattr(options, name) for name in Limits.__dataclass_fields__ if getattr(options, name, None) is not None
    }
    limits = Limits(**given)
    if worker is not None:
        worker.sign_log()
        limits = worker.part(limits)
    keys = read_keys(options.api_key_file) if options.api_key_file else Keys()
    sources = [Source.parse(text, options.checkpoint) for text in options.models]
    splits = [Split.parse(text) for text in options.splits]
    if worker is not None and options.state is None:
        options.state = worker.shared / "rollout"
    rollout, admin = read_options(options, keys)
    web = Web.parse(options.origins, options.root_path)
    bounds = Bounds(file_bytes=options.record_mib * MEBIBYTE, files=options.record_files, images=options.record_images)
    if options.record and worker is not None and bounds.files < worker.count:
        raise UserError(
            f"--record-files must be at least --workers, each of which writes to one, found {bounds.files} and "
            f"{worker.count}"
        )
    store = open_store(options.cache, 1 if worker is None else worker.count)
    port = options.port if worker is None else worker.port
    listening = listen(options.host, port, shared=worker is not None)
    use_compilation_cache()
    from jaxnets.classifier import Classifier
    from jaxnets.loading import load

    with _extra():
        from jaxnets.serve.app import make_app
        from jaxnets.serve.meters import Meters
    from jaxnets.serve.models import Models

    def open_(path: str, checkpoint: str | int) -> Classifier:
        return load(path, checkpoint, options.weights, options.engine)

    meters = Meters(None if worker is None else worker.number)
    recorder = None
    if options.record is not None:
        recorder = Recorder(options.record, bounds, meters.recorded, meters.dropped)
    models = Models(
        sources, splits, open_=open_, limits=limits, meters=meters, recorder=recorder, rollout=rollout,
        cache=None if store is None else Cache(store, meters),
    )  # fmt: skip
    searched: Mapping[str, Searched] = {}
    if options.indexes:
        from jaxnets.serve.searched import open_searched

        searched = open_searched(options.indexes, models)
    names = ", ".join(models.names)
    if worker is None:
        print(serving(names, listening), flush=True)
    serve(make_app(models, limits, keys, web, searched, admin), listening, limits, worker, names)
    return 0


@contextmanager
def _extra() -> Iterator[None]:
    """Says what to install where an import fails."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{error.name} is not installed, and this needs it: pip install 'jaxnets[serve]'") from error


if __name__ == "__main__":
    main()
