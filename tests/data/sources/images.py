"""Small folders of images."""

import io
import os
from pathlib import Path

from PIL import Image


def fill(folder: Path | str, count: int = 2, size: tuple[int, int] = (8, 6), mode: str = "RGB", suffix: str = ".png"):
    """Puts images called 0, 1, … into a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = io.BytesIO()
        kind = suffix.lower() if suffix.lower() in Image.registered_extensions() else ".png"
        Image.new(mode, size, number).save(image, Image.registered_extensions()[kind])
        (folder / f"{number}{suffix}").write_bytes(image.getvalue())


def tree(root: Path, *folders: str, **options) -> Path:
    """Makes folders with images in them below a root: `a/cat*3` has three, `a/cat` two, `a/` none."""
    for folder in folders:
        name, _, count = folder.partition("*")
        if name.endswith("/"):
            os.makedirs(root / name)
        else:
            fill(root / name, int(count or 2), **options)
    return root
