"""From a request's body to images, trusting none of it."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from jaxnets.data.decode import decode
from jaxnets.data.sources import CorruptImage
from jaxnets.errors import quoted
from jaxnets.serve.json_body import split_json
from jaxnets.serve.limits import Limits, Refused

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_MAX_SCANS = 100  # of a progressive JPEG; each is a pass over all pixels, and cameras and editors write about 10
_SCAN = b"\xff\xda"  # begins one; in the data of a scan, 0 follows each 255
_MAX_HEADERS = 64 << 10  # bytes of the headers of all parts


@dataclass(frozen=True)
class Upload:
    content: bytes
    name: str  # what messages call it


def split_body(content_type: str, body: bytes, limits: Limits) -> list[Upload]:
    """Returns the image files of a request, which is one such file, or multipart/form-data or JSON with some.

    Raises:
        Refused: if it is none of these, or holds none or too many.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        uploads = _split_parts(options.get(b"boundary", b""), body, limits)
        if not uploads:
            raise Refused(400, "no_image", "the form has no file in it: add at least one image, in the field 'files'")
        return uploads
    if kind == b"application/json":
        return [Upload(content, f"image {number}") for number, content in enumerate(split_json(body, limits), 1)]
    if kind and not kind.startswith(b"image/") and kind != b"application/octet-stream":
        raise Refused(
            415,
            "unsupported_media_type",
            "the body must be an image (Content-Type image/jpeg, image/png, image/webp or image/bmp), "
            f"multipart/form-data with images, or application/json with some as base64, found "
            f"{quoted(kind.decode('latin-1'))}",
        )
    if not body:
        raise Refused(400, "no_image", "the body is empty: send an image's bytes, or multipart/form-data with some")
    return [Upload(body, "the image")]


def open_image(upload: Upload, limits: Limits, white_level: int) -> UInt8[np.ndarray, "h w c"]:
    """Decodes one file, after its header has shown that it may be.

    Raises:
        Refused: if it is no JPEG, PNG, WebP or BMP (415), too large (413), or damaged (422).
    """
    try:
        with Image.open(io.BytesIO(upload.content), formats=_FORMATS) as image:
            width, height = image.size
    except UnidentifiedImageError:
        raise Refused(
            415, "unsupported_image", f"{upload.name} is not an image that can be read: send JPEG, PNG, WebP or BMP"
        ) from None
    except Exception as error:  # whatever Pillow's readers make of damaged bytes, its own decompression bombs included
        raise _damaged(upload, str(error)) from error
    if width * height > limits.max_pixels:
        raise Refused(
            413,
            "too_many_pixels",
            f"{upload.name} has {width} × {height} pixels, more than the {limits.max_pixels:,} allowed: shrink it",
        )
    if upload.content[:2] == b"\xff\xd8" and upload.content.count(_SCAN) > _MAX_SCANS:
        raise _damaged(upload, f"a JPEG of more than {_MAX_SCANS} scans")
    try:
        return decode(io.BytesIO(upload.content), upload.name, white_level)
    except CorruptImage as error:
        raise _damaged(upload, str(error).removeprefix(f"{upload.name} cannot be decoded: ")) from error


def _damaged(upload: Upload, why: str) -> Refused:
    return Refused(422, "damaged_image", f"{upload.name} cannot be decoded ({why[:200]}): send it whole")


def _split_parts(boundary: bytes, body: bytes, limits: Limits) -> list[Upload]:
    """Reads multipart/form-data (RFC 7578) in memory, which the limit on the body bounds."""
    uploads: list[Upload] = []
    header: dict[str, bytearray] = {"name": bytearray(), "value": bytearray()}
    disposition: list[bytes] = []  # of the part at hand
    content: list[bytes] = []
    seen, ended = 0, False

    def on_part_begin() -> None:
        disposition.clear()
        content.clear()

    def on_header(which: str, data: bytes, start: int, end: int) -> None:
        nonlocal seen
        seen += end - start
        if seen > _MAX_HEADERS:
            raise Refused(400, "bad_form", "the headers of the form's parts are too long: send the files alone")
        header[which] += data[start:end]

    def on_header_end() -> None:
        if bytes(header["name"]).lower() == b"content-disposition":
            disposition.append(bytes(header["value"]))
        for text in header.values():
            text.clear()

    def on_part_end() -> None:
        _, options = parse_options_header(disposition[0] if disposition else b"")
        field, file = options.get(b"name", b"").decode("utf-8", "replace"), options.get(b"filename")
        if file is None and field != "files":
            raise Refused(
                422,
                "unknown_field",
                f"the form has a field {quoted(field)} that is no file: send images alone, as 'files'",
            )
        if len(uploads) == limits.max_images:
            raise Refused(413, "too_many_images", f"the form has more than {limits.max_images} images: split them up")
        name = f"image {len(uploads) + 1} ({quoted((file or b'').decode('utf-8', 'replace'))})"
        uploads.append(Upload(b"".join(content), name))

    def on_end() -> None:
        nonlocal ended
        ended = True

    callbacks: MultipartCallbacks = {
        "on_part_begin": on_part_begin,
        "on_part_data": lambda data, start, end: content.append(data[start:end]),
        "on_part_end": on_part_end,
        "on_header_field": lambda data, start, end: on_header("name", data, start, end),
        "on_header_value": lambda data, start, end: on_header("value", data, start, end),
        "on_header_end": on_header_end,
        "on_end": on_end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(
            400, "bad_form", f"the body is no multipart/form-data ({error}): let a library write it"
        ) from error
    if body and not ended:
        raise Refused(400, "bad_form", "the form is cut off: its last boundary is missing")
    return uploads
