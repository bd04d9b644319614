"""The HTTP service: routes, and what each answers."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

import jaxnets
from jaxnets.answer import as_json
from jaxnets.serve import openapi
from jaxnets.serve.cached import rows_of
from jaxnets.serve.docs import add_docs
from jaxnets.serve.gate import Gate, too_large
from jaxnets.serve.images import Upload, split_body
from jaxnets.serve.limits import Keys, Limits, Refused
from jaxnets.serve.meters import CONTENT_TYPE
from jaxnets.serve.models import Models
from jaxnets.serve.recording import Arrival
from jaxnets.serve.rollout.reply import Reply
from jaxnets.serve.rollout.routes import add_routes
from jaxnets.serve.served import ServedModel
from jaxnets.serve.web import Web

if TYPE_CHECKING:
    from jaxnets.serve.searched import Searched

_GONE = 499  # nobody reads it; what the figures call a request whose client left

T = TypeVar("T")

Top = Annotated[int, Query(ge=1, le=1000, description="how many classes to name, the most probable first")]
Found = Annotated[int, Query(ge=1, le=100, description="how many images to find for each, the most alike first")]
Label = Annotated[
    str | None,
    Query(description="the class to explain, by name or number; else the most probable, or each that is said"),
]
Stage = Annotated[str | None, Query(description="whose output is asked: stage1, stage2, …; else the last")]
Method = Annotated[str | None, Query(description="gradcam, gradcam++ (or gradcampp), layercam, rollout; else gradcam")]


def make_app(
    models: Models,
    limits: Limits,
    keys: Keys | None = None,
    web: Web | None = None,
    searched: "Mapping[str, Searched] | None" = None,
    admin: Keys | None = None,
) -> FastAPI:
    """Returns the application that serves some models within some limits, to those who have a key if there are any.

    Pages of other origins may ask it, and a proxy show it under a path, as `web` says. `searched` are indexes of images
    by the names of their models; without any nothing can be searched. `admin` are the keys of those who may change
    which model answers; without any nobody may.

    `app.state.stopping`, once set, lets what is in flight be answered and refuses what is new; `app.state.running` is
    the number of requests in flight.
    """

    web = web or Web()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        models.start()
        yield
        await models.close()

    app = FastAPI(
        title="jaxnets",
        description="Names what is in images, with probabilities.",
        version=jaxnets.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.stopping = False
    app.state.running = 0
    app.add_middleware(Gate, models=models, limits=limits, keys=keys or Keys(), web=web, admin=admin)
    if web.origins:
        # Around the gate: a browser asks first, without a key, whether it may ask; and it shows no refusal to a page
        # that is not allowed to read it.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=web.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("Retry-After",),
        )
    _add_errors(app)
    _add_probes(app, models)
    _add_models(app, models, limits)
    add_routes(app, models, limits)
    if searched:
        _add_search(app, models, limits, searched)
    add_docs(app)
    openapi.describe(app, models.names, with_keys=bool(keys))
    return app


def _add_probes(app: FastAPI, models: Models) -> None:
    @app.get("/healthz", summary="Does the process live?", responses=openapi.PROBE)
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz", summary="Does it take requests?", responses=openapi.PROBE | openapi.errors(503))
    async def readyz(request: Request) -> Response:
        if request.app.state.stopping:
            raise Refused(503, "stopping", "the service is about to end: ask another", {"Retry-After": "1"})
        return _json({"status": "ready"})

    @app.get("/metrics", summary="Figures for Prometheus", responses=openapi.METRICS | openapi.errors(401))
    async def metrics() -> Response:
        return Response(models.meters.text(), media_type=CONTENT_TYPE)


def _add_models(app: FastAPI, models: Models, limits: Limits) -> None:
    @app.get("/v1/models", summary="What is served", responses=openapi.MODELS | openapi.errors(401, 503))
    async def list_models() -> Response:
        return _json({"models": models.describe()})

    @app.post("/v1/models/{name}/predict", summary="Name what is in images", **openapi.PREDICT)
    async def predict(request: Request, name: str, top: Top = 5) -> Response:
        found = models.find(name)
        arrival = Arrival()
        uploads = await _read(request, limits)

        async def ask(served: ServedModel, limits: Limits) -> Reply:
            def wait(future: "asyncio.Future[T]") -> Awaitable[T]:
                return _answer(request, future, limits)

            with served.lease() as loaded:
                start = time.perf_counter()
                rows, sizes = await rows_of(served.name, loaded, uploads, limits, models.cache, wait)
                seconds = time.perf_counter() - start
                predictions: list[dict[str, Any]] = []
                if models.recorder is None or loaded.observer is None:
                    predictions = [as_json(loaded.predictor, row, top) for row in rows]
                else:
                    ids = arrival.record(models.recorder, loaded.observer, rows, sizes, uploads)
                    for number, row in zip(ids, rows[:, : loaded.observer.columns], strict=True):
                        predictions.append({"id": number, **as_json(loaded.predictor, row, top)})
                content = {"model": served.name, "step": loaded.predictor.step, "predictions": predictions}
                return Reply(content=content, loaded=loaded, rows=rows, sizes=sizes, seconds=seconds, time=arrival.time)

        return _json((await models.rollouts.answer(name, found, ask, uploads)).content)

    @app.post("/v1/models/{name}/explain", summary="Draw what speaks for a class", **openapi.EXPLAIN)
    async def explain(
        request: Request, name: str, label: Label = None, stage: Stage = None, method: Method = None
    ) -> Response:
        served = models.find(name)
        if method is not None:
            method = method.replace(" ", "+")  # what a plus sign means in an address
        uploads = await _read(request, limits)
        if len(uploads) > 1:
            raise Refused(413, "too_many_images", f"one image is explained at a time, found {len(uploads)}")
        with served.lease() as loaded:

            def draw() -> bytes:
                drawing = io.BytesIO()
                loaded.explain(uploads[0], limits, label, stage, method).save(drawing, "PNG", compress_level=3)
                return drawing.getvalue()

            content = await _answer(request, asyncio.ensure_future(models.aside(draw)), limits)
        return Response(content, media_type="image/png")

    @app.post("/v1/models/{name}/embed", summary="Say images in numbers", **openapi.EMBED)
    async def embed(request: Request, name: str) -> Response:
        served = models.find(name)
        uploads = await _read(request, limits)
        with served.lease() as loaded:

            def compute(uploads: Sequence[Upload] = uploads) -> list[list[float]]:
                return loaded.predictor.embed_fitted(
                    np.stack([loaded.prepare(upload, limits) for upload in uploads])
                ).tolist()

            embeddings = await _answer(request, asyncio.ensure_future(models.aside(compute)), limits)
            return _json({"model": served.name, "step": loaded.predictor.step, "embeddings": embeddings})


def _add_search(app: FastAPI, models: Models, limits: Limits, searched: "Mapping[str, Searched]") -> None:
    @app.post("/v1/models/{name}/search", summary="Find images that are alike", **openapi.SEARCH)
    async def search(request: Request, name: str, top: Found = 10) -> Response:
        served = models.find(name)
        if served.name not in searched:
            raise Refused(
                404, "no_index", f"{served.name} has no index of images: {', '.join(searched)} can be searched"
            )
        index = searched[served.name]
        uploads = await _read(request, limits)

        def find() -> list[list[dict[str, Any]]]:
            return index.find(uploads, limits, top)

        hits = await _answer(request, asyncio.ensure_future(models.aside(find)), limits)
        return _json({"model": served.name, "step": index.step, "hits": hits})


async def _read(request: Request, limits: Limits) -> list[Upload]:
    """Reads a body, no further than the limit and no longer than the time allowed."""
    body = bytearray()
    try:
        async with asyncio.timeout(limits.timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_bytes:
                    raise too_large(limits, f"at least {len(body):,}")
    except TimeoutError:
        raise Refused(
            408, "slow_upload", f"the body did not arrive within {limits.timeout:g} s: send less, or from a faster line"
        ) from None
    return split_body(request.headers.get("content-type", ""), bytes(body), limits)


async def _answer(request: Request, future: "asyncio.Future[T]", limits: Limits) -> T:
    """Waits for a result, unless the client leaves or the time is over: then it is cancelled."""
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait((future, gone), timeout=limits.timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not future.done():
            future.cancel()
    if future.done() and not future.cancelled():  # a task is cancelled a moment after it was asked to be
        try:
            return future.result()
        except asyncio.CancelledError:
            pass
    if gone.done() and not gone.cancelled():
        raise ClientDisconnect
    raise Refused(
        504, "timeout", f"there was no answer within {limits.timeout:g} s: try again later", {"Retry-After": "1"}
    )


async def _disconnected(receive: Callable[[], Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, "application/json")


def _add_errors(app: FastAPI) -> None:
    """Gives every error the same shape, but for failures: those are the gate's."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _json(error.content, error.status, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=_GONE)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        refused = Refused(422, "invalid_query", f"{'; '.join(found)}: /docs says what each parameter may be")
        return _json(refused.content, refused.status)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        code, hint = {
            404: ("not_found", "there is nothing here: /docs lists what there is"),
            405: ("method_not_allowed", f"{request.method} is not answered here: /docs says what is"),
        }.get(error.status_code, ("error", str(error.detail)))
        return _json(Refused(error.status_code, code, hint).content, error.status_code, dict(error.headers or {}))
