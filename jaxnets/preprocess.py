"""What an image goes through before a model, in one place for training, evaluation, prediction and export."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from jaxnets.dtypes import widest

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
Fitting = Literal["crop", "pad", "squeeze"]
_SUPPORT = 3  # pixels to each side of the centre that the widest filter, Lanczos, reads; of the smaller image

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # per channel, of pixels scaled to 0…1
IMAGENET_STD = (0.229, 0.224, 0.225)  # likewise


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The way from an image of any size to a model's input; part of the model's identity and saved with it.

    `fit` runs on the host and keeps uint8, `normalise` runs on the device.
    """

    height: int  # pixels
    width: int  # pixels
    channels: int  # 1 (grey) or 3 (RGB)
    mean: tuple[float, ...]  # per channel, of pixels scaled to 0…1
    std: tuple[float, ...]  # likewise
    crop_fraction: float = 1.0  # of the resized image, kept by the centre crop
    interpolation: str = "bilinear"
    white_level: int = 65535  # value that becomes white in a grey image file of 16 bits
    # crop: the shorter side is fitted and the centre cropped; pad: the longer side is fitted, and the rest filled with
    # the mean colour (letterbox); squeeze: the whole image is brought to the model's shape, whatever its aspect.
    fitting: Fitting = "crop"

    def fit(
        self, image: np.ndarray, original: tuple[int, int] | None = None
    ) -> UInt8[np.ndarray, "height width channels"]:
        """Resizes, crops the centre or pads, and converts the channels, as torchvision's and timm's evaluations do.

        The image is resized to `resized` by Pillow's antialiased filters; one that already has the model's size stays
        as it is where nothing is cropped. What it does not cover has the mean colour (timm's crop mode "border").

        Args:
            image: uint8, `[h, w]`, or `[h, w, c]` with c = 1 (grey), 3 (RGB) or 4 (RGB and alpha, which is laid
                over white).
            original: height and width that an image had before it was squeezed to another shape, in whose geometry it
                is then fitted.

        Raises:
            ValueError: if the image has another shape or dtype.
        """
        image = with_channels(image, self.channels)
        height, width = self.resized(*(original or image.shape[:2]))
        if self.keeps(image.shape) and (height, width) == image.shape[:2]:
            return image
        rows, columns = min(height, self.height), min(width, self.width)
        cut = self._resize_and_crop(image, (height, width), (rows, columns))
        if (rows, columns) == (self.height, self.width):
            return cut
        padded = np.empty((self.height, self.width, self.channels), np.uint8)
        padded[:] = self.fill
        top, left = (self.height - rows) // 2, (self.width - columns) // 2
        padded[top : top + rows, left : left + columns] = cut
        return padded

    def _resize_and_crop(
        self, image: UInt8[np.ndarray, "h w c"], resized: tuple[int, int], crop: tuple[int, int]
    ) -> UInt8[np.ndarray, "h2 w2 c"]:
        """Returns the centre of `crop` pixels of the image resized to `resized`, both height and width."""
        (height, width), (crop_height, crop_width) = resized, crop
        top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
        if self.interpolation == "nearest":
            y = _nearest(image.shape[0], height)[top : top + crop_height]
            x = _nearest(image.shape[1], width)[left : left + crop_width]
            return image[y[:, None], x]
        # Across first, then down, each rounded to uint8: left to itself, Pillow 13 turns this order round for tall
        # images, where earlier versions and PyTorch do not. The rows and columns that the crop loses are left out as
        # early as can be: resized whole, a long thin image would fill the memory.
        rows = _side(image.shape[0], height, top, crop_height)
        columns = _side(image.shape[1], width, left, crop_width)
        region = image[rows.sources, columns.sources]
        resizing = Image.fromarray(region[..., 0] if self.channels == 1 else region)
        method = _FILTERS[self.interpolation]
        across = (columns.first, 0, columns.last, resizing.height)
        resizing = resizing.resize((columns.resized, resizing.height), method, box=across)
        resizing = resizing.crop((columns.skipped, 0, columns.skipped + crop_width, resizing.height))
        down = (0, rows.first, crop_width, rows.last)
        resizing = resizing.resize((crop_width, rows.resized), method, box=down)
        resizing = resizing.crop((0, rows.skipped, crop_width, rows.skipped + crop_height))
        return np.asarray(resizing).reshape(crop_height, crop_width, self.channels)

    @property
    def fill(self) -> tuple[int, ...]:
        """The colour of what a padded image does not cover, 0 … 255 per channel: the mean."""
        return tuple(min(max(round(255 * mean), 0), 255) for mean in self.mean)

    def keeps(self, shape: tuple[int, ...]) -> bool:
        """Tells whether `fit` leaves images of this shape as they are."""
        return shape == (self.height, self.width, self.channels) and self.crop_fraction == 1.0

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width that an image of this height and width is resized to, before the crop.

        They are the model's sides over the crop fraction, rounded down; where the aspect is kept, one of the image's
        sides gets that length and the other is as long or longer, or where it is padded, as long or shorter.
        """
        rows, columns = self.resized_sides
        if self.fitting == "squeeze":
            return rows, columns
        if self.fitting == "pad":
            ratio = max(height / rows, width / columns)
            return max(round(height / ratio), 1), max(round(width / ratio), 1)
        rounded = math.floor if rows == columns else round  # as torchvision does for squares, timm for other shapes
        if height * columns <= width * rows:
            return rows, rounded(rows * width / height)
        return rounded(columns * height / width), columns

    @property
    def resized_sides(self) -> tuple[int, int]:
        """The height and width that an image of the model's own aspect is resized to, before the crop."""
        # A crop of 40 from 53 is written as 40 / 53, and 40 / (40 / 53) is a little less than 53.
        rows, columns = (math.floor(side / self.crop_fraction + 1e-6) for side in (self.height, self.width))
        return rows, columns

    def region(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Returns what the model sees of an image of this height and width: top, left, bottom, right in its pixels."""
        rows, columns = self.resized(height, width)
        top, left = round((rows - self.height) / 2), round((columns - self.width) / 2)
        down, across = height / rows, width / columns
        return (
            round(top * down),
            round(left * across),
            max(round((top + self.height) * down), round(top * down) + 1),
            max(round((left + self.width) * across), round(left * across) + 1),
        )

    def normalise(self, image: UInt8[Array, "b h w c"], dtype: Any) -> Float[Array, "b h w c"]:
        """Returns (image / 255 − mean) / std, computed in float32 or wider and then cast to `dtype`."""
        wide = widest(dtype)
        scale, offset = (jnp.asarray(numbers, wide) for numbers in self.scale_and_offset())
        return (image.astype(wide) * scale - offset).astype(dtype)

    def scale_and_offset(self) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
        """Returns what `normalise` multiplies each channel by, and what it then subtracts."""
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return 1 / (255 * std), mean / std

    def for_channels(self, channels: int) -> "Preprocess":
        """Returns the same for grey (1) or RGB (3) images; another number's mean and deviation are the average.

        Raises:
            ValueError: for another number of channels, of which images nothing is known.
        """
        if channels == self.channels:
            return self
        if channels not in (1, 3):
            raise ValueError(f"images have 1 channel (grey) or 3 (RGB), found {channels}")
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return dataclasses.replace(self, channels=channels, mean=(mean,) * channels, std=(std,) * channels)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Preprocess":
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()
        }
        if not fields.pop("keep_aspect", True):  # as it was called until format 2
            fields["fitting"] = "squeeze"
        return cls(**fields)


def with_channels(image: np.ndarray, channels: int) -> UInt8[np.ndarray, "h w channels"]:
    """Returns an image as grey (1) or RGB (3): grey is repeated, colours become their luma, alpha lies over white.

    Raises:
        ValueError: if it is no uint8 image `[h, w]`, or `[h, w, c]` with c = 1, 3 or 4.
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise ValueError(
            f"an image is uint8 [h, w] or [h, w, 1, 3 or 4] and not empty, found {image.dtype} {image.shape}"
        )
    if image.shape[2] == 4:
        white = Image.new("RGBA", image.shape[1::-1], "white")
        image = np.asarray(Image.alpha_composite(white, Image.fromarray(image, "RGBA")).convert("RGB"))
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return np.asarray(Image.fromarray(image, "RGB").convert("L"))[..., None]


def _nearest(length: int, resized: int) -> np.ndarray:
    """Returns the pixel of a side that Pillow takes for each of its resized pixels, whichever way it rounds."""
    side = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    return np.asarray(side.resize((resized, 1), Image.Resampling.NEAREST))[0]


class _Side(NamedTuple):
    """How one side of an image is resized: pixels `first` to `last` of `sources` become `resized` pixels."""

    sources: slice
    first: float  # in the slice
    last: float
    resized: int
    skipped: int  # of the resized pixels, before the crop


def _side(length: int, resized: int, start: int, count: int) -> _Side:
    """Returns how a side gets the `count` pixels from `start` on of its `resized` ones.

    A side that is not much longer than the crop is resized whole, which is exact to the bit. Of a longer one, the
    crop's pixels alone are computed, exact but for a rounding here and there: Pillow holds their box in float32.
    """
    if resized <= 2 * count:
        return _Side(slice(0, length), 0, length, resized, start)
    scale = length / resized
    margin = math.ceil(_SUPPORT * max(scale, 1)) + 1
    low = max(math.floor(start * scale) - margin, 0)
    high = min(math.ceil((start + count) * scale) + margin, length)
    return _Side(slice(low, high), start * scale - low, min((start + count) * scale, high) - low, count, 0)
