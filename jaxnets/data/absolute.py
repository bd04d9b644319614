"""Paths that a config gives, made to mean the same from any working directory, as a run directory wants them."""

from dataclasses import replace

from jaxnets.config import Config
from jaxnets.data import sources
from jaxnets.data.weights_file import with_absolute_path


def with_absolute_paths(config: Config) -> Config:
    """Returns the config with absolute paths to its data and its classes' weights."""
    return replace(config, data=sources.with_absolute_paths(config.data), loss=with_absolute_path(config.loss))
