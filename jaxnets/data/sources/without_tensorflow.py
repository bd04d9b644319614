"""Preparing a TFDS data set where there is no TensorFlow.

TFDS reads without TensorFlow and, on paper, prepares without it. In practice a builder such as MNIST opens its files
with `tf.io.gfile.GFile`, TFDS itself unpacks a .gz and sorts a large data set with it, and images that a builder
yields as arrays are encoded by `tf.image.encode_png`. Those are a dozen functions of TensorFlow's public interface.
TFDS and its builders all reach them through one lazily resolved module, so that one replacement, made for the time of
the preparation, serves them all. `sys.modules` is left alone: nobody else ever sees it.
"""

import functools
import glob
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from PIL import Image

from jaxnets.errors import UserError


class _Missing(AttributeError):
    """Something of TensorFlow that has no replacement."""


class _Namespace:
    """Some of a TensorFlow module; asked for anything else, it notes what that was and refuses."""

    def __init__(self, name: str, asked: list[str], members: dict[str, Any]) -> None:
        self._name, self._asked = name, asked
        vars(self).update(members)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._asked.append(f"{self._name}.{name}")
        raise _Missing(f"{self._name}.{name} needs TensorFlow, which is not used here")


class _Errors:
    """`tf.errors`: each is a class that nothing here raises, so that `except tf.errors.X` is passed over."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})


class _Tensor(np.ndarray):
    """Decoded pixels as builders treat an eager tensor: they slice it, hand it on, or ask for its array."""

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


class _Text(bytes):
    """An encoded image, likewise."""

    def numpy(self) -> bytes:
        return bytes(self)


@contextmanager
def without_tensorflow() -> Iterator[list[str]]:
    """Lends TFDS what it and its builders need of TensorFlow for as long as the context lasts.

    Does nothing where this process has loaded TensorFlow already.

    Yields:
        A list that grows by the name of whatever is asked for and has no replacement ("tf.one_hot"), which explains an
        error that follows.

    Raises:
        UserError: if this version of TFDS reaches TensorFlow in another way.
    """
    asked: list[str] = []
    try:
        from tensorflow_datasets.core.utils import lazy_imports_utils

        lazy = lazy_imports_utils.tensorflow
        resolved = vars(type(lazy))["_module"]
    except (ImportError, AttributeError, KeyError, TypeError):
        resolved = lazy = None
    if not isinstance(resolved, functools.cached_property):
        from importlib.metadata import version

        raise UserError(
            f"jaxnets cannot stand in for TensorFlow in tensorflow-datasets {version('tensorflow-datasets')}: prepare "
            f"the data set with TensorFlow once (tfds build NAME --file_format=array_record), or install version 4.9.10"
        )
    # A cached property keeps its value in the instance's dictionary under its own name: what is there is resolved.
    cache = vars(lazy)
    if "_module" in cache or "tensorflow" in sys.modules:  # TFDS looks there too, and then wants all of it
        yield asked
        return
    cache["_module"] = _tensorflow(asked)
    try:
        yield asked
    finally:
        del cache["_module"]


def _tensorflow(asked: list[str]) -> _Namespace:
    def namespace(name: str, **members: Any) -> _Namespace:
        return _Namespace(name, asked, members)

    images: dict[str, Callable[..., _Tensor | _Text]] = {
        "encode_png": _encode_png,
        "encode_jpeg": _encode_jpeg,
        "decode_image": _decode,
        "decode_png": _decode,
        "decode_jpeg": _decode,
    }
    gfile = namespace(
        "tf.io.gfile",
        GFile=_gfile,
        exists=os.path.exists,
        isdir=os.path.isdir,
        listdir=os.listdir,
        glob=_glob,
        walk=os.walk,
        makedirs=lambda path: os.makedirs(path, exist_ok=True),
        mkdir=os.mkdir,
        copy=_copy,
        rename=_rename,
        remove=os.remove,
        rmtree=shutil.rmtree,
    )
    return namespace(
        "tf",
        __version__="2.99.0",
        errors=_Errors(),
        executing_eagerly=lambda: True,
        shape=np.shape,
        image=namespace("tf.image", **images),
        io=namespace("tf.io", gfile=gfile, **images),
        compat=namespace("tf.compat", as_text=_as_text, as_str=_as_text, as_bytes=_as_bytes),
    )


def _gfile(name: str, mode: str = "r") -> IO[Any]:
    return open(name, mode, encoding=None if "b" in mode else "utf-8")


def _glob(pattern: str | list[str]) -> list[str]:
    patterns = [pattern] if isinstance(pattern, str | os.PathLike) else pattern
    return sorted(path for each in patterns for path in glob.glob(os.fspath(each)))


def _copy(source: str, target: str, overwrite: bool = False) -> None:
    _refuse_existing(target, overwrite)
    shutil.copyfile(source, target)


def _rename(source: str, target: str, overwrite: bool = False) -> None:
    _refuse_existing(target, overwrite)
    os.replace(source, target)


def _refuse_existing(target: str, overwrite: bool) -> None:
    if not overwrite and os.path.exists(target):
        raise FileExistsError(target)


def _as_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _encode_png(image: np.ndarray) -> _Text:
    """Encodes uint8 `[h, w, 1…4]` or uint16 `[h, w, 1]`, without loss."""
    image = np.asarray(image)
    if image.ndim != 3 or not (image.dtype == np.uint8 or (image.dtype == np.uint16 and image.shape[2] == 1)):
        raise ValueError(
            f"a PNG is written from uint8 [h, w, c] or uint16 [h, w, 1], found {image.dtype} {image.shape}"
        )
    return _save(image, format="PNG")


def _encode_jpeg(image: np.ndarray, format: str = "", quality: int = 95) -> _Text:
    """Encodes uint8 `[h, w, 1 or 3]`; the quality is TensorFlow's default."""
    image = np.asarray(image)
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[2] not in (1, 3):
        raise ValueError(f"a JPEG is written from uint8 [h, w, 1 or 3], found {image.dtype} {image.shape}")
    return _save(image, format="JPEG", quality=quality)


def _save(image: np.ndarray, **options: Any) -> _Text:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, **options)
    return _Text(buffer.getvalue())


def _decode(contents: bytes, channels: int = 0) -> _Tensor:
    """Decodes to uint8 `[h, w, c]`; channels 0 keeps the image's own, CMYK becoming RGB as in TensorFlow."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    with Image.open(io.BytesIO(contents)) as image:
        if mode is None:
            mode = image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB"
        pixels = np.array(image.convert(mode))
    return (pixels[..., None] if pixels.ndim == 2 else pixels).view(_Tensor)
