"""Paths that a config gives, made to mean the same from any working directory, as a run directory wants them."""

import os
import re
from dataclasses import replace

from jaxnets.config import Config
from jaxnets.data import sources
from jaxnets.data.weights_file import with_absolute_path


def with_absolute_paths(config: Config) -> Config:
    """Returns the config with absolute paths to its data, its classes' weights, its teacher and its tracker's file."""
    return replace(
        config,
        data=sources.with_absolute_paths(config.data),
        loss=with_absolute_path(config.loss),
        distill=replace(config.distill, teacher=_absolute_model(config.distill.teacher)),
        track=replace(config.track, mlflow=absolute_store(config.track.mlflow)),
    )


def absolute_store(uri: str | None) -> str | None:
    """Returns the URI of a tracker with the path of its database absolute, where that is a file."""
    scheme, slashes, path = (uri or "").partition(":///")
    if not slashes or not scheme.startswith("sqlite"):
        return uri
    return f"{scheme}:///{os.path.abspath(os.path.expanduser(path))}"


def _absolute_model(text: str | None) -> str | None:
    """Returns the text that names a model with the path in it absolute, where it is a path that exists."""
    for before in ("", *re.findall(r"^(?:[^=@]+=)?(?:\w+@)?", text or "")):
        path = os.path.expanduser((text or "").removeprefix(before))
        if path and os.path.exists(path):
            return before + os.path.abspath(path)
    return text
