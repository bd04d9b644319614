"""What the OpenAPI description says of the routes that let a model take over."""

from typing import Any

from jaxnets.serve.openapi import OBJECT_ERROR, success

_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
_EXAMPLE = {
    "model": "pets",
    "kind": "canary",
    "phase": "canary",
    "stable": "pets",
    "candidate": "new",
    "ready": True,
    "share": 0.05,
    "since": 1795750000.0,
    "bound": None,
    "reason": None,
    "answered": {
        "stable": {"requests": 1900, "failures": 0, "mean_seconds": 0.011, "p99_seconds": 0.031},
        "candidate": {"requests": 98, "failures": 0, "mean_seconds": 0.012, "p99_seconds": 0.031},
    },
    "copies": {
        "requests": 190, "failures": 0, "mean_seconds": 0.009, "p99_seconds": 0.014, "dropped": 9, "disagreed": 4,
        "disagreement": 0.021,
    },
    "step": "2 of 5",
    "waits_for": "210 s, 2 requests",
}  # fmt: skip
_SCHEMA = {
    "type": "object",
    "required": ["model", "phase", "stable", "candidate"],
    "properties": {
        "model": _TEXT, "kind": _TEXT, "phase": {"enum": ["split", "shadow", "canary", "promoted", "rolled back"]},
        "stable": _TEXT, "candidate": _TEXT, "ready": {"type": "boolean"}, "share": {"type": ["number", "null"]},
        "since": _NUMBER,
        "bound": {"enum": ["errors", "latency", "disagreement", "asked", None]}, "reason": {"type": ["string", "null"]},
    },
}  # fmt: skip
_REFUSALS = {
    401: ("No key of --admin-key-file", "unauthorized", "this needs a key of --admin-key-file"),
    403: ("Closed, or a run that may not be brought in", "closed", "start the service with --admin-key-file FILE"),
    404: ("No such model, or one without a candidate", "no_candidate", "pets has no candidate"),
    408: ("The body came too slowly", "slow_upload", "the body did not arrive within 10 s: send it at once"),
    409: ("Not now", "on_trial", "new is on trial for pets: promote it or roll it back first"),
    413: ("Too many bytes", "body_too_large", "the body has more than 65,536 bytes: send the path alone"),
    422: ("No run, or one of other classes", "unfit", "new cannot take over from pets: it has 3 classes, and pets 2"),
    400: ("No JSON", "no_json", "the body must be JSON, an object with model and name"),
    503: ("Stopping, or the candidate is not open here", "stopping", "the service is about to end: try again"),
}  # fmt: skip


def _responses(description: str) -> dict[int | str, dict[str, Any]]:
    found = success(description, _EXAMPLE, _SCHEMA)
    for status, (says, code, message) in sorted(_REFUSALS.items()):
        example = {"error": {"code": code, "message": message}}
        found[status] = {
            "description": says,
            "content": {"application/json": {"schema": OBJECT_ERROR, "example": example}},
        }
    return found


PROMOTE: dict[str, Any] = {
    "responses": _responses(
        "The state of the name, whose requests all go to the candidate now; of a split, to the model named last"
    )
}
ROLLBACK: dict[str, Any] = {
    "responses": _responses("The state of the name, whose requests all go to the old model now")
}
CANARY: dict[str, Any] = {
    "responses": _responses("The state of the name, whose candidate gets a share that grows from step to step"),
    "openapi_extra": {
        "requestBody": {
            "required": False,
            "description": "`model`, a run below the folder of --candidates, which is opened beside what is served and "
            "called `name` (else as its folder). Without a body: the candidate that the name has, from the first step",
            "content": {
                "application/json": {
                    "schema": {"type": "object", "properties": {"model": _TEXT, "name": _TEXT}},
                    "example": {"model": "runs/new"},
                }
            },
        }
    },
}
