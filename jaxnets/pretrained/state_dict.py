"""Which of the things that a checkpoint holds are the weights, and under which prefix the network's keys lie."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from jaxnets.errors import UserError, quoted
from jaxnets.pretrained.torch_pickle import SAVE_WEIGHTS, Inert, Tensor

_log = logging.getLogger(__name__)

Weights = Literal["ema", "raw"]

# What training programs call the entry with the weights, and the one with their average; the first one wins.
_RAW = ("state_dict", "model", "model_state_dict", "model_state", "module", "net", "network", "weights", "params")
_AVERAGED = ("state_dict_ema", "model_ema", "model_ema_state_dict", "ema_state_dict", "ema_model", "ema", "params_ema")
_DEEPEST = 3  # entries in entries
_WRAPPED = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")  # anywhere in a key
_COUNTERS = ("n_averaged",)  # of PyTorch's AveragedModel: how often it has averaged

_A = TypeVar("_A")


def find_state_dict(tree: object, path: Path, weights: Weights) -> dict[str, Tensor]:
    """Returns the named tensors of a checkpoint: the whole of it, or the entry that holds them.

    Numbers and text beside tensors are no weights and are passed over; anything else beside them is refused.

    Raises:
        UserError: if there are none, or it is not clear which.
    """
    state = _unwrap(tree, path, weights)
    kept = {key: value for key, value in state.items() if not _is_plain(value)}
    for key, value in kept.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            names = ", ".join(quoted(_shown(name)) for name in list(state)[:8])
            raise UserError(
                f"{path} has an entry {quoted(_shown(key))} that is no named tensor{_kind(value)} among {names}; "
                f"expected a state dict, or one under {', '.join(_RAW)}; nothing was executed. {_remedy(value)}"
            )
    if not kept:
        raise UserError(f"{path} holds no tensors; expected the weights of a model; check how it was saved")
    if passed := [_shown(key) for key in state if key not in kept]:
        _log.info("%s: beside the weights, %s", path, ", ".join(map(quoted, passed[:8])))
    return kept


def _unwrap(tree: object, path: Path, weights: Weights) -> dict[Any, Any]:
    """Returns the dict with the weights in it, and says which it is where there were others."""
    for _ in range(_DEEPEST):
        if not isinstance(tree, dict):
            break
        sets = [key for key, value in tree.items() if isinstance(key, str) and _holds_tensors(value)]
        raw, averaged = (next((key for key in known if key in sets), None) for known in (_RAW, _AVERAGED))
        chosen = (averaged or raw) if weights == "ema" else (raw or averaged)
        if chosen is None:
            if any(isinstance(value, Tensor) for value in tree.values()) or not sets:
                break
            if len(sets) > 1:
                raise UserError(
                    f"{path} has tensors in {_listed(sets)}, and none of them has a name that weights usually have "
                    f"({', '.join(_RAW)}); {SAVE_WEIGHTS}"
                )
            chosen = sets[0]
        if raw and averaged:
            other = f"weights='raw' (--weights raw) takes {quoted(raw)}" if chosen == averaged else "not averaged"
            _log.info("%s holds weights and their average: %s is taken (%s)", path, quoted(chosen), other)
        elif averaged and weights == "raw":
            _log.warning("%s holds averaged weights (%s) and no others: they are taken", path, quoted(averaged))
        elif chosen != raw or sum(key in _RAW for key in sets) > 1:
            _log.info("%s holds tensors in %s: the weights are %s", path, _listed(sets), quoted(chosen))
        tree = tree[chosen]
    if isinstance(tree, dict) and any(isinstance(value, Tensor) for value in tree.values()):
        return tree
    if isinstance(tree, Inert):
        raise UserError(
            f"{path} holds a whole pickled model or another object of Python ({quoted(tree.name)}), which cannot be "
            f"read without running its code; nothing was executed. Save its state_dict() instead; {SAVE_WEIGHTS}"
        )
    if not isinstance(tree, dict):
        raise UserError(
            f"{path} holds one {'tensor' if isinstance(tree, Tensor) else type(tree).__name__} without a name; "
            f"expected a state dict: {SAVE_WEIGHTS}"
        )
    return tree


def _holds_tensors(value: object, depth: int = 1) -> bool:
    """Whether it is a dict of named tensors, or has one in an entry with a usual name; an optimizer numbers its own."""
    if not isinstance(value, dict):
        return False
    if any(isinstance(inner, Tensor) and isinstance(key, str) for key, inner in value.items()):
        return True
    return depth > 0 and any(_holds_tensors(value.get(name), depth - 1) for name in (*_RAW, *_AVERAGED))


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _shown(key: object) -> str:
    return key.name if isinstance(key, Inert) else str(key)


def _kind(value: object) -> str:
    if isinstance(value, Inert):
        return f" ({quoted(value.name)})"
    return "" if isinstance(value, Tensor) else f" ({type(value).__name__})"


def _remedy(value: object) -> str:
    name = value.name if isinstance(value, Inert) else ""
    for kind, word, method in (("sparse", "sparse", "to_dense"), ("qtensor", "quantized", "dequantize")):
        if kind in name:
            return f"It is a {word} tensor: where it was made, save tensor.{method}() instead"
    if name:
        return f"If it is a whole model, save its state_dict() instead; {SAVE_WEIGHTS}"
    return SAVE_WEIGHTS


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, names)) or "no others"


def without_prefix(arrays: Mapping[str, _A], marks: Iterable[str], description: str, weights: Weights) -> dict[str, _A]:
    """Returns the arrays under the keys of the network itself, whatever module it was an attribute of.

    The prefix (`module.`, `model.`, `backbone.`, …) is what stands before a key that each network of a layout has. What
    does not lie under it belongs to something else, a loss for instance: it is left out, and named in the log.

    Args:
        arrays: by their keys.
        marks: keys that tell layouts; without one of them, the arrays are returned as they are.
        description: of the arrays, for messages.
        weights: which of two networks is meant where one is the average of the other.

    Raises:
        UserError: if there are several networks.
    """
    bare = {_WRAPPED.sub("", key).lstrip("."): array for key, array in arrays.items()}
    if len(bare) < len(arrays):
        raise UserError(f"{description} has keys that differ in nothing but _orig_mod: load and save it in one form")
    prefixes = sorted({key.removesuffix(mark) for mark in marks for key in bare if f".{key}".endswith(f".{mark}")})
    if not prefixes:
        return bare
    prefix = _choose(prefixes, description, weights)
    found = {key.removeprefix(prefix): array for key, array in bare.items() if key.startswith(prefix)}
    left = [key for key in bare if not key.startswith(prefix) and key not in _COUNTERS]
    if prefix == "backbone.":  # OpenMMLab's networks have their classifier beside it
        found |= {key.removeprefix("head."): bare[key] for key in left if key.startswith("head.fc.")}
        left = [key for key in left if not key.startswith("head.fc.")]
    if left:
        _log.warning("%s: the network's keys begin with %s; left out are %s", description, quoted(prefix), _brief(left))
    return found


def _choose(prefixes: list[str], description: str, weights: Weights) -> str:
    averaged = [prefix for prefix in prefixes if "ema" in re.split(r"[._]", prefix.lower())]
    raw = [prefix for prefix in prefixes if prefix not in averaged]
    preferred = (averaged or raw) if weights == "ema" else (raw or averaged)
    if len(preferred) > 1:
        raise UserError(
            f"{description} holds several networks, under {_listed(preferred)}: save the one that is meant in a file "
            "of its own"
        )
    if len(prefixes) > 1:
        _log.info(
            "%s holds networks under %s: that under %s is taken; weights='%s' (--weights) takes the other",
            description, _listed(prefixes), quoted(preferred[0]), "raw" if weights == "ema" else "ema",
        )  # fmt: skip
    return preferred[0]


def _brief(keys: list[str]) -> str:
    return _listed(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
