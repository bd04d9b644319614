"""An audit's thumbnails, and sheets of them."""

from PIL import Image

from jaxnets.audit.album import Album
from jaxnets.audit.finding import Finding
from jaxnets.data.sources import CorruptImage
from jaxnets.sheet import Caption, grid, thumbnail
from jaxnets.sheet import data_uri as data_uri  # for a page beside these


class Thumbnails:
    """Thumbnails of an album's images, each read once."""

    def __init__(self, album: Album) -> None:
        self._album, self._kept = album, dict[int, Image.Image | None]()

    def get(self, example: int) -> Image.Image | None:
        """Returns an image's thumbnail, None where it cannot be read."""
        if example not in self._kept:
            try:
                size = int(self._album.height[example]), int(self._album.width[example])
                self._kept[example] = thumbnail(self._album.image(example), size)
            except CorruptImage:
                self._kept[example] = None
        return self._kept[example]


def of_finding(finding: Finding, album: Album, thumbnails: Thumbnails, most: int) -> Image.Image | None:
    """Returns a sheet of a finding's images, at most so many; None where none can be read."""
    cells: list[tuple[Image.Image, Caption]] = []
    for number, case in enumerate(finding.cases, 1):
        for example in case.examples:
            image = thumbnails.get(example)
            if image is not None and len(cells) < most:
                tie = f"{number}. " if len(case.examples) > 1 else ""
                where = f"{album.split_name(example)} · {album.label_text(example)}"
                cells.append((image, (f"{tie}{case.text}", where, album.name(example))))
    return grid(cells, finding.title) if cells else None
