"""Repositories of the Hugging Face Hub: fetching one, and reading what its own configuration says.

timm and transformers write different files; both are read here without either being installed.
"""

import errno
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxnets.errors import UserError
from jaxnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from jaxnets.pretrained.imagenet import class_names

_log = logging.getLogger(__name__)

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that a repository has
_CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
_TIMEOUT = 5.0  # seconds for the Hub's first answer; without a network the cache is what there is
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_LARGEST_JSON = 32 << 20  # bytes; ImageNet-21k's labels are 2 MB

_NAME = re.compile(r"(?P<name>\w[\w.-]*/\w([\w.-]*\w)?)(@(?P<revision>[\w.][\w./-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class HubRepository:
    """A repository's weights, and its configuration files as they are."""

    weights: Path  # in huggingface_hub's cache; the folder is the commit
    config: Mapping[str, Any] = field(default_factory=dict)  # config.json; empty where there is none
    preprocessor: Mapping[str, Any] = field(default_factory=dict)  # preprocessor_config.json, likewise


def fetch(repository: str) -> HubRepository:
    """Downloads a model repository's weights and configuration, and nothing else of it, into huggingface_hub's cache.

    The Hub is asked once what the repository holds now; where it does not answer within seconds, or with
    HF_HUB_OFFLINE=1, the cache answers. A commit that is in the cache is not asked for.

    Args:
        repository: `OWNER/REPO` or `OWNER/REPO@REVISION`, with or without `hf:` before it; the revision is a branch, a
            tag or a commit.

    Raises:
        UserError: if there is no such repository, it may not be read, it holds no weights, or it can neither be
            reached nor found in the cache.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    name, revision = _parse(repository)
    if _COMMIT.fullmatch(revision) and (found := _from_cache(name, revision)):
        return found
    try:
        return _download(name, revision)
    except UserError as error:
        if not (found := _from_cache(name, revision)):
            raise
        if not isinstance(error.__cause__, OfflineModeIsEnabled):
            commit = found.weights.parent.name
            _log.warning("hf:%s is taken from the cache (commit %s): %s", name, commit, error.__cause__ or error)
        return found


def architecture(config: Mapping[str, Any]) -> str | None:
    """Returns the name of the model that a config.json describes, None where that is none of ours for certain."""
    with _reading("network"):
        if "architecture" in config:
            return str(config["architecture"]) if _is_plain(config.get("model_args") or {}) else None
        if config.get("model_type") == "resnet":
            return _resnet(config)
        return _efficientnet(config) if config.get("model_type") == "efficientnet" else None


def labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Returns the names of the classes in their order; ImageNet's where there are 1,000 and they have no names."""
    with _reading("labels"):
        pretrained = config.get("pretrained_cfg") or config
        for key in ("id2label", "label_names", "labels"):
            named = config.get(key) or pretrained.get(key)
            if named:
                described = config.get("label_descriptions") or pretrained.get("label_descriptions") or {}
                return _in_order(named, described)
        return class_names() if config.get("num_classes", pretrained.get("num_classes")) == 1000 else None


def preprocess(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Preprocess | None:
    """Returns what a repository says about pictures; None, with a warning, where `Preprocess` cannot express it.

    Of timm's it is what `timm.data.resolve_data_config` gives a user: the size and crop of the training, not the
    larger ones that some weights are tested at. transformers' crop may lie one pixel further to the top and the left.
    """
    kind = str(preprocessor.get("image_processor_type") or preprocessor.get("feature_extractor_type") or "")
    with _reading("preprocessing"):
        if "architecture" in config:
            found, kind = _of_timm(config), "timm's"
        elif kind.startswith("ConvNext"):
            found = _of_convnext(preprocessor)
        elif kind.startswith("EfficientNet"):
            found = _of_efficientnet(preprocessor)
        else:
            found = None
    if found is None and kind:
        _log.warning("the repository's own preprocessing (%s) has no counterpart here: the model's usual is used", kind)
    return found


def _parse(repository: str) -> tuple[str, str]:
    match = _NAME.fullmatch(repository.removeprefix("hf:"))
    if not match or ".." in repository or "--" in match["name"]:
        raise UserError(
            f"a repository is hf:OWNER/REPO or hf:OWNER/REPO@REVISION (hf:timm/resnet18.a1_in1k), found {repository!r}"
        )
    return match["name"], match["revision"] or "main"


def _download(name: str, revision: str) -> HubRepository:
    from huggingface_hub import HfApi, hf_hub_download

    with _hub_errors(name, revision):
        listed = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT).siblings or []
    files = sorted(file.rfilename for file in listed)
    weights = next((file for file in _WEIGHTS if file in files), None)
    if weights is None:
        shown = ", ".join(files[:12]) + (f" and {len(files) - 12} more" if len(files) > 12 else "")
        raise UserError(f"hf:{name} holds none of {', '.join(_WEIGHTS)}: it holds {shown or 'no files'}")
    with _hub_errors(name, revision):
        path = Path(hf_hub_download(name, weights, revision=revision))
        for file in (_CONFIG, _PREPROCESSOR):
            if file in files:
                hf_hub_download(name, file, revision=path.parent.name)  # of the same commit
    return _open(path)


def _from_cache(name: str, revision: str) -> HubRepository | None:
    from huggingface_hub import try_to_load_from_cache

    for file in _WEIGHTS:
        path = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(path, str):
            return _open(Path(path))
    return None


def _open(weights: Path) -> HubRepository:
    return HubRepository(
        weights=weights,
        config=_read_json(weights.with_name(_CONFIG)),
        preprocessor=_read_json(weights.with_name(_PREPROCESSOR)),
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.stat().st_size > _LARGEST_JSON:
        raise UserError(f"{path} has more than {_LARGEST_JSON >> 20} MiB: it is no configuration")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it to download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, found {type(content).__name__}")
    return content


@contextmanager
def _hub_errors(name: str, revision: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into one message that says what to do."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{name}"
    token = "set HF_TOKEN to a token that may read it (or run hf auth login)"
    elsewhere = (
        f"get the weights from {page}/tree/{revision} on another machine (hf download {name} --local-dir FOLDER) "
        f"and give the file's path"
    )
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(f"{page} is gated: accept its terms there, and {token}") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"there is no {page}, or it is private: check the name, or {token}") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{page} has no revision {revision}: see {page}/tree/main for its branches and tags") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = token if status in (401, 403) else f"try again later, or {elsewhere}"
        raise UserError(f"{page} cannot be fetched (HTTP status {status}): {advice}") from error
    except errors.OfflineModeIsEnabled as error:
        raise UserError(
            f"hf:{name} is not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE forbids to fetch it: "
            f"unset it, or {elsewhere}"
        ) from error
    except Exception as error:  # whatever the HTTP library of this huggingface_hub raises: it has been three so far
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            raise UserError(
                f"hf:{name} cannot be written to the cache {constants.HF_HUB_CACHE} ({error.strerror}): "
                f"make room or permission for it, or set HF_HUB_CACHE to another folder"
            ) from error
        raise UserError(
            f"{page} cannot be reached ({error or type(error).__name__}), and hf:{name} is not in the cache "
            f"({constants.HF_HUB_CACHE}): check the network, or {elsewhere}"
        ) from error


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"the {what} in the repository's configuration cannot be read ({error!r}): "
            f"give the weights' file and the model's name instead"
        ) from error


def _is_plain(arguments: Mapping[str, Any]) -> bool:
    """Tells whether timm's arguments leave the named network as it is."""
    harmless = {"in_chans", "num_classes", "drop_rate", "drop_path_rate", "drop_block_rate"}
    return all(
        value is None or key in harmless or (key, value) == ("global_pool", "avg") for key, value in arguments.items()
    )


_RESNETS = {  # (layer_type, depths): name
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}


def _resnet(config: Mapping[str, Any]) -> str | None:
    layer = config.get("layer_type", "bottleneck")
    widths = [64, 128, 256, 512] if layer == "basic" else [256, 512, 1024, 2048]
    usual = {
        "hidden_sizes": widths,
        "embedding_size": 64,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    return _RESNETS.get((layer, tuple(config.get("depths", (3, 4, 6, 3))))) if _has(config, usual) else None


_EFFICIENTNETS = [  # (width, depth) of b0 … b8
    (1.0, 1.0),
    (1.0, 1.1),
    (1.1, 1.2),
    (1.2, 1.4),
    (1.4, 1.8),
    (1.6, 2.2),
    (1.8, 2.6),
    (2.0, 3.1),
    (2.2, 3.6),
]


def _efficientnet(config: Mapping[str, Any]) -> str | None:
    usual = {
        "depth_divisor": 8,
        "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
        "in_channels": [32, 16, 24, 40, 80, 112, 192],
        "out_channels": [16, 24, 40, 80, 112, 192, 320],
        "strides": [1, 2, 2, 2, 1, 2, 1],
        "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
        "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
        "squeeze_expansion_ratio": 0.25,
        "hidden_act": "swish",
        "pooling_type": "mean",
        "batch_norm_eps": 0.001,
    }
    scales = (config.get("width_coefficient", 2.0), config.get("depth_coefficient", 3.1))
    if scales not in _EFFICIENTNETS or not _has(config, usual) or not _pads_as_tensorflow(config, scales[1]):
        return None
    return f"tf_efficientnet_b{_EFFICIENTNETS.index(scales)}"


def _pads_as_tensorflow(config: Mapping[str, Any], depth: float) -> bool:
    """Tells whether the blocks that pad both sides are those whose input is odd, at the configuration's own size.

    transformers fixes each block's padding in its configuration; TensorFlow's SAME follows the size of the input.
    """
    size = config.get("image_size", 600)
    size = math.ceil((size if isinstance(size, int) else size[0]) / 2)  # after the stem
    odd, halving, block = set(), set(), 0
    for stride, repeats in zip((1, 2, 2, 2, 1, 2, 1), (1, 2, 2, 3, 3, 4, 1), strict=True):
        if stride == 2:
            halving.add(block)
            odd |= {block} if size % 2 else set()
        size = math.ceil(size / stride)
        block += math.ceil(depth * repeats)
    return halving & set(config.get("depthwise_padding", ())) == odd


def _has(config: Mapping[str, Any], usual: Mapping[str, Any]) -> bool:
    return all(config.get(key, value) == value for key, value in usual.items())


def _in_order(named: Mapping[str, str] | Sequence[str], described: Mapping[str, str]) -> tuple[str, ...]:
    names = {int(index): name for index, name in (named.items() if isinstance(named, Mapping) else enumerate(named))}
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"the classes are not numbered 0 to {len(names) - 1}")
    return tuple(str(described.get(names[index], names[index])) for index in range(len(names)))


def _of_timm(config: Mapping[str, Any]) -> Preprocess | None:
    # Older configurations have one level only.
    found = config.get("pretrained_cfg") or config
    channels, height, width = map(int, found.get("input_size") or (3, 224, 224))
    # timm takes any other mode for "center", and does not say so.
    mode = found.get("crop_mode") or "center"
    interpolation = found.get("interpolation") or "bicubic"
    mean, std = found.get("mean") or IMAGENET_MEAN, found.get("std") or IMAGENET_STD
    if len(mean) != len(std):
        raise ValueError(f"{len(mean)} means, {len(std)} deviations")
    if mode == "border" or interpolation not in _RESAMPLE.values() or channels not in (1, 3):
        return None
    return Preprocess(
        height=height,
        width=width,
        channels=len(mean),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        crop_fraction=float(found.get("crop_pct") or 0.875),
        interpolation=interpolation,
        keep_aspect=mode != "squash",
    ).for_channels(channels)


_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def _of_convnext(processor: Mapping[str, Any]) -> Preprocess | None:
    """transformers' ConvNextImageProcessor, which its ResNets use: from 384 pixels on nothing is cropped."""
    size = processor.get("size", 384)
    side = int(size["shortest_edge"] if isinstance(size, Mapping) else size)
    mean, std = _normalisation(processor)
    interpolation = _RESAMPLE.get(processor.get("resample", 3))
    if not processor.get("do_resize", True) or interpolation is None:
        return None
    return Preprocess(
        height=side,
        width=side,
        channels=3,
        mean=mean,
        std=std,
        crop_fraction=float(processor.get("crop_pct") or 224 / 256) if side < 384 else 1.0,
        interpolation=interpolation,
        keep_aspect=side < 384,
    )


def _of_efficientnet(processor: Mapping[str, Any]) -> Preprocess | None:
    """transformers' EfficientNetImageProcessor, which squeezes the picture and may divide by the deviation twice."""
    height, width = _sides(processor.get("size", 346))
    cropped = _sides(processor.get("crop_size", 289)) if processor.get("do_center_crop", False) else (height, width)
    mean, std = _normalisation(processor, twice=processor.get("include_top", True))
    interpolation = _RESAMPLE.get(processor.get("resample", 3))
    if not processor.get("do_resize", True) or interpolation is None:
        return None
    found = Preprocess(
        height=cropped[0],
        width=cropped[1],
        channels=3,
        mean=mean,
        std=std,
        crop_fraction=cropped[0] / height,
        interpolation=interpolation,
        keep_aspect=False,
    )
    # A crop that is larger than the picture is padded; one that leaves more above than beside has no fraction.
    return found if found.crop_fraction <= 1 and found.resized(height, width) == (height, width) else None


def _sides(size: Mapping[str, int] | int) -> tuple[int, int]:
    return (int(size["height"]), int(size["width"])) if isinstance(size, Mapping) else (int(size), int(size))


def _normalisation(processor: Mapping[str, Any], *, twice: bool = False) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and std, of pixels scaled to 0…1, that equal transformers' steps.

    They are p · 255 · factor − offset, then minus the mean and over the deviation, and over the deviation once more.
    """
    factor = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    offset = 1.0 if processor.get("do_rescale", True) and processor.get("rescale_offset", False) else 0.0
    mean, std = (_triple(processor.get(key, 0.5)) for key in ("image_mean", "image_std"))
    once = processor.get("do_normalize", True)
    return (
        tuple((offset + (m if once else 0.0)) / factor for m in mean),
        tuple((s if once else 1.0) * (s if twice else 1.0) / factor for s in std),
    )


def _triple(value: float | Sequence[float]) -> tuple[float, ...]:
    values = tuple(map(float, value)) if isinstance(value, Sequence) else (float(value),) * 3
    if len(values) != 3:
        raise ValueError(f"three channels are expected, found {len(values)}")
    return values
