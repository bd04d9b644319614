"""TensorFlow Datasets, downloaded, prepared and read without TensorFlow."""

import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt64

from jaxnets.config import DataConfig
from jaxnets.data.decode import decode_reduced
from jaxnets.data.sources.base import CorruptImage, Least, Reduced, Source, Split
from jaxnets.data.sources.names import hashes
from jaxnets.data.sources.without_tensorflow import without_tensorflow
from jaxnets.errors import UserError, nearest

if TYPE_CHECKING:
    import tensorflow_datasets

_BATCH = 1024  # records read at once when all labels are read
_INDEX = np.dtype([("label", "<i4"), ("identity", "<u8")])
_RETRIES = 4  # of a download: 3 s in all; TFDS's own ten take three minutes to find that there is no network


@dataclass(frozen=True)
class _Keys:
    """Names of the two features that a classifier needs."""

    image: str
    label: str


class RecordSplit:
    """The records of one split; random access from any thread."""

    groups: UInt64[np.ndarray, " n"] | None = None
    targets: UInt8[np.ndarray, "n classes"] | None = None

    def __init__(self, records: Sequence[bytes], keys: _Keys, name: str, classes: int, cache: Path | None) -> None:
        """Holds `records`, serialised tf.train.Example messages; `cache` is where the index is kept, if anywhere."""
        self._records, self._keys, self._name, self._classes, self._cache = records, keys, name, classes, cache

    def __len__(self) -> int:
        return len(self._records)

    @property
    def labels(self) -> Int32[np.ndarray, " n"]:
        """Class of each image; −1 where a builder says that it is unknown (test splits of contests)."""
        return self._index["label"]

    @property
    def identities(self) -> UInt64[np.ndarray, " n"]:
        """Hashes of the images' bytes."""
        return self._index["identity"]

    @cached_property
    def _index(self) -> np.ndarray:
        """Labels and identities, `[n]` of _INDEX.

        Labels lie beside the images, in the same records: all of them are read once, and what they say is then kept in
        a file.
        """
        if (cached := self._from_cache()) is not None:
            return cached
        index = np.empty(len(self), _INDEX)
        # An order of magnitude quicker than one by one; TFDS's type for its records does not show it.
        batched = self._records.__getitems__  # type: ignore[attr-defined]
        for start in range(0, len(self), _BATCH):
            numbers = range(start, min(start + _BATCH, len(self)))
            try:
                records = batched(numbers)
            except Exception as error:  # the reader's own
                raise UserError(f"{self._name} cannot be read: {error}; prepare the data set again") from error
            index["label"][start : start + _BATCH] = [self._label(*each) for each in zip(records, numbers, strict=True)]
            index["identity"][start : start + _BATCH] = hashes(map(self._stored, records))
        self._to_cache(index)
        return index

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        """Decodes one image; raises CorruptImage with its split and number."""
        return self.reduced(index, None).image

    def reduced(self, index: int, least: Least | None) -> Reduced:
        return decode_reduced(io.BytesIO(self.encoded(index)), self.name(index), least=least)

    def encoded(self, index: int) -> bytes:
        """Returns an image as it was encoded; raises CorruptImage with its split and number."""
        name = self.name(index)
        try:
            stored = self._stored(self._records[int(index)])
        except Exception as error:  # a damaged file: the reader's own errors and protobuf's
            raise CorruptImage(f"{name} cannot be read: {error}") from error
        if not stored:
            raise CorruptImage(f"{name} has no {self._keys.image!r}")
        return stored

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"

    def content_crc32(self, chosen: Int64[np.ndarray, " m"]) -> int:
        return 0

    def _stored(self, record: bytes) -> bytes:
        """Returns the image as it was encoded; nothing where a record has none."""
        return next(iter(_feature(record, self._keys.image).bytes_list.value), b"")

    def _label(self, record: bytes, index: int) -> int:
        values = _feature(record, self._keys.label).int64_list.value
        if len(values) != 1 or not -1 <= values[0] < self._classes:
            raise UserError(
                f"{self._name}[{index}] should have one label in 0 … {self._classes - 1} (−1 if unknown), found "
                f"{list(values)}: the files do not fit their description; prepare the data set again"
            )
        return values[0]

    def _from_cache(self) -> np.ndarray | None:
        if self._cache is None:
            return None
        try:
            index = np.load(self._cache, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        valid = index.shape == (len(self),) and index.dtype == _INDEX
        return index if valid and ((index["label"] >= -1) & (index["label"] < self._classes)).all() else None

    def _to_cache(self, index: np.ndarray) -> None:
        if self._cache is None:
            return
        partial = self._cache.with_suffix(f".{os.getpid()}.partial")
        with suppress(OSError):  # a read-only folder: the records are read again next time
            with open(partial, "wb") as file:
                np.save(file, index)
            os.replace(partial, self._cache)


def open_tfds(name: str, spec: DataConfig, known: Sequence[str] | None) -> Source:
    """Opens a TFDS data set; downloads and prepares it first where it is not there.

    The test split is "test" if its labels are known, else "validation"; where both have labels, "validation" is a split
    of its own. A builder of the user's own is found
    once it is imported, in the config file for example. EMNIST comes as TFDS has it, rows and columns exchanged.

    Args:
        name: as TFDS writes it, `mnist`, `cmaterdb/bangla`, `mnist:3.*.*`; or the folder of a prepared data set
            (`/data/mnist/3.0.1`), which needs no builder.
        spec: `directory` is where TFDS keeps its data; None: its own default (~/tensorflow_datasets).
        known: classes to evaluate on; the data set then needs no train split.

    Returns:
        The source; images are decoded when asked for.

    Raises:
        UserError: if TFDS is not installed or does not know the name, the data cannot be fetched or was prepared in a
            format that has no random access, or it has no images with a class.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"config.data.source tfds:{name} needs tensorflow-datasets: pip install tensorflow-datasets "
            f"importlib_resources array_record ({error})"
        ) from error
    with without_tensorflow() as asked:
        builder = _builder(tfds, name, spec.directory)
        _prepare(builder, name, asked)
    keys = _find_keys(tfds, builder, name)
    splits, unlabelled = _splits(tfds, builder, keys, name, needs_train=known is None)
    height, width, channels = builder.info.features[keys.image].shape
    return Source(
        description=f"tfds:{name}",
        class_names=tuple(builder.info.features[keys.label].names),
        splits=splits,
        image_size=None if height is None or width is None else (height, width),
        channels=1 if channels == 1 else 3,
        notes=tuple(f"passed over the {split} split of {name}: it has no labels" for split in unlabelled),
    )


def _builder(tfds: Any, name: str, directory: str | None) -> "tensorflow_datasets.core.DatasetBuilder":
    path = Path(name).expanduser()
    if name.startswith(("/", "~", ".")) or (path / "features.json").is_file():
        if not (path / "features.json").is_file():
            below = sorted(str(found.parent) for depth in ("*", "*/*") for found in path.glob(f"{depth}/features.json"))
            raise UserError(
                f"{path} is not a prepared TFDS data set: expected dataset_info.json and features.json in it"
                + (f"; {below[-1]} has them" if below else "")
            )
        try:
            return tfds.builder_from_directory(path)
        except Exception as error:  # whatever its JSON parsers and file readers raise
            raise UserError(f"{path} cannot be opened as a prepared TFDS data set: {_shown(error)}") from error
    try:
        return tfds.builder(name, data_dir=None if directory is None else str(Path(directory).expanduser()))
    except tfds.core.DatasetNotFoundError:
        plain = name.split("/")[0].split(":")[0]
        known = tfds.list_builders(with_community_datasets=False)
        raise UserError(
            f"TFDS has no data set {plain!r}{nearest(plain, known)}: expected a name of its catalogue "
            f"(https://www.tensorflow.org/datasets/catalog), the folder of a prepared data set, or a builder of your "
            f"own that is imported in the config file"
        ) from None
    except (ValueError, AssertionError, ImportError, RuntimeError) as error:  # a config or a version that is not there
        raise UserError(f"TFDS cannot open {name!r}: {_shown(error)}") from error


def _prepare(builder: Any, name: str, asked: list[str]) -> None:
    """Downloads and prepares, in a format with random access, unless that has been done."""
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    if builder.data_path.exists():
        return
    config = tfds.download.DownloadConfig(try_download_gcs=False)  # which has TFRecord files only
    try:
        with _fewer_retries():
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except Exception as error:
        if asked:
            raise UserError(
                f"the builder of {name} uses {asked[-1]}, which needs TensorFlow: prepare it once where TensorFlow is "
                f"installed (tfds build {name} --file_format=array_record) and put the result into "
                f"{builder.data_path}"
            ) from error
        if isinstance(error, (requests.RequestException, tfds.download.DownloadError, ConnectionError, TimeoutError)):
            raise UserError(
                f"{name} is not in {builder.data_path}, and it cannot be downloaded: {_reason(error)}. Give this "
                f"machine a network, or prepare it elsewhere and put the result into that folder"
            ) from error
        if isinstance(error, (ImportError, AssertionError, OSError, NonMatchingChecksumError)):
            # In turn: a package that this builder wants, files to fetch by hand, the disk, a changed download.
            raise UserError(f"{name} cannot be prepared in {builder.data_path}: {error}") from error
        raise


@contextmanager
def _fewer_retries() -> Iterator[None]:
    """Lets a download fail within seconds, and quietly: its error says all that forty warnings would."""
    from tensorflow_datasets.core.download import downloader

    log = logging.getLogger("urllib3.connectionpool")
    level, retries = log.level, getattr(downloader, "MAX_RETRIES", None)
    log.setLevel(logging.ERROR)
    if retries is not None:
        downloader.MAX_RETRIES = _RETRIES
    try:
        yield
    finally:
        log.setLevel(level)
        if retries is not None:
            downloader.MAX_RETRIES = retries


def _find_keys(tfds: Any, builder: Any, name: str) -> _Keys:
    features = dict(builder.info.features.items()) if hasattr(builder.info.features, "items") else {}
    images = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if not images or not labels:
        found = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
        missing = "image (Image)" if not images else "class (ClassLabel)"
        raise UserError(f"{name} has no {missing} among its features, so it cannot train a classifier; it has {found}")
    # What the builder calls input and target, else the usual names, else the first.
    supervised = tuple(builder.info.supervised_keys or ())
    image = next(key for key in (*supervised, "image", *images) if key in images)
    label = next(key for key in (*supervised, "label", *labels) if key in labels)
    if features[image].np_dtype != np.uint8:
        raise UserError(f"the images of {name} must be uint8, found {np.dtype(features[image].np_dtype)}")
    return _Keys(image, label)


def _splits(
    tfds: Any, builder: Any, keys: _Keys, name: str, *, needs_train: bool
) -> tuple[dict[str, Split], list[str]]:
    """Returns the splits with labels, and the names of those without."""
    present = {split: info for split, info in builder.info.splits.items() if info.num_examples}
    if "train" not in present and needs_train:
        raise UserError(f"{name} has no train split; it has {', '.join(present) or 'none'}")
    classes = builder.info.features[keys.label].num_classes

    def records(split: str) -> RecordSplit:
        cache = Path(os.fspath(builder.data_path)) / f"jaxnets-index-{split}-{int(present[split].num_bytes)}.npy"
        try:
            source = builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        except NotImplementedError:
            formats = ", ".join(sorted(each.value for each in builder.info.available_file_formats()))
            raise UserError(
                f"{name} is prepared in {builder.data_path} as {formats}, which cannot be read in any order without "
                f"TensorFlow: set config.data.directory to another folder, and it is prepared there as array_record; "
                f"TFRecords are read as they are with config.data.source=tfrecord:{builder.data_path}"
            ) from None
        return RecordSplit(source, keys, f"{name}/{split}", classes, cache)

    named = {split: records(split) for split in ("train", "test", "validation") if split in present}
    labelled: dict[str, Split] = {split: part for split, part in named.items() if (part.labels >= 0).all()}
    if needs_train and "train" not in labelled:
        raise UserError(f"the train split of {name} has images without a label, so it cannot train a classifier")
    if not labelled:
        raise UserError(f"{name} has no split whose images all have a label; it has {', '.join(present) or 'none'}")
    unlabelled = [split for split in named if split not in labelled]
    if "test" not in labelled and "validation" in labelled:
        labelled["test"] = labelled.pop("validation")
    return labelled, unlabelled


def _feature(record: bytes, key: str) -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(bytes(record)).features.feature[key]


def _reason(error: Exception) -> str:
    """Returns the innermost cause, which is the one that a person understands, and what was asked for."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    url = getattr(getattr(error, "request", None), "url", None)
    return _shown(cause) + (f" ({url})" if url else "")


def _shown(error: BaseException) -> str:
    """Returns the message without TFDS's lists and paragraphs: they run to hundreds of lines."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 500 else text[:500] + " …"
