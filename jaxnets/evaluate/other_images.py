"""Opens images of which the classes do not matter: any source, or a folder of images in any layout."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxnets.config import DataConfig, TableConfig
from jaxnets.cores import cores
from jaxnets.data.examples import Examples
from jaxnets.data.sources import Split, open_undivided
from jaxnets.data.sources.files import FileSplit
from jaxnets.data.sources.folder import image_files
from jaxnets.errors import UserError
from jaxnets.evaluate.asked import Asked
from jaxnets.preprocess import Preprocess


def open_other(data: DataConfig, asked: Asked, fitted: Preprocess, source: str) -> tuple[Examples, str, int]:
    """Returns other images fitted to a model, which split they are, and how many threads read them.

    A source that is divided gives its test split, another all of its images. Labels mean nothing: they are 0.

    Args:
        data: of the run; its keys that say how images are read are taken, those of its table are not.
        asked: the model.
        fitted: what its images are fitted by.
        source: as config.data.source, or the path of a folder of images.

    Raises:
        UserError: if it cannot be opened, or has no images.
    """
    split, name = _open(data, source)
    labels = np.zeros(len(split), np.int32)
    examples = Examples(split, np.arange(len(split)), fitted, skip_corrupt=True)
    examples.labels = labels
    if asked.several_labels:
        examples.labels = np.zeros((len(split), len(asked.labels)), np.uint8)
    return examples, name, cores() if data.threads is None else data.threads


def _open(data: DataConfig, source: str) -> tuple[Split, str]:
    kind, colon, rest = source.partition(":")
    folder = rest if kind == "folder" and colon else source
    path = Path(folder).expanduser()
    if os.path.isdir(path):
        return _files(path, data.white_level), "all"
    keys = replace(data, source=source, root=None, table=TableConfig(), validation=0.0, folds=None)
    try:
        found = open_undivided(keys)
    except UserError as error:
        raise UserError(f"--unlike {source}: {error}") from error
    name = "test" if "test" in found.splits else next(iter(found.splits))
    return found.splits[name], name


def _files(folder: Path, white_level: int) -> FileSplit:
    """Returns all images below a folder, in whatever folders they lie."""
    files = [str(file) for file in image_files([folder])]
    return FileSplit(str(folder), files, np.zeros(len(files), np.int32), white_level)
