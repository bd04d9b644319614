"""Small data sets, prepared."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from jaxnets.config import DataConfig
from jaxnets.data.sources import open_undivided
from jaxnets.data.sources.base import Source
from jaxnets.prepare.progress import Progress
from jaxnets.prepare.run import Outcome, describe, prepare

SMALL = 2000  # bytes of a shard: a few images of the sizes used here


def photographs(root: Path, *, test: int = 3, train: int = 7) -> Path:
    """Makes a folder of two classes whose images differ in content and size, JPEG and PNG."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                size = random.integers(20, 40, 2)
                pixels = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8)).resize(size.tolist())
                pixels.save(root / split / name / f"{number}.{'jpg' if number % 2 else 'png'}")
    return root


def silent() -> Progress:
    return Progress(Console(file=io.StringIO(), markup=False))


def opened(folder: Path) -> Source:
    return open_undivided(DataConfig(source=f"folder:{folder}"))


def prepared(
    folder: Path | Source,
    out: Path,
    size: tuple[int, int] = (16, 16),
    *,
    jpeg: int | None = None,
    spec: DataConfig | None = None,
    shard_bytes: int = SMALL,
    progress: Progress | None = None,
    **options,
) -> Outcome:
    source = opened(folder) if isinstance(folder, Path) else folder
    index = describe(source, spec or DataConfig(), size, jpeg, shard_bytes)
    return prepare(source, index, out, progress or silent(), threads=2, **options)


def content(out: Path) -> dict[str, bytes]:
    """Returns every file of a prepared data set by its name."""
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}
