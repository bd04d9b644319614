"""Vision transformers in the files of other libraries: under which keys, and how they are described."""

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from jaxnets.errors import UserError
from jaxnets.models.conventions import imagenet
from jaxnets.models.family import (
    Described,
    InTimm,
    Keys,
    Layout,
    Path,
    Published,
    Stored,
    block_numbers,
    differences,
)
from jaxnets.models.vit.network import ViT
from jaxnets.models.vit.variants import ENTRIES, SIZES
from jaxnets.preprocess import Preprocess


def _number(model: ViT, block: str) -> int:
    """Returns a block's number among all, from 0."""
    stage, own = block_numbers(block)
    return sum(model.blocks[: stage - 1]) + own - 1


_TIMM = {
    "stem_conv": "patch_embed.proj",
    "class_token": "cls_token",
    "position": "pos_embed",
    "head": "head",
    "attention/qkv": "attn.qkv",
    "attention/out": "attn.proj",
    "mlp1": "mlp.fc1",
    "mlp2": "mlp.fc2",
}


def _timm(model: ViT, path: Path) -> Keys:
    if path[0] == "last_norm":
        return "fc_norm" if model.norm_after_pool else "norm"
    if path[0] in _TIMM:
        return _TIMM[path[0]]
    layer = "/".join(path[1:])
    return f"blocks.{_number(model, path[0])}.{_TIMM.get(layer, layer)}"


def _timm_parameter(model: ViT, path: Path, shape: tuple[int, ...]) -> Stored | None:
    if path[1:] and path[1] in ("scale1", "scale2"):
        return Stored(key=f"blocks.{_number(model, path[0])}.ls{path[1][-1]}.gamma", shape=shape)
    return _embedding(_TIMM, path, shape)


def _embedding(keys: Mapping[str, str], path: Path, shape: tuple[int, ...]) -> Stored | None:
    """Returns where the class token and the position embeddings are, which belong to no layer elsewhere."""
    return Stored(key=keys[path[0]], shape=shape) if path[0] in ("class_token", "position") else None


_TORCHVISION = {
    "stem_conv": "conv_proj",
    "class_token": "class_token",
    "position": "encoder.pos_embedding",
    "last_norm": "encoder.ln",
    "head": "heads.head",
    "norm1": "ln_1",
    "attention/qkv": "self_attention.in_proj_",
    "attention/out": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp1": "mlp.0",
    "mlp2": "mlp.3",
}


def _torchvision(model: ViT, path: Path) -> Keys:
    if path[0] in _TORCHVISION:
        return _TORCHVISION[path[0]]
    # What its networks do not have keeps our name, and is named as missing.
    layer = "/".join(path[1:])
    return f"encoder.layers.encoder_layer_{_number(model, path[0])}.{_TORCHVISION.get(layer, layer)}"


def _of_older_torchvision(key: str) -> str:
    """Returns what a key of its first release, which its own files are of, is called since."""
    return re.sub(r"\.mlp\.linear_([12])\.", lambda found: f".mlp.{3 * int(found[1]) - 3}.", key)


_TRANSFORMERS = {
    "stem_conv": "vit.embeddings.patch_embeddings.projection",
    "class_token": "vit.embeddings.cls_token",
    "position": "vit.embeddings.position_embeddings",
    "last_norm": "vit.layernorm",
    "head": "classifier",
    "norm1": "layernorm_before",
    "attention/out": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp1": "intermediate.dense",
    "mlp2": "output.dense",
}


def _transformers(model: ViT, path: Path) -> Keys:
    if path[0] in _TRANSFORMERS:
        return _TRANSFORMERS[path[0]]
    layer, block = "/".join(path[1:]), f"vit.encoder.layer.{_number(model, path[0])}"
    if layer == "attention/qkv":
        return tuple(f"{block}.attention.attention.{part}" for part in ("query", "key", "value"))
    return f"{block}.{_TRANSFORMERS.get(layer, layer)}"


_NEWER = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _of_newer_transformers(key: str) -> str:
    """Returns what a key of a model that version 5 has in memory is called in its files."""
    if not (found := re.fullmatch(r"vit\.layers\.(\d+)\.(.+)\.(weight|bias)", key)):
        return key
    return f"vit.encoder.layer.{found[1]}.{_NEWER.get(found[2], found[2])}.{found[3]}"


def _fields_of_timm(model: ViT, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what a file's arrays say: the grid, and an average that is normalised after."""
    after = {"pool": "average", "norm_after_pool": True} if "fc_norm.weight" in arrays else {}
    return {**_grid_of(model, arrays, keys=_TIMM), **after}


def _grid_of(model: ViT, arrays: Mapping[str, np.ndarray], *, keys: Mapping[str, str]) -> dict[str, Any]:
    """Returns the grid that a file's position embeddings are for.

    Raises:
        UserError: if its patches are of another size, or the positions make no square.
    """
    kernel, embedding = arrays.get(f"{keys['stem_conv']}.weight"), arrays.get(keys["position"])
    if kernel is None or embedding is None or kernel.ndim != 4 or embedding.ndim != 3:
        return {}  # named as missing, or of another shape
    if kernel.shape[2:] != model.patch:
        (rows, columns), (own_rows, own_columns) = kernel.shape[2:], model.patch
        raise UserError(
            f"has patches of {rows}×{columns} pixels, and this model's are of {own_rows}×{own_columns}: load it as "
            f"the model of its patches (vit_base_patch{rows}_224, for instance)"
        )
    first = int(model.class_token and model.token_position)
    places = embedding.shape[1] - first
    for grid in (_grid_seen(model), model.grid):  # the first is timm's, whose networks are built for a size
        if places == math.prod(grid):
            return {"grid": list(grid)}
    side = math.isqrt(max(places, 0))
    if side == 0 or side * side != places:
        raise UserError(
            f"has {embedding.shape[1]} position embeddings, and without {first} of a class token those of a square "
            f"grid of patches are expected ({side}×{side} are {side * side}): they cannot be interpolated. Check that "
            f"the model's name is that of the weights"
        )
    return {"grid": [side, side]}


def _grid_seen(model: ViT) -> tuple[int, int]:
    """Returns the patches of the images that a network is for."""
    seen = model.preprocess
    return (0, 0) if seen is None else (seen.height // model.patch[0], seen.width // model.patch[1])


def _torchvision_preprocess(name: str) -> Preprocess | None:
    own = ENTRIES[name].preprocess
    if own is None or not name.startswith("vit_"):
        return None
    if own.height != 224:
        return imagenet(own.height, 1.0)
    return imagenet(224, 224 / (242 if name == "vit_large_patch16_224" else 256), "bilinear")


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="timm",
        mark="patch_embed.proj.weight",
        module_key=_timm,
        parameter=_timm_parameter,
        fields_of=_fields_of_timm,
    ),
    Layout(
        name="torchvision",
        mark="conv_proj.weight",
        module_key=_torchvision,
        parameter=lambda model, path, shape: _embedding(_TORCHVISION, path, shape),
        renamed=_of_older_torchvision,
        preprocess=_torchvision_preprocess,
        fields_of=partial(_grid_of, keys=_TORCHVISION),
    ),
    Layout(
        name="transformers",
        mark="vit.embeddings.patch_embeddings.projection.weight",
        module_key=_transformers,
        parameter=lambda model, path, shape: _embedding(_TRANSFORMERS, path, shape),
        renamed=_of_newer_transformers,
        fields=lambda name: {"layer_norm_epsilon": 1e-12},
        fields_of=partial(_grid_of, keys=_TRANSFORMERS),
    ),
)


def of_transformers(config: Mapping[str, Any]) -> Described:
    """Returns the model that transformers' config.json of a ViT describes."""
    size = tuple(config.get(key, usual) for key, usual in _TRANSFORMERS_SIZE.items())
    width = config.get("hidden_size", 768)
    usual = {"intermediate_size": 4 * width, "hidden_act": "gelu", "qkv_bias": True}
    patch, pixels = (_square(config.get(key, usual)) for key, usual in (("patch_size", 16), ("image_size", 224)))
    names = {(s.width, s.blocks, s.heads): name for name, s in SIZES.items()}
    name = f"vit_{names[size]}_patch{patch}_{384 if pixels == 384 else 224}" if size in names else None
    return Described(
        name=name if name in ENTRIES else None,
        differences=differences(config, usual),
        fields={"layer_norm_epsilon": float(config.get("layer_norm_eps", 1e-12))},
    )


_TRANSFORMERS_SIZE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}


def _square(side: Any) -> int | None:
    """Returns a side in pixels that is given once, or twice alike; None for another shape."""
    sides = {side} if isinstance(side, int) else set(side)
    return sides.pop() if len(sides) == 1 else None


def _pooling(model: ViT) -> str:
    return "token" if model.pool == "token" else "avg"


def _pooled(fields: Mapping[str, Any], value: str) -> dict[str, Any]:
    """Returns what timm's global_pool makes of a network; an average is normalised after, unless fc_norm says not."""
    own = fields.get("pool", "token")
    if value not in ("token", "avg"):
        raise UserError(f"pools by {value!r}, and the networks here by 'token' or 'avg'")
    wanted = "token" if value == "token" else "average"
    return {} if wanted == own else {"pool": wanted, "norm_after_pool": wanted == "average"}


def _size_of_input(model: ViT) -> dict[str, Any] | None:
    """timm resamples position embeddings to the size of the images that it is told, from a square grid.

    Where they are as many as the patches it takes them as they are.
    """
    seen, own = _grid_seen(model), model.grid
    as_many = math.prod(seen) == math.prod(own)
    return {} if seen == own or (own[0] == own[1] and not as_many) else None


TIMM = InTimm(
    pooling=_pooling,
    one_size=True,
    irrelevant=frozenset(
        {"img_size", "dynamic_img_size", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"}
        | {"weight_init", "fix_init", "strict_img_size"}
    ),
    usual={"global_pool": (), "qkv_bias": (True,), "reg_tokens": (0,), "pre_norm": (False,), "qk_norm": (False,)},
    fields={
        "global_pool": _pooled,
        "fc_norm": lambda fields, value: {"norm_after_pool": bool(value)},
        "class_token": lambda fields, value: {"class_token": bool(value)},
        "no_embed_class": lambda fields, value: {"token_position": not value},
        "init_values": lambda fields, value: {"layer_scale": float(value)},
        "mlp_ratio": lambda fields, value: {"expand": int(value)},
    },
    arguments={
        "grid": _size_of_input,
        "pool": lambda model: {"global_pool": _pooling(model), "fc_norm": model.norm_after_pool},
        "norm_after_pool": lambda model: {"fc_norm": model.norm_after_pool},
        "class_token": lambda model: {"class_token": model.class_token},
        "token_position": lambda model: {"no_embed_class": not model.token_position},
        "layer_scale": lambda model: {"init_values": model.layer_scale},
        "expand": lambda model: {"mlp_ratio": model.expand},
    },
)


# torchvision's files. SWAG's are of images of other sizes than its own recipe's, fitted as they are.
_PUBLISHED: tuple[tuple[str, str, Preprocess], ...] = (
    ("c867db91", "vit_base_patch16_224", imagenet(224, 224 / 256, "bilinear")),
    ("d86f8d99", "vit_base_patch32_224", imagenet(224, 224 / 256, "bilinear")),
    ("852ce7e3", "vit_large_patch16_224", imagenet(224, 224 / 242, "bilinear")),
    ("c7638314", "vit_large_patch32_224", imagenet(224, 224 / 256, "bilinear")),
    ("9ac1b537", "vit_base_patch16_384", imagenet(384, 1.0)),
    ("4e70ced5", "vit_base_patch16_224", imagenet(224, 1.0)),
    ("3f4808c9", "vit_large_patch16_384", imagenet(512, 1.0)),
    ("4d563306", "vit_large_patch16_224", imagenet(224, 1.0)),
)
PUBLISHED: Mapping[str, Published] = {
    digest: Published(model=name, preprocess=preprocess) for digest, name, preprocess in _PUBLISHED
}
