"""What the OpenAPI description says that no signature can: bodies, examples, and every status."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

_ERROR_EXAMPLES = {
    400: ("no_image", "the body is empty: send an image's bytes, or multipart/form-data with some"),
    401: ("unauthorized", "this service needs an API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"),
    404: ("no_such_model", "there is no model 'resnet': GET /v1/models lists efficientnet_lite0"),
    408: ("slow_upload", "the body did not arrive within 10 s: send less, or from a faster line"),
    413: ("too_many_pixels", "the image has 60000 × 60000 pixels, more than the 25,000,000 allowed: shrink it"),
    415: ("unsupported_image", "the image is not an image that can be read: send JPEG, PNG, WebP or BMP"),
    422: ("damaged_image", "the image cannot be decoded (image file is truncated): send it whole"),
    503: (
        "overloaded",
        "11 images wait and 11 may, by the latency that is allowed (0.08 s) × the speed that is measured "
        "(139 images/s), after a burst of 64: try again as Retry-After says",
    ),
    504: ("timeout", "there was no answer within 10 s: try again later"),
}
_SAYS = {
    400: "No image, or a form or JSON that cannot be read", 401: "No API key that is known", 404: "No such model",
    408: "The body came too slowly", 413: "Too many bytes, pixels or images", 415: "Not an image of a known format",
    422: "A damaged image, an unknown field, or a parameter out of range",
    503: "Overloaded or stopping: see Retry-After", 504: "No answer in time",
}  # fmt: skip

OBJECT_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}

_BINARY = {"type": "string", "format": "binary"}
_IMAGES = ("image/jpeg", "image/png", "image/webp", "image/bmp")
# A PNG of 2 × 2 white pixels.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR42mP8z8DEwAAABQ0BA6UiEhkAAAAASUVORK5CYII="


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the descriptions of error answers."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        code, message = _ERROR_EXAMPLES[status]
        example = {"error": {"code": code, "message": message}}
        headers = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}} if status == 503 else {}
        found[status] = {
            "description": _SAYS[status],
            "headers": headers,
            "content": {"application/json": {"schema": OBJECT_ERROR, "example": example}},
        }
    return found


def success(description: str, example: Any, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Returns the description of an answer that is no error."""
    return {200: {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_STRING, _NUMBER, _STEP = {"type": "string"}, {"type": "number"}, {"type": ["integer", "null"]}
_MAYBE = {"type": ["number", "null"]}


def _body(*, many: bool) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {"schema": _BINARY} for kind in (*_IMAGES, "application/octet-stream")}
    files = {"type": "array", "items": _BINARY, "minItems": 1, **({} if many else {"maxItems": 1})}
    content["multipart/form-data"] = {"schema": _object(files=files)}
    images = {
        **files,
        "items": {"type": "string", "contentEncoding": "base64"},
        "description": "each a file in base64, as it is or behind `data:image/…;base64,`",
    }
    content["application/json"] = {
        "schema": {**_object(images=images), "additionalProperties": False},
        "example": {"images": [_PIXEL]},
    }
    number = "one or more" if many else "one"
    says = f"an image (JPEG, PNG, WebP, BMP), a form with {number}, as `files`, or JSON with {number} in base64"
    return {"requestBody": {"required": True, "description": says, "content": content}}


_REFUSALS = errors(400, 401, 404, 408, 413, 415, 422, 503, 504)

PROBE = success("Yes", {"status": "ok"}, _object(status=_STRING))
METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus's text format", "content": {"text/plain": {"schema": _STRING}}}
}
_ROLLOUT = {
    "type": "object",
    "description": "of names with a candidate: how far it has taken over, as POST …/canary answers",
}
MODELS = success(
    "Every name, in the order of the command line",
    {
        "models": [
            {
                "name": "pets",
                "architecture": "resnet50",
                "step": 12000,
                "engine": "onnx",
                "activation": "softmax",
                "labels": ["cat", "dog"],
                "thresholds": None,  # where an image may have several labels, the probability above which each is said
                "temperature": 1.31,  # that the logits are divided by before they become probabilities
                "refusal": {
                    "probability": 0.62,
                    "energy": -3.1,
                    "distance": None,
                    "familiar": 0.99,  # what the bounds were chosen for
                    "precision": 0.95,
                    "coverage": None,
                    "conformal": None,
                },
                "input": {"height": 224, "width": 224, "channels": 3},
                "batch": 4,
            }
        ]
    },
    _object(
        models=_list({"type": "object", "required": ["name"], "properties": {"name": _STRING, "rollout": _ROLLOUT}})
    ),
)
_NAMED = _list(_object(label=_STRING, probability=_NUMBER))
_ANSWER = _object(top=_NAMED)
_ANSWER["properties"] |= {
    "id": {
        "type": "string",
        "pattern": "^[0-9a-f]{16}$",
        "description": "of services that keep records: the number of this answer's record, by which its true label can "
        "be given to `python -m jaxnets.monitor`",
    },
    "labels": {
        **_NAMED,
        "description": "of models whose images may have several: those that the image is said to have",
    },
    "label": {
        "type": ["string", "null"],
        "description": "of models with bounds: the most probable class, or null where the answer is 'none of these'",
    },
    "reason": {
        "type": "string",
        "description": "why the answer is 'none of these': 'unlike the training images' by energy or distance, or "
        "'unsure'; there is none where the image is answered",
    },
    "scores": {
        "type": "object",
        "properties": {"energy": _MAYBE, "distance": _MAYBE},
        "description": "how unlike the training images it is, the larger the more, where the model has a bound for it",
    },
    "set": {
        **_list(_STRING),
        "description": "of models with conformal sets: the classes that it may be, which hold the right one as often "
        "as `refusal.conformal.coverage` of GET /v1/models says",
    },
}
PREDICT: dict[str, Any] = {
    "responses": success(
        "Each image's classes, the most probable first; where an image may have several, `labels` are those it is said "
        "to have, none of them or all. A model with bounds (`refusal` of GET /v1/models) names its answer as `label`, "
        "which is null where it is 'none of these', with the reason",
        {
            "model": "pets",
            "step": 12000,
            "predictions": [
                {"label": "cat", "top": [{"label": "cat", "probability": 0.93}]},
                {
                    "label": None,
                    "reason": "unlike the training images: energy -1.2, at most -3.1",
                    "scores": {"energy": -1.2},
                    "top": [{"label": "dog", "probability": 0.71}],
                },
            ],
        },
        _object(model=_STRING, step=_STEP, predictions=_list(_ANSWER)),
    )
    | _REFUSALS,
    "openapi_extra": _body(many=True),
}
EMBED: dict[str, Any] = {
    "responses": success(
        "Each image's embedding: the pooled vector that the model's head sees",
        {"model": "pets", "step": 12000, "embeddings": [[0.12, 0.0, 1.7]]},
        _object(model=_STRING, step=_STEP, embeddings=_list(_list(_NUMBER))),
    )
    | _REFUSALS,
    "openapi_extra": _body(many=True),
}
SEARCH: dict[str, Any] = {
    "responses": success(
        "Of each image those of the index that are most like it, with the cosine of the angle between their vectors: 1 "
        "where they are the same. `step` is that of the weights that the index is of",
        {"model": "pets", "step": 12000, "hits": [[{"file": "cats/7.jpg", "similarity": 0.981}]]},
        _object(model=_STRING, step=_STEP, hits=_list(_list(_object(file=_STRING, similarity=_NUMBER)))),
    )
    | _REFUSALS,
    "openapi_extra": _body(many=True),
}
_DRAWING: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image beside its overlay, with a scale", "content": {"image/png": {"schema": _BINARY}}}
}
EXPLAIN: dict[str, Any] = {"responses": _DRAWING | _REFUSALS, "openapi_extra": _body(many=False)}


_ADMIN = ("promote", "rollback", "canary")  # ends of routes that need a key whether or not others do


def describe(app: FastAPI, names: Sequence[str], *, with_keys: bool) -> None:
    """Adds the names that are served as examples, and the API key where one is needed."""
    description = app.openapi()
    for path in description["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "name":
                    parameter["example"] = names[0]
                    parameter["schema"] = {"type": "string", "minLength": 1, "examples": list(names)}
    description.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for route, path in description["paths"].items():
        if route.endswith(_ADMIN) or (with_keys and (route.startswith("/v1/") or route == "/metrics")):
            for operation in path.values():
                operation["security"] = [{"bearer": []}, {"key": []}]
