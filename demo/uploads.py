"""From what a visitor uploads to an image."""

from pathlib import Path
from typing import Any

from jaxnets.data import decode as decoding
from jaxnets.data.sources import CorruptImage


def uploaded(payload: Any) -> Path | None:
    """Returns the file behind what Gradio's image component is given, unopened.

    Its own `preprocess` opens the file, and fails without a word on what is no image.
    """
    return None if payload is None or payload.path is None else Path(payload.path)


def decode(gr: Any, file: Path | None, *, warn: bool = True) -> Any:
    """Returns an image as uint8; None, and a warning on the page, where there is none that can be read."""
    if file is None:
        return None
    try:
        return decoding.decode(file, file.name)
    except CorruptImage as error:
        if warn:
            gr.Warning(str(error), title="This cannot be shown", duration=15)
        return None
