"""From what a visitor uploads to an image."""

from pathlib import Path
from typing import Any

from images import Shown

from jaxnets.data.sources import CorruptImage


def uploaded(payload: Any) -> Path | None:
    """Returns the file behind what Gradio's image component is given, unopened.

    Its own `preprocess` opens the file, and fails without a word on what is no image.
    """
    return None if payload is None or payload.path is None else Path(payload.path)


def decode(gr: Any, shown: Shown, file: Path | None, *, warn: bool = True) -> Any:
    """Returns an image as uint8, read as a model reads images; None, and a warning on the page, for what is none."""
    if file is None:
        return None
    try:
        return shown.decode(file)
    except CorruptImage as error:
        if warn:
            gr.Warning(str(error), title="This cannot be shown", duration=15)
        return None
