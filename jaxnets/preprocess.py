"""What a picture goes through before a model, in one place for training, evaluation, prediction and export."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The way from a picture of any size to a model's input; part of the model's identity and saved with it.

    `fit` runs on the host and keeps uint8, `normalise` runs on the device.
    """

    height: int  # pixels
    width: int  # pixels
    channels: int  # 1 (grey) or 3 (RGB)
    mean: tuple[float, ...]  # per channel, of pixels scaled to 0…1
    std: tuple[float, ...]  # likewise
    crop_fraction: float = 1.0  # of the resized picture, kept by the centre crop
    interpolation: str = "bilinear"

    def fit(self, picture: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "height width channels"]:
        """Resizes so that the centre crop covers the picture's shorter side, crops, and converts the channels.

        Args:
            picture: uint8, `[h, w]`, or `[h, w, c]` with c = 1 (grey), 3 (RGB) or 4 (RGB and alpha, which is laid
                over white).

        Raises:
            ValueError: if the picture has another shape or dtype.
        """
        picture = self._with_channels(picture)
        if picture.shape[:2] == (self.height, self.width) and self.crop_fraction == 1.0:
            return picture
        scale = max(
            self.height / self.crop_fraction / picture.shape[0], self.width / self.crop_fraction / picture.shape[1]
        )
        height = max(round(picture.shape[0] * scale), self.height)
        width = max(round(picture.shape[1] * scale), self.width)
        image = Image.fromarray(picture[..., 0] if self.channels == 1 else picture)
        top, left = (height - self.height) // 2, (width - self.width) // 2
        # The crop's own pixels alone are computed, the same as those of the whole resized picture: a long thin picture
        # would fill the memory.
        down, across = picture.shape[0] / height, picture.shape[1] / width
        box = (left * across, top * down, (left + self.width) * across, (top + self.height) * down)
        cropped = image.resize((self.width, self.height), _FILTERS[self.interpolation], box=box)
        return np.asarray(cropped).reshape(self.height, self.width, self.channels)

    def normalise(self, image: UInt8[Array, "b h w c"], dtype: Any) -> Float[Array, "b h w c"]:
        """Returns (image / 255 − mean) / std, computed in float32 or wider and then cast to `dtype`."""
        wide = jnp.promote_types(dtype, jnp.float32)
        scale = jnp.asarray([1 / (255 * s) for s in self.std], wide)
        offset = jnp.asarray([m / s for m, s in zip(self.mean, self.std, strict=True)], wide)
        return (image.astype(wide) * scale - offset).astype(dtype)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Preprocess":
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()
        }
        return cls(**fields)

    def _with_channels(self, picture: np.ndarray) -> np.ndarray:
        if picture.ndim == 2:
            picture = picture[..., None]
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or not picture.size:
            raise ValueError(
                f"a picture is uint8 [h, w] or [h, w, 1, 3 or 4] and not empty, found {picture.dtype} {picture.shape}"
            )
        if picture.shape[2] == 4:
            white = Image.new("RGBA", picture.shape[1::-1], "white")
            picture = np.asarray(Image.alpha_composite(white, Image.fromarray(picture, "RGBA")).convert("RGB"))
        if picture.shape[2] == self.channels:
            return picture
        if self.channels == 3:
            return np.repeat(picture, 3, axis=2)
        return np.asarray(Image.fromarray(picture, "RGB").convert("L"))[..., None]
