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


def decode(gr: Any, file: Path | None, shown: Any, *, warn: bool) -> Any:
    """Returns an image as the model reads it, uint8; None, and a warning on the page, where it cannot be read."""
    if file is None:
        return None
    try:
        return decoding.decode(file, file.name, shown.classifier.preprocess.white_level)
    except CorruptImage as error:
        if warn:
            gr.Warning(str(error), title="This cannot be shown", duration=15)
        return None
