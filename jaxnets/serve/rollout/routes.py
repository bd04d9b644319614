"""The routes that let a model take over, for those who have a key of their own for it."""

import asyncio
import json
import re
from typing import Any

from fastapi import FastAPI, Request, Response

from jaxnets.errors import quoted
from jaxnets.serve.limits import Keys, Limits, Refused
from jaxnets.serve.models import Models
from jaxnets.serve.rollout import describing, takeover
from jaxnets.serve.rollout.state import State

ROUTE = re.compile(r"/v1/models/[^/]+/(promote|rollback|canary)")

_MOST = 64 << 10  # bytes of a body
_FIELDS = ("model", "name")


def check_admin(admin: Keys, authorization: bytes, api_key: bytes) -> None:
    """Refuses who may not change what answers.

    Raises:
        Refused: 401, without a key that may; 403, if there are none.
    """
    if not admin:
        raise Refused(
            403, "closed", "nobody may change what answers here: start the service with --admin-key-file FILE"
        )
    try:
        admin.check(authorization, api_key)
    except Refused as refused:
        raise Refused(
            401,
            "unauthorized",
            "this needs a key of --admin-key-file, which is another than those that ask: send it as 'Authorization: "
            "Bearer KEY' or 'X-API-Key: KEY'",
            refused.headers,
        ) from None


def add_routes(app: FastAPI, models: Models, limits: Limits) -> None:
    """Adds the routes; the gate has seen to the keys."""
    rollouts = models.rollouts

    def shown(name: str, state: State) -> Response:
        text = json.dumps({"model": name, **rollouts.shown(state)}, ensure_ascii=False, separators=(",", ":"))
        return Response(text, media_type="application/json")

    @app.post("/v1/models/{name}/promote", summary="Let the candidate take over", **describing.PROMOTE)
    async def promote(request: Request, name: str) -> Response:
        await _object(request, limits, ())
        return shown(name, await takeover.promote(rollouts, name))

    @app.post("/v1/models/{name}/rollback", summary="Let the old model answer all again", **describing.ROLLBACK)
    async def rollback(request: Request, name: str) -> Response:
        await _object(request, limits, ())
        return shown(name, await takeover.roll_back(rollouts, name))

    @app.post("/v1/models/{name}/canary", summary="Try a candidate on a growing share", **describing.CANARY)
    async def canary(request: Request, name: str) -> Response:
        given = await _object(request, limits, _FIELDS)
        state = await takeover.begin_canary(rollouts, name, given.get("model"), given.get("name"))
        return shown(name, state)


async def _object(request: Request, limits: Limits, known: tuple[str, ...]) -> dict[str, str]:
    """Reads a body of JSON, an object of texts; an empty one is an empty object."""
    body = bytearray()
    try:
        async with asyncio.timeout(limits.timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MOST:
                    raise Refused(413, "body_too_large", f"the body has more than {_MOST:,} bytes: send the path alone")
    except TimeoutError:
        raise Refused(
            408, "slow_upload", f"the body did not arrive within {limits.timeout:g} s: send it at once"
        ) from None
    if not body.strip():
        return {}
    wanted = f"an object with {' and '.join(known)}" if known else "empty"
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(
            400, "no_json", f"the body must be JSON, {wanted}; it cannot be read ({str(error)[:200]})"
        ) from None
    if not isinstance(given, dict):
        raise Refused(422, "no_object", f"the body must be {wanted}, found {quoted(str(given))}")
    if unknown := [key for key in given if key not in known]:
        raise Refused(422, "unknown_field", f"the body must be {wanted}, found {quoted(unknown[0])}")
    for key, value in given.items():
        if not isinstance(value, str) or not value:
            raise Refused(422, "no_text", f"{key} must be a text that is not empty, found {quoted(str(value))}")
    return given
