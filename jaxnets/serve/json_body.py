"""Images in JSON, as base64, for those who cannot send bytes."""

import binascii
import json
from typing import Any, NoReturn

from jaxnets.errors import quoted
from jaxnets.serve.limits import Limits, Refused

_EXAMPLE = '{"images": ["<base64 of a file>", …]}'
_SPACES = str.maketrans("", "", " \t\r\n")  # base64 is often broken into lines


def split_json(body: bytes, limits: Limits) -> list[bytes]:
    """Returns the files of a body `{"images": [base64 or data: URL, …]}`.

    Raises:
        Refused: if it is no JSON or holds anything else, no image or too many.
    """
    try:
        content = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise _bad_json("it is nested too deeply") from None
    except ValueError as error:  # a number of too many digits and what is no UTF-8 included
        raise _bad_json(str(error)[:100]) from error
    if not isinstance(content, dict) or "images" not in content:
        found = f"the fields {quoted(', '.join(content))}" if isinstance(content, dict) else _kind(content)
        found = "an object without fields" if content == {} else found
        raise Refused(422, "no_field_images", f"the body must be {_EXAMPLE}, found {found}")
    if others := [name for name in content if name != "images"]:
        raise Refused(
            422,
            "unknown_field",
            f"the body has a field {quoted(others[0])}: send images alone, the rest in the address",
        )
    images = content["images"]
    if not isinstance(images, list):
        raise Refused(422, "no_list", f"'images' must be a list, {_EXAMPLE}, found {_kind(images)}")
    if not images:
        raise Refused(400, "no_image", f"'images' is empty: add at least one, {_EXAMPLE}")
    if len(images) > limits.max_images:
        raise Refused(
            413,
            "too_many_images",
            f"'images' has {len(images):,}, more than the {limits.max_images} allowed: split them",
        )
    return [_file(image, number) for number, image in enumerate(images, 1)]


def _file(text: Any, number: int) -> bytes:
    if not isinstance(text, str):
        raise Refused(422, "bad_base64", f"image {number} must be a string of base64, found {_kind(text)}")
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise Refused(
                422, "bad_base64", f"image {number} is a data: URL without base64: expected data:image/png;base64,…"
            )
    elif "://" in text[:20]:
        raise Refused(
            422, "bad_base64", f"image {number} is an address, and nothing is fetched: send the file itself as base64"
        )
    try:
        return binascii.a2b_base64(text.translate(_SPACES), strict_mode=True)
    except ValueError as error:
        raise Refused(
            422,
            "bad_base64",
            f"image {number} is no base64 ({str(error)[:100]}): expected A-Z, a-z, 0-9, + and /, filled up with = to "
            "fours of characters",
        ) from error


def _bad_json(why: str) -> Refused:
    return Refused(400, "bad_json", f"the body is no JSON ({why}): send {_EXAMPLE}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
    return names.get(type(value), "a number")
