"""What of a run may be told to everybody: what it was trained on and how, and no path of the machine that it ran on."""

import re
from dataclasses import dataclass
from typing import Any

from jaxnets.config import Config
from jaxnets.schema import flatten

_KINDS = {
    "folder": "a folder of images for each class",
    "list": "a list of images with their classes",
    "idx": "files in the IDX format",
    "csv": "a table (CSV) of images with their classes",
    "parquet": "Parquet files",
    "tar": "tar archives",
    "tfrecord": "TFRecords",
    "prepared": "images that jaxnets had prepared",
    "hf": "a data set of the Hugging Face Hub",
    "tfds": "a data set of TensorFlow Datasets",
    "digits": "handwritten digits of 8×8 pixels, which come with scikit-learn (`load_digits`)",
}
# Keys that say where a run lay and how it was carried out, and nothing of what came of it.
_OF_THE_MACHINE = (
    *("distributed.", "mesh.", "profile_steps", "max_hours", "hang_minutes", "keep_checkpoints", "drawings"),
    *("checkpoint_every_steps", "log_every_steps", "eval_batch_size", "data.source", "data.root", "data.directory"),
    *("data.threads", "data.placement", "data.device_limit_mib", "data.cut", "distill.teacher_weights"),
)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class PublicSource:
    """A source of images, as somebody else may know it."""

    name: str  # what it is called: a data set's name, or the last component of a path
    kind: str  # in words
    hub_id: str | None = None  # of a data set on the Hugging Face Hub
    hub_config: str | None = None
    hub_revision: str | None = None


def public_source(source: str) -> PublicSource:
    """Returns what config.data.source may be called outside of this machine."""
    kind, _, location = source.partition(":")
    words = _KINDS.get(kind, kind)
    if not location:
        return PublicSource(kind, words)
    if kind == "hf" and not location.startswith(("/", "~", ".")):
        name, _, revision = location.partition("@")
        hub_id, _, hub_config = name.partition(":")
        if _HUB_ID.fullmatch(hub_id):
            return PublicSource(hub_id, words, hub_id, hub_config or None, revision or None)
    if kind == "tfds" and not location.startswith(("/", "~", ".")):
        return PublicSource(location, words)
    return PublicSource(last_component(location), words if kind != "hf" else "files in the format of Hugging Face")


def public_settings(config: Config) -> dict[str, Any]:
    """Returns the keys of the config that differ from the defaults and are of the training, without paths."""
    defaults = flatten(Config())
    return {
        key: without_paths(value)
        for key, value in flatten(config).items()
        if value != defaults[key] and not key.startswith(_OF_THE_MACHINE)
    }


def without_paths(value: Any) -> Any:
    """Returns a value in which the last component stands for each path; a repository of the Hub keeps its owner."""
    if isinstance(value, tuple | list):
        return type(value)(without_paths(each) for each in value)
    if not isinstance(value, str) or re.fullmatch(r"([\w.=-]+[=@])?hf:[\w./@:-]+", value, re.ASCII):
        return value
    return last_component(value)


def last_component(path: str) -> str:
    parts = [part for part in re.split(r"[\\/]+", path) if part not in ("", ".", "..", "~")]
    return parts[-1] if parts else "unnamed"
